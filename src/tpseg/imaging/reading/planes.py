"""How a volume is cut into frames, and how a frame lies: as radiologists look at it, whatever the order of the voxels in the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from tpseg.core.errors import UsageError, nearest

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis across each plane: 0 runs to the patient's right, 1 to the front, 2 up to the head (RAS)."""
ROWS_AND_COLUMNS = {0: (2, 1), 1: (2, 0), 2: (1, 0)}
"""The axes along a frame's height and its width for each axis across it. Both run down the axis: the patient's front or head is
at the top, his right, or in a sagittal plane his front, at the left."""
UPWARDS = {0: True, 1: False, 2: True}
"""Frames follow each other to the right, to the back, to the head: down the normal of such frames in DICOM."""


@dataclass(frozen=True)
class Plane:
    """A cut through voxels (I, J, K): which of their axes frames, rows and columns run along, and which of those backwards."""

    axes: tuple[int, int, int]
    backwards: tuple[bool, bool, bool]

    def lengths(self, values: Sequence) -> tuple:
        """What belongs to voxel axes 0, 1, 2 in the order of frames, rows, columns: shapes, spacings."""
        first, second, third = (values[axis] for axis in self.axes)
        return first, second, third

    def frame(self, voxels: np.ndarray, index: int) -> np.ndarray:
        """Frame `index` of voxels (I, J, K, ...), (H, W, ...); a view."""
        across, rows, columns = self.axes
        at = voxels.shape[across] - 1 - index if self.backwards[0] else index
        cut = voxels[(slice(None),) * across + (at,)]  # (I, J, K, ...) -> the two other axes, in their order
        if rows > columns:
            cut = cut.swapaxes(0, 1)
        return cut[:: -1 if self.backwards[1] else 1, :: -1 if self.backwards[2] else 1]

    def voxels(self, frames: np.ndarray) -> np.ndarray:
        """Frames (N, H, W) as voxels (I, J, K): exactly undoes `frame`."""
        steps = tuple(slice(None, None, -1 if back else 1) for back in self.backwards)
        return np.ascontiguousarray(frames[steps].transpose(np.argsort(self.axes)))


def plane_of(affine: np.ndarray, shape: Sequence[int], axis: str = "") -> Plane:
    """The cut that `axis` asks for: axial, coronal, sagittal, or across the voxel axis 0, 1 or 2.

    affine (4, 4): from voxels (I, J, K) of `shape` to millimetres to the right, to the front and up (RAS). Oblique volumes are
    cut across the voxel axis that comes nearest. Without a name: axial, but a volume of one slice is that slice. Raises
    UsageError for another name.
    """
    orientation = nib.orientations.io_orientation(affine)  # row per voxel axis: the RAS axis nearest to it, and 1 up or -1 down it
    nearest_axes = [int(row[0]) for row in orientation]
    thin = [voxel_axis for voxel_axis, length in enumerate(shape) if length == 1]
    if axis in ("0", "1", "2"):
        across = nearest_axes[int(axis)]
    elif axis in PLANES:
        across = PLANES[axis]
    elif axis:
        raise UsageError(f"axis {axis!r}: expected {', '.join(PLANES)}, 0, 1 or 2{nearest(axis, PLANES)}")
    else:
        across = nearest_axes[thin[0]] if len(thin) == 1 else PLANES["axial"]
    axes = tuple(nearest_axes.index(wanted) for wanted in (across, *ROWS_AND_COLUMNS[across]))
    upwards = (UPWARDS[across], False, False)
    backwards = tuple((orientation[voxel_axis][1] > 0) != up for voxel_axis, up in zip(axes, upwards, strict=True))
    return Plane(axes, backwards)  # type: ignore[arg-type]
