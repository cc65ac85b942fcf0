"""Which cases a person should look at first, and how much of the error they find that way."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit

from tpseg.calibration.collected_logits import look_at
from tpseg.calibration.confidence import Confidence, read_confidence
from tpseg.calibration.expected_dice import Look
from tpseg.calibration.input_check import Advice, Adviser
from tpseg.calibration.logit_counts import bin_of
from tpseg.calibration.thresholds import Threshold
from tpseg.core.errors import UsageError
from tpseg.core.files import write_atomically
from tpseg.evaluation.metrics import bootstrap_sums, percentile_interval
from tpseg.imaging.reading.opening import Found
from tpseg.inference.segmenter import Answer

if TYPE_CHECKING:
    from tpseg.calibration.segmenter import Segmenter

REVIEW = "review.csv"
COLUMNS = ("name", "file", "task", "expected_dice", "share_of_image", "threshold", "reasons")
RESAMPLES = 1000


@dataclass(frozen=True)
class ReviewCurve:
    """Share of the total error (sum of 1 − Dice) among the cases looked at; arrays (N + 1,), from none to all."""

    reviewed: np.ndarray
    caught: np.ndarray
    """By expected Dice, worst first."""
    oracle: np.ndarray
    """By the true Dice: no order catches more. At random it is the share reviewed."""

    def at(self, share: float) -> tuple[float, float]:
        """Caught and oracle at a share of the cases, rounded to whole cases."""
        position = round(share * (len(self.reviewed) - 1))
        return float(self.caught[position]), float(self.oracle[position])


def review_curve(expected: np.ndarray, dice: np.ndarray) -> ReviewCurve:
    """The curve of cases (N,) with expected and true Dice; ties in the order given. Without any error nothing is left to catch: all 1."""
    error = 1 - dice
    total = float(error.sum())

    def caught(order: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], error[order].cumsum()]) / total if total else np.ones(len(error) + 1)

    first = np.argsort(expected, kind="stable")
    return ReviewCurve(np.linspace(0, 1, len(error) + 1), caught(first), caught(np.argsort(dice, kind="stable")))


def caught_interval(expected: np.ndarray, dice: np.ndarray, share: float, seed: int = 0) -> tuple[float, float] | None:
    """95 % bootstrap interval over images of what is caught at a share, 1 where there is no error; None for one image."""
    if len(dice) < 2:
        return None
    chosen = np.zeros(len(dice), bool)
    chosen[np.argsort(expected, kind="stable")[: round(share * len(dice))]] = True
    sums = bootstrap_sums(np.stack([np.where(chosen, 1 - dice, 0), 1 - dice], axis=1), resamples=RESAMPLES, seed=seed)
    return percentile_interval(np.divide(sums[:, 0], sums[:, 1], out=np.ones(len(sums)), where=sums[:, 1] > 0))


class Reviewer:
    """Collects what is predicted, from several threads, and lists it with what to look at first on top."""

    def __init__(self, confidence: Mapping[str, Confidence], thresholds: Mapping[str, Threshold] | None = None) -> None:
        """thresholds: where each task's masks start, and what the answers were shifted by; by default probability ½."""
        self.confidence, self.thresholds = confidence, thresholds or {}
        self._looks: dict[tuple[Found, str], Look] = {}
        self._rows: list[tuple[Found, dict[str, Any]]] = []
        self._lock = threading.Lock()

    def add(self, found: Found, answer: Answer) -> None:
        """A frame or a tile of a file."""
        one, key = look_at(answer, self.thresholds.get(answer.task, Threshold()).cut), (found, answer.task)
        with self._lock:
            self._looks[key] = self._looks[key] + one if key in self._looks else one

    def close(self, found: Found, whole: bool) -> None:
        """No more of a file comes; one that failed, not `whole`, is left out."""
        with self._lock:
            ended = [(task, self._looks.pop((file, task))) for file, task in list(self._looks) if file == found]
            self._rows += [(found, self._row(found, task, one)) for task, one in ended if whole]

    def _row(self, found: Found, task: str, one: Look) -> dict[str, Any]:
        threshold = self.thresholds.get(task, Threshold())
        area = float(one.counts[bin_of(threshold.cut) :].sum() / one.counts.sum())
        area = 0.0 if area < threshold.area else area
        return {
            "name": found.name,
            "file": str(found.path),
            "task": task,
            "expected_dice": round(self.confidence[task].expected_dice(one, threshold.cut), 4),
            "share_of_image": round(area, 6),
            "threshold": round(float(expit(threshold.cut)), 4),
            "reasons": "" if area else "empty mask",
        }

    def table(self, given: Mapping[Found, Advice] | None = None) -> pd.DataFrame:
        """A row for each file and task, the first to look at on top: those that were warned of, the strangest first, then by expected
        Dice, lowest first.

        given: what was said of the files. Of one that was warned of no Dice is expected: what says so was fitted on images like val's.
        One that `auto` chose no task for has a row without task and mask.
        """
        given = given or {}
        declined = [(found, _unmade(found)) for found, advice in given.items() if advice.declined]
        rows = []
        for found, row in [*self._rows, *declined]:
            advice = given.get(found)
            if advice is not None and advice.warnings:
                reasons = "; ".join([*advice.warnings, *filter(None, [row["reasons"]])])
                rows.append((0, -advice.judgement.strangeness, {**row, "expected_dice": None, "reasons": reasons}))
            else:
                rows.append((1, row["expected_dice"], row))
        rows.sort(key=lambda entry: (*entry[:2], entry[2]["file"], entry[2]["name"], entry[2]["task"]))
        return pd.DataFrame([row for *_, row in rows], columns=list(COLUMNS))


def _unmade(found: Found) -> dict[str, Any]:
    """The row of a file without a mask."""
    nothing = dict.fromkeys(("expected_dice", "share_of_image", "threshold"))
    return {"name": found.name, "file": str(found.path), "task": "", **nothing, "reasons": ""}


def write_review(table: pd.DataFrame, path: Path) -> None:
    """The table of a Reviewer as CSV, whole or not at all."""
    write_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def required_confidence(segmenter: Segmenter) -> dict[str, Confidence]:
    """How sure the masks of each task are; raises UsageError that says what to do where calibration did not say, or for another way
    of predicting, DataError for a record that does not fit the model.
    """
    adviser = segmenter.adviser or Adviser.of(segmenter)
    if adviser is None:
        raise UsageError(
            "--review, --calibrated, --threshold calibrated: this model was not calibrated; run 'tpseg calibrate MODEL --data tasks.yaml' "
            "(not for exported files)"
        )
    confidence = read_confidence(adviser.trust.confidence)
    missing = [name for name in segmenter.tasks.names if name not in confidence]
    if missing:
        raise UsageError(
            f"how sure masks of {', '.join(missing)} are was not calibrated; run 'tpseg calibrate MODEL --data tasks.yaml' with "
            "validation images of every task"
        )
    if any(one.augmented != segmenter.augmented for one in confidence.values()):
        found, wanted = ("without", "with") if segmenter.augmented else ("with", "without")
        raise UsageError(
            f"this model was calibrated {found} --tta and is to predict {wanted} it; calibrate and predict the same way, both with "
            "--tta or both without"
        )
    return confidence
