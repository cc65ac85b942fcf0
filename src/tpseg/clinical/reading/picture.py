"""A PNG, JPEG, TIFF or BMP file as a scan of one frame."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from tpseg.clinical.reading.guarding import reading
from tpseg.clinical.reading.scan import Scan
from tpseg.data.formats import read_image

TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


class PictureScan(Scan):
    """One frame, upright as its EXIF tag says; a resolution in the file is of a print or a screen, not of the patient."""

    frames = 1
    spacing = None

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    @cached_property
    def size(self) -> tuple[int, int]:  # type: ignore[override]  # read when asked for: few do, and a folder may hold a million
        with reading(self.path, self.path.suffix), Image.open(self.path) as image:
            width, height = image.size
            # of a PNG without one, Pillow looks for a tag behind the pixels, and decodes them all for that
            tagged = image.format != "PNG" or "exif" in image.info
            turned = tagged and image.getexif().get(ExifTags.Base.Orientation) in TURNED
        return (width, height) if turned else (height, width)

    def frame(self, index: int) -> np.ndarray:
        return read_image(self.path)
