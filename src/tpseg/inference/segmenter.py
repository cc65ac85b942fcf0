"""`Segmenter`: a trained model with its preprocessing, for one image or many at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tpseg.core.errors import UsageError
from tpseg.core.memory import OutOfMemory, halves, is_out_of_memory, largest_that_fits
from tpseg.core.prefetch import THREADS, ahead
from tpseg.core.tasks import TaskSet
from tpseg.data.preprocessing import preprocess, resize_map
from tpseg.imaging.reading.opening import open_scan
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.writing.identity import ModelIdentity
from tpseg.inference.augmentation import AugmentedNetwork
from tpseg.inference.identity import identify
from tpseg.inference.images import ImageLike, as_rgb
from tpseg.inference.network import Maps, Network, TorchNetwork
from tpseg.inference.open_network import open_network
from tpseg.models.base import LesionModel


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
class ScanPrediction:
    """What the model says of a scan for one task, frame by frame."""

    masks: np.ndarray
    """(N, H, W) bool: a mask for each frame, in the order of `scan.frame`."""
    scan: Scan
    """Where the frames came from: its path, the size of a frame, the spacing of its pixels in millimetres where the file says."""
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
        """(H, W) float32 in [0, 1], in the image's own size; raises OutOfMemory."""
        try:
            return torch.sigmoid(resize_map(self.logits, self.size)).numpy()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        height, width = self.size
        raise OutOfMemory(f"memory ran out on a map of {width}x{height} pixels; take smaller images, or a machine with more memory")

    def own_probability(self) -> np.ndarray:
        """(S, S) float32 in [0, 1], as the network gave it."""
        return torch.sigmoid(self.logits[0]).numpy()

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
    >>> segment.scan("ct.nii.gz", task="lung_infection").masks    # (N, H, W) bool, of a volume, a series or a video
    """

    def __init__(
        self,
        model: LesionModel | Path | str,
        *,
        device: str | None = None,
        weights: str | None = None,
        trust: bool = False,
        tta: bool = False,
    ) -> None:
        """model: where one lies, then loaded for prediction only, or one at hand, which is moved to the device and keeps its weights.

        weights: where the frozen trunk's file lies, as load_model takes it. trust: open a .pt2 file, which
        is a program and can do anything. tta: average what the model says of an image and its three mirror images (test-time
        augmentation), in four times the time.
        """
        self.source = None if isinstance(model, LesionModel) else str(model)
        self.network: Network
        if isinstance(model, LesionModel):
            self.network = TorchNetwork(model, device)
        else:
            self.network = open_network(model, device, weights, trust)
        self.augmented = tta
        if tta:
            self.network = AugmentedNetwork(self.network)
        self.tasks = self.network.tasks
        self.image_size = self.network.image_size

    @cached_property
    def identity(self) -> ModelIdentity:
        """What DICOM files call the model; raises UsageError for one that lies nowhere."""
        if self.source is None:
            raise UsageError("a model in memory has no name that a DICOM file could give it; save it and open the Segmenter from there")
        return identify(self.source)

    @property
    def named(self) -> str:
        """What pictures call the model."""
        return "a model in memory" if self.source is None else self.identity.words

    def __call__(self, image: ImageLike, task: str, *, window: str | None = None) -> Prediction:
        """Segment one image: a path, a PIL image, an array (H, W), (H, W, 3) or (H, W, 4), or a tensor (3, H, W) or (1, H, W).

        A path may be of any format that `tpseg predict` takes, with one frame; window says how its grey values become 8 bit (a
        name, `lung`, or `centre,width`; by default the task's, else the file's). Float arrays and tensors within [0, 1] are
        taken as such; other number types as decode to 8 bit. Raises UsageError for a task the model does not know, DataError for an
        image that cannot be used.
        """
        return self.tasks_of(image, [task], window=window)[0]

    def tasks_of(self, image: ImageLike, tasks: Sequence[str], *, window: str | None = None) -> Sequence[Prediction]:
        """Segment one image for several tasks; a hardened model runs once what they have in common. Otherwise as the plain call."""
        return [answer.prediction() for answer in self.answers_of(image, tasks, window)]

    def answers_of(self, image: ImageLike, tasks: Sequence[str], window: str | None = None) -> list[Answer]:
        """What the network says of one image for each of the tasks, in their order."""
        views = by_window(self.tasks, tasks, window) if isinstance(image, (str, Path)) else {"": list(tasks)}
        loaded = [self.load(image, view) for view in views]
        found = {answer.task: answer for answer in self.answers(loaded, views.values())}
        return [found[task] for task in tasks]

    def scan(self, path: Path | str, task: str, *, window: str | None = None, axis: str = "", batch_size: int = 8) -> ScanPrediction:
        """Segment every frame of a file or a folder that holds a series: DICOM, NIfTI, NRRD, MetaImage, video, or a picture.

        axis: which way a volume is cut into frames, as `tpseg predict --axis`. Keeps one byte per pixel and frame. Raises
        UsageError for a task, window or axis that is not there, DataError for a file that cannot be read.
        """
        (view,) = by_window(self.tasks, [task], window)
        scan = open_scan(Path(path), window=view, axis=axis)
        masks = np.zeros((scan.frames, *scan.size), bool)
        with ThreadPoolExecutor(THREADS) as pool:
            loaded = ahead(pool, lambda index: self.load(scan.frame(index)), range(scan.frames), 2 * batch_size)
            for index, answer in enumerate(self.answers(loaded, ([task] for _ in range(scan.frames)), batch_size)):
                masks[index] = answer.probability() > 0.5
        return ScanPrediction(masks, scan, task)

    def predict(self, images: Iterable[np.ndarray], tasks: Iterable[str], batch_size: int = 8) -> Iterator[Prediction]:
        """Segment RGB images (H, W, 3) uint8 of any sizes, one task each, in batches; yields in order."""
        loaded = (self.load(image) for image in images)
        return (answer.prediction() for answer in self.answers(loaded, ([task] for task in tasks), batch_size))

    def load(self, image: ImageLike, window: str = "") -> Loaded:
        """Decode and resize an image; may be called from several threads."""
        rgb = as_rgb(image, window)
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
        maps = self._maps(batch, pairs)
        if maps is None:  # nothing holds the failed pass any more, neither its tensors nor its error
            raise OutOfMemory(self._advice(batch, pairs))
        for p, (row, task) in enumerate(pairs):
            similarity = None if maps.similarity is None else maps.similarity[p]
            yield Answer(maps.logits[p], similarity, batch[row][0].image.shape[:2], task)

    def _maps(self, batch: Sequence[tuple[Loaded, Sequence[str]]], pairs: Sequence[tuple[int, str]]) -> Maps | None:
        """What the network says of pairs (row of the batch, task), or None if they do not fit into memory."""
        try:
            return self.network(
                torch.stack([image.pixels for image, _ in batch]),
                torch.tensor([self.tasks.id(task) for _, task in pairs]),
                torch.tensor([row for row, _ in pairs]),
            )
        except Exception as error:  # exported networks raise errors of their own kind
            if not is_out_of_memory(error):
                raise
            return None

    def _advice(self, batch: Sequence[tuple[Loaded, Sequence[str]]], pairs: Sequence[tuple[int, str]]) -> str:
        """What to change after memory ran out, tried here and now."""

        def try_some(count: int) -> bool:
            free_cuda()
            some = pairs[:count]
            return self._maps(batch[: some[-1][0] + 1], some) is not None

        side = f"{self.image_size}x{self.image_size} pixels"
        fits = largest_that_fits(try_some, halves(len(pairs)))
        free_cuda()
        if fits:
            return f"memory ran out with {len(pairs)} at a time at {side}; {fits} fit, tried just now: --batch-size {fits}"
        return (
            f"memory ran out: not even one image fits at {side}, which the model asks for; take a machine with more memory, or --device cpu"
        )


def free_cuda() -> None:
    """Give back what PyTorch keeps of a GPU's memory for later."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def by_window(known: TaskSet, tasks: Sequence[str], window: str | None = None) -> dict[str, list[str]]:
    """The tasks that see an image through the same window, for each window: `window` for all, or else each task's own ('': the file's)."""
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(known[known.id(task)].window if window is None else window, []).append(task)
    return groups
