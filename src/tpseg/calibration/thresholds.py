"""Which probability a mask starts at, and how many lesion-free images get a mask all the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tpseg.calibration.logit_counts import BINS, CENTRES, WIDTH, bin_of
from tpseg.evaluation.metrics import bootstrap_sums

HALF = bin_of(0.0)
"""The cut of probability ½: a mask is the bins from here on."""
LOWEST, HIGHEST = bin_of(-3.0), bin_of(3.0)
"""Cuts that are looked at, in raw logits: probabilities 0.05 to 0.95."""
STEP = 4
"""Bins from one to the next: 0.125 in units of a logit."""
AREAS = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Smallest masks that are kept, as shares of the image; only 0 where no lesion-free image tells which are too small."""
CHANCE = 0.05
"""A threshold other than ½ is taken if less than this share of the resamples of images finds it no better."""


@dataclass(frozen=True)
class Threshold:
    """What becomes a mask."""

    cut: float = 0.0
    """Raw logit that a pixel of the mask is above; 0 is probability ½ at every temperature."""
    area: float = 0.0
    """Masks that cover less of the image than this are emptied."""


def dice_at(counts: np.ndarray, cut: int, area: float = 0.0) -> np.ndarray:
    """Dice of the mask from a bin on, protocol default (both empty 1), of each image; counts (N, 2, B), returns (N,)."""
    found = counts[:, :, cut:].sum(axis=2, dtype=np.float64)  # (N, 2): outside and inside the lesion
    found = np.where((found.sum(axis=1) < area * counts.sum(axis=(1, 2)))[:, None], 0, found)
    total = found.sum(axis=1) + counts[:, 1].sum(axis=1)
    return np.where(total > 0, 2 * found[:, 1] / np.maximum(total, 1), 1.0)


def lesion_free(counts: np.ndarray) -> np.ndarray:
    """Which of the images (N, 2, B) have no lesion, (N,) bool."""
    return np.asarray(~counts[:, 1].any(axis=1))


def false_alarms(counts: np.ndarray, threshold: Threshold) -> float | None:
    """Share of lesion-free images that get a mask; None if there are no such images."""
    free = counts[lesion_free(counts)]
    return float((dice_at(free, bin_of(threshold.cut), threshold.area) < 1).mean()) if len(free) else None


def choose_threshold(counts: np.ndarray, seed: int = 0) -> Threshold:
    """The threshold of largest mean Dice on validation images (N, 2, B); ½ unless another is better beyond chance.

    Dice, both empty 1, weighs a false alarm on a lesion-free image as a lesion that is missed entirely. Without lesion-free
    images nothing speaks against small masks but the other images' borders, so no smallest area is chosen then.
    """
    areas = AREAS if lesion_free(counts).any() else AREAS[:1]
    tried = [(cut, area) for cut in range(LOWEST, HIGHEST + 1, STEP) for area in areas]
    scores = np.stack([dice_at(counts, cut, area) for cut, area in tried])  # (tried, N)
    if scores.shape[1] < 2:
        return Threshold()
    # chosen on the others, an image tells what the choice is worth; on itself the best of so many would always look better than ½
    others = (scores.sum(axis=1, keepdims=True) - scores).argmax(axis=0)
    gain = scores[others, np.arange(scores.shape[1])] - dice_at(counts, HALF)
    if (bootstrap_sums(gain[:, None], seed=seed) <= 0).mean() >= CHANCE:
        return Threshold()
    cut, area = tried[int(scores.mean(axis=1).argmax())]
    return Threshold(float(CENTRES[cut] - WIDTH / 2) if cut < BINS else float(CENTRES[-1] + WIDTH / 2), area)
