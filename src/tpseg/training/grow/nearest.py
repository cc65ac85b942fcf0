"""Which of a model's tasks is nearest to a new one: what its prototypes say of the new task's training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpseg.core.hardware import autocast, pick_device
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.dataset import LesionDataset, collate
from tpseg.data.manifest import Case
from tpseg.models.base import LesionModel
from tpseg.models.tpseg.prototypes import region_sums
from tpseg.training.module import hard_dice

IMAGES = 64
"""Training images that are looked at, spread over the split: the means of two times 32 hardly differ."""
BATCH = 8


@dataclass(frozen=True)
class Kinship:
    """How near a task of the model is to the new one."""

    task: str
    similarity: float
    """Whether lesion and background differ as they do for this task: cosine of f̄_fg − f̄_bg, the new task's mean features on this
    task's route, with its P_fg − P_bg; mean over the PGTDs, in [-1, 1]. The differences, for what all features have in common
    makes up most of their cosines and ranks by chance (docs/growing.md)."""
    dice: float
    """Mean Dice of the task's own answers on the new task's training images, nothing trained."""


@torch.no_grad()
def rank_tasks(model: LesionModel, cases: Sequence[Case]) -> list[Kinship]:
    """The model's tasks, nearest first, for the training cases of one new task; the model must have prototypes.

    Every task is asked about `IMAGES` of the images. Region means are those of eq. (13), over all of them.
    """
    device = pick_device()
    model = model.to(device).eval()
    chosen = list(cases)[:: -(-len(cases) // IMAGES)]
    images = LesionDataset(chosen, TaskSet([Task(chosen[0].task)]), model.config.image_size)
    tasks = len(model.tasks)
    sums = {name: torch.zeros_like(prototypes) for name, prototypes in model.prototypes().items()}  # (T, 2, C)
    dice = torch.zeros(tasks, device=device)
    for first in range(0, len(images), BATCH):
        batch = collate([images[index] for index in range(first, min(first + BATCH, len(images)))])
        image, mask = batch.image.to(device), batch.mask.to(device)
        for task in range(tasks):
            asked = torch.full((len(image),), task, device=device)
            with autocast(device):
                output = model(image, asked)
            dice[task] += hard_dice(output.logits, mask).sum()
            features = [step.features for step in output.steps if step.features is not None]
            for name, feature in zip(sums, features, strict=True):
                sums[name][task] += region_sums(feature, model.pad(mask, -1))[0].sum(0)  # (2, C)
    near = torch.stack([_cosines(sums[name], prototypes) for name, prototypes in model.prototypes().items()]).mean(0)  # (T,)
    found = zip(model.tasks.names, near.tolist(), (dice / len(images)).tolist(), strict=True)
    return sorted((Kinship(*one) for one in found), key=lambda one: -one.similarity)


def _cosines(sums: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of foreground less background, (T, 2, C) twice in, (T,) out."""
    means = F.normalize(sums, dim=-1)
    return F.cosine_similarity(means[:, 0] - means[:, 1], prototypes[:, 0] - prototypes[:, 1], dim=-1)
