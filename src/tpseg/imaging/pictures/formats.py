"""Reading images and masks: PNG, JPEG, TIFF, BMP; 8 and 16 bit, TIFF of any number type; grey, RGB, RGBA, palette."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from tpseg.core.errors import DataError
from tpseg.imaging.pictures.deep_png import is_deep, read_deep_png
from tpseg.imaging.pictures.samples import Picture, Samples, samples_of
from tpseg.imaging.pictures.tiff import IMAGE_LENGTH, IMAGE_WIDTH, first_page, is_faithful, is_tiff, mend_palette, read_tiff, refuse_misread

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SOFT_MASK_SHARE = 0.05
"""A mask stored as JPEG has some values between 0 and 255; with more than this share it is no binary mask."""
DARK, BRIGHT = 32, 224
"""A soft mask's background lies below DARK, its foreground from BRIGHT on; only edges lie between."""
EDGES_PER_PIXEL = 3
"""A soft mask has at most so many pixels of edge for one of foreground, however small its lesions are."""
FLAT = 3
"""Side in pixels of a square of one value that no soft edge has, for across an edge the values rise."""

TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
STRIP = 2**20
"""Pixels that are stretched at a time, so that a large picture needs little more memory than its result."""

Image.MAX_IMAGE_PIXELS = 400_000_000
"""Whole-slide crops are large; Pillow refuses twice this many pixels as a decompression bomb."""
PIXELS_PER_BYTE = 10_000
"""More than pictures are compressed by."""
DEFLATED = 1032
"""Bytes that deflate, which packs the pixels of a PNG, makes of one at most."""
PNG_BITS = {"LA": 16, "I;16": 16, "I": 16, "RGB": 24, "RGBA": 32}
"""Bits that a pixel of a PNG takes at least, by Pillow's mode; one in the other modes."""


@dataclass(frozen=True)
class MaskReading:
    """A mask as read: `mask` (H, W) bool, and in `note` what was odd about the file, or ''."""

    mask: np.ndarray
    note: str = ""


def open_image(path: Path) -> Picture:
    """Decode a file completely, turned upright by its EXIF tag; raises DataError if it cannot be."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{path}: cannot read '{path.suffix}' files; expected one of {', '.join(IMAGE_SUFFIXES)}")
    with _explaining(str(path), f"; is it complete and really a {path.suffix} file?"), path.open("rb") as file:
        return _decode(file, path.stat().st_size, str(path))


def decode(content: bytes, name: str) -> Picture:
    """The same of a file's bytes; name: what it is called in a DataError."""
    with _explaining(name):
        return _decode(io.BytesIO(content), len(content), name)


def size_of(file: BinaryIO) -> tuple[int, int]:
    """Height and width of an image file, upright by its EXIF tag, from its header alone; raises whatever the readers do."""
    try:
        with Image.open(file) as image:
            height, width = image.height, image.width
            if image.format == "TIFF":  # which Pillow turns or not, depending on its version
                height, width = image.tag_v2[IMAGE_LENGTH], image.tag_v2[IMAGE_WIDTH]  # type: ignore[attr-defined]
            # of a PNG without one, Pillow looks for a tag behind the pixels, and decodes them all for that
            tagged = image.format != "PNG" or "exif" in image.info
            turned = tagged and image.getexif().get(ExifTags.Base.Orientation) in TURNED
    except UnidentifiedImageError:
        if not is_tiff(file):
            raise
        page = first_page(file, "the file")[0]
        height, width, turned = page.imagelength, page.imagewidth, page.tags.valueof("Orientation", 1) in TURNED
    return (width, height) if turned else (height, width)


def _decode(file: BinaryIO, size: int, name: str) -> Picture:
    """A file's picture, upright. size: the file's, in bytes."""
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        if not is_tiff(file):
            raise
        return read_tiff(file, size, name)  # of a kind that Pillow has no mode for
    with image:
        refuse_lie(image, name, size)
        refuse_stack(image, name)
        if image.format == "TIFF":
            if not is_faithful(image):
                return read_tiff(file, size, name)
            refuse_misread(image, name)
        if is_deep(image):
            return read_deep_png(image, file).turned(image.getexif().get(ExifTags.Base.Orientation, 1))
        image.load()
        if image.mode == "LAB":
            raise DataError(f"{name}: colours in Lab; expected grey, RGB, CMYK or a palette: save it as RGB")
        if image.format == "TIFF":
            mend_palette(image)
        ImageOps.exif_transpose(image, in_place=True)  # a copy of a large picture is gigabytes
        return image


