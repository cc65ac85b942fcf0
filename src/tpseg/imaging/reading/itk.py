"""NRRD and MetaImage volumes, `.nrrd`, `.mha` and `.mhd`, as scans."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from tpseg.core.errors import DataError
from tpseg.imaging.reading.decoding import decoders
from tpseg.imaging.reading.guarding import guard_volume, reading
from tpseg.imaging.reading.volume import VolumeScan

HEADER = 2**16
"""Bytes that a header may have."""
METAIMAGE = re.compile(rb"(?:(?![^\r\n]*(?i:ElementDataFile))[^\s=:][^=:\r\n]*=[^\r\n]*\r?\n)*ElementDataFile[ \t]*=[ \t]*([^\r\n]*)")
"""A MetaImage header, `key = value` lines, to the one that names the file with the voxels and ends it."""
NRRD_DATA_FILE = re.compile(rb"[\r\n][ \t]*data ?file[ \t]*:(?!=)[ \t]*([^\r\n]*)", re.IGNORECASE)
"""Where an NRRD header names that file, if it is not the file itself; each of CR and LF ends a line to ITK."""
PLAIN_NAME = re.compile(r"(?!list)\w[\w .,+()#@&~-]*", re.IGNORECASE)
"""A name that is one to ITK, too; `LIST` and `%d` would stand for many."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's axes run to the left and to the back, an affine's to the right and to the front."""


class ItkScan(VolumeScan):
    """A volume, or one slice, of grey values or of RGB with 8 bits. The first frame reads all of it into memory.

    SimpleITK reads in a process of its own, see tpseg.imaging.reading.decoding.
    """

    kind = "NRRD or MetaImage"
    origin: tuple[float, ...]
    voxel_spacing: tuple[float, ...]
    direction: tuple[float, ...]
    """As SimpleITK has these three, for an image on the same grid."""

    def __init__(self, path: Path, name: str, window: str = "", axis: str = "") -> None:
        """Reads the header. Raises DataError for more than three axes, other than grey or RGB, and for data outside its folder."""
        with reading(path, self.kind):
            check_header(path)
            header = decoders().volume_header(path)
            lengths, components = header["size"], header["components"]
            dimension = len(lengths)
            if dimension not in (2, 3):
                raise DataError(f"{path}: {dimension} axes, {' x '.join(map(str, lengths))}; expected two or three")
            if "complex" in header["type"]:
                raise DataError(f"{path}: voxels of type {header['type']}; expected whole or real numbers, or RGB")
            if components != 1 and (components, header["bytes"]) != (3, 1):
                raise DataError(f"{path}: {components} values of {8 * header['bytes']} bits in a voxel; expected one, or RGB of 8 bits")
            self._bytes = math.prod(lengths) * components * header["bytes"]
            guard_volume(path, self._bytes, "crop it, or save it as .nii")
            self.origin, self.voxel_spacing, self.direction = (tuple(header[word]) for word in ("origin", "spacing", "direction"))
            affine = np.eye(4)
            affine[:dimension, :dimension] = np.reshape(self.direction, (dimension, dimension)) * self.voxel_spacing
            affine[:dimension, 3] = self.origin
        self._shape, self._colour = tuple(lengths[::-1]), components == 3
        super().__init__(path, name, LPS_TO_RAS @ affine, (*lengths, 1)[:3], window, axis)

    def to_voxels(self, frames: np.ndarray) -> np.ndarray:
        """As SimpleITK's GetImageFromArray takes it: slices, rows, columns."""
        return np.ascontiguousarray(self.plane.voxels(frames).transpose().reshape(self._shape))

    def _load(self) -> np.ndarray:
        values = decoders().volume(self.path, self._bytes)
        if self._colour:
            return values.reshape(-1, *values.shape[-3:]).transpose(2, 1, 0, 3)  # (K, J, I, 3) -> (I, J, K, 3)
        return values.reshape(-1, *values.shape[-2:]).transpose()


def check_header(path: Path) -> None:
    """Raises DataError for a header that takes its voxels from anywhere but this file, or one file beside it.

    What ITK would read otherwise than this function is refused, for it could lead out of the folder.
    """
    with path.open("rb") as file:
        head = file.read(HEADER)
    for named in _data_files(head, path):
        beside = path.parent / named
        if not PLAIN_NAME.fullmatch(named) or beside.resolve().parent != path.parent.resolve() or not beside.is_file():
            raise DataError(f"{path}: takes its voxels from {named[:80]!r}; expected one file beside it")


def _data_files(head: bytes, path: Path) -> list[str]:
    """The names of other files with voxels in a header; raises DataError for what is no header, or one that does not end within HEADER."""
    if path.suffix.lower() == ".nrrd":
        if not head.startswith(b"NRRD") or not (len(head) < HEADER or b"\n\n" in head or b"\r\n\r\n" in head):
            raise DataError(f"{path}: no NRRD header of at most {HEADER >> 10} KiB; is it complete and really a NRRD or MetaImage file?")
        found = [match[1] for match in NRRD_DATA_FILE.finditer(head)]
    else:
        header = METAIMAGE.match(head)
        if header is None:
            raise DataError(
                f"{path}: no MetaImage header of at most {HEADER >> 10} KiB, lines 'key = value' to ElementDataFile; "
                "is it complete and really a NRRD or MetaImage file?"
            )
        found = [header[1]] if header[1].strip() not in (b"LOCAL", b"Local", b"local") else []
    return [name.decode("utf-8", "replace").strip() for name in found]
