"""Are seven of ten pixels lesion that are called 70 % lesion? Each task's scaling of the logits, and the error with and without."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from tpseg.calibration.logit_counts import CENTRES

BINS = 15
PRIOR = 0.2
"""Nats a pixel that a temperature off 1 by a factor e costs, or a bias of 2, divided by the number of images: it keeps a task of ten
validation images in hand and hardly matters where there are a hundred."""


@dataclass(frozen=True)
class Scaling:
    """What makes a raw logit z the logit of a calibrated probability: z / temperature + bias."""

    temperature: float = 1.0
    bias: float = 0.0

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probability of lesion of raw logits, of the same shape."""
        return np.asarray(expit(logits / self.temperature + self.bias))


NONE = Scaling()


@dataclass(frozen=True)
class Reliability:
    """Pixels sorted by the probability they were given, in equal bins of it; arrays (BINS,)."""

    predicted: np.ndarray
    """Mean probability of lesion in the bin; NaN of an empty one."""
    found: np.ndarray
    """Share of its pixels that are lesion; NaN of an empty one."""
    share: np.ndarray
    """Of all pixels, that lie in the bin; sums to 1."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean |found − predicted| over the bins, weighed by their pixels."""
        return float(np.nansum(self.share * np.abs(self.found - self.predicted)))


def pool(counts: np.ndarray) -> np.ndarray:
    """Counts of several images (N, 2, B) to one (2, B) in which each image that has pixels weighs 1, however large it is."""
    pixels = counts.sum(axis=(1, 2), dtype=np.float64)
    return np.tensordot(1 / np.maximum(pixels, 1), counts, axes=1)


def reliability(pooled: np.ndarray, scaling: Scaling = NONE) -> Reliability:
    """How often a pixel is lesion against how probable it was called; pooled (2, B) outside and inside of lesions."""
    probability = scaling.probability(CENTRES)
    position = np.minimum((probability * BINS).astype(int), BINS - 1)

    def sums(weights: np.ndarray) -> np.ndarray:
        return np.bincount(position, weights, minlength=BINS)

    pixels = sums(pooled.sum(axis=0))
    with np.errstate(invalid="ignore"):
        predicted, found = sums(pooled.sum(axis=0) * probability) / pixels, sums(pooled[1]) / pixels
    return Reliability(predicted, found, pixels / pixels.sum())


def calibration_error(pooled: np.ndarray, scaling: Scaling = NONE) -> float | None:
    """Expected calibration error of the probability of lesion, 15 equal bins of it; None without pixels."""
    return reliability(pooled, scaling).error if pooled.any() else None


def confidence_error(pooled: np.ndarray, scaling: Scaling = NONE) -> float | None:
    """The same of the more probable of lesion and background: is a pixel as often right as its probability says?

    15 equal bins of that probability over [0, 1], of which the lower half is empty.
    """
    probability = scaling.probability(CENTRES)
    if not pooled.any():
        return None
    lesion = probability > 0.5
    position = np.minimum((np.maximum(probability, 1 - probability) * BINS).astype(int), BINS - 1)
    sureness = np.maximum(probability, 1 - probability) * pooled.sum(axis=0)
    gaps = np.bincount(position, np.where(lesion, pooled[1], pooled[0]) - sureness, minlength=BINS)
    return float(np.abs(gaps).sum() / pooled.sum())


def surprise(pooled: np.ndarray, scaling: Scaling) -> float:
    """Mean negative log-likelihood of the truth, nats a pixel; pooled (2, B)."""
    logits = CENTRES / scaling.temperature + scaling.bias
    return float((pooled[0] @ np.logaddexp(0, logits) + pooled[1] @ np.logaddexp(0, -logits)) / pooled.sum())


def fit_scaling(counts: np.ndarray) -> Scaling:
    """Temperature and bias of least surprise on validation images (N, 2, B), each weighing the same, with a weak pull to none.

    None where pixels of lesion or of background are missing, for nothing is told by the others alone.
    """
    pooled = pool(counts)
    if not pooled[0].any() or not pooled[1].any():
        return NONE
    pull = PRIOR / len(counts)

    def loss(x: np.ndarray) -> float:  # log of the slope, and bias
        scaling = Scaling(float(np.exp(-x[0])), float(x[1]))
        return surprise(pooled, scaling) + pull * (float(x[0]) ** 2 + float(x[1]) ** 2 / 4)

    slope, bias = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=((-3, 3), (-6, 6))).x
    return Scaling(float(np.exp(-slope)), float(bias))
