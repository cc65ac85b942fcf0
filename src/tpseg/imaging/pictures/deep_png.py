"""PNG of 16 bits a channel with colours or alpha: Pillow drops the low byte of each value, so it is asked for either byte."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from tpseg.imaging.pictures.samples import Samples

HIGH_AND_LOW = {"RGB;16B": ("RGB;16B", "RGB;16L"), "RGBA;16B": ("RGBA;16B", "RGBA;16L")}
"""How Pillow unpacks the pixels, and how to have it keep the other byte: as if that came first."""
GREY_WITH_ALPHA = "LA;16B"
"""Four bytes a pixel, which Pillow can also unpack as four channels of 8 bits."""


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an opened file, not loaded yet, is one of which Pillow would drop half."""
    return image.format == "PNG" and bool(image.tile) and image.tile[0][3] in (*HIGH_AND_LOW, GREY_WITH_ALPHA)


def read_deep_png(image: ImageFile.ImageFile, file: BinaryIO) -> Samples:
    """All 16 bits of the opened image and its file."""
    packing = str(image.tile[0][3])
    if packing == GREY_WITH_ALPHA:
        both = _unpacked(image, "RGBA").astype(np.uint16)  # (H, W, 4): either byte of grey, then of alpha
        return Samples(both[..., 0] << 8 | both[..., 1], both[..., 2] << 8 | both[..., 3])
    high, low = HIGH_AND_LOW[packing]
    values = _unpacked(image, high).astype(np.uint16) << 8
    file.seek(0)
    with Image.open(file) as again:
        values |= _unpacked(again, low)  # (H, W, 3 or 4)
    return Samples(values[..., :3], values[..., 3] if values.shape[2] == 4 else None)


def _unpacked(image: ImageFile.ImageFile, packing: str) -> np.ndarray:
    image.tile = [(*image.tile[0][:3], packing)]  # type: ignore[list-item]  # a named tuple from Pillow 11.0 on
    image.load()
    return np.asarray(image)
