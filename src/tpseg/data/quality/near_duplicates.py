"""Images that look almost the same: JPEGs saved again, copies of another size or brightness, neighbouring frames."""

from __future__ import annotations

from collections.abc import Iterator

import imagehash
import numpy as np
from PIL import Image

SIDE = 16
BITS = SIDE * SIDE
NEAR = 32
"""Bits that may differ. Measured on 2,450 real images of eight tasks: no two different pictures in different splits come nearer
than 36; within 32 are all of 320 images that were saved again as JPEG of quality 40, halved in size or given less contrast, 99 % of
those brightened by 30 % or cut by 1 % at each side, 35 % of those cut by 2 %; and of neighbouring slices of one CT three in four."""
CELLS = 10_000_000
"""Distances in memory at a time: 40 MB each for products and distances."""


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """The perceptual hash (DCT) of an image, (H, W, 3) uint8, as (BITS,) bool."""
    return imagehash.phash(Image.fromarray(pixels), SIDE).hash.ravel()


def nearest_elsewhere(looks: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """For each image with a near-duplicate in an earlier split, the nearest one: (image, that one, number of bits that differ).

    looks (N, BITS) bool; places (N,) int, the number of each image's split. All pairs across splits are compared, as products of
    vectors of ±1, with at most CELLS distances in memory.
    """
    signs = np.where(looks, np.float32(1), np.float32(-1))
    for place in np.unique(places)[1:]:
        images, earlier = np.flatnonzero(places == place), np.flatnonzero(places < place)
        step = max(1, CELLS // len(earlier))
        for start in range(0, len(images), step):
            rows = images[start : start + step]
            distances = (BITS - signs[rows] @ signs[earlier].T) / 2  # (rows, earlier)
            nearest = distances.argmin(axis=1)
            for row, column, distance in zip(rows, nearest, distances.min(axis=1), strict=True):
                if distance <= NEAR:
                    yield int(row), int(earlier[column]), int(distance)
