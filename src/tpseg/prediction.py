"""Using a trained model: `Segmenter` in Python, `predict_files` for files and folders."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tpseg.data.formats import IMAGE_SUFFIXES, read_image, stretch, to_rgb
from tpseg.data.transforms import preprocess
from tpseg.errors import DataError, UsageError
from tpseg.files import replacing
from tpseg.hardware import autocast, pick_device
from tpseg.models.model import LesionModel
from tpseg.overlay import draw_overlay
from tpseg.tasks import TaskSet

ImageLike = str | Path | Image.Image | np.ndarray | Tensor


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image for one task, in the image's own size."""

    mask: np.ndarray
    """(H, W) bool: probability over ½."""
    probability: np.ndarray
    """(H, W) float32 in [0, 1]."""
    similarity: np.ndarray | None
    """(H, W) float32 in [-2, 2]: above 0 more like the task's lesion prototype; None for models without prototypes."""
    task: str


class Segmenter:
    """A trained model with its preprocessing.

    >>> segment = Segmenter("runs/demo/model")              # a folder, a hub id or a model
    >>> prediction = segment("photo.jpg", task="skin_lesion")
    >>> prediction.mask                                     # (H, W) bool, of the photo's size
    """

    def __init__(self, model: LesionModel | Path | str, *, device: str | None = None, weights: str | None = None) -> None:
        """weights: where the frozen trunk's file lies, if it is not where the model's config.json says."""
        self.model = model if isinstance(model, LesionModel) else LesionModel.from_pretrained(model, weights=weights)
        self.device = pick_device(device)
        self.model.to(self.device).eval()
        self.tasks = self.model.tasks
        self.image_size = self.model.config.image_size

    def __call__(self, image: ImageLike, task: str) -> Prediction:
        """Segment one image: a path, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4), or a tensor (3, H, W) or (1, H, W).

        Float arrays and tensors within [0, 1] are taken as such; other number types as decode to 8 bit. Raises
        UsageError for a task the model does not know, DataError for an image that cannot be used.
        """
        return next(self.predict([as_rgb(image)], [task]))

    def predict(self, images: Iterable[np.ndarray], tasks: Iterable[str], batch_size: int = 8) -> Iterator[Prediction]:
        """Segment RGB images (H, W, 3) uint8 of any sizes, one task each, in batches; yields in order."""
        if batch_size < 1:
            raise UsageError(f"batch size: found {batch_size}, expected 1 or more")
        images_, tasks_ = [], []
        for image, task in zip(images, tasks, strict=True):
            self.tasks.id(task)
            images_.append(image)
            tasks_.append(task)
            if len(images_) == batch_size:
                yield from self._predict_batch(images_, tasks_)
                images_, tasks_ = [], []
        if images_:
            yield from self._predict_batch(images_, tasks_)

    def _predict_batch(self, images: Sequence[np.ndarray], tasks: Sequence[str]) -> Iterator[Prediction]:
        """One at a time: at full size, a batch of large images may not fit into memory."""
        batch = torch.stack([preprocess(image, self.image_size) for image in images]).to(self.device)
        ids = torch.tensor([self.tasks.id(task) for task in tasks], device=self.device)
        with torch.inference_mode(), autocast(self.device):
            output = self.model(batch, ids)
        logits = output.logits.float().cpu()
        similarity = None if output.similarity is None else output.similarity.float().cpu()
        for i, image in enumerate(images):
            yield self._prediction(logits[i], None if similarity is None else similarity[i], image.shape[:2], tasks[i])

    def _prediction(self, logits: Tensor, similarity: Tensor | None, size: tuple[int, int], task: str) -> Prediction:
        """logits and similarity (1, S, S), resized to the image's own (H, W)."""
        probability = torch.sigmoid(resize_map(logits, size)).numpy()
        return Prediction(probability > 0.5, probability, None if similarity is None else resize_map(similarity, size).numpy(), task)


