"""What calibration changes of predictions where it is asked to: masks at the thresholds chosen on val, calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from tpseg.calibration.confidence import Confidence
from tpseg.calibration.review import Reviewer, required_confidence
from tpseg.calibration.thresholding import ShiftedNetwork
from tpseg.calibration.thresholds import Threshold

if TYPE_CHECKING:
    from tpseg.calibration.segmenter import Segmenter


@dataclass(frozen=True)
class Finish:
    """The last step before a mask and its probability are written."""

    thresholds: Mapping[str, Threshold]
    """What the network was shifted by, and the smallest masks; empty for masks at ½."""
    confidence: Mapping[str, Confidence]
    """What makes probabilities calibrated; empty to write them as the network gives them."""

    def __call__(self, task: str, mask: np.ndarray, probability: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """A mask (H, W) bool, emptied if it is too small, and its probability (H, W) of the network before any shift, or calibrated."""
        threshold = self.thresholds.get(task, Threshold())
        if threshold.area and mask.mean() < threshold.area:
            mask = np.zeros_like(mask)
        if probability is None or (not threshold.cut and task not in self.confidence):
            return mask, probability
        one = self.confidence.get(task)
        return mask, shift(probability, threshold.cut) if one is None else one.calibrate(shift(probability, threshold.cut))

    def said(self) -> str:
        """The thresholds that made the masks, in words."""
        if not self.thresholds:
            return "masks at the network's probability 1/2"
        parts = []
        for task, threshold in self.thresholds.items():
            smallest = f", {100 * threshold.area:g} % of the image or more" if threshold.area else ""
            parts.append(f"{task} {expit(threshold.cut):.2f}{smallest}")
        return f"masks at the network's probability: {'; '.join(parts)}"


def apply_calibration(segmenter: Segmenter, *, threshold: bool, probabilities: bool, review: bool) -> tuple[Finish | None, Reviewer | None]:
    """Make a segmenter predict at the thresholds chosen on val, in place, if so asked; gives the last step of its masks and the reviewer.

    Raises UsageError for a model that was not calibrated, or for another way of predicting.
    """
    if not (threshold or probabilities or review):
        return None, None
    confidence = required_confidence(segmenter)
    thresholds = {name: one.threshold for name, one in confidence.items()} if threshold else {}
    if threshold:
        segmenter.network = ShiftedNetwork(segmenter.network, thresholds)
    finish = Finish(thresholds, confidence if probabilities else {}) if threshold or probabilities else None
    return finish, Reviewer(confidence, thresholds) if review else None


def shift(probability: np.ndarray, by: float) -> np.ndarray:
    """The probabilities of logits that are larger by a number."""
    odds = float(np.exp(by))
    return np.asarray(probability * odds / (1 + probability * (odds - 1)), dtype=np.float32) if by else probability
