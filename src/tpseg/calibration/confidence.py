"""`Confidence`: how sure a model's masks of a task are, fitted on val and stated on test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import logit

from tpseg.calibration.collected_logits import Observed
from tpseg.calibration.expected_dice import SIGNS, Look, Regression, fit_regression, signs
from tpseg.calibration.logit_counts import REACH
from tpseg.calibration.temperature import Scaling, fit_scaling
from tpseg.calibration.thresholds import HALF, Threshold, choose_threshold, dice_at, lesion_free
from tpseg.core.errors import DataError


@dataclass(frozen=True)
class Confidence:
    """What val says of a task's masks; plain numbers, which the record keeps as JSON."""

    scaling: Scaling
    threshold: Threshold
    """Of largest mean Dice; used only where it is asked for."""
    regression: Regression
    images: int
    """Validation images that all this was fitted on."""
    lesion_free: int
    """Of these, without a lesion."""
    augmented: bool
    """Whether the logits were means over mirror images (--tta); they are calibrated for the one way of predicting only."""

    def expected_dice(self, one: Look, cut: float = 0.0) -> float:
        """What Dice to expect of a mask above a raw logit; between 0 and 1."""
        return self.regression(signs(one, self.scaling, cut))

    def calibrate(self, probability: np.ndarray) -> np.ndarray:
        """The probabilities of lesion that a network gives, of any shape, as they should be; 0 and 1 stay."""
        with np.errstate(divide="ignore"):
            return self.scaling.probability(logit(probability)).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Confidence:
        """Raises DataError for an entry that `to_json` did not write."""
        try:
            regression = entry["regression"]
            found = cls(
                Scaling(**{key: float(value) for key, value in entry["scaling"].items()}),
                Threshold(**{key: float(value) for key, value in entry["threshold"].items()}),
                Regression(tuple(float(weight) for weight in regression["weights"]), float(regression["offset"])),
                int(entry["images"]),
                int(entry["lesion_free"]),
                bool(entry["augmented"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"the record of how sure masks are is damaged ({error!r}); run 'tpseg calibrate' again") from error
        scaling, threshold = found.scaling, found.threshold
        numbers = (scaling.bias, *found.regression.weights, found.regression.offset)
        whole = len(found.regression.weights) == len(SIGNS) and all(math.isfinite(number) for number in numbers)
        if not (whole and 0 < scaling.temperature < math.inf and abs(threshold.cut) <= REACH and 0 <= threshold.area <= 1):
            raise DataError("the record of how sure masks are is damaged (numbers out of range); run 'tpseg calibrate' again")
        return found


def fit_confidence(val: Sequence[Observed], augmented: bool = False, seed: int = 0) -> dict[str, Confidence]:
    """A Confidence for each task that has validation images, in the order of their first ones; tasks share what they can.

    Raises DataError without validation images.
    """
    if not val:
        raise DataError("no validation images; how sure masks are is fitted on the split val")
    names = list(dict.fromkeys(one.task for one in val))
    task = np.array([names.index(one.task) for one in val])
    counts = np.stack([one.counts for one in val])
    scalings = [fit_scaling(counts[task == position]) for position in range(len(names))]
    found = np.stack([signs(one.look, scalings[position]) for one, position in zip(val, task, strict=True)])
    regressions = fit_regression(found, dice_at(counts, HALF), task, len(names))
    fitted = {}
    for position, name in enumerate(names):
        mine = counts[task == position]
        fitted[name] = Confidence(
            scalings[position], choose_threshold(mine, seed), regressions[position], len(mine), int(lesion_free(mine).sum()), augmented
        )
    return fitted


def read_confidence(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Confidence]:
    """The part of a record that `fit_confidence` filled in, by task; raises DataError for a damaged one."""
    return {name: Confidence.from_json(entry) for name, entry in entries.items()}
