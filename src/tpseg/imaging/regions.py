"""Parts of a frame, cut out one after the other: of a large picture no more is decoded than its format demands."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from PIL import Image
from tifffile import TiffPage

from tpseg.core.errors import DataError
from tpseg.imaging.pictures.formats import is_wide, open_image, to_rgb
from tpseg.imaging.pictures.samples import Picture, Samples, samples_of
from tpseg.imaging.pictures.tiff import ASSOCIATED, DEFLATED, PLAIN, Segments, first_page
from tpseg.imaging.reading.guarding import reading
from tpseg.imaging.reading.windows import Window

CACHE = 2**28
"""Bytes of a TIFF's decoded segments that are kept, for neighbouring tiles share them: a band of a very wide image."""
SEGMENT = 2**26
"""Bytes of a TIFF's segment (strip or tile) up to which it is decoded alone; a file of larger ones is decoded whole."""
BAND = 512
"""Rows that are looked at together to find the range of values of more than 8 bits."""


class Regions(Protocol):
    """A frame of which parts are read, from any thread."""

    size: tuple[int, int]
    """Height and width."""

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A part that lies inside the frame, (height, width, 3) uint8; raises DataError that names the file."""
        ...


def read_tile(regions: Regions, top: int, left: int, side: int) -> np.ndarray:
    """A square part, (side, side, 3) uint8; where the frame ends before it does, it is continued by its mirror image."""
    height, width = min(side, regions.size[0] - top), min(side, regions.size[1] - left)
    part = regions.read(top, left, height, width)
    if (height, width) == (side, side):
        return part
    return np.pad(part, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric")


def read_reduced(regions: Regions, factor: int) -> np.ndarray:
    """The whole frame, smaller by a whole factor, (H / factor, W / factor, 3) uint8, rounded up."""
    height, width = regions.size
    step = factor * max(1, BAND // factor)
    return np.concatenate([reduce(regions.read(top, 0, min(step, height - top), width), factor) for top in range(0, height, step)])


def reduce(values: np.ndarray, factor: int) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3), smaller by a whole factor, each pixel a mean."""
    return np.asarray(Image.fromarray(values).reduce(factor))


class FrameRegions:
    """Parts of a frame that is decoded, (H, W, 3) uint8."""

    def __init__(self, frame: np.ndarray) -> None:
        self.frame = frame
        self.size = frame.shape[:2]

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        return self.frame[top : top + height, left : left + width]


class PictureRegions:
    """Parts of a picture that is decoded whole: in memory 4 bytes a pixel of 8-bit colour, else what the file's numbers take."""

    def __init__(self, path: Path) -> None:
        self.image = open_image(path)
        self.size = self.image.height, self.image.width
        wide = is_wide(self.image)
        self.range = whole_range(path, self.size, lambda *part: samples_of(self._crop(*part)).values) if wide else None

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        part = self._crop(top, left, height, width)
        return to_rgb(part) if self.range is None else self.range.rgb(samples_of(part).values)

    def _crop(self, top: int, left: int, height: int, width: int) -> Picture:
        if isinstance(self.image, Samples):
            return self.image.part(top, left, height, width)
        return self.image.crop((left, top, left + width, top + height))


class TiffRegions:
    """Parts of a TIFF, of which only the segments that a part touches are decoded: 8-bit grey, RGB or RGBA, or 16-bit grey or RGB."""

    def __init__(self, path: Path, page: TiffPage, byteorder: str) -> None:
        self.path = path
        self.segments = Segments(page, byteorder)
        self.size = self.segments.size
        self.whole = page.is_memmappable
        self._decoded: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = Lock()
        self.range = whole_range(path, self.size, self._values) if self.segments.type.itemsize > 1 else None

    @classmethod
    def can_read(cls, page: TiffPage) -> bool:
        """Whether the page is of a kind that this class decodes; many more are decoded whole."""
        kind = (page.dtype, page.samplesperpixel, int(page.photometric))
        plain = kind in [(np.uint8, 1, 1), (np.uint8, 3, 2), (np.uint8, 4, 2), (np.uint16, 1, 1), (np.uint16, 3, 2)]
        upright = page.tags.valueof("Orientation", 1) == 1
        dull = ASSOCIATED not in page.extrasamples  # else its colours are to be divided by alpha
        return plain and upright and dull and page.planarconfig == 1 and page.compression in PLAIN + DEFLATED and Segments.can_decode(page)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        values = self._values(top, left, height, width)
        if self.range is not None:
            return self.range.rgb(values)
        return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., :3]

    def _values(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """As stored, (height, width, samples)."""
        if self.whole:
            with reading(self.path, "TIFF"):  # mapped anew each time, so that the system forgets what was read
                shape = (*self.size, self.segments.samples)
                mapped = np.memmap(self.path, self.segments.type, "r", self.segments.offsets[0], shape)
                return np.array(mapped[top : top + height, left : left + width])
        part = np.empty((height, width, self.segments.samples), self.segments.type)
        rows, columns = self.segments.shape
        across = self.segments.grid[1]
        for row in range(top // rows, -(-(top + height) // rows)):
            for column in range(left // columns, -(-(left + width) // columns)):
                segment = self._segment(row * across + column)
                down, right = row * rows - top, column * columns - left  # of the segment's first pixel in the part
                into = part[max(down, 0) : down + segment.shape[0], max(right, 0) : right + segment.shape[1]]
                into[:] = segment[max(-down, 0) :, max(-right, 0) :][: into.shape[0], : into.shape[1]]
        return part

    def _segment(self, index: int) -> np.ndarray:
        """One strip or tile, (rows, columns, samples), from the memory or the file."""
        with self._lock:
            if index in self._decoded:
                self._decoded.move_to_end(index)
                return self._decoded[index]
            with reading(self.path, "TIFF"), self.path.open("rb") as file:
                segment = self.segments.decode(index, file, str(self.path))
            self._decoded[index] = segment
            kept = max(1, CACHE // segment.nbytes)
            while len(self._decoded) > kept:
                self._decoded.popitem(last=False)
            return segment


def open_regions(path: Path) -> Regions:
    """Parts of a picture file; raises DataError that names it."""
    if path.suffix.lower() in (".tif", ".tiff"):
        found = _open_tiff(path)
        if found is not None:
            return found
    return PictureRegions(path)


def _open_tiff(path: Path) -> TiffRegions | None:
    """A TIFF that can be read in parts, else None: then decoding it whole finds the words if it is damaged."""
    try:
        with path.open("rb") as file:
            page, byteorder, pages = first_page(file, str(path))
            if pages > 1 or not TiffRegions.can_read(page):
                return None
            if not page.is_memmappable and page.nbytes * np.prod(page.chunks) / page.size > SEGMENT:
                return None
            return TiffRegions(path, page, byteorder)
    except DataError:
        raise
    except Exception:  # the readers raise whatever a damaged header leads them to
        return None


def whole_range(path: Path, size: tuple[int, int], read: Callable[[int, int, int, int], np.ndarray]) -> Window:
    """From the lowest to the highest value of a picture, read in bands; raises DataError for NaN or infinity."""

    def extremes() -> Iterator[tuple[float, float]]:
        for top in range(0, size[0], BAND):
            values = read(top, 0, min(BAND, size[0] - top), size[1])
            if not np.isfinite(values).all():
                raise DataError(f"{path}: holds NaN or infinite pixels; replace them before use")
            yield float(values.min()), float(values.max())

    lows, highs = zip(*extremes(), strict=True)
    return Window.between(min(lows), max(highs))
