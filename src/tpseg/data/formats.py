"""Reading images and masks: PNG, JPEG, TIFF, BMP; 8 and 16 bit; grey, RGB, RGBA, palette."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tpseg.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SOFT_MASK_SHARE = 0.05
"""A mask stored as JPEG has some values between 0 and 255; with more than this share it is no binary mask."""
DARK, BRIGHT = 32, 224
"""A soft mask's background lies below DARK, its foreground from BRIGHT on; only edges lie between."""

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


def open_image(path: Path) -> Image.Image:
    """Decode a file completely, turned upright by its EXIF tag; raises DataError if it cannot be."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{path}: cannot read '{path.suffix}' files; expected one of {', '.join(IMAGE_SUFFIXES)}")
    try:
        with Image.open(path) as image:
            refuse_lie(image, str(path), path.stat().st_size)
            refuse_stack(image, path)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # a copy of a large picture is gigabytes
            return image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error... for damaged files
        raise DataError(f"{path}: cannot be decoded ({error}); is it complete and really a {path.suffix} file?") from error


def refuse_lie(image: Image.Image, name: str, size: int) -> None:
    """Raise DataError for a header that promises more pixels than its file can hold, before memory is taken for them.

    size: the file's, in bytes.
    """
    width, height = image.size
    most = size * DEFLATED * 8 // PNG_BITS.get(image.mode, 1) if image.format == "PNG" else size * PIXELS_PER_BYTE
    if width * height > most:
        raise DataError(f"{name}: its header says {width}x{height} pixels, more than {size:,} bytes can hold; is it complete?")


def refuse_stack(image: Image.Image, path: Path) -> None:
    """Raise DataError for a TIFF of several pages of one size; pages of other sizes are a pyramid of the first."""
    pages = getattr(image, "n_frames", 1)
    if image.format == "TIFF" and pages > 1:
        first = image.size
        image.seek(1)
        if image.size == first:
            raise DataError(f"{path}: a stack of {pages} pages; expected one image, so write each page to a file of its own")
        image.seek(0)


def to_rgb(image: Image.Image, source: str = "image") -> np.ndarray:
    """An image of any mode as RGB, (H, W, 3) uint8.

    Alpha is dropped. More than 8 bits a pixel are stretched from the image's own minimum and maximum, for the
    range in use is not in the file; a constant one becomes black. Raises DataError for NaN or infinity.
    """
    if image.mode.startswith(("I", "F")):
        return stretch(np.asarray(image), source)
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of a palette's transparency
    return np.asarray(image.convert("RGB"))


def stretch(values: np.ndarray, source: str = "image") -> np.ndarray:
    """Grey values (H, W) of any number type, from their own minimum and maximum to (H, W, 3) uint8."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{source}: holds NaN or infinite pixels; replace them before use")
    low, high = values.min(), values.max()
    scaled = np.zeros_like(values) if high == low else (values - low) / (high - low)
    return np.repeat(np.round(scaled * 255).astype(np.uint8)[..., None], 3, axis=2)


def read_image(path: Path) -> np.ndarray:
    """Read an image file as RGB, (H, W, 3) uint8; raises DataError that names the file."""
    return to_rgb(open_image(path), str(path))


def read_mask(path: Path) -> MaskReading:
    """Read a binary mask file; raises DataError that names the file if it is none, see to_mask."""
    return to_mask(open_image(path), path)


def to_mask(image: Image.Image, path: Path) -> MaskReading:
    """A decoded image as a binary mask, values {0, 1} or {0, 255}; raises DataError for anything else.

    Soft edges as JPEG leaves them are cut at 128 and noted. Grey masks stored as RGB or palette are taken as they
    look; a palette of two entries, unless black and white, counts as {0, 1} whatever its colours.
    """
    note = ""
    if image.mode == "1":
        return MaskReading(np.asarray(image))
    if image.mode == "P":
        indices = np.asarray(image)
        values = to_rgb(image)
        if indices.max() <= 1 and (_coloured(values) or not set(np.unique(values).tolist()) <= {0, 255}):
            return MaskReading(indices == 1, "palette")
        note = "palette"
    elif image.mode.startswith(("I", "F")):
        values = np.asarray(image)
    elif image.mode in ("L", "LA"):
        values = np.asarray(image.convert("L"))
    else:
        values = to_rgb(image)
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
    for high in (1, 255):
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
    JPEG of the finest quality looks so.
    """
    if found.min() < 0 or found.max() > 255 or found.max() < BRIGHT:
        return False
    if path.suffix.lower() not in (".jpg", ".jpeg") and not ((found >= DARK) & (found < 255)).any():
        return False
    return float(((values >= DARK) & (values < BRIGHT)).mean()) <= SOFT_MASK_SHARE
