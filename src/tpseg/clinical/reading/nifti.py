"""NIfTI volumes, `.nii` and `.nii.gz`, as scans."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.volumeutils import apply_read_scaling

from tpseg.clinical.reading.guarding import guard_volume, reading
from tpseg.clinical.reading.volume import VolumeScan
from tpseg.errors import DataError

CHUNK = 2**24
"""Bytes that are unpacked at a time."""
MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
"""In a unit of the header; millimetres where it names none."""


class NiftiScan(VolumeScan):
    """A volume (I, J, K), also with further axes of length 1, or one slice (I, J); grey, or RGB of 8 bits.

    `.nii` is read slice by slice from the file. `.nii.gz` cannot be: the first frame unpacks all of it into memory, as stored.
    """

    kind = "NIfTI"
    image: nib.nifti1.Nifti1Image
    """nibabel's view of the file: its header, its shape; voxels are not read through it."""

    def __init__(self, path: Path, name: str, window: str = "", axis: str = "") -> None:
        """Reads the header. Raises DataError for more than three axes, complex numbers, a singular affine, a file cut short."""
        with reading(path, "NIfTI"):
            image = nib.load(path)
            if not isinstance(image, nib.nifti1.Nifti1Image):
                raise DataError(f"{path}: not a NIfTI file, but {type(image).__name__}; convert it first")
            self.image = image
            assert isinstance(image.dataobj, ArrayProxy)  # what a file is loaded as
            self._stored = image.dataobj
            shape = tuple(int(length) for length in image.shape)
            grid = (*shape[:3], 1)[:3] if len(shape) == 2 else shape[:3]
            if len(grid) != 3 or math.prod(shape) != math.prod(grid):
                raise DataError(
                    f"{path}: {len(shape)} axes, {' x '.join(map(str, shape))}; expected three. Split a time series into volumes first"
                )
            stored = image.header.get_data_dtype()
            if stored.names is None and stored.kind not in "iuf":
                raise DataError(f"{path}: voxels of type {stored}; expected whole or real numbers, or RGB")
            self._check_size(path, math.prod(grid) * stored.itemsize)
            affine = np.array(image.affine, np.float64)
            affine[:3] *= MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
        self._grid = grid
        super().__init__(path, name, affine, grid, window, axis)

    def to_voxels(self, frames: np.ndarray) -> np.ndarray:
        return self.plane.voxels(frames).reshape(self.image.shape)

    def _load(self) -> np.ndarray:
        if self.path.name.lower().endswith(".gz"):
            dtype = self.image.header.get_data_dtype()
            raw = np.frombuffer(unpack(self.path, int(self._stored.offset), math.prod(self._grid) * dtype.itemsize), dtype)
        else:
            raw = np.asanyarray(self._stored.get_unscaled())
        raw = raw.reshape(self._grid, order="F")
        if raw.dtype.names is None:
            return raw
        return np.stack([raw[channel] for channel in ("R", "G", "B")], axis=-1)

    def _values(self, raw: np.ndarray) -> np.ndarray:
        return apply_read_scaling(raw, self._stored.slope, self._stored.inter)

    def _check_size(self, path: Path, size: int) -> None:
        if size == 0:
            raise DataError(f"{path}: a volume without voxels, {' x '.join(map(str, self.image.shape))}")
        if path.name.lower().endswith(".gz"):
            guard_volume(path, size, "unpack it to .nii, which is read slice by slice")
            return
        there = path.stat().st_size - int(self._stored.offset)
        if there < size:
            raise DataError(f"{path}: its header says {size:,} bytes of voxels, {there:,} are there; is it complete?")


def unpack(path: Path, start: int, size: int) -> bytearray:
    """`size` bytes of what a gzip file holds, from `start` on; nibabel would hold them twice for a moment. Raises EOFError."""
    data = bytearray(size)
    view = memoryview(data)
    with gzip.open(path) as file:
        file.seek(start)
        done = 0
        while done < size:
            count = file.readinto(view[done : done + CHUNK])
            if not count:
                raise EOFError(f"{done:,} of {size:,} bytes of voxels")
            done += count
    return data
