"""Using a trained model: `Segmenter` in Python, `predict_files` for files and folders."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tpseg.ahead import THREADS, ahead
from tpseg.data.formats import IMAGE_SUFFIXES, read_image, stretch, to_rgb
from tpseg.data.transforms import preprocess, resize_map
from tpseg.errors import DataError, UsageError
from tpseg.files import replacing
from tpseg.models.model import LesionModel
from tpseg.network import Network, TorchNetwork, open_network
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


@dataclass(frozen=True)
class Loaded:
    """An image ready for the network."""

    image: np.ndarray
    """(H, W, 3) uint8."""
    pixels: Tensor
    """(3, S, S) float32, normalised."""


@dataclass(frozen=True)
class Answer:
    """What the network says of one image for one task, at the network's size."""

    logits: Tensor
    """(1, S, S)."""
    similarity: Tensor | None
    size: tuple[int, int]
    """Height and width of the image."""
    task: str

    def probability(self) -> np.ndarray:
        """(H, W) float32 in [0, 1], in the image's own size."""
        return torch.sigmoid(resize_map(self.logits, self.size)).numpy()

    def prediction(self) -> Prediction:
        """All maps in the image's own size."""
        probability = self.probability()
        similarity = None if self.similarity is None else resize_map(self.similarity, self.size).numpy()
        return Prediction(probability > 0.5, probability, similarity, self.task)


class Segmenter:
    """A trained model with its preprocessing.

    >>> segment = Segmenter("runs/demo/model")              # a folder, a hub id, an exported file or a model
    >>> prediction = segment("photo.jpg", task="skin_lesion")
    >>> prediction.mask                                     # (H, W) bool, of the photo's size
    """

    def __init__(self, model: LesionModel | Path | str, *, device: str | None = None, weights: str | None = None) -> None:
        """model: where one lies, then loaded for prediction only, or one at hand, which is moved to the device and keeps its weights.

        weights: where the frozen trunk's file lies, if it is not where the model's config.json says.
        """
        self.network: Network = TorchNetwork(model, device) if isinstance(model, LesionModel) else open_network(model, device, weights)
        self.tasks = self.network.tasks
        self.image_size = self.network.image_size

    def __call__(self, image: ImageLike, task: str) -> Prediction:
        """Segment one image: a path, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4), or a tensor (3, H, W) or (1, H, W).

        Float arrays and tensors within [0, 1] are taken as such; other number types as decode to 8 bit. Raises
        UsageError for a task the model does not know, DataError for an image that cannot be used.
        """
        return self.tasks_of(image, [task])[0]

    def tasks_of(self, image: ImageLike, tasks: Sequence[str]) -> list[Prediction]:
        """Segment one image for several tasks; a hardened model runs once what they have in common. Otherwise as the plain call."""
        return [answer.prediction() for answer in self.answers([self.load(image)], [tasks])]

    def predict(self, images: Iterable[np.ndarray], tasks: Iterable[str], batch_size: int = 8) -> Iterator[Prediction]:
        """Segment RGB images (H, W, 3) uint8 of any sizes, one task each, in batches; yields in order."""
        loaded = (self.load(image) for image in images)
        return (answer.prediction() for answer in self.answers(loaded, ([task] for task in tasks), batch_size))

    def load(self, image: ImageLike) -> Loaded:
        """Decode and resize an image; may be called from several threads."""
        rgb = as_rgb(image)
        return Loaded(rgb, preprocess(rgb, self.image_size))

    def answers(self, images: Iterable[Loaded], tasks: Iterable[Sequence[str]], batch_size: int = 8) -> Iterator[Answer]:
        """Run the network on each image for each of its tasks, about `batch_size` of these pairs at a time; yields in order."""
        if batch_size < 1:
            raise UsageError(f"batch size: found {batch_size}, expected 1 or more")
        batch: list[tuple[Loaded, Sequence[str]]] = []
        pairs = 0
        for image, asked in zip(images, tasks, strict=True):
            for task in asked:
                self.tasks.id(task)
            batch.append((image, asked))
            pairs += len(asked)
            if pairs + len(asked) > batch_size:  # another one like it would not fit
                yield from self._run(batch)
                batch, pairs = [], 0
        if batch:
            yield from self._run(batch)

    def _run(self, batch: Sequence[tuple[Loaded, Sequence[str]]]) -> Iterator[Answer]:
        pairs = [(row, task) for row, (_, asked) in enumerate(batch) for task in asked]
        maps = self.network(
            torch.stack([image.pixels for image, _ in batch]),
            torch.tensor([self.tasks.id(task) for _, task in pairs]),
            torch.tensor([row for row, _ in pairs]),
        )
        for p, (row, task) in enumerate(pairs):
            similarity = None if maps.similarity is None else maps.similarity[p]
            yield Answer(maps.logits[p], similarity, batch[row][0].image.shape[:2], task)


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
    `NAME_probability.png` (16 bit, 65535 = 1) and `NAME_overlay.png`. A bad file is reported and skipped. Files are read and
    written in threads while the network computes; about 3 · batch_size images are in memory at a time. Raises UsageError if
    a result would take the place of an image.
    """
    for task in tasks:
        segmenter.tasks.id(task)
    names = output_names(files)
    folders = {task: out / task if len(tasks) > 1 else out for task in tasks}
    results = {(folder / f"{name}{ending}.png").resolve() for folder in folders.values() for name in names.values() for ending in ENDINGS}
    for file in files:
        if file.resolve() in results:
            raise UsageError(f"{file}: would be overwritten by a mask; choose another --out than {out}")

    def load(file: Path) -> tuple[Path, Loaded | Failure]:
        try:
            return file, segmenter.load(file)
        except DataError as error:
            return file, Failure(file, str(error))

    def segment(loaded: Iterator[tuple[Path, Loaded | Failure]]) -> Iterator[Failure | tuple[Path, Loaded, list[Answer]]]:
        while batch := list(islice(loaded, max(1, batch_size // len(tasks)))):
            yield from (found for _, found in batch if isinstance(found, Failure))
            images = [(file, found) for file, found in batch if isinstance(found, Loaded)]
            answers = segmenter.answers((image for _, image in images), repeat(tasks, len(images)), batch_size)
            yield from ((file, image, list(islice(answers, len(tasks)))) for file, image in images)

    def write(found: Failure | tuple[Path, Loaded, list[Answer]]) -> Path | Failure:
        if isinstance(found, Failure):
            return found
        file, loaded, answers = found
        for answer in answers:
            prediction, place = answer.prediction(), folders[answer.task]
            write_png(place / f"{names[file]}.png", prediction.mask.astype(np.uint8) * 255)
            if probability:
                write_png(place / f"{names[file]}_probability.png", np.round(prediction.probability * 65535).astype(np.uint16))
            if overlay:
                write_png(place / f"{names[file]}_overlay.png", draw_overlay(loaded.image, prediction.mask))
        return file

    with ThreadPoolExecutor(THREADS) as pool:
        yield from ahead(pool, write, segment(ahead(pool, load, files, 2 * batch_size)), batch_size)


def write_png(path: Path, values: np.ndarray) -> None:
    """Write an array as PNG, whole or not at all."""
    with replacing(path) as new:
        Image.fromarray(values).save(new, format="PNG")
