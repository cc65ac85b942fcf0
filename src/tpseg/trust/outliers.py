"""Is it anything we know? How far an image lies from the nearest training images, by what is usual around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FALSE_ALARMS = 0.05
"""Share of the validation images that the limit flags."""
BANK = 150
"""Training images of each task that are kept to compare with, at most."""
NEIGHBOUR = 10
"""A kept image's surroundings reach to its neighbour of this rank."""
FLOOR = 0.2
"""Added to each reach, in medians of all: near-duplicates would else call everything else far."""


@dataclass(frozen=True)
class Outliers:
    """The training images to compare with, and from where on an image is an outlier."""

    bank: Tensor
    """(M, K) float32: points of training images, in the whitened space."""
    task: Tensor
    """(M,) int64."""
    reach: Tensor
    """(M,) float32: how far the surroundings of each reach."""
    limit: float
    """Scores over it are outliers; chosen on val."""
    false_alarms: float = FALSE_ALARMS
    """Share of the validation images over the limit that it was chosen for."""

    def scores(self, points: Tensor) -> Tensor:
        """Distance to the nearest training image in units of its reach, and of the limit: outliers are over 1; (N, K) -> (N,) float64."""
        return self.by_task(points).amin(1)

    def by_task(self, points: Tensor) -> Tensor:
        """The same for the nearest training image of each task; (N, K) -> (N, T)."""
        relative = torch.cdist(points.double(), self.bank.double()) / self.reach.double() / self.limit  # (N, M)
        return torch.stack([relative[:, self.task == one].amin(1) for one in range(int(self.task.max()) + 1)], 1)


def fit_outliers(train: Tensor, train_task: Tensor, val: Tensor, *, false_alarms: float = FALSE_ALARMS, seed: int = 0) -> Outliers:
    """The bank from training points (N, K) and tasks (N,), the limit from validation points (M, K).

    At most BANK images of each task are kept, drawn with the seed. Raises ValueError for fewer than two training images.
    """
    kept = choose_bank(train_task, seed)
    bank, task = train[kept], train_task[kept]
    between = torch.cdist(bank.double(), bank.double())  # (M, M)
    rank = min(NEIGHBOUR, len(bank) - 1)
    if rank < 1:
        raise ValueError("one training image has no surroundings")
    far = between.sort(1).values[:, rank]  # the image itself has rank 0
    reach = (far + FLOOR * far.median()).clamp_min(1e-9).float()
    raw = Outliers(bank, task, reach, limit=1.0).scores(val)
    return Outliers(bank, task, reach, float(torch.quantile(raw, 1 - false_alarms)), false_alarms)


def choose_bank(task: Tensor, seed: int) -> Tensor:
    """Positions of at most BANK images of each task, drawn at random, in order; task (N,), returns (M,) int64."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for one in range(int(task.max()) + 1):
        of_task = (task == one).nonzero()[:, 0]
        chosen.append(of_task[torch.randperm(len(of_task), generator=generator)[:BANK]])
    return torch.cat(chosen).sort().values


def auroc(outliers: Tensor, known: Tensor) -> float:
    """Probability that an outlier's score, of (N,), is over that of a known image, of (M,); ties count half."""
    more = (outliers[:, None] > known[None]).double() + 0.5 * (outliers[:, None] == known[None])
    return float(more.mean())
