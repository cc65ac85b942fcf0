"""TIFF as its tags describe it: what Pillow reads faithfully is left to it, all other pixels are decoded here."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image
from tifffile import TiffFile, TiffPage

from tpseg.core.errors import DataError
from tpseg.imaging.pictures.samples import Samples

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IMAGE_WIDTH, IMAGE_LENGTH, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
SAMPLES_PER_PIXEL, COLOUR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 277, 320, 338, 339, 530
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
UNSIGNED, UNDEFINED = 1, 4
"""Sample formats of whole numbers; what is undefined counts as one."""
ASSOCIATED, UNASSOCIATED = 1, 2
"""Kinds of alpha: colours are multiplied by it, or not. An extra sample may also be of no kind that is told."""
PLAIN, LZW, DEFLATED, PACK_BITS = (1,), (5,), (8, 32946), (32773,)
"""Compressions of bytes, as TIFF counts them."""
EXPANSION = {**dict.fromkeys(PLAIN, 1), **dict.fromkeys(LZW, 2730), **dict.fromkeys(DEFLATED, 1032), **dict.fromkeys(PACK_BITS, 64)}
"""Bytes that one byte can stand for at most."""
DIFFERENCES, BYTE_PLANES = 2, 3
"""Predictors: of whole numbers along a row, and of floating point, byte by byte."""
EXPECTED = "expected grey or RGB, with or without alpha"


def is_tiff(file: BinaryIO) -> bool:
    file.seek(0)
    found = file.read(4) in SIGNATURES
    file.seek(0)
    return found


def is_faithful(image: Image.Image) -> bool:
    """Whether Pillow gives all of an opened TIFF's values: up to 8 bits, or 12 of grey, and without a sign.

    Of 16 bits it drops half where there are several channels, and reads planes as pixels; it has no type for whole numbers of
    32 bits without a sign and of 8 with one, and none for 64 bits.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, formats = _several(tags.get(BITS_PER_SAMPLE, 1)), _several(tags.get(SAMPLE_FORMAT, UNSIGNED))
    if any(one not in (UNSIGNED, UNDEFINED) for one in formats):
        return False
    return max(bits) <= 8 or bits == (12,)


def refuse_misread(image: Image.Image, name: str) -> None:
    """Raise DataError for an opened TIFF of up to 8 bits whose tags say something that Pillow does not look at."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    photometric, extra = tags.get(PHOTOMETRIC, BLACK_IS_ZERO), _several(tags.get(EXTRA_SAMPLES, ()))
    _check_channels(photometric, tags.get(SAMPLES_PER_PIXEL, 1), extra, name)
    if photometric == YCBCR and tags.get(COMPRESSION, 1) in PLAIN and tags.get(SUBSAMPLING, (2, 2)) != (1, 1):
        raise DataError(f"{name}: YCbCr of which several pixels share a colour, without compression; save it as RGB, or as JPEG")


def mend_palette(image: Image.Image) -> None:
    """Take a loaded TIFF's palette of 8 bits in words, as some write it, for one of 8 bits; else all its colours are black."""
    words = image.tag_v2.get(COLOUR_MAP) if image.mode == "P" else None  # type: ignore[attr-defined]
    if words and max(words) <= 255:
        image.putpalette(np.array(words, np.uint8).reshape(3, -1).T.tobytes())  # all reds come first


def _several(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)  # type: ignore[return-value]


def _check_channels(photometric: int, samples: int, extra: tuple[int, ...], name: str) -> None:
    if samples == 2 and photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and extra[:1] not in ((ASSOCIATED,), (UNASSOCIATED,)):
        raise DataError(
            f"{name}: two channels of grey, and no word that the second is alpha; {EXPECTED}. Save the channel that is meant alone"
        )


