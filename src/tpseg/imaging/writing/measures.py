"""What is measured on a mask: area, longest diameter, number of parts, and the volume of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

EVERY_NEIGHBOUR = np.ones((3, 3), bool)
"""Pixels that touch at an edge or a corner are of one part."""
HALF_STEPS = np.array([[-0.5, 0.0], [0.5, 0.0], [0.0, -0.5], [0.0, 0.5]])
"""From a pixel's centre to the middles of its edges."""

Point = tuple[float, float]
"""Row and column in pixels; whole numbers are the centres of pixels."""


@dataclass(frozen=True)
class Diameter:
    """A line across a part of a mask."""

    length: float
    """In the unit of the spacing it was measured with: millimetres, or pixels."""
    ends: tuple[Point, Point]


@dataclass(frozen=True)
class Measures:
    """The measures of one frame's mask: in mm² and mm where the spacing is known, otherwise in pixels."""

    area: float
    diameter: Diameter | None
    """The longest of any part; None for an empty mask."""
    parts: int
    """Connected parts; pixels that touch at a corner are connected."""


def measure(mask: np.ndarray, spacing: tuple[float, float] | None) -> Measures:
    """Measure a mask (H, W) bool; spacing: millimetres between rows and between columns, or None for measures in pixels.

    Diameters are measured within each part, for two lesions far apart are not one large one.
    """
    rows, columns = spacing or (1.0, 1.0)
    labels, parts = ndimage.label(mask, EVERY_NEIGHBOUR)
    boxes = dict(enumerate(ndimage.find_objects(labels), start=1))
    diagonals = {number: hypot((y.stop - y.start) * rows, (x.stop - x.start) * columns) for number, (y, x) in boxes.items()}
    longest: Diameter | None = None
    for number in sorted(boxes, key=diagonals.__getitem__, reverse=True):
        if longest is not None and diagonals[number] <= longest.length:
            break  # this part and all that follow fit into smaller boxes
        y, x = boxes[number]
        found = longest_diameter(labels[y, x] == number, (rows, columns), (float(y.start), float(x.start)))
        longest = found if longest is None or found.length > longest.length else longest
    return Measures(float(np.count_nonzero(mask)) * rows * columns, longest, parts)


def longest_diameter(mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0), origin: Point = (0.0, 0.0)) -> Diameter:
    """The longest line between two points of a mask's outline (largest Feret diameter); mask (H, W) bool, not empty.

    The outline runs through the middles of the pixels' edges, as marching squares draw it, so that a row of n pixels is n long.
    origin: what is added to the ends, for a mask that was cut out.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    corners = np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)])  # the hull touches no other pixel
    outline = (corners[:, None] + HALF_STEPS).reshape(-1, 2)  # (4 · 2 · rows, 2)
    hull = outline[ConvexHull(outline * spacing).vertices]
    distances = squareform(pdist(hull * spacing))
    start, end = np.unravel_index(distances.argmax(), distances.shape)
    ends = [(float(row + origin[0]), float(column + origin[1])) for row, column in hull[[start, end]]]
    return Diameter(float(distances[start, end]), (ends[0], ends[1]))


def volume(masks: np.ndarray, spacing: tuple[float, float], between: float) -> float:
    """Cubic millimetres of a stack of masks (N, H, W) bool; between: millimetres from the middle of a slice to the next one's."""
    return float(np.count_nonzero(masks)) * spacing[0] * spacing[1] * between
