"""Parts of a frame, cut out one after the other: of a large picture no more is decoded than its format demands."""

from __future__ import annotations

import logging
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from PIL import Image
from tifffile import TiffFile, TiffPage

from tpseg.clinical.reading.guarding import reading
from tpseg.clinical.reading.windows import Window, repeat_grey
from tpseg.data.formats import open_image, refuse_stack, to_rgb
from tpseg.errors import DataError

CACHE = 2**28
"""Bytes of a TIFF's decoded segments that are kept, for neighbouring tiles share them: a band of a very wide image."""
SEGMENT = 2**26
"""Bytes of a TIFF's segment (strip or tile) up to which it is decoded alone; a file of larger ones is decoded whole."""
BAND = 512
"""Rows that are looked at together to find the range of 16-bit grey values."""
PLAIN, DEFLATED = (1,), (8, 32946)
"""Compression as TIFF counts it; what is packed otherwise (LZW, JPEG) is decoded whole by Pillow."""


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
    """Parts of a picture that Pillow decodes whole: 4 bytes a pixel in memory for colour, 1 to 4 for grey."""

    def __init__(self, path: Path) -> None:
        self.image = open_image(path)
        self.size = self.image.height, self.image.width
        deep = self.image.mode.startswith(("I", "F"))
        self.range = whole_range(path, self.size, lambda *part: np.asarray(self._crop(*part))) if deep else None

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        part = self._crop(top, left, height, width)
        return to_rgb(part) if self.range is None else repeat_grey(self.range.grey(np.asarray(part)))

    def _crop(self, top: int, left: int, height: int, width: int) -> Image.Image:
        return self.image.crop((left, top, left + width, top + height))


class TiffRegions:
    """Parts of a TIFF, of which only the segments that a part touches are decoded: 8-bit grey, RGB or RGBA, or 16-bit grey."""

    def __init__(self, path: Path, page: TiffPage, byteorder: str) -> None:
        self.path = path
        self.size = page.imagelength, page.imagewidth
        self.tiled = page.is_tiled
        self.segment = (page.tilelength, page.tilewidth) if self.tiled else (min(page.rowsperstrip, self.size[0]), self.size[1])
        self.samples = page.samplesperpixel
        self.type = np.dtype(page.dtype).newbyteorder("<" if byteorder == "<" else ">")
        self.deflated = page.compression in DEFLATED
        self.differences = self.deflated and page.predictor == 2
        self.whole = page.is_memmappable
        self.offsets, self.lengths = page.dataoffsets, page.databytecounts
        self._decoded: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = Lock()
        self.range = whole_range(path, self.size, lambda *part: self._values(*part)[..., 0]) if self.type.itemsize > 1 else None

    @classmethod
    def can_read(cls, page: TiffPage) -> bool:
        """Whether the page is of a kind that this class decodes; Pillow decodes many more, whole."""
        kind = (page.dtype, page.samplesperpixel, int(page.photometric))
        plain = kind in [(np.uint8, 1, 1), (np.uint8, 3, 2), (np.uint8, 4, 2), (np.uint16, 1, 1)]
        predictor = page.compression == 1 or page.predictor in (1, 2)
        upright = page.tags.valueof("Orientation", 1) == 1 and page.tags.valueof("FillOrder", 1) == 1
        return plain and upright and predictor and page.planarconfig == 1 and page.compression in PLAIN + DEFLATED

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        values = self._values(top, left, height, width)
        if self.range is not None:
            return repeat_grey(self.range.grey(values[..., 0]))
        return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., :3]

    def _values(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """As stored, (height, width, samples)."""
        if self.whole:
            with reading(self.path, "TIFF"):  # mapped anew each time, so that the system forgets what was read
                mapped = np.memmap(self.path, self.type, "r", self.offsets[0], (*self.size, self.samples))
                return np.array(mapped[top : top + height, left : left + width])
        part = np.empty((height, width, self.samples), self.type)
        rows, columns = self.segment
        across = -(-self.size[1] // columns)
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
            with reading(self.path, "TIFF"):
                segment = self._decode(index)
            self._decoded[index] = segment
            kept = max(1, CACHE // segment.nbytes)
            while len(self._decoded) > kept:
                self._decoded.popitem(last=False)
            return segment

    def _decode(self, index: int) -> np.ndarray:
        rows, columns = self.segment
        if not self.tiled:
            rows = min(rows, self.size[0] - index * rows)  # the last strip is shorter
        shape = (rows, columns, self.samples)
        count = rows * columns * self.samples * self.type.itemsize
        if self.lengths[index] == 0:
            return np.zeros(shape, self.type)  # left out by who wrote it, for there is nothing in it
        with self.path.open("rb") as file:
            file.seek(self.offsets[index])
            content = file.read(min(self.lengths[index], 2 * count + 4096))
        if self.deflated:
            content = zlib.decompressobj().decompress(content, count)
        if len(content) < count:
            raise DataError(f"{self.path}: strip or tile {index} has {len(content)} of {count} bytes; is the file complete?")
        segment = np.frombuffer(content, self.type, rows * columns * self.samples).reshape(shape)
        return np.cumsum(segment, axis=1, dtype=self.type) if self.differences else segment


def open_regions(path: Path) -> Regions:
    """Parts of a picture file; raises DataError that names it."""
    if path.suffix.lower() in (".tif", ".tiff"):
        found = _open_tiff(path)
        if found is not None:
            return found
    return PictureRegions(path)


def _open_tiff(path: Path) -> TiffRegions | None:
    """A TIFF that can be read in parts, else None: then Pillow finds the words if it is damaged."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it warns of is refused, or left to Pillow
    try:
        with Image.open(path) as image:
            refuse_stack(image, path)
        with TiffFile(path) as file:
            page = file.pages.first
            if not (isinstance(page, TiffPage) and TiffRegions.can_read(page)):
                return None
            if not page.is_memmappable and page.nbytes * np.prod(page.chunks) / page.size > SEGMENT:
                return None
            return TiffRegions(path, page, file.byteorder)
    except DataError:
        raise
    except Exception:  # the readers raise whatever a damaged header leads them to
        return None


def whole_range(path: Path, size: tuple[int, int], read: Callable[[int, int, int, int], np.ndarray]) -> Window:
    """From the lowest to the highest grey value of a picture, read in bands; raises DataError for NaN or infinity."""

    def extremes() -> Iterator[tuple[float, float]]:
        for top in range(0, size[0], BAND):
            values = read(top, 0, min(BAND, size[0] - top), size[1])
            if not np.isfinite(values).all():
                raise DataError(f"{path}: holds NaN or infinite pixels; replace them before use")
            yield float(values.min()), float(values.max())

    lows, highs = zip(*extremes(), strict=True)
    return Window.between(min(lows), max(highs))
