"""An image with its mask: of their own size, or brought to the model's square."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.data.manifest import Case
from tpseg.data.preprocessing import IMAGE_FILTER, resize_mask
from tpseg.imaging.pictures.formats import open_image, read_image, read_mask, to_rgb
from tpseg.imaging.pictures.samples import Picture, Samples


def read_pair(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and mask (H, W) bool of a case; raises DataError if their sizes differ."""
    image, mask = read_image(case.image), read_mask(case.mask).mask
    _same_size(case, image.shape[:2], mask.shape)
    return image, mask


def read_square(case: Case, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, S, S) uint8 and mask (S, S) bool of a case, stretched to S = size; raises DataError if their sizes differ.

    The numbers are those of `resize_image` and `resize_mask` on what `read_pair` gives, bit for bit.
    """
    image, mask = open_image(case.image), read_mask(case.mask).mask
    _same_size(case, (image.height, image.width), mask.shape)
    return _square(image, size, case.image), resize_mask(mask, size)


def _square(image: Picture, size: int, path: Path) -> np.ndarray:
    """A decoded image as RGB (3, S, S) uint8, resized before it becomes an array: a quarter of the copies for a large one.

    Grey is resized once, not three times. Other modes are brought to RGB first, for neither a palette's indices nor colours
    under alpha may be mixed.
    """
    if isinstance(image, Samples) or image.mode not in ("L", "RGB"):
        image = Image.fromarray(to_rgb(image, str(path)))
    if image.size != (size, size):
        image = image.resize((size, size), IMAGE_FILTER)
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return np.repeat(pixels[None], 3, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (S, S, 3) -> (3, S, S)


def _same_size(case: Case, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    if image != mask:
        found = f"{image[1]}x{image[0]} against {mask[1]}x{mask[0]} pixels"
        raise DataError(f"{case.image}: image and mask differ in size, {found}; the mask is {case.mask}")
