"""Which of a model's tasks is nearest to a new one: what its prototypes say of the new task's training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpseg.data.dataset import LesionDataset, collate
from tpseg.data.manifest import Case
from tpseg.hardware import autocast, pick_device
from tpseg.models.model import LesionModel
from tpseg.models.prototypes import region_sums
from tpseg.recipe import hard_dice
from tpseg.tasks import Task, TaskSet

IMAGES = 64
"""Training images that are looked at, spread over the split: the means of two times 32 hardly differ."""
BATCH = 8


@dataclass(frozen=True)
class Kinship:
    """How near a task of the model is to the new one."""

    task: str
    similarity: float
    """Cosine of the new task's lesion and background, as mean features on the task's route, with its prototypes; mean over both and
    over the PGTDs, in [-1, 1]."""
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
    """Mean cosine of foreground and background, (T, 2, C) twice in, (T,) out."""
    return (F.normalize(sums, dim=-1) * prototypes).sum(-1).mean(-1)
