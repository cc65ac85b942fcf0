"""Outlines drawn as masks: polygons, rectangles, circles, run lengths.

Coordinates are those of annotation tools and of COCO: (0, 0) is the top left corner of the image, not the middle of its first pixel.
A pixel belongs to a shape if its middle, at x + ½ and y + ½, lies in it, so that a shape's area is neither more nor less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from skimage.draw import disk

from tpseg.core.errors import DataError
from tpseg.datasets.layout import short

MAX_POINTS = 100_000
"""Corners of one polygon."""
EDGES = 1000
"""Edges whose crossings with rows are in memory at a time: up to 10 million at 10,000 rows."""
FAR = 1e6
"""Coordinates beyond this are no image's."""
MAX_TRAVEL = 1e7
"""Pixels that an outline runs up and down in all: as many crossings with rows take some seconds."""


def draw_polygon(mask: np.ndarray, points: np.ndarray) -> None:
    """Add a polygon, points (N, 2) of x and y, to a mask (H, W) bool; what lies outside the image is cut off.

    Where it crosses itself, inside is what an odd number of its edges surrounds. The time grows with the rows that edges cross and
    with the area of the bounding box, not with their product, as skimage's and matplotlib's does: an outline of 1,000 corners around
    4 megapixels takes 0.02 s instead of 11.
    """
    height, width = mask.shape
    top, bottom = (int(np.clip(np.ceil(edge - 0.5), 0, height)) for edge in (points[:, 1].min(), points[:, 1].max()))
    left, right = (int(np.clip(np.ceil(edge - 0.5), 0, width)) for edge in (points[:, 0].min(), points[:, 0].max()))
    if top == bottom or left == right:
        return
    begins, ends = points, np.roll(points, -1, axis=0)
    toggles = np.zeros((bottom - top, right - left + 1), np.uint8)
    for start in range(0, len(points), EDGES):
        _cross(toggles, begins[start : start + EDGES], ends[start : start + EDGES], top, left)
    inside = np.bitwise_xor.accumulate(toggles & 1, axis=1)[:, :-1]
    mask[top:bottom, left:right] |= inside.astype(bool)


def _cross(toggles: np.ndarray, begins: np.ndarray, ends: np.ndarray, top: int, left: int) -> None:
    """Count, for each row of pixels, in which column lies the first middle to the right of each edge that crosses the row's middle.

    toggles (rows, columns + 1) uint8, from row `top` and column `left` of the image on; edges from begins to ends, (N, 2) of x and y.
    """
    (x, y), (to_x, to_y) = begins.T, ends.T
    lowest, highest = np.minimum(y, to_y), np.maximum(y, to_y)
    first, last = (np.clip(np.ceil(edge - 0.5) - top, 0, len(toggles)).astype(int) for edge in (lowest, highest))  # half open: corners once
    counts = last - first
    edge = np.repeat(np.arange(len(x)), counts)
    rows = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    at = x[edge] + (rows + top + 0.5 - y[edge]) * ((to_x - x)[edge] / (to_y - y)[edge])
    columns = np.clip(np.ceil(at - 0.5) - left, 0, toggles.shape[1] - 1).astype(int)
    np.add.at(toggles, (rows, columns), 1)


def draw_rectangle(mask: np.ndarray, points: np.ndarray) -> None:
    """Add the rectangle between two opposite corners, points (2, 2) of x and y, or of all its corners in order, (4, 2), turned or not."""
    if len(points) == 4:
        draw_polygon(mask, points)
        return
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    draw_polygon(mask, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))


def is_rectangle(points: np.ndarray) -> bool:
    """Whether four points (4, 2) are the corners of a rectangle in their order, to a pixel: its diagonals have one middle and length."""
    diagonals = points[2] - points[0], points[3] - points[1]
    apart = np.linalg.norm(points[0] + points[2] - points[1] - points[3]) / 2
    return bool(apart <= 1 and abs(np.linalg.norm(diagonals[0]) - np.linalg.norm(diagonals[1])) <= 2)


def draw_circle(mask: np.ndarray, points: np.ndarray) -> None:
    """Add the circle around the first of two points through the second, points (2, 2) of x and y."""
    (x, y), radius = points[0] - 0.5, math.dist(points[0], points[1])
    if radius > 0:
        rows, columns = disk((y, x), radius, shape=mask.shape)
        mask[rows, columns] = True


def read_points(value: Any, name: str, least: int) -> np.ndarray:
    """A list of pairs of x and y as (N, 2) float64; raises DataError, which begins with `name`, for anything else."""
    try:
        points = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not least <= len(points) <= MAX_POINTS:
        raise DataError(f"{name}: expected at least {least} points of x and y as numbers, at most {MAX_POINTS:,}, found {short(value)}")
    if not (np.abs(points) <= FAR).all():  # NaN is not
        raise DataError(f"{name}: coordinates of {short(points[~(np.abs(points) <= FAR)][0])}; expected pixels of the image")
    travel = np.abs(np.diff(points[:, 1])).sum()
    if travel > MAX_TRAVEL:
        raise DataError(f"{name}: an outline that runs up and down over {travel:.2g} pixels in all; is it one?")
    return points


def draw_run_lengths(mask: np.ndarray, segmentation: Mapping[str, Any], name: str) -> None:
    """Add COCO's run lengths, plain or compressed, to a mask; raises DataError if they are not of its size."""
    told, size = segmentation.get("counts"), segmentation.get("size")
    height, width = mask.shape
    if size != [height, width]:
        raise DataError(f"{name}: run lengths for height and width {short(size)}; the image has {[height, width]}")
    counts: Any = _decompress(told, name) if isinstance(told, str) else told
    whole = isinstance(counts, list) and all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts)
    if not whole or sum(counts) != mask.size:
        total = f" with a sum of {sum(counts)}" if whole else ""
        raise DataError(f"{name}: run lengths {short(counts)}{total}; expected whole numbers with a sum of {height}x{width} = {mask.size}")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)  # background first
    mask |= values.reshape(height, width, order="F")


def _decompress(text: str, name: str) -> list[int]:
    """COCO's compressed run lengths: base 48 digits of 5 bits, lowest first, bit 6 for one more; from the third difference on."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64 or shift > 60:
            raise DataError(f"{name}: compressed run lengths with {letter!r}, which stands for nothing there")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError(f"{name}: compressed run lengths that break off")
    return counts


def draw_segmentation(mask: np.ndarray, segmentation: Any, name: str) -> None:
    """Add what COCO calls a segmentation, polygons or run lengths, to a mask; raises DataError that begins with `name`."""
    if isinstance(segmentation, Mapping):
        draw_run_lengths(mask, segmentation, name)
        return
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str) or not segmentation:
        raise DataError(f"{name}: found {short(segmentation)}, expected polygons or run lengths; a box alone is no outline")
    for flat in segmentation:
        if not isinstance(flat, list) or len(flat) % 2:
            raise DataError(f"{name}: expected a polygon as a list x1, y1, x2, y2..., found {short(flat)}")
        draw_polygon(mask, read_points([flat[i : i + 2] for i in range(0, len(flat), 2)], name, 3))
