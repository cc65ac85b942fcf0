"""Calibration while files are segmented: each is checked first, how sure its masks are is kept, and masks are finished as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tpseg.calibration.applied import Finish
from tpseg.calibration.input_check import Advice, Adviser
from tpseg.calibration.review import Reviewer
from tpseg.imaging.reading.opening import Found
from tpseg.inference.segmenter import Answer


@dataclass(frozen=True)
class CalibrationObserver:
    """The Observer of a calibrated model; parts that are None see nothing and change nothing."""

    adviser: Adviser | None = None
    reviewer: Reviewer | None = None
    last_step: Finish | None = None

    @property
    def chooses(self) -> bool:
        return self.adviser is not None

    def before(self, found: Found, tasks: Sequence[str], *, window: str, axis: str, tile: int | None) -> Advice | None:
        return None if self.adviser is None else self.adviser.advise_file(found, tasks, window, axis, tile)

    def after(self, found: Found, answer: Answer) -> None:
        if self.reviewer is not None:
            self.reviewer.add(found, answer)

    def finish(self, task: str, mask: np.ndarray, probability: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        return (mask, probability) if self.last_step is None else self.last_step(task, mask, probability)

    def close(self, found: Found, whole: bool) -> None:
        if self.reviewer is not None:
            self.reviewer.close(found, whole)
