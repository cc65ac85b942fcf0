"""NIfTI volumes, `.nii` and `.nii.gz`, as scans."""

from __future__ import annotations

import gzip
import io
import math
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.volumeutils import apply_read_scaling

from tpseg.core.errors import DataError
from tpseg.imaging.reading.guarding import guard_volume, reading
from tpseg.imaging.reading.volume import VolumeScan

GZIP = b"\x1f\x8b"
HEADER = 2**20
"""Bytes of a file that its header and extensions are looked for in."""
CHUNK = 2**24
"""Bytes that are unpacked at a time."""
MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
"""In a unit of the header; millimetres where it names none."""


class NiftiScan(VolumeScan):
    """A volume (I, J, K), also with further axes of length 1, or one slice (I, J); grey, or RGB of 8 bits; or a channel of (I, J, K, C).

    `.nii` is read slice by slice from the file. `.nii.gz` cannot be: the first frame unpacks all of it into memory, as stored. Which
    of the two a file is says its beginning, not its name.
    """

    kind = "NIfTI"
    image: nib.nifti1.Nifti1Image
    """nibabel's view of the file: its header, its shape; voxels are not read through it."""

    def __init__(self, path: Path, name: str, window: str = "", axis: str = "", channel: int | None = None) -> None:
        """Reads the header. channel: which volume of a file with a fourth axis is meant; without it such a file is refused.

        Raises DataError for more axes, a channel that is not there, complex numbers, a singular affine, a file cut short.
        """
        with reading(path, "NIfTI"):
            with path.open("rb") as file:
                self._packed = file.read(2) == GZIP
            named_packed = path.name.lower().endswith(".gz")
            image = nib.load(path) if named_packed == self._packed else _load_misnamed(path, self._packed)
            if not isinstance(image, nib.nifti1.Nifti1Image):
                raise DataError(f"{path}: not a NIfTI file, but {type(image).__name__}; convert it first")
            self.image = image
            assert isinstance(image.dataobj, ArrayProxy)  # what a file is loaded as
            self._stored = image.dataobj
            shape = tuple(int(length) for length in image.shape)
            grid = (*shape[:3], 1)[:3] if len(shape) == 2 else shape[:3]
            channels = math.prod(shape[3:])
            if len(grid) != 3 or (channels != 1 and (channel is None or len(shape) > 4)):
                raise DataError(
                    f"{path}: {len(shape)} axes, {' x '.join(map(str, shape))}; expected three. Split a time series into volumes first"
                )
            if channel is not None and not 0 <= channel < max(1, channels):
                raise DataError(f"{path}: has no channel {channel}; expected 0 to {channels - 1}")
            self.channels, self._channel = channels, channel or 0
            stored = image.header.get_data_dtype()
            if stored.names is None and stored.kind not in "iuf":
                raise DataError(f"{path}: voxels of type {stored}; expected whole or real numbers, or RGB")
            self._check_size(path, math.prod(grid) * max(1, channels) * stored.itemsize)
            affine = np.array(image.affine, np.float64)
            affine[:3] *= MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
        self._grid = grid
        super().__init__(path, name, affine, grid, window, axis)

    def to_voxels(self, frames: np.ndarray) -> np.ndarray:
        return self.plane.voxels(frames).reshape(self.image.shape)

    def _load(self) -> np.ndarray:
        dtype, voxels = self.image.header.get_data_dtype(), math.prod(self._grid)
        start = int(self._stored.offset) + self._channel * voxels * dtype.itemsize  # the last axis varies most slowly
        raw: np.ndarray
        if self._packed:
            raw = np.frombuffer(unpack(self.path, start, voxels * dtype.itemsize), dtype)
        else:
            raw = np.memmap(self.path, dtype, "c", start, (voxels,))
        raw = raw.reshape(self._grid, order="F")
        if raw.dtype.names is None:
            return raw
        return np.stack([raw[channel] for channel in ("R", "G", "B")], axis=-1)

    def _values(self, raw: np.ndarray) -> np.ndarray:
        return apply_read_scaling(raw, self._stored.slope, self._stored.inter)

    def _check_size(self, path: Path, size: int) -> None:
        if size == 0:
            raise DataError(f"{path}: a volume without voxels, {' x '.join(map(str, self.image.shape))}")
        if self._packed:
            guard_volume(path, size, "unpack it to .nii, which is read slice by slice")
            return
        there = path.stat().st_size - int(self._stored.offset)
        if there < size:
            raise DataError(f"{path}: its header says {size:,} bytes of voxels, {there:,} are there; is it complete?")


def _load_misnamed(path: Path, packed: bool) -> nib.filebasedimages.FileBasedImage:
    """nibabel's view of a `.nii` that is a `.nii.gz`, or the reverse: of its header alone, which is what is read through it."""
    with gzip.open(path) if packed else path.open("rb") as file:
        head = file.read(HEADER)
    kind = nib.nifti2.Nifti2Image if struct.pack("<i", 540) in (head[:4], head[3::-1]) else nib.nifti1.Nifti1Image
    return kind.from_stream(io.BytesIO(head))


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
