"""The Dice that a mask will have, as far as can be told without the truth: from the network's logits and the mask's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label
from scipy.special import expit, logit
from scipy.stats import spearmanr

from tpseg.calibration.logit_counts import CENTRES, bin_of
from tpseg.calibration.temperature import Scaling

SIGNS = ("soft", "middle", "parts", "largest", "border")
"""What the regression looks at: the numbers of `signs`, in its order."""
RIDGE = 0.3
"""Pull of the weights and of the tasks' offsets to 0, in images."""
NEWTON = 25


@dataclass(frozen=True)
class Look:
    """What is kept of a mask to judge it: of an image, or of the frames of a scan together."""

    counts: np.ndarray
    """(B,): pixels by logit."""
    parts: float
    """Separate pieces of the mask; mean over frames, weighed by the masks' sizes, as the next two."""
    largest: float
    """Share of the mask that the largest piece has; 0 of an empty mask."""
    border: float
    """Length of the mask's border by the square root of its pixels: about 4 for a square or a disc, more for a ragged mask."""
    size: float
    """Pixels of the mask."""

    def __add__(self, other: Look) -> Look:
        size = self.size + other.size

        def mean(one: float, two: float) -> float:
            return (one * self.size + two * other.size) / size if size else 0.0

        return Look(
            self.counts + other.counts,
            mean(self.parts, other.parts),
            mean(self.largest, other.largest),
            mean(self.border, other.border),
            size,
        )


def look(counts: np.ndarray, mask: np.ndarray) -> Look:
    """Pixels by logit (B,), and the mask (S, S) bool at the network's size, where shapes of images of all sizes compare."""
    size = int(mask.sum())
    if not size:
        return Look(counts, 0.0, 0.0, 0.0, 0.0)
    pieces, number = label(mask)
    border = np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1])
    return Look(counts, float(number), float(np.bincount(pieces.ravel())[1:].max() / size), border / size**0.5, float(size))


def soft_dice(counts: np.ndarray, scaling: Scaling, cut: float = 0.0) -> float:
    """Expected Dice of the mask above a cut if pixels were independent: 2 E|mask ∩ lesion| / (|mask| + E|lesion|); 0 of an empty mask."""
    probability = scaling.probability(CENTRES)
    mask = counts[bin_of(cut) :]
    hit = float(mask @ probability[bin_of(cut) :])
    return 2 * hit / float(mask.sum() + counts @ probability)


def middle(counts: np.ndarray, cut: float = 0.0) -> float:
    """Median raw logit of the pixels of the mask above a cut; the cut of an empty mask."""
    cumulated = np.cumsum(counts[bin_of(cut) :])
    if not cumulated.size or not cumulated[-1]:
        return cut
    return float(CENTRES[bin_of(cut) + np.searchsorted(cumulated, cumulated[-1] / 2)])


def signs(one: Look, scaling: Scaling, cut: float = 0.0) -> np.ndarray:
    """What the regression looks at, (5,)."""
    soft = np.clip(soft_dice(one.counts, scaling, cut), 1e-3, 1 - 1e-3)
    return np.array([logit(soft), middle(one.counts, cut), np.log1p(one.parts), one.largest, np.log1p(one.border)])


@dataclass(frozen=True)
class Regression:
    """Logistic regression of Dice on the signs."""

    weights: tuple[float, ...]
    """Of the signs, the same for all tasks."""
    offset: float
    """Of the task."""

    def __call__(self, found: np.ndarray) -> float:
        """Signs (5,) to expected Dice in (0, 1)."""
        return float(expit(found @ np.array(self.weights) + self.offset))


def fit_regression(found: np.ndarray, dice: np.ndarray, task: np.ndarray, tasks: int) -> list[Regression]:
    """A regression for each task from signs (N, 5), Dice (N,) and task ids (N,), of all tasks together.

    Weights are shared and offsets pulled together, for a task may have ten validation images. Newton's method on the
    cross-entropy, which takes Dice as the share of a success.
    """
    mean, spread = found.mean(axis=0), found.std(axis=0) + 1e-9
    standard = (found - mean) / spread
    one_hot = (task[:, None] == np.arange(tasks)).astype(float)
    design = np.concatenate([standard, np.ones((len(found), 1)), one_hot], axis=1)
    signs_number = found.shape[1]
    pull = 2 * RIDGE * np.ones(design.shape[1])
    pull[signs_number] = 1e-3  # of the offset that all tasks share
    x = np.zeros(design.shape[1])
    for _ in range(NEWTON):
        expected = expit(design @ x)
        curvature = (design.T * (expected * (1 - expected))) @ design + np.diag(pull)
        x = x - np.linalg.solve(curvature, design.T @ (expected - dice) + pull * x)
    weights = x[:signs_number] / spread
    shared = x[signs_number] - float(weights @ mean)
    return [Regression(tuple(weights.tolist()), float(shared + own)) for own in x[signs_number + 1 :]]


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Rank correlation; None for fewer than two values, or where all are the same."""
    if len(one) < 2 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(spearmanr(one, other).statistic)