def resize_map(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, S, S) to (H, W), bilinear."""
    return F.interpolate(values[None], size, mode="bilinear", align_corners=False, antialias=False)[0, 0]


def as_rgb(image: ImageLike) -> np.ndarray:
    """Anything that is an image to (H, W, 3) uint8; raises DataError for what is none."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            raise DataError(f"a tensor of shape {tuple(image.shape)}; expected (3, H, W) or (1, H, W)")
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    values = np.asarray(image)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or 0 in values.shape:
        raise DataError(f"an array of shape {values.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if values.dtype != np.uint8:
        if not np.isfinite(values.astype(np.float64)).all():
            raise DataError("the image holds NaN or infinite pixels; replace them before use")
        if np.issubdtype(values.dtype, np.floating) and values.min() >= 0 and values.max() <= 1:
            values = np.round(values * 255).astype(np.uint8)
        elif values.ndim == 2:
            return stretch(values)
        else:
            raise DataError(
                f"a colour array of type {values.dtype} with values {values.min()} to {values.max()}; expected uint8, or floats in [0, 1]"
            )
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2)
    return values[..., :3]


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Files that paths, folders (searched with subfolders), globs and `@lists` (a path per line) stand for; raises UsageError if none."""
    found: list[Path] = []
    for entry in inputs:
        path = Path(entry)
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        elif entry.startswith("@"):
            try:
                found += [Path(line.strip()) for line in Path(entry[1:]).read_text(encoding="utf-8").splitlines() if line.strip()]
            except OSError as error:
                raise UsageError(f"{entry[1:]}: the list of images cannot be read ({error.strerror})") from error
        elif not path.exists() and glob.has_magic(entry):
            found += [Path(match) for match in sorted(glob.glob(entry, recursive=True))]
        else:
            found.append(path)
    unique = list(dict.fromkeys(found))
    if not unique:
        raise UsageError(f"no images in {', '.join(inputs)}; expected {', '.join(IMAGE_SUFFIXES)} files")
    return unique


def choose_tasks(tasks: TaskSet, task: str | None, all_tasks: bool) -> list[str]:
    """The tasks asked for; a model of one task needs no name. Raises UsageError if it is unclear."""
    if all_tasks:
        if task is not None:
            raise UsageError("--task and --all-tasks exclude each other; give one of them")
        return tasks.names
    if task is None and len(tasks) > 1:
        raise UsageError(f"which task? Give --task NAME or --all-tasks (tasks: {', '.join(tasks.names)})")
    return [tasks[tasks.id(task or tasks.names[0])].name]


ENDINGS = ("", "_probability", "_overlay")
"""What the names of a mask, its probability and its overlay end in."""


def output_names(files: Sequence[Path]) -> dict[Path, str]:
    """A name for each file's results: its stem; where stems clash, with its folder and suffix, or else a number."""
    clashes = Counter(file.stem for file in files)
    names = {
        file: file.stem if clashes[file.stem] == 1 else f"{file.absolute().parent.name}_{file.stem}_{file.suffix[1:]}" for file in files
    }
    results = [f"{name}{ending}" for name in names.values() for ending in ENDINGS]
    if len(set(results)) < len(results):
        names = {file: f"{number:05d}_{file.stem}" for number, file in enumerate(files)}
    return names


@dataclass(frozen=True)
class Failure:
    """A file that could not be segmented, and why."""

    file: Path
    reason: str


def predict_files(
    segmenter: Segmenter,
    files: Sequence[Path],
    tasks: Sequence[str],
    out: Path,
    *,
    probability: bool = False,
    overlay: bool = False,
    batch_size: int = 8,
) -> Iterator[Path | Failure]:
    """Segment files for one or several tasks into `out`; yields each file when it is done, or its Failure.

    Writes `NAME.png` (0 and 255, of the image's size; with several tasks in a folder per task), and on request
    `NAME_probability.png` (16 bit, 65535 = 1) and `NAME_overlay.png`. A bad file is reported and skipped. Raises
    UsageError if a result would take the place of an image.
    """
    for task in tasks:
        segmenter.tasks.id(task)
    names = output_names(files)
    folders = {task: out / task if len(tasks) > 1 else out for task in tasks}
    results = {(folder / f"{name}{ending}.png").resolve() for folder in folders.values() for name in names.values() for ending in ENDINGS}
    for file in files:
        if file.resolve() in results:
            raise UsageError(f"{file}: would be overwritten by a mask; choose another --out than {out}")
    for start in range(0, len(files), batch_size):
        images: list[tuple[Path, np.ndarray]] = []
        for file in files[start : start + batch_size]:
            try:
                images.append((file, read_image(file)))
            except DataError as error:
                yield Failure(file, str(error))
        for task in tasks:
            predictions = segmenter.predict([image for _, image in images], [task] * len(images), batch_size)
            for (file, image), prediction in zip(images, predictions, strict=True):
                write_png(folders[task] / f"{names[file]}.png", prediction.mask.astype(np.uint8) * 255)
                if probability:
                    write_png(folders[task] / f"{names[file]}_probability.png", np.round(prediction.probability * 65535).astype(np.uint16))
                if overlay:
                    write_png(folders[task] / f"{names[file]}_overlay.png", draw_overlay(image, prediction.mask))
        yield from (file for file, _ in images)


def write_png(path: Path, values: np.ndarray) -> None:
    """Write an array as PNG, whole or not at all."""
    with replacing(path) as new:
        Image.fromarray(values).save(new, format="PNG")