@contextmanager
def _explaining(name: str, advice: str = "") -> Iterator[None]:
    """Turn whatever a reader raises on a file into a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error... for damaged files
        raise DataError(f"{name}: cannot be decoded ({' '.join(str(error).split())}){advice}") from error


def refuse_lie(image: Image.Image, name: str, size: int) -> None:
    """Raise DataError for a header that promises more pixels than its file can hold, before memory is taken for them.

    size: the file's, in bytes.
    """
    width, height = image.size
    most = size * DEFLATED * 8 // PNG_BITS.get(image.mode, 1) if image.format == "PNG" else size * PIXELS_PER_BYTE
    if width * height > most:
        raise DataError(f"{name}: its header says {width}x{height} pixels, more than {size:,} bytes can hold; is it complete?")


def refuse_stack(image: Image.Image, name: str) -> None:
    """Raise DataError for a TIFF of several pages of one size; pages of other sizes are a pyramid of the first."""
    pages = getattr(image, "n_frames", 1)
    if image.format == "TIFF" and pages > 1:
        first = image.size
        image.seek(1)
        if image.size == first:
            raise DataError(f"{name}: a stack of {pages} pages; expected one image, so write each page to a file of its own")
        image.seek(0)


def to_rgb(image: Picture, source: str = "image") -> np.ndarray:
    """A decoded image of any kind as RGB, (H, W, 3) uint8.

    Alpha is dropped. All but whole numbers of 8 bits are stretched from the image's own minimum and maximum, those of all
    colours together, for the range in use is not in the file; a constant one becomes black. Raises DataError for NaN or infinity.
    """
    if is_wide(image):
        return stretch(samples_of(image).values, source)
    if isinstance(image, Samples):
        values = image.values
        return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else np.ascontiguousarray(values)
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of a palette's transparency
    return np.asarray(image.convert("RGB"))


def is_wide(image: Picture) -> bool:
    """Whether a decoded image holds anything but whole numbers of 8 bits, which to_rgb stretches."""
    return image.values.dtype != np.uint8 if isinstance(image, Samples) else image.mode.startswith(("I", "F"))


def stretch(values: np.ndarray, source: str = "image") -> np.ndarray:
    """Values (H, W) or (H, W, 3) of any number type, from their own minimum and maximum to (H, W, 3) uint8."""
    low, high = float(values.min()), float(values.max())  # NaN if any value is
    if not np.isfinite([low, high]).all():
        raise DataError(f"{source}: holds NaN or infinite pixels; replace them before use")
    if not np.isfinite(high - low):
        raise DataError(f"{source}: pixels from {low:g} to {high:g}, a range that floating point cannot hold; scale them before use")
    result = np.zeros((*values.shape[:2], 3), np.uint8)
    rows = max(1, STRIP // values.shape[1])
    for top in range(0, len(values) if high > low else 0, rows):
        strip = values[top : top + rows].astype(np.float64)
        scaled = np.round((strip - low) / (high - low) * 255)
        result[top : top + rows] = scaled if scaled.ndim == 3 else scaled[..., None]
    return result


def read_image(path: Path) -> np.ndarray:
    """Read an image file as RGB, (H, W, 3) uint8; raises DataError that names the file."""
    return to_rgb(open_image(path), str(path))


def read_mask(path: Path) -> MaskReading:
    """Read a binary mask file; raises DataError that names the file if it is none, see to_mask."""
    return to_mask(open_image(path), path)


def to_mask(image: Picture, path: Path) -> MaskReading:
    """A decoded image as a binary mask, of 0 and 1, or 0 and white; raises DataError for anything else.

    White is 255, or 65535 of 16 bits. Soft edges as JPEG leaves them are cut at 128 and noted. Grey masks stored as RGB or
    palette are taken as they look; a palette of two entries, unless black and white, counts as {0, 1} whatever its colours.
    """
    samples = samples_of(image)
    refuse_invisible(samples, str(path))
    return _by_colour(samples, path)


def refuse_invisible(samples: Samples, name: str) -> None:
    """Raise DataError for a mask, or a prediction, whose shape is in its transparency, or in indices of one colour.

    Whether lesion is what was painted or what was erased, such a file does not say. Alpha that is the same everywhere says
    nothing, unless it hides all of one colour.
    """
    colours, alpha, advice = samples.values, samples.alpha, "save the lesion in white on black, without transparency"
    if samples.palette is not None:
        colours, alpha = samples.palette[samples.values][..., :3], samples.palette[samples.values][..., 3]
    alike = bool((colours == colours[0, 0]).all())
    if alpha is not None and alpha.min() < alpha.max():
        if alike:
            raise DataError(f"{name}: its alpha channel varies but its colours do not; flatten it: {advice}")
        if colours[alpha == 0].any():
            raise DataError(f"{name}: its alpha channel hides pixels that are not black; flatten it: {advice}")
    elif alpha is not None and alike and not alpha.any() and colours.any():
        raise DataError(f"{name}: all of it is transparent, but not black; {advice}")
    elif samples.palette is not None and alike and samples.values.min() < samples.values.max():
        raise DataError(f"{name}: its palette shows all of it in one colour; {advice}")


def _by_colour(samples: Samples, path: Path) -> MaskReading:
    """The mask that the colours of a file show, whatever its alpha channel says; see to_mask."""
    values, note = samples.values, ""
    if samples.palette is not None:
        indices, values, note = values, samples.palette[values][..., :3], "palette"
        if indices.max() <= 1 and (_coloured(values) or not set(np.unique(values).tolist()) <= {0, 255}):
            return MaskReading(indices == 1, note)
    if values.dtype == bool:
        return MaskReading(values)
    if values.ndim == 3:
        if _coloured(values):
            raise DataError(f"{path}: a coloured mask; expected one channel with values 0 and 255 (or 0 and 1)")
        note = note or "rgb"
        values = values[..., 0]
    return _binarise(values, path, note)


def _coloured(values: np.ndarray) -> bool:
    return bool((values.max(axis=2) != values.min(axis=2)).any())


def _binarise(values: np.ndarray, path: Path, note: str) -> MaskReading:
    """Grey values (H, W) to a mask; see to_mask."""
    if not np.isfinite(values).all():
        raise DataError(f"{path}: holds NaN or infinite pixels; expected 0 and 255 (or 0 and 1)")
    filled = np.count_nonzero(values)
    for high in (1, 255, 65535) if values.dtype == np.uint16 else (1, 255):
        foreground = values == high
        if np.count_nonzero(foreground) == filled:
            return MaskReading(foreground, note)
    # what follows is of odd masks only: to list the values takes ten times longer
    found = np.flatnonzero(np.bincount(values.ravel(), minlength=256)) if values.dtype == np.uint8 else np.unique(values)
    if not _is_soft(values, found, path):
        shown = ", ".join(str(value) for value in found[:6]) + (", ..." if len(found) > 6 else "")
        raise DataError(f"{path}: mask values {shown}; expected 0 and 255 (or 0 and 1). Convert class ids to one binary mask per task")
    return MaskReading(values >= 128, note or "soft edges, cut at 128")


def _is_soft(values: np.ndarray, found: np.ndarray, path: Path) -> bool:
    """Whether values between 0 and 255 are a binary mask's soft edges, not class ids.

    Class ids beside the usual 'ignore' value, {0, 1, 2, 255}, have nothing between DARK and 255; of the soft masks only a
    JPEG of the finest quality looks so. Ids of some 240 instances do have, but they are flat areas, or outnumber what is bright.
    """
    if found.min() < 0 or found.max() > 255 or found.max() < BRIGHT:
        return False
    if path.suffix.lower() not in (".jpg", ".jpeg") and not ((found >= DARK) & (found < 255)).any():
        return False
    between = (values >= DARK) & (values < BRIGHT)
    edges, bright = np.count_nonzero(between), np.count_nonzero(values >= BRIGHT)
    if edges > SOFT_MASK_SHARE * values.size or edges > EDGES_PER_PIXEL * bright:
        return False
    return bool(np.count_nonzero(between & _flat(values)) <= edges / 2)


def _flat(values: np.ndarray) -> np.ndarray:
    """Which pixels lie in a square of FLAT x FLAT pixels of one value, (H, W) bool."""
    middles = ndimage.maximum_filter(values, FLAT) == ndimage.minimum_filter(values, FLAT)
    return ndimage.maximum_filter(middles, FLAT)