class Segments:
    """The strips or tiles of a TIFF's page, decoded one by one."""

    def __init__(self, page: TiffPage, byteorder: str) -> None:
        self.size = page.imagelength, page.imagewidth
        self.tiled = page.is_tiled
        self.shape = (page.tilelength, page.tilewidth) if self.tiled else (min(page.rowsperstrip, self.size[0]), self.size[1])
        """Rows and columns of each."""
        self.planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
        """1, or one for each channel, whose segments follow one another."""
        self.samples = page.samplesperpixel // self.planes
        """Channels in a segment."""
        self.type = np.dtype(page.dtype).newbyteorder("<" if byteorder == "<" else ">")
        self.compression, self.predictor = int(page.compression), int(page.predictor)
        self.offsets, self.lengths = page.dataoffsets, page.databytecounts

    @staticmethod
    def can_decode(page: TiffPage) -> bool:
        """Whether the page is packed, and its values are laid out, in a way that this class knows."""
        whole = page.dtype is not None and page.bitspersample == 8 * np.dtype(page.dtype).itemsize
        predictor = page.compression in PLAIN + PACK_BITS or page.predictor in (1, DIFFERENCES, BYTE_PLANES)
        return whole and predictor and page.compression in EXPANSION and page.fillorder == 1

    @property
    def grid(self) -> tuple[int, int]:
        """How many lie below and beside one another."""
        return -(-self.size[0] // self.shape[0]), -(-self.size[1] // self.shape[1])

    def read(self, file: BinaryIO, name: str) -> np.ndarray:
        """All of them put together, (H, W, channels)."""
        values = np.empty((*self.size, self.samples * self.planes), self.type)
        rows, columns = self.shape
        down, across = self.grid
        for plane in range(self.planes):
            into = values[..., plane : plane + 1] if self.planes > 1 else values
            for row in range(down):
                for column in range(across):
                    part = into[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
                    part[:] = self.decode((plane * down + row) * across + column, file, name)[: part.shape[0], : part.shape[1]]
        return values

    def decode(self, index: int, file: BinaryIO, name: str) -> np.ndarray:
        """One strip or tile, (rows, columns, channels); what it unpacks to beyond that is never held in memory."""
        rows, columns = self.shape
        if not self.tiled:
            rows = min(rows, self.size[0] - index % self.grid[0] * rows)  # the last strip is shorter
        shape = (rows, columns, self.samples)
        count = rows * columns * self.samples * self.type.itemsize
        if self.lengths[index] == 0:
            return np.zeros(shape, self.type)  # left out by who wrote it, for there is nothing in it
        file.seek(self.offsets[index])
        content = file.read(min(self.lengths[index], 2 * count + 4096))
        if self.compression in DEFLATED:
            content = zlib.decompressobj().decompress(content, count)
        elif self.compression in LZW + PACK_BITS:
            content = _unpack(content, self.compression, rows, count // rows)
        if len(content) < count:
            raise DataError(f"{name}: strip or tile {index} has {len(content)} of {count} bytes; is the file complete?")
        if self.compression in DEFLATED + LZW and self.predictor == BYTE_PLANES:
            return _joined(np.frombuffer(content, np.uint8, count), shape, self.type)
        segment = np.frombuffer(content, self.type, rows * columns * self.samples).reshape(shape)
        differences = self.compression in DEFLATED + LZW and self.predictor == DIFFERENCES
        return np.cumsum(segment, axis=1, dtype=self.type) if differences else segment


def _unpack(content: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """Bytes packed by a method that only Pillow's libtiff knows, by the way of a TIFF of 8-bit grey that holds nothing else."""
    tags = [(256, row_bytes), (257, rows), (258, 8), (259, compression), (262, BLACK_IS_ZERO), (273, 0), (277, 1), (278, rows)]
    tags.append((279, len(content)))
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    made = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + content
    with Image.open(io.BytesIO(made)) as image:
        return image.tobytes()


def _joined(content: np.ndarray, shape: tuple[int, int, int], kind: np.dtype) -> np.ndarray:
    """Floating point whose rows hold all first bytes, then all second ones, as differences; TIFF Technical Note 3."""
    rows, columns, samples = shape
    summed = np.cumsum(content.reshape(rows, -1, samples), axis=1, dtype=np.uint8)
    planes = summed.reshape(rows, kind.itemsize, columns * samples)  # the byte that weighs most comes first
    return np.ascontiguousarray(planes.transpose(0, 2, 1)).view(kind.newbyteorder(">")).reshape(shape)


def first_page(file: BinaryIO, name: str) -> tuple[TiffPage, str, int]:
    """A TIFF's first page, its byte order and how many pages of its size there are; DataError if it is no page of pixels."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it warns of is refused
    file.seek(0)
    found = TiffFile(file, name=name)
    page = found.pages.first
    if not isinstance(page, TiffPage):
        raise DataError(f"{name}: a TIFF without a first page")
    count = len(found.pages)
    if count > 1:
        second = found.pages[1]
        assert isinstance(second, TiffPage)  # tifffile makes frames, which are not, only where it is told to
        count = count if (second.imagelength, second.imagewidth) == (page.imagelength, page.imagewidth) else 1
    return page, found.byteorder, count


def read_tiff(file: BinaryIO, size: int, name: str) -> Samples:
    """The values of a TIFF, of any number type, as the file has them, upright; grey in which 0 is white is inverted.

    size: the file's, in bytes. Raises DataError for a kind that cannot be read faithfully.
    """
    page, byteorder, pages = first_page(file, name)
    if pages > 1:
        raise DataError(f"{name}: a stack of {pages} pages; expected one image, so write each page to a file of its own")
    if not page.dataoffsets or not page.imagelength * page.imagewidth:
        raise DataError(f"{name}: a TIFF without pixels in its first page")
    _check_kind(page, name)
    height, width = page.imagelength, page.imagewidth
    held = height * width * page.samplesperpixel * np.dtype(page.dtype).itemsize
    if held > size * EXPANSION[page.compression] or height * width > 2 * (Image.MAX_IMAGE_PIXELS or 0):
        raise DataError(f"{name}: its header says {width}x{height} pixels, more than {size:,} bytes can hold; is it complete?")
    values = Segments(page, byteorder).read(file, name)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    channels = 3 if page.photometric == RGB else 1
    colours = values[..., :3] if channels == 3 else values[..., 0]
    alpha = values[..., channels] if values.shape[2] > channels else None
    if page.photometric == WHITE_IS_ZERO:
        colours = np.iinfo(values.dtype).max - colours
    if alpha is not None and page.extrasamples[0] == ASSOCIATED and (alpha != _white(alpha.dtype)).any():
        raise DataError(f"{name}: its colours are multiplied by its alpha channel; save it without transparency")
    return Samples(colours, alpha).turned(page.tags.valueof("Orientation", 1))


def _check_kind(page: TiffPage, name: str) -> None:
    """Raise DataError for pixels that `read_tiff` does not know how to read."""
    type_ = "an unknown type" if page.dtype is None else str(np.dtype(page.dtype))
    kind = f"{page.samplesperpixel} channel{'s' * (page.samplesperpixel > 1)} of {type_}"
    extra = page.samplesperpixel - (3 if page.photometric == RGB else 1)
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or extra not in (0, 1):
        raise DataError(f"{name}: {kind}, photometric interpretation {_word(page.photometric)}; {EXPECTED}. Save it as one of these")
    if page.dtype is None or np.dtype(page.dtype).kind not in "uif" or page.bitspersample != 8 * np.dtype(page.dtype).itemsize:
        raise DataError(f"{name}: {kind} ({page.bitspersample} bits each); expected 8, 16, 32 or 64 bits, whole or floating point")
    if not Segments.can_decode(page):
        raise DataError(
            f"{name}: {kind}, packed as {_word(page.compression)} with predictor {_word(page.predictor)} and fill order "
            f"{page.fillorder}; expected no compression, deflate, LZW or PackBits, and fill order 1: save it so"
        )
    if page.photometric == WHITE_IS_ZERO and np.dtype(page.dtype).kind != "u":
        raise DataError(f"{name}: {kind} in which 0 is white, but nothing says which value is black; save it as BlackIsZero")
    _check_channels(page.photometric, page.samplesperpixel, tuple(page.extrasamples), name)


def _word(value: object) -> str:
    return str(getattr(value, "name", value))


def _white(kind: np.dtype) -> float:
    return 1 if kind.kind == "f" else np.iinfo(kind).max
