"""What the models of a study learned, as plain tables: prototypes, their separation, splits, and conflicts between tasks' gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from tpseg.core.config import require
from tpseg.core.errors import DataError, UsageError
from tpseg.data.dataset import LesionDataset, collate
from tpseg.data.manifest import DataSet
from tpseg.evaluation.metrics import PROTOCOLS
from tpseg.models.base import LesionModel
from tpseg.models.heads.losses import segmentation_loss
from tpseg.report.prototypes import ALIKE, foreground_cosines, separation

Models = Mapping[tuple[str, int], LesionModel]
"""Unified models by study row and seed; they are gone through once, so a mapping may load them as they are asked for."""
Gradient = dict[str, Tensor]
"""Gradient of a loss by parameter name, float32 on the CPU; without the parameters that the loss does not reach."""
FEWEST_TASKS = 4
"""A correlation's interval does not exist for fewer points."""


def prototype_table(models: Models) -> pd.DataFrame:
    """Cosine between the foreground prototypes of two tasks: row, seed, pgtd, task, other, cosine; each pair once."""
    rows = []
    for (row, seed), model in models.items():
        for pgtd, prototypes in _prototypes(model):
            cosines = foreground_cosines(prototypes)
            for one, other in combinations(range(len(model.tasks)), 2):
                rows.append((row, seed, pgtd, model.tasks[one].name, model.tasks[other].name, float(cosines[one, other])))
    return pd.DataFrame(rows, columns=["row", "seed", "pgtd", "task", "other", "cosine"])


def separation_table(models: Models) -> pd.DataFrame:
    """1 − cos(P_fg, P_bg), 0 (the same) to 2 (opposite), of each task at each PGTD: row, seed, pgtd, task, separation."""
    rows = [
        (row, seed, pgtd, task.name, float(apart))
        for (row, seed), model in models.items()
        for pgtd, prototypes in _prototypes(model)
        for task, apart in zip(model.tasks, separation(prototypes), strict=True)
    ]
    return pd.DataFrame(rows, columns=["row", "seed", "pgtd", "task", "separation"])


def _prototypes(model: LesionModel) -> Iterator[tuple[str, np.ndarray]]:
    for pgtd, prototypes in model.prototypes().items():
        yield pgtd, prototypes.detach().cpu().double().numpy()


def task_scores(scores: pd.DataFrame, protocol: str = "tpseg") -> pd.DataFrame:
    """Dice and IoU of each task, shares of 1: row, seed, task, dice, iou; from a row per image (study `scores`)."""
    rows = [(*key, *PROTOCOLS[protocol](images).values()) for key, images in scores.groupby(["row", "seed", "task"], sort=False)]
    return pd.DataFrame(rows, columns=["row", "seed", "task", "dice", "iou"])


