"""Which training images are drawn, in which order, and with which seed each is augmented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import RandomSampler, Sampler, WeightedRandomSampler

from tpseg.data.dataset import Draw


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
