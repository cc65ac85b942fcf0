"""What a model's confidence is worth on a split: calibration error, expected against true Dice, error caught, false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tpseg.calibration.collected_logits import Observed
from tpseg.calibration.confidence import Confidence
from tpseg.calibration.expected_dice import spearman
from tpseg.calibration.logit_counts import bin_of
from tpseg.calibration.review import caught_interval, review_curve
from tpseg.calibration.temperature import NONE, Scaling, calibration_error, confidence_error, pool
from tpseg.calibration.thresholds import HALF, Threshold, dice_at, false_alarms, lesion_free

BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of the cases that a person may have time for."""


@dataclass(frozen=True)
class Errors:
    """Calibration errors of the pixels of a task, each image weighing the same; None where there are no such pixels."""

    all: float | None
    """Of the probability of lesion, over all pixels: background is most of them."""
    band: float | None
    """The same near lesions' borders, where a mask is decided."""
    confidence: float | None
    """Of the probability of whichever is more likely, over all pixels."""


@dataclass(frozen=True)
class TaskConfidence:
    """A task on a split."""

    images: int
    lesion_free: int
    before: Errors
    after: Errors
    dice: float
    """Mean, masks at ½."""
    dice_at_threshold: float
    false_alarms: float | None
    """Share of lesion-free images with a mask, at ½; None without such images."""
    false_alarms_at_threshold: float | None


@dataclass(frozen=True)
class StatedConfidence:
    """All tasks on a split."""

    split: str
    tasks: dict[str, TaskConfidence]
    mean_error: float
    """Mean |expected − true Dice| over images."""
    bias: float
    """Mean expected less true Dice."""
    correlation: float | None
    """Pearson's, of expected and true Dice."""
    rank_correlation: float | None
    caught: dict[str, tuple[float, float]]
    """By share reviewed: share of the error caught, and what the true order would catch."""
    interval: dict[str, tuple[float, float] | None]
    """By share reviewed: 95 % interval of the share caught; None for one image, which tells of no other."""


@dataclass(frozen=True)
class Pairs:
    """Expected and true Dice of the images of a split, (N,) each, masks at ½."""

    expected: np.ndarray
    dice: np.ndarray
    task: tuple[str, ...]


def expected_and_true(observed: Sequence[Observed], confidence: Mapping[str, Confidence]) -> Pairs:
    """Of the images whose task has a Confidence."""
    known = [one for one in observed if one.task in confidence]
    expected = np.array([confidence[one.task].expected_dice(one.look) for one in known])
    return Pairs(expected, dice_at(np.stack([one.counts for one in known]), HALF), tuple(one.task for one in known))


def state_confidence(observed: Sequence[Observed], confidence: Mapping[str, Confidence], split: str) -> StatedConfidence:
    """What a confidence does on the images of a split, of the tasks it has."""
    pairs = expected_and_true(observed, confidence)
    tasks = {}
    for name, fitted in confidence.items():
        mine = [one for one in observed if one.task == name]
        if mine:
            tasks[name] = _state(np.stack([one.counts for one in mine]), np.stack([one.band for one in mine]), fitted)
    difference = pairs.expected - pairs.dice
    curve = review_curve(pairs.expected, pairs.dice)
    varied = pairs.expected.std() > 0 and pairs.dice.std() > 0
    return StatedConfidence(
        split,
        tasks,
        float(np.abs(difference).mean()),
        float(difference.mean()),
        float(np.corrcoef(pairs.expected, pairs.dice)[0, 1]) if varied else None,
        spearman(pairs.expected.tolist(), pairs.dice.tolist()),
        {f"{share:g}": curve.at(share) for share in BUDGETS},
        {f"{share:g}": caught_interval(pairs.expected, pairs.dice, share) for share in BUDGETS},
    )


def _state(counts: np.ndarray, band: np.ndarray, fitted: Confidence) -> TaskConfidence:
    half, chosen = Threshold(), fitted.threshold
    return TaskConfidence(
        len(counts),
        int(lesion_free(counts).sum()),
        _errors(pool(counts), pool(band), NONE),
        _errors(pool(counts), pool(band), fitted.scaling),
        float(dice_at(counts, HALF).mean()),
        float(dice_at(counts, bin_of(chosen.cut), chosen.area).mean()),
        false_alarms(counts, half),
        false_alarms(counts, chosen),
    )


def _errors(pooled: np.ndarray, band: np.ndarray, scaling: Scaling) -> Errors:
    return Errors(calibration_error(pooled, scaling), calibration_error(band, scaling), confidence_error(pooled, scaling))
