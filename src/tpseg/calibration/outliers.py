"""Is it anything we know? How far an image lies from the nearest training images, by what is usual around them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tpseg.calibration.space import Space, fit_space

FALSE_ALARMS = 0.05
"""Share that the limit flags of images of known tasks from patients that are new to the model."""
BANK = 150
"""Training images of each task that are kept to compare with, at most."""
NEIGHBOUR = 10
"""A kept image's surroundings reach to its neighbour of this rank."""
FLOOR = 0.2
"""Added to each reach, in medians of all: near-duplicates would else call everything else far."""
FOLDS = 10
"""Parts that the training images are held out in to see how far images of new patients lie."""


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
    """Scores over it are outliers; one for all tasks (docs/trust.md says why)."""
    false_alarms: float = FALSE_ALARMS
    """Share of images of new patients over the limit that it was chosen for."""

    def scores(self, points: Tensor) -> Tensor:
        """Distance to the nearest training image in units of its reach, and of the limit: outliers are over 1; (N, K) -> (N,) float64."""
        return (torch.cdist(points.double(), self.bank.double()) / self.reach.double()).amin(1) / self.limit


def fit_outliers(
    train: Tensor, task: Tensor, group: Tensor, space: Space, val: Tensor, *, false_alarms: float = FALSE_ALARMS, seed: int = 0
) -> Outliers:
    """The bank from training images, the limit from validation images and from training images, each held out with its group.

    train: descriptions (N, D), with task (N,) and group (N,) int64, such as patients; space: fitted on them; val: descriptions (M, D).
    At most BANK images of each task are kept, drawn with the seed. Raises ValueError for fewer than two training images.
    """
    bank = gather_bank(space(train), task, seed)
    new = torch.cat([bank.scores(space(val)), hold_out(train, task, group, seed)])
    return replace(bank, limit=limit_of(new, false_alarms), false_alarms=false_alarms)


def gather_bank(points: Tensor, task: Tensor, seed: int) -> Outliers:
    """The training images (N, K) that are kept, with a limit of 1."""
    kept = choose_bank(task, seed)
    bank = points[kept]
    between = torch.cdist(bank.double(), bank.double())  # (M, M)
    rank = min(NEIGHBOUR, len(bank) - 1)
    if rank < 1:
        raise ValueError("one training image has no surroundings")
    far = between.sort(1).values[:, rank]  # the image itself has rank 0
    reach = (far + FLOOR * far.median()).clamp_min(1e-9).float()
    return Outliers(bank, task[kept], reach, limit=1.0)


def hold_out(train: Tensor, task: Tensor, group: Tensor, seed: int) -> Tensor:
    """Scores of training images (N, D), before any limit, by a space and a bank that know no image of their groups.

    Validation images alone are too few patients to set a limit by. Images of a task that is one group cannot be held out; they are
    left out of the answer.
    """
    part = deal(task, group, seed)
    found = [torch.zeros(0, dtype=torch.float64)]
    for one in range(FOLDS):
        rest = part != one
        held = (part == one) & torch.isin(task, task[rest])
        if held.any() and rest.sum() > 1:
            space = fit_space(train[rest], task[rest])
            found.append(gather_bank(space(train[rest]), task[rest], seed).scores(space(train[held])))
    return torch.cat(found)


def deal(task: Tensor, group: Tensor, seed: int) -> Tensor:
    """A part for each image (N,), 0 to FOLDS - 1: whole groups, each task's dealt out evenly in an order drawn with the seed."""
    generator = torch.Generator().manual_seed(seed)
    part = torch.zeros_like(group)
    for one in range(int(task.max()) + 1):
        groups = group[task == one].unique()
        for position, member in enumerate(groups[torch.randperm(len(groups), generator=generator)].tolist()):
            part[(task == one) & (group == member)] = position % FOLDS
    return part


def limit_of(scores: Tensor, false_alarms: float) -> float:
    """The limit that a new image is over with that probability, at most, if it is like those of the scores (N,); split-conformal.

    Their quantile with N + 1 in the place of N; fewer than 1 / false_alarms - 1 scores give the largest, which promises nothing.
    """
    rank = math.ceil((1 - false_alarms) * (len(scores) + 1))
    return max(float(scores.sort().values[min(rank, len(scores)) - 1]), 1e-9)


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
