"""Which task is this? The nearest mean of a task's training images, with a calibrated probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tpseg.calibration.space import means

FALSE_WARNINGS = 0.01
"""Share of the validation images that may be warned of although they were asked for their own task."""
HIGHEST_DOUBT = 0.5
"""From a probability of ½ on, no other task is more likely than the one asked for."""
BINS = 15


@dataclass(frozen=True)
class Recognition:
    """Linear discriminant analysis: in the whitened space the task whose mean is nearest, all tasks equally likely beforehand."""

    centres: Tensor
    """(T, K) float32: mean of each task's training images."""
    temperature: float
    """What the logits are divided by, fitted on val."""
    doubt: float
    """Below this probability of the task asked for, `predict` warns; chosen on val."""

    def logits(self, points: Tensor) -> Tensor:
        """Points (N, K) of the space to (N, T), before the temperature."""
        return -0.5 * torch.cdist(points.double(), self.centres.double()) ** 2

    def probabilities(self, points: Tensor) -> Tensor:
        """How likely each task is for each point, (N, T) float64 with rows that sum to 1."""
        return (self.logits(points) / self.temperature).softmax(1)


def fit_recognition(train: Tensor, train_task: Tensor, val: Tensor, val_task: Tensor) -> Recognition:
    """Means from training points (N, K), temperature and doubt from validation points; tasks (N,) int64."""
    first = Recognition(means(train, train_task), temperature=1.0, doubt=0.0)
    fitted = Recognition(first.centres, fit_temperature(first.logits(val), val_task), doubt=0.0)
    asked = fitted.probabilities(val).gather(1, val_task[:, None])[:, 0]
    return Recognition(first.centres, fitted.temperature, choose_doubt(asked))


def fit_temperature(logits: Tensor, task: Tensor) -> float:
    """The temperature of least negative log-likelihood; logits (N, T), task (N,).

    The targets are Platt's, (N + 1) / (N + 2) in place of 1: where every image is recognised the likelihood alone would want
    probabilities of 0 and 1.
    """
    count, tasks = logits.shape
    if tasks == 1:
        return 1.0
    sure = (count + 1) / (count + 2)
    target = torch.full_like(logits, (1 - sure) / (tasks - 1)).scatter_(1, task[:, None], sure)
    scale = logits.std() + 1e-12
    candidates = scale * torch.logspace(-4, 2, 601, dtype=logits.dtype)  # one number: a grid cannot miss, within 1.2 %
    losses = torch.stack([F.cross_entropy(logits / one, target) for one in candidates])
    return float(candidates[losses.argmin()])


def choose_doubt(asked: Tensor) -> float:
    """The largest limit, at most ½, that warns of no more than FALSE_WARNINGS of images asked for their own task; asked (N,)."""
    allowed = int(FALSE_WARNINGS * len(asked))
    return min(HIGHEST_DOUBT, float(asked.sort().values[allowed]))


def expected_calibration_error(probabilities: Tensor, task: Tensor) -> float:
    """ECE of the most likely task: over 15 equal bins of its probability, mean |share that is right − mean probability|, by count."""
    confidence, guess = probabilities.max(1)
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, (guess == task).double() - confidence.double())
    return float(gaps.abs().sum() / len(task))


def confusion(probabilities: Tensor, task: Tensor) -> Tensor:
    """How many images of each task (rows) are taken for each (columns), (T, T) int64."""
    tasks = probabilities.shape[1]
    return torch.bincount(task * tasks + probabilities.argmax(1), minlength=tasks**2).reshape(tasks, tasks)
