"""Which training images are drawn, in which order, and with which seed each is augmented."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch.utils.data import RandomSampler, Sampler, SequentialSampler, WeightedRandomSampler

from tpseg.core.errors import UsageError
from tpseg.data.dataset import Draw

Drawn = TypeVar("Drawn")


def balanced_weights(task_ids: Sequence[int]) -> list[float]:
    """1/N_τ for every sample, so that tasks come up equally often (paper §3.3)."""
    counts = Counter(task_ids)
    return [1 / counts[task] for task in task_ids]


class TrainingSampler(Sampler[Draw]):
    """Draws training cases, balanced over tasks or each once, from the seed and the epoch alone.

    An epoch's draws do not depend on the epochs before it nor on the number of workers: a resumed run sees what an
    uninterrupted one would have seen.
    """

    def __init__(self, task_ids: Sequence[int], seed: int, balance: bool, draws: int | None = None) -> None:
        self.task_ids = list(task_ids)
        self.seed = seed
        self.balance = balance
        self.draws = draws or len(self.task_ids)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.draws

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        inner: Sampler[int]
        if self.balance:
            inner = WeightedRandomSampler(balanced_weights(self.task_ids), self.draws, generator=generator)
        else:
            inner = RandomSampler(self.task_ids, generator=generator)
        indices = list(inner)
        seeds = torch.randint(2**62, (len(indices),), generator=generator).tolist()
        return (Draw(index, seed) for index, seed in zip(indices, seeds, strict=True))


class Share(Sampler[Drawn]):
    """What one of several processes gets of an epoch: draws r, r + W, r + 2W, ... for process r of W.

    Process r's batch number k of B/W images and those of the others are together batch k of B images of one process.
    """

    def __init__(self, whole: Sampler[Drawn], total: int, rank: int, size: int, repeated: int = 0) -> None:
        """total: draws of the epoch that are shared out; repeated: how many of the first ones come again after them."""
        self.whole = whole
        self.total = total
        self.rank = rank
        self.size = size
        self.repeated = repeated
        self.resumed = (0, 0)

    def resume_at(self, epoch: int, draws: int) -> None:
        """Leave out the first draws of one epoch, those of all processes: a run that goes on inside it has seen them."""
        self.resumed = (epoch, draws)
        self.set_epoch(epoch)

    @property
    def own(self) -> int:
        """This process's draws that count: at most the last one is a repetition."""
        return len(range(self.rank, self.total, self.size))

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        if isinstance(self.whole, TrainingSampler):
            self.whole.set_epoch(epoch)

    def __len__(self) -> int:
        return len(range(self.rank, self.total + self.repeated, self.size))

    def __iter__(self) -> Iterator[Drawn]:
        draws = list(self.whole)[: self.total]
        seen = self.resumed[1] if isinstance(self.whole, TrainingSampler) and self.whole.epoch == self.resumed[0] else 0
        return itertools.islice(itertools.cycle(draws), seen + self.rank, self.total + self.repeated, self.size)


def share_of_training(sampler: TrainingSampler, batch: int, accumulate: int, rank: int, size: int) -> Share[Draw]:
    """Whole optimiser steps only, of as many batches for each process; draws for less than one step are whole batches, and fewer
    than one batch are one batch, which may be shared unevenly.

    batch: images of a batch over all processes; accumulate: batches of a step. A last step of fewer batches would weigh its images
    less than others, and make an epoch of small batches another one than of large. Raises UsageError where a process would get no image.
    """
    draws = len(sampler)
    if draws < size:
        raise UsageError(f"--devices: {size} processes would share {draws} training images an epoch; use {draws} devices or fewer")
    for whole in (batch * accumulate, batch):
        if draws >= whole:
            return Share(sampler, draws - draws % whole, rank, size)
    return Share(sampler, draws, rank, size)


def share_of_validation(images: int, rank: int, size: int) -> Share[int]:
    """As many images for each process: where they do not come out even, some end with one that is repeated and does not count.

    A sharded model needs all its processes for each forward pass.
    """
    return Share(SequentialSampler(range(images)), images, rank, size, repeated=-images % size)
