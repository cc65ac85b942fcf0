"""Images per second that training can load, from JPEG and PNG, with and without the decoded cache: python -m benchmarks.loading

Needs nothing: it makes images of about a megapixel with the spectrum of a photograph, which decide what decoding costs. Rates are
of processor time of one thread, best of several rounds, and of the clock through PyTorch's loader with worker processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tpseg.core.tasks import Task, TaskSet
from tpseg.data.cache import DecodedCache
from tpseg.data.dataset import Draw, LesionDataset, collate
from tpseg.data.manifest import Case, DataSet

BATCH = 8
FORMATS = {"JPEG": ".jpg", "PNG": ".png"}
AUGMENTATIONS = ("none", "flip", "full")
Rates = dict[str, float]


def photograph(size: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) uint8: amplitudes that fall with frequency, as in photographs, the channels nearly alike, and a sensor's noise."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    waves = rng.normal(size=(4, *frequency.shape)) + 1j * rng.normal(size=(4, *frequency.shape))
    shared, *own = np.fft.irfft2(waves / frequency**1.35, (size, size))
    channels = np.stack([shared + 0.2 * one for one in own], axis=2)
    return (128 + 32 * channels / channels.std() + rng.normal(0, 1, channels.shape)).clip(0, 255).astype(np.uint8)


def make_data(folder: Path, suffix: str, count: int, size: int) -> DataSet:
    """Photographs of one kind of file, each with a disc as its mask, a PNG."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    cases = []
    for number in range(count):
        image, mask = folder / f"{number:03d}{suffix}", folder / f"{number:03d}-mask.png"
        Image.fromarray(photograph(size, rng)).save(image, quality=90)
        radius, row, column = rng.uniform(0.1, 0.3) * size, *rng.uniform(0.3, 0.7, 2) * size
        Image.fromarray(((rows - row) ** 2 + (columns - column) ** 2 < radius**2).astype(np.uint8) * 255).save(mask)
        cases.append(Case("lesion", image, mask, "train", "", image.name))
    return DataSet(folder / "tasks.yaml", TaskSet([Task("lesion")]), tuple(cases))


def rates(load: Callable[[], int], rounds: int) -> Rates:
    """Images per second of processor time and of the clock, the best of some rounds after one that warms up."""
    processor, clock = [], []
    for _ in range(rounds + 1):
        start, started = time.process_time(), time.perf_counter()
        images = load()
        processor.append(images / (time.process_time() - start))
        clock.append(images / (time.perf_counter() - started))
    return {"per_core_second": max(processor[1:]), "per_clock_second": max(clock[1:])}


def in_batches(dataset: LesionDataset) -> int:
    """Load every image once as training does, without workers; returns their number."""
    draws = [Draw(number, number) for number in range(len(dataset))]
    return sum(len(collate([dataset[draw] for draw in draws[start : start + BATCH]]).task) for start in range(0, len(draws), BATCH))


def through_loader(dataset: LesionDataset, workers: int, rounds: int) -> float:
    """Images per second of the clock and worker, through PyTorch's loader with worker processes; best of some epochs after the first."""
    sampler = [Draw(number, number) for number in range(len(dataset))] * max(1, 256 // len(dataset))
    loader: DataLoader = DataLoader(dataset, BATCH, sampler=sampler, collate_fn=collate, num_workers=workers, persistent_workers=True)
    found = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        images = sum(len(batch.task) for batch in loader)
        found.append(images / (time.perf_counter() - start) / workers)
    return max(found[1:])


def measure(folder: Path, count: int, pixels: int, size: int, rounds: int, workers: int) -> dict[str, object]:
    """Rates by file format, cache off and on, and augmentation; and what the cache costs to fill."""
    result: dict[str, object] = {"pixels": pixels, "size": size, "images": count, "rounds": rounds}
    for name, suffix in FORMATS.items():
        data = make_data(folder / name, suffix, count, pixels)
        cache = DecodedCache(folder / "cache", data, size)
        start = time.process_time()
        assert cache.fill() == count
        found: dict[str, object] = {"fill_per_core_second": count / (time.process_time() - start)}
        found["kilobytes"] = sum(case.image.stat().st_size for case in data.cases) / count / 1000
        for label, kept in (("off", None), ("on", cache)):
            datasets = {kind: LesionDataset(data.cases, data.tasks, size, kind, kept) for kind in AUGMENTATIONS}
            found[label] = {kind: rates(lambda one=one: in_batches(one), rounds) for kind, one in datasets.items()}  # type: ignore[misc]
            if workers:
                found[f"{label}, loader, per worker"] = through_loader(datasets["none"], workers, rounds)
        result[name] = found
    return result


def lines(result: dict[str, object]) -> list[str]:
    """The table for people: images per second of one core."""
    found = [f"images per second of one core at {result['size']} px, from {result['pixels']}x{result['pixels']}", ""]
    found += [f"| from | cache | {' | '.join(AUGMENTATIONS)} | per worker, clock |", f"|---|---|{'---:|' * (len(AUGMENTATIONS) + 1)}"]
    for name in FORMATS:
        of_format = result[name]
        assert isinstance(of_format, dict)
        for label in ("off", "on"):
            each = [f"{of_format[label][kind]['per_core_second']:.0f}" for kind in AUGMENTATIONS]
            worker = of_format.get(f"{label}, loader, per worker")
            each.append("" if worker is None else f"{worker:.0f}")
            found.append(f"| {name}, {of_format['kilobytes']:.0f} kB | {label} | {' | '.join(each)} |")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--pixels", type=int, default=1024, help="height and width of the images on disk")
    parser.add_argument("--size", type=int, default=512, help="height and width that the model sees")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="worker processes of the loader; 0: none, and no such column")
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), settings.images, settings.pixels, settings.size, settings.rounds, settings.workers)
    sys.stdout.write("\n".join(lines(result)) + "\n")
    if settings.json is not None:
        settings.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
