"""What the machines do with the images, in three steps that run at the same time: decode, segment, write.

Between the steps lie rows in Ray's object store: an image as the model sees it, (S, S, 3) bytes, and a map of logits (S, S).
Only the middle step holds the model.
"""

from __future__ import annotations

import glob
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.core.files import ends_all, file_sha256, why_not_written
from tpseg.data.preprocessing import normalise, resize_image, resize_map, to_tensor
from tpseg.imaging.overlay import draw_overlay, with_caption
from tpseg.imaging.pictures.formats import read_image
from tpseg.inference.ray.manifest import write_part
from tpseg.inference.ray.store import Folder, local_copy

SEPARATOR = "\0"
"""Between the tasks and between the masks of an image, in one column: no file name has this character."""

STREAMS = 4
"""Images that a process reads or writes at the same time: an object store answers after tens of milliseconds."""

Columns = dict[str, Any]
"""A batch of rows as Ray Data passes it: an array for each column."""


def read_pixels(url: str) -> np.ndarray:
    """An image of any store as RGB, (H, W, 3) uint8; raises DataError that names it."""
    try:
        with local_copy(url) as path:
            try:
                return read_image(path)
            except DataError as error:
                raise DataError(str(error).replace(str(path), url)) from error
    except OSError as error:
        raise DataError(f"{url}: cannot be read ({error})") from error


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def decode(batch: Columns, size: int) -> Columns:
    """Read images and bring them to the model's size.

    In: `image`, `tasks` and `masks` (joined by SEPARATOR, one mask a task). Adds `pixels` (B, size, size, 3) uint8, `height`
    and `width` of the original, and `error`, '' or why the image cannot be used.
    """
    count = len(batch["image"])
    pixels = np.zeros((count, size, size, 3), np.uint8)
    sizes = np.zeros((count, 2), np.int64)

    def read(i: int) -> str:
        try:
            image = read_pixels(batch["image"][i])
        except DataError as error:
            return one_line(error)
        pixels[i], sizes[i] = resize_image(image, size), image.shape[:2]
        return ""

    with ThreadPoolExecutor(STREAMS) as pool:
        errors = list(pool.map(read, range(count)))
    return {**batch, "pixels": pixels, "height": sizes[:, 0], "width": sizes[:, 1], "error": np.array(errors, object)}


class Worker:
    """The process that holds the model; Ray Data makes a pool of them and calls them with batches."""

    def __init__(
        self, model: str, sha256: str, weights: str | None, device: str, threads: int, batch_size: int, trust: bool = False
    ) -> None:
        """Raises DataError if this machine finds another model under that name than the one that started the run."""
        torch.set_num_threads(threads)
        from tpseg.inference import Segmenter

        if model_sha256(model) != sha256:
            raise DataError(f"{model}: not the same model on every machine; copy it anew, or put it where all of them see it")
        self.batch_size = batch_size
        self.segmenter = Segmenter(model, device=device, weights=weights, trust=trust)

    def __call__(self, batch: Columns) -> Columns:
        """Rows of decode to a row for each image and task, with `logits` (P, S, S) float32; zeros where there is an error."""
        from tpseg.inference import Loaded

        tasks = [names.split(SEPARATOR) for names in batch["tasks"]]
        rows = np.array([i for i, names in enumerate(tasks) for _ in names])
        logits = np.zeros((len(rows), *batch["pixels"].shape[1:3]), np.float32)
        good = np.flatnonzero(batch["error"] == "")
        images = (Loaded(pixels, normalise(to_tensor(pixels))) for pixels in batch["pixels"][good])
        answers = self.segmenter.answers(images, [tasks[i] for i in good], self.batch_size)
        for place, answer in zip(np.flatnonzero(batch["error"][rows] == ""), answers, strict=True):
            logits[place] = answer.logits[0].numpy()
        return {
            **{name: batch[name][rows] for name in ("image", "height", "width", "error")},
            "task": np.array([task for names in tasks for task in names], object),
            "mask": np.array([mask for names in batch["masks"] for mask in names.split(SEPARATOR)], object),
            "logits": logits,
        }


def write(batch: Columns, out: str, probability: bool, overlay: bool, model: str = "") -> Columns:
    """Write the masks of a block and then the part of the manifest that lists them; returns `image`, `task` and `error`.

    model: what overlays call the model.
    """
    torch.set_num_threads(1)
    folder = Folder(out)
    rows = ({name: batch[name][i] for name in batch} for i in range(len(batch["image"])))
    with ThreadPoolExecutor(STREAMS) as pool:
        lines = list(pool.map(lambda row: write_one(folder, row, probability, overlay, model), rows))
    write_part(folder, lines)
    return {name: np.array([line[name] for line in lines], object) for name in ("image", "task", "error")}


def write_one(folder: Folder, row: Columns, probability: bool, overlay: bool, model: str = "") -> dict[str, Any]:
    """Write the files of one image and task, the mask last; returns their line of the manifest.

    Raises OSError if the store refuses what it would refuse of the next one too, or does not say what it refuses: that ends the run.
    """
    line: dict[str, Any] = {
        "image": str(row["image"]),
        "task": str(row["task"]),
        "mask": str(row["mask"]),
        "bytes": 0,
        "error": str(row["error"]),
    }
    if line["error"]:
        return line
    logits = torch.from_numpy(np.array(row["logits"]))[None]  # (1, S, S), a copy: Ray's memory is read-only
    size = (int(row["height"]), int(row["width"]))
    found = torch.sigmoid(resize_map(logits, size)).numpy()  # (H, W)
    name = line["mask"].removesuffix(".png")
    content = encode((found > 0.5).astype(np.uint8) * 255)
    try:
        if overlay:
            image = read_pixels(line["image"])
            folder.put(f"{name}_overlay.png", encode(with_caption(draw_overlay(image, found > 0.5), line["task"], model)))
        if probability:
            folder.put(f"{name}_probability.png", encode(np.round(found * 65535).astype(np.uint16)))
        folder.put(line["mask"], content)
    except DataError as error:
        return {**line, "error": one_line(error)}
    except OSError as error:
        if error.errno is None or ends_all(error):
            raise
        return {**line, "error": f"{line['image']}: its results cannot be written: {why_not_written(error)}"}
    return {**line, "bytes": len(content)}


def encode(values: np.ndarray) -> bytes:
    """An array as PNG."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG")
    return file.getvalue()


def model_files(model: str) -> Sequence[Path]:
    """The files that decide what a model says: those of its folder, or an exported file and what lies beside it under its name."""
    path = Path(model)
    if path.is_file():
        return sorted(one for one in path.parent.glob(f"{glob.escape(path.stem)}.*") if one.is_file())
    from tpseg.checkpoints.model_folder import find_model

    folder = find_model(model)
    return [folder / name for name in ("config.json", "model.safetensors", "tasks.json")]


def model_sha256(model: str) -> str:
    """One hash over the files of a model: a folder, a hub id or an exported file."""
    total = hashlib.sha256()
    for file in model_files(model):
        total.update(f"{file.name} {file_sha256(file)}\n".encode())
    return total.hexdigest()
