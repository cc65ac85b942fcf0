"""Which cases a person should look at first, and how much of the error they find that way."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tpseg.files import write_atomically
from tpseg.metrics import bootstrap_sums, percentile_interval
from tpseg.trust.confidence import Confidence
from tpseg.trust.counts import bin_of
from tpseg.trust.expected_dice import Look

if TYPE_CHECKING:
    from tpseg.trust.advice import Advice

TABLE = "review.csv"
COLUMNS = ("file", "task", "expected_dice", "area", "threshold", "reasons")
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


def caught_interval(expected: np.ndarray, dice: np.ndarray, share: float, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval over images of what is caught at a share."""
    chosen = np.zeros(len(dice), bool)
    chosen[np.argsort(expected, kind="stable")[: round(share * len(dice))]] = True
    sums = bootstrap_sums(np.stack([np.where(chosen, 1 - dice, 0), 1 - dice], axis=1), resamples=RESAMPLES, seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        return percentile_interval(sums[:, 0] / sums[:, 1])


class Reviewer:
    """Collects what is predicted, from several threads, and lists it with what to look at first on top."""

    def __init__(self, confidence: Mapping[str, Confidence], cuts: Mapping[str, float]) -> None:
        """cuts: raw logit that each task's masks start above."""
        self.confidence, self.cuts = confidence, cuts
        self._looks: dict[tuple[str, str], Look] = {}
        self._lock = threading.Lock()

    def add(self, file: str, task: str, one: Look) -> None:
        """A frame or a tile of a file."""
        with self._lock:
            before = self._looks.get((file, task))
            self._looks[file, task] = one if before is None else before + one

    def table(self, advice: Iterable[Advice] = (), failed: Iterable[str] = ()) -> pd.DataFrame:
        """A row for each file and task, the first to look at on top: outliers and suspected tasks, then by expected Dice.

        advice: what was said of the files' tasks, if the model can; failed: files that have no mask after all.
        """
        said = {one.name: one for one in advice}
        left_out = set(failed)
        rows = [self._row(file, task, one, said.get(file)) for (file, task), one in self._looks.items() if file not in left_out]
        rows.sort(key=lambda row: (not row["strange"], row["expected_dice"], row["file"], row["task"]))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _row(self, file: str, task: str, one: Look, advice: Advice | None) -> dict[str, object]:
        cut = self.cuts[task]
        area = float(one.counts[bin_of(cut) :].sum() / one.counts.sum())
        reasons = [] if area else ["empty mask"]
        if advice is not None:
            reasons = [*advice.warnings, *reasons]
        return {
            "file": file,
            "task": task,
            "expected_dice": round(self.confidence[task].expected_dice(one, cut), 4),
            "area": round(area, 6),
            "threshold": round(1 / (1 + float(np.exp(-cut))), 4),
            "reasons": "; ".join(reasons),
            "strange": advice is not None and bool(advice.warnings),
        }


def write_review(table: pd.DataFrame, path: Path) -> None:
    """The table of a Reviewer as CSV, whole or not at all."""
    write_atomically(path, table.to_csv(index=False, lineterminator="\n"))
