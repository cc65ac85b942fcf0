"""A pixel is in a shape if its middle is, whatever the shape; run lengths are COCO's; nonsense is refused with its name."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from skimage.draw import polygon2mask

from tpseg.core.errors import DataError
from tpseg.datasets.shapes import draw_circle, draw_polygon, draw_rectangle, draw_run_lengths, draw_segmentation, read_points


def blank(height: int = 8, width: int = 10) -> np.ndarray:
    return np.zeros((height, width), bool)


def test_a_rectangle_covers_the_pixels_between_its_edges_and_no_more() -> None:
    for points in ([[2, 1], [6, 4]], [[6, 4], [2, 1]], [[2, 4], [6, 1]]):
        mask = blank()
        draw_rectangle(mask, np.array(points, float))
        assert mask.sum() == 4 * 3
        assert mask[1:4, 2:6].all()


def test_a_polygon_of_the_whole_image_covers_it_and_what_is_outside_is_cut_off() -> None:
    for corners in ([[0, 0], [10, 0], [10, 8], [0, 8]], [[-50, -50], [60, -50], [60, 60], [-50, 60]]):
        mask = blank()
        draw_polygon(mask, np.array(corners, float))
        assert mask.all()
    mask = blank()
    draw_polygon(mask, np.array([[20, 20], [30, 20], [30, 30]], float))
    assert not mask.any()


def test_a_triangle_has_its_area() -> None:
    mask = blank(400, 400)
    draw_polygon(mask, np.array([[10.3, 20.1], [390.2, 60.7], [100.9, 380.4]]))
    area = abs((390.2 - 10.3) * (380.4 - 20.1) - (100.9 - 10.3) * (60.7 - 20.1)) / 2
    assert mask.sum() == pytest.approx(area, rel=1e-3)


@pytest.mark.parametrize("corners", [3, 4, 9, 60, 2500])
def test_any_polygon_is_that_of_skimage_crossing_itself_or_the_edge_or_not(corners: int) -> None:
    rng = np.random.default_rng(corners)
    for spread in (0.2, 1.0, 3.0):
        points = (rng.random((corners, 2)) - 0.5) * spread * [90, 70] + [45, 35]
        mask = blank(70, 90)
        draw_polygon(mask, points)
        assert (mask == polygon2mask((70, 90), points[:, ::-1] - 0.5)).all()


def test_a_large_outline_of_many_corners_takes_no_time() -> None:
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    mask = blank(4000, 4000)
    begun = time.process_time()
    draw_polygon(mask, 2000 + 1500 * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    assert time.process_time() - begun < 5  # 0.1 s measured
    assert mask.sum() == pytest.approx(math.pi * 1500**2, rel=1e-4)


def test_a_circle_goes_through_its_second_point() -> None:
    mask = blank(200, 200)
    draw_circle(mask, np.array([[100, 90], [100, 40]], float))
    assert mask.sum() == pytest.approx(math.pi * 50**2, rel=5e-3)
    assert mask[:, 50:150].any(axis=0).all()
    assert not mask[:, :50].any()
    assert mask[40:140].any(axis=1).all()
    assert not mask[140:].any()


# Columns of 3: background 4 (a column and one pixel), lesion 3, background 2: of a 3 x 3 image pixels 4, 5, 6 down the columns.
RUNS = [4, 3, 2]
DRAWN = np.array([[0, 0, 1], [0, 1, 0], [0, 1, 0]], bool)


def test_run_lengths_go_down_the_columns_background_first() -> None:
    mask = blank(3, 3)
    draw_run_lengths(mask, {"counts": RUNS, "size": [3, 3]}, "here")
    assert (mask == DRAWN).all()
    mask = blank(3, 3)
    draw_run_lengths(mask, {"counts": [0, 2, 7], "size": [3, 3]}, "here")
    assert mask[:2, 0].all()
    assert mask.sum() == 2


def compressed(counts: list[int]) -> str:
    """COCO's way, written from its description: differences to the count before last from the fourth on, 5 bits a letter."""
    text = ""
    for position, count in enumerate(counts):
        value = count - counts[position - 2] if position > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
            if not more:
                break
    return text


def test_compressed_run_lengths() -> None:
    assert compressed(RUNS) == "432"
    for counts in (RUNS, [1, 2, 1, 1, 1, 3], [0, 5, 1, 3]):
        plain, packed = blank(3, 3), blank(3, 3)
        draw_run_lengths(plain, {"counts": counts, "size": [3, 3]}, "here")
        draw_run_lengths(packed, {"counts": compressed(counts), "size": [3, 3]}, "here")
        assert (plain == packed).all()
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5000, 40).tolist()
    mask = blank(1, sum(counts))
    draw_run_lengths(mask, {"counts": compressed(counts), "size": [1, sum(counts)]}, "here")
    assert mask.sum() == sum(counts[1::2])


def test_a_compressed_string_by_hand() -> None:
    """A lesion in the middle 2 x 2 of 4 x 4: counts 5, 2, 2, 2, 5; from the fourth on differences to the count before last, 0 and 3."""
    mask = blank(4, 4)
    draw_run_lengths(mask, {"counts": "52203", "size": [4, 4]}, "here")
    assert mask[1:3, 1:3].all()
    assert mask.sum() == 4


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ({"counts": [4, 3], "size": [3, 3]}, "sum of 7"),
        ({"counts": [4, -3, 8], "size": [3, 3]}, "whole numbers"),
        ({"counts": [4.5, 4.5], "size": [3, 3]}, "whole numbers"),
        ({"counts": RUNS, "size": [3, 4]}, r"\[3, 4\]; the image has \[3, 3\]"),
        ({"counts": RUNS, "size": [10**9, 10**9]}, "the image has"),
        ({"counts": "4 2", "size": [3, 3]}, "stands for nothing"),
        ({"counts": "P", "size": [3, 3]}, "break off"),
        ({"counts": "o" * 100, "size": [3, 3]}, "stands for nothing"),
        ({}, "run lengths for height"),
        ([], "a box alone"),
        (None, "a box alone"),
        ("1,2,3", "a box alone"),
        ([[1, 2, 3]], "x1, y1, x2, y2"),
        ([[1, 2, 3, 4]], "at least 3 points"),
        ([["a", "b", "c", "d", "e", "f"]], "as numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "coordinates"),
        ([[1, 2, 3, 4, 5, 1e30]], "coordinates"),
        ([[1, 2, 3, 4, 5, 10**400]], "as numbers"),
        ([[0, 0, 5, 9000] * 5000], "an outline that runs up and down"),
    ],
)
def test_nonsense_is_refused_with_its_name(segmentation: object, words: str) -> None:
    with pytest.raises(DataError, match=f"annotation 7: .*{words}"):
        draw_segmentation(blank(3, 3), segmentation, "annotation 7")


@pytest.mark.parametrize("points", [None, 5, "x", [[1, 2], [3]], [[1, 2, 3]] * 3, [[[1, 2]]] * 3, {}])
def test_points_that_are_none(points: object) -> None:
    with pytest.raises(DataError, match="shape 1: expected at least 3 points"):
        read_points(points, "shape 1", 3)
