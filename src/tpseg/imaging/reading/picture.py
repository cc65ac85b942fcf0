"""A PNG, JPEG, TIFF or BMP file as a scan of one frame."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from tpseg.imaging.pictures.formats import read_image, size_of
from tpseg.imaging.reading.guarding import reading
from tpseg.imaging.reading.scan import Scan


class PictureScan(Scan):
    """One frame, upright as its EXIF tag says; a resolution in the file is of a print or a screen, not of the patient."""

    frames = 1
    spacing = None

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    @cached_property
    def size(self) -> tuple[int, int]:  # type: ignore[override]  # read when asked for: few do, and a folder may hold a million
        with reading(self.path, self.path.suffix), self.path.open("rb") as file:
            return size_of(file)

    def frame(self, index: int) -> np.ndarray:
        return read_image(self.path)
