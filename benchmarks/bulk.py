"""Images per second of `tpseg predict --engine local` and `--engine ray` on the same images: python -m benchmarks.bulk

Needs nothing: it makes a model of the preset `small` with random weights, and noise as images. Start-up and steady state are
separated by timing each engine on few and on many images: a cluster takes tens of seconds to start, whatever follows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tpseg.checkpoints.model_folder import save_model
from tpseg.core.config import load_config
from tpseg.core.tasks import Task, TaskSet
from tpseg.imaging.reading.opening import find_scans
from tpseg.inference import Segmenter, predict_files
from tpseg.inference.ray.pipeline import decode, write
from tpseg.inference.ray.run import predict_bulk
from tpseg.models.catalogue import create


def make_images(folder: Path, count: int, size: int) -> Path:
    """Noise over a gradient as JPEG, which decodes at the price of a photograph."""
    rng = np.random.default_rng(0)
    ground = np.linspace(60, 190, size)[:, None, None] + np.zeros((size, size, 3))
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = ground + rng.normal(0, 12, (size, size, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)
    return folder


def seconds_local(model: Path, images: Path, out: Path, batch_size: int) -> float:
    """Time of the local engine with its model load, in this process."""
    start = time.perf_counter()
    results = list(predict_files(Segmenter(model), find_scans([str(images)]), ["lesion"], out, batch_size=batch_size))
    assert len(results) == len(list(images.iterdir()))
    return time.perf_counter() - start


def seconds_ray(model: Path, images: Path, out: Path, batch_size: int, workers: int | None, address: str | None) -> float:
    """Time of the ray engine with its start."""
    start = time.perf_counter()
    report = predict_bulk(str(model), [str(images)], str(out), batch_size=batch_size, workers=workers, address=address)
    assert report.masks == len(list(images.iterdir()))
    assert report.failures.empty
    return time.perf_counter() - start


def feeding_seconds(images: Path, out: Path, size: int, count: int = 16) -> tuple[float, float]:
    """CPU seconds an image to read, decode and resize it, and to bring its logits to its size and write the mask."""
    paths = [str(path) for path in sorted(images.iterdir())[:count]]
    text = {name: np.array(paths, object) for name in ("image", "tasks")}
    rows, columns = np.mgrid[:size, :size] - size / 2
    disc = (size / 4 - np.hypot(rows, columns)).astype(np.float32)
    seconds = []
    for _ in range(2):  # the first time warms up
        start = time.process_time()
        decoded = decode({**text, "masks": np.array([f"{Path(path).stem}.png" for path in paths], object)}, size)
        middle = time.process_time()
        columns_ = {**decoded, "task": text["tasks"], "mask": decoded["masks"], "logits": np.stack([disc] * len(paths))}
        write(columns_, str(out), False, False)
        seconds = [middle - start, time.process_time() - middle]
    return seconds[0] / len(paths), seconds[1] / len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=16)
    parser.add_argument("--many", type=int, default=272)
    parser.add_argument("--size", type=int, default=1024, help="height and width of the images on disk")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--address", help="of a Ray cluster that sees this machine's temporary folder")
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        config = load_config(settings.preset.split(",")).model
        config.weights, config.freeze = None, False
        save_model(create(config, TaskSet([Task("lesion")])), place / "model")
        seconds: dict[str, dict[int, float]] = {"local": {}, "ray": {}}
        seconds_local(place / "model", make_images(place / "warm", 2, settings.size), place / "warmed", settings.batch_size)  # imports
        for count in (settings.few, settings.many):
            images = make_images(place / f"in{count}", count, settings.size)
            seconds["local"][count] = seconds_local(place / "model", images, place / f"local{count}", settings.batch_size)
            seconds["ray"][count] = seconds_ray(
                place / "model", images, place / f"ray{count}", settings.batch_size, settings.workers, settings.address
            )
        read, written = feeding_seconds(images, place / "feeding", config.image_size)
    result: dict[str, dict[str, float]] = {"feeding": {"decode_seconds": read, "write_seconds": written}}
    sys.stdout.write(f"decode {1000 * read:.1f} ms, write {1000 * written:.1f} ms of CPU an image\n")
    for engine, times in seconds.items():
        each = (times[settings.many] - times[settings.few]) / (settings.many - settings.few)
        if each <= 0:
            sys.exit(f"{engine}: {settings.many} images took no longer than {settings.few}: too few to tell from the start; raise --many")
        result[engine] = {"images_per_second": 1 / each, "start_seconds": times[settings.few] - settings.few * each}
        sys.stdout.write(f"{engine}: {1 / each:.2f} images a second, {result[engine]['start_seconds']:.1f} s to start\n")
    if settings.json is not None:
        settings.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
