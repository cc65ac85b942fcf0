"""Drawing masks over images, for people to look at."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

FOUND = (255, 196, 0)
TRUE = (0, 200, 255)
"""Colours that people with colour-blindness tell apart: amber for the prediction, cyan for the truth."""


def contour(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask within `width` of its edge, (H, W) bool."""
    return mask & ~ndimage.binary_erosion(mask, iterations=width, border_value=1)


def draw_overlay(image: np.ndarray, found: np.ndarray, true: np.ndarray | None = None) -> np.ndarray:
    """Contours over an image: prediction amber with a light tint, truth cyan; (H, W, 3) uint8 in and out."""
    width = max(1, round(max(image.shape[:2]) / 120))
    drawn = image.astype(np.float32)
    drawn[found] = 0.82 * drawn[found] + 0.18 * np.array(FOUND)
    if true is not None:
        drawn[contour(true, width)] = TRUE
    drawn[contour(found, width)] = FOUND
    return drawn.round().astype(np.uint8)
