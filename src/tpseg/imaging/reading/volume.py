"""A volume of voxels as a scan: what NIfTI and the formats of ITK have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from tpseg.core.errors import DataError
from tpseg.imaging.reading.guarding import guard_frame, reading
from tpseg.imaging.reading.planes import plane_of
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.reading.windows import Window, parse_window, repeat_grey, sample, volume_range

LEAST_ANGLE = 1e-3
"""Sine of the angle, or product of several, that voxel axes at least span; below, the affine is singular for all we know."""


class VolumeScan(Scan):
    """Frames are cut along an axis and lie as radiologists look at them, see tpseg.imaging.reading.planes.

    Grey values are shown in the window asked for, else from the volume's percentile 0.5 to 99.5; that needs one pass over the
    voxels, before the first frame. A frame with NaN or infinity cannot be shown.
    """

    kind: str
    """The format, for messages."""
    affine: np.ndarray
    """(4, 4): from voxels (I, J, K) to millimetres to the patient's right, front and head (RAS)."""
    channels: int = 1
    """Volumes in the file, of which this is one."""
    slice_spacing: float
    """Millimetres between neighbouring frames."""

    def __init__(self, path: Path, name: str, affine: np.ndarray, shape: Sequence[int], window: str, axis: str) -> None:
        """affine as the attribute; shape (I, J, K). Raises UsageError for a wrong window or axis, DataError for a singular affine."""
        self.path, self.name, self.affine = path, name, affine
        self._window = parse_window(window) if window else None
        zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        if not np.isfinite(affine).all() or (zooms == 0).any() or abs(np.linalg.det(affine[:3, :3] / zooms)) < LEAST_ANGLE:
            raise DataError(f"{path}: its affine is singular, so that no one can tell how its voxels lie; correct its header")
        self.plane = plane_of(affine, shape, axis)
        self.frames, *size = self.plane.lengths(shape)
        self.size = (size[0], size[1])
        self.slice_spacing, *spacing = self.plane.lengths(zooms.tolist())
        self.spacing = (spacing[0], spacing[1])
        guard_frame(path, *self.size)
        self._lock = Lock()
        self._raw: np.ndarray | None = None

    @abstractmethod
    def to_voxels(self, frames: np.ndarray) -> np.ndarray:
        """Frames (N, H, W), such as masks, as an array in the file's own shape and order of voxels."""

    @abstractmethod
    def _load(self) -> np.ndarray:
        """All voxels as stored, (I, J, K), or (I, J, K, 3) for colour; may be a map of the file."""

    def _values(self, raw: np.ndarray) -> np.ndarray:
        """Stored values in the file's unit."""
        return raw

    def voxels(self) -> np.ndarray:
        """All values in the file's unit, (I, J, K), or (I, J, K, 3) for colour, anew from the file: for label maps, not for display."""
        with reading(self.path, self.kind):
            raw = self._load()
            return raw if raw.ndim == 4 else np.asarray(self._values(raw))

    def frame(self, index: int) -> np.ndarray:
        with self._lock:
            if self._raw is None:
                with reading(self.path, self.kind):
                    self._raw = self._load()
                if self._raw.ndim == 3 and self._window is None:
                    self._window = Window.between(*volume_range(self._values(sample(self._raw))))
        cut = self.plane.frame(self._raw, index)
        if cut.ndim == 3:
            return np.ascontiguousarray(cut)
        values = self._values(cut)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise DataError(f"{self.path}: slice {index + 1} of {self.frames} holds NaN or infinite voxels; replace them before use")
        assert self._window is not None
        return repeat_grey(self._window.grey(values))
