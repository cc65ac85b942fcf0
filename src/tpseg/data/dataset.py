"""The PyTorch data set of lesion images, and the batch that the model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tpseg.core.tasks import TaskSet
from tpseg.data.cache import DecodedCache
from tpseg.data.manifest import Case
from tpseg.data.pairs import read_square
from tpseg.data.preprocessing import augment, normalise, to_unit


@dataclass
class Batch:
    """Images of mixed tasks."""

    image: Tensor
    """(B, 3, S, S) float32, normalised."""
    mask: Tensor
    """(B, 1, S, S) float32 in {0, 1}."""
    task: Tensor
    """(B,) int64."""
    files: list[str]
    """Where each image came from, for messages."""


@dataclass(frozen=True)
class Draw:
    """What the sampler asks for: a case, and the seed of its augmentation."""

    index: int
    seed: int


class LesionDataset(Dataset[Batch]):
    """Cases as batches of one, each resized to the model's square; collate joins them."""

    def __init__(
        self, cases: Sequence[Case], tasks: TaskSet, size: int, augmentation: str = "none", cache: DecodedCache | None = None
    ) -> None:
        self.cases = list(cases)
        self.task_ids = [tasks.id(case.task) for case in self.cases]
        self.size = size
        self.augmentation = augmentation
        self.cache = cache

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, item: int | Draw) -> Batch:
        """One case; a plain index is not augmented."""
        index = item.index if isinstance(item, Draw) else item
        case = self.cases[index]
        pixels, lesion = read_square(case, self.size) if self.cache is None else self.cache.read(case)
        image, mask = to_unit(pixels), torch.from_numpy(lesion.astype(np.float32))[None]
        if isinstance(item, Draw):
            image, mask = augment(image, mask, self.augmentation, np.random.default_rng(item.seed))
        return Batch(normalise(image)[None], mask[None], torch.tensor([self.task_ids[index]]), [str(case.image)])


def collate(batches: Sequence[Batch]) -> Batch:
    """Join batches along their first axis."""
    return Batch(
        torch.cat([batch.image for batch in batches]),
        torch.cat([batch.mask for batch in batches]),
        torch.cat([batch.task for batch in batches]),
        [file for batch in batches for file in batch.files],
    )
