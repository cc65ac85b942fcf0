"""What is segmented: a file, or a series of files, of one frame or many, of whatever format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np


class Scan(ABC):
    """Frames of one size, decoded one at a time; opening reads no more than the header. `frame` may be called from several threads."""

    path: Path
    """The file, or the folder of a series."""
    name: str
    """What its results are called: never a patient's name or number."""
    frames: int
    size: tuple[int, int]
    """Height and width of a frame in pixels."""
    spacing: tuple[float, float] | None
    """Millimetres between rows and between columns of a frame; None where the file does not say."""

    slice_spacing: float | None = None
    """Millimetres between neighbouring frames; None where they are not evenly spaced slices."""

    @property
    def true_spacing(self) -> tuple[float, float] | None:
        """Millimetres in the patient between rows and columns; None where nobody knows."""
        return self.spacing

    @abstractmethod
    def frame(self, index: int) -> np.ndarray:
        """One frame as the model takes it, (H, W, 3) uint8; raises DataError that names the file if it cannot be decoded."""