def separation_against_scores(separations: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """A line for each row, PGTD and task with separation, dice and iou, means over the seeds that have both.

    separations as `separation_table` gives them, scores a row per image. The PGTD 'mean' is the mean over PGTDs.
    Seeds of one task are not independent of each other, so they are averaged before anything is correlated.
    """
    over_pgtds = separations.groupby(["row", "seed", "task"], sort=False, as_index=False)["separation"].mean().assign(pgtd="mean")
    joined = pd.concat([separations, over_pgtds]).merge(task_scores(scores), on=["row", "seed", "task"])
    return joined.groupby(["row", "pgtd", "task"], sort=False, as_index=False)[["separation", "dice", "iou"]].mean()


def correlation_table(separations: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Does separation go with Dice and IoU over tasks? row, pgtd, measure, tasks, pearson, low, high, spearman.

    pearson with its 95 % interval (Fisher's, for n = number of tasks). All NaN for under 4 tasks, or where separations
    differ by less than 0.05 or scores not at all: there is nothing to correlate. With eight tasks |r| below 0.71 is
    compatible with none, and tasks differ in more than their prototypes.
    """
    rows = [
        (*key, measure, len(tasks), *correlate(tasks["separation"].to_numpy(), tasks[measure].to_numpy()))
        for key, tasks in separation_against_scores(separations, scores).groupby(["row", "pgtd"], sort=False)
        for measure in ("dice", "iou")
    ]
    return pd.DataFrame(rows, columns=["row", "pgtd", "measure", "tasks", "pearson", "low", "high", "spearman"])


def correlate(separations: np.ndarray, scores: np.ndarray) -> tuple[float, float, float, float]:
    """Pearson's r, the ends of its 95 % interval, and Spearman's rho of two (n,) arrays; NaN where there is nothing to correlate."""
    if len(scores) < FEWEST_TASKS or np.ptp(separations) < ALIKE or np.ptp(scores) < 1e-6:
        return np.nan, np.nan, np.nan, np.nan
    pearson = stats.pearsonr(separations, scores)
    low, high = pearson.confidence_interval(0.95)
    return float(pearson.statistic), float(low), float(high), float(stats.spearmanr(separations, scores).statistic)


def split_table(models: Models) -> pd.DataFrame:
    """The learned splits: row, seed, task, split b*, blocks N, and first and last, w(τ, b) at the first and the last block.

    A split of N says that the task's own route never takes over. Models without a gate have no lines.
    """
    rows = []
    for (row, seed), model in models.items():
        weights = model.gate_weights()
        if weights is not None:
            for (task, split), w in zip(model.splits().items(), weights.detach().cpu().tolist(), strict=True):
                rows.append((row, seed, task, split, len(w), w[0], w[-1]))
    return pd.DataFrame(rows, columns=["row", "seed", "task", "split", "blocks", "first", "last"])


def sharing_table(splits: pd.DataFrame) -> pd.DataFrame:
    """What the splits cost when all tasks are asked of one image: row, seed, tasks, passes of the trunk, from 1 to the number of tasks.

    splits: as `split_table` gives them. The shared route runs once, up to the latest split; each task runs its own blocks from its
    split on: passes = (max b* + Σ (N − b*)) / N, each of the N blocks counted alike.
    """
    lines = []
    for (row, seed), of_model in splits.groupby(["row", "seed"], sort=False):
        split, blocks = of_model["split"].to_numpy(), int(of_model["blocks"].iloc[0])
        lines.append((row, seed, len(split), float(split.max() + (blocks - split).sum()) / blocks))
    return pd.DataFrame(lines, columns=["row", "seed", "tasks", "passes"])


def gate_table(models: Models) -> pd.DataFrame:
    """The whole gate: row, seed, task, block, weight w(τ, b). Models without a gate have no lines."""
    rows = []
    for (row, seed), model in models.items():
        weights = model.gate_weights()
        if weights is not None:
            for task, w in zip(model.tasks.names, weights.detach().cpu().tolist(), strict=True):
                rows += [(row, seed, task, block, weight) for block, weight in enumerate(w)]
    return pd.DataFrame(rows, columns=["row", "seed", "task", "block", "weight"])


def gradient_conflict(
    model: LesionModel, data: DataSet, *, split: str = "train", batches: int = 8, batch_size: int = 8, seed: int = 0
) -> pd.DataFrame:
    """Do tasks pull the parameters that they share into different directions? part, task, other, cosine; each pair once.

    The cosine of two tasks' mean gradients of the training loss, each over up to `batches` batches of the task's images,
    not augmented. Where task equals other it is the cosine between two halves of these images, no image in both: how well
    a task agrees with itself, without which a cosine between tasks means nothing. The model computes in training mode and
    is left as it was, bit for bit.

    A parameter is shared if at least two tasks give it a gradient (`shared_parameters`). part: 'all', and the modules of
    the model that have shared parameters (TP-Seg's are trunk, adapters, neck and decoder). One gradient a task is kept on
    the CPU: 200 MB for the 50 M trained parameters of Hiera-L's model, 1.6 GB for eight tasks.

    Raises UsageError for a single task or an odd number of batches, DataError for a task with under two images.
    """
    require(batches >= 2 and batches % 2 == 0, "batches", batches, "an even number from 2, for one half is held against the other")
    require(batch_size >= 1, "batch_size", batch_size, "1 or more")
    names = data.tasks.names
    if len(names) < 2:
        raise UsageError(f"{data.source}: gradients of one task, {names[0]}, have no other to conflict with; expected two tasks or more")
    images = LesionDataset(data.split(split), model.tasks, model.config.image_size)
    found: dict[str, TaskGradient] = {}
    for name in names:
        halves = two_halves(images, name, batches // 2 * batch_size, batch_size, seed)
        with in_training_mode(model, seed):
            found[name] = TaskGradient.of(*(mean_gradient(model, images, half, batch_size) for half in halves))
    shared = shared_parameters([task.mean for task in found.values()])
    parts = {"all": shared} | {part: [key for key in shared if _part(key) == part] for part in map(_part, shared)}
    rows = []
    for part, keys in parts.items():
        for one, other in combinations_with_replacement(names, 2):
            rows.append((part, one, other, found[one].agreement(keys) if one == other else found[one].cosine(found[other], keys)))
    return pd.DataFrame(rows, columns=["part", "task", "other", "cosine"])


def conflict_summary(conflicts: pd.DataFrame) -> pd.DataFrame:
    """What `gradient_conflict` found in a line for each part (and row and seed, where the table has them).

    pairs: of tasks; conflicting: share of them with a negative cosine; cosine: mean over the pairs; agreement: mean over
    the tasks of the cosine between a task's own halves.
    """
    by = [column for column in ("row", "seed", "part") if column in conflicts]
    rows = []
    for key, table in conflicts.dropna(subset="cosine").groupby(by, sort=False):
        own = table["task"] == table["other"]
        between = table.loc[~own, "cosine"]
        rows.append((*key, len(between), (between < 0).mean(), between.mean(), table.loc[own, "cosine"].mean()))
    return pd.DataFrame(rows, columns=[*by, "pairs", "conflicting", "cosine", "agreement"])


def shared_parameters(gradients: Sequence[Gradient]) -> list[str]:
    """Names of the parameters that at least two of the tasks give a gradient other than zero, the others being a task's own.

    Asked of the gradients, not of names: it holds for any model.
    """
    counts = Counter(name for gradient in gradients for name, values in gradient.items() if values.any())
    return [name for name, count in counts.items() if count > 1]


def _part(name: str) -> str:
    """The model's module that a parameter belongs to."""
    return name.partition(".")[0]


@dataclass(frozen=True)
class TaskGradient:
    """A task's mean gradient, and how far the halves of its images agree."""

    mean: Gradient
    halves: dict[str, np.ndarray]
    """By parameter a·b, a·a and b·b, (3,), of the gradients a and b on the two halves."""

    @classmethod
    def of(cls, first: Gradient, second: Gradient) -> TaskGradient:
        """From the gradients on two halves of equal size; `first` becomes the mean, which saves a third copy."""
        halves = {name: dot_products(gradient, second[name]) for name, gradient in first.items()}
        for name, gradient in first.items():
            gradient.add_(second[name]).div_(2)
        return cls(first, halves)

    def agreement(self, names: Sequence[str]) -> float:
        """Cosine between the halves, over some parameters."""
        return cosine([self.halves[name] for name in names if name in self.halves])

    def cosine(self, other: TaskGradient, names: Sequence[str]) -> float:
        """Cosine to another task's gradient, over some parameters; where a task has no gradient, it is zero."""
        zero = torch.zeros(1)
        return cosine([dot_products(self.mean.get(name, zero), other.mean.get(name, zero)) for name in names])


def dot_products(one: Tensor, other: Tensor) -> np.ndarray:
    """a·b, a·a and b·b, (3,), summed in float64."""
    a, b = one.double(), other.double()
    return np.array([float((a * b).sum()), float((a * a).sum()), float((b * b).sum())])


def cosine(products: Sequence[np.ndarray]) -> float:
    """Cosine of two vectors from the dot products of their pieces, each (3,); NaN if one of them is zero."""
    dot, one, other = np.sum(products, axis=0) if products else np.zeros(3)
    return float(dot / np.sqrt(one * other)) if one * other > 0 else np.nan


def two_halves(images: LesionDataset, task: str, most: int, batch_size: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of up to `most` of a task's images, drawn by the seed, and of as many others; whole batches where there are enough."""
    own = [index for index, case in enumerate(images.cases) if case.task == task]
    size = min(len(own) // 2, most)
    if size == 0:
        raise DataError(f"task '{task}' has {len(own)} images in this split; two halves need two or more")
    if size > batch_size:
        size -= size % batch_size
    drawn = [own[position] for position in np.random.default_rng(seed).permutation(len(own))]
    return drawn[:size], drawn[size : 2 * size]


def mean_gradient(model: LesionModel, images: LesionDataset, indices: Sequence[int], batch_size: int) -> Gradient:
    """Gradient of the training loss, mean over some images; touches neither the weights nor their `.grad`."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    device = next(model.parameters()).device
    total: Gradient = {}
    for start in range(0, len(indices), batch_size):
        batch = collate([images[index] for index in indices[start : start + batch_size]])
        output = model(batch.image.to(device), batch.task.to(device))
        loss = segmentation_loss(output.supervised, batch.mask.to(device)).sum() / len(indices)
        for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True):
            if gradient is not None:
                total[name] = total[name].add_(gradient.cpu()) if name in total else gradient.float().cpu().clone()
    return total


@contextmanager
def in_training_mode(model: nn.Module, seed: int) -> Iterator[None]:
    """Training mode with random numbers from `seed`; modes, buffers (running means) and random numbers are put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.train()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
