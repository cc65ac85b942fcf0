"""Measures of masks, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from tpseg.imaging.writing.measures import longest_diameter, measure, volume


def box(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


def test_a_single_pixel_is_as_long_as_its_longer_side():
    mask = box(8, 8, slice(3, 4), slice(5, 6))
    assert measure(mask, None).diameter.length == 1
    found = measure(mask, (0.5, 2.0))
    assert found.area == 1.0
    assert found.diameter.length == 2.0
    assert sorted(found.diameter.ends) == [(3.0, 4.5), (3.0, 5.5)]


@pytest.mark.parametrize(("rows", "columns"), [(1, 10), (10, 1)])
def test_a_row_and_a_column_of_ten_pixels_are_ten_long(rows, columns):
    assert measure(box(12, 12, slice(1, 1 + rows), slice(1, 1 + columns)), None).diameter.length == 10


def test_a_rectangle_is_measured_across_its_diagonal_between_middles_of_edges():
    mask = box(20, 20, slice(4, 7), slice(2, 12))  # 3 rows of 10
    found = measure(mask, None)
    assert found.area == 30
    assert found.diameter.length == pytest.approx(math.hypot(2, 10))  # from the middle of one side's end pixel to the other's
    assert {end[1] for end in found.diameter.ends} == {1.5, 11.5}


def test_rows_and_columns_of_different_spacing_turn_the_longest_line():
    """3 rows of 10 pixels, rows 5 mm apart and columns 1 mm: 15 mm high and 10 mm wide."""
    mask = box(20, 20, slice(4, 7), slice(2, 12))
    found = measure(mask, (5.0, 1.0))
    assert found.area == 150
    assert found.diameter.length == pytest.approx(math.hypot(15, 9))
    assert {end[0] for end in found.diameter.ends} == {3.5, 6.5}
    assert measure(mask.T, (1.0, 5.0)).diameter.length == pytest.approx(math.hypot(15, 9))


def test_a_diagonal_of_pixels_is_one_part():
    found = measure(np.eye(10, dtype=bool), (2.0, 2.0))
    assert found.parts == 1
    assert found.area == 40
    assert found.diameter.length == pytest.approx(2 * math.hypot(9, 10))


def test_a_disc_is_as_long_as_its_diameter():
    """A disc of radius 20 mm, pixels of 0.5 mm by 0.25 mm: within one pixel of 40 mm long, within 1 % of π·20² mm²."""
    rows, columns = np.mgrid[:101, :201]
    mask = ((rows - 50) * 0.5) ** 2 + ((columns - 100) * 0.25) ** 2 <= 20**2
    found = measure(mask, (0.5, 0.25))
    assert found.diameter.length == pytest.approx(40, abs=0.5)
    assert found.area == pytest.approx(math.pi * 400, rel=0.01)


def test_two_lesions_are_not_one_large_one():
    mask = box(40, 60, slice(2, 5), slice(2, 4)) | box(40, 60, slice(30, 31), slice(50, 58))
    found = measure(mask, None)
    assert found.parts == 2
    assert found.area == 14
    assert found.diameter.length == 8
    assert sorted(found.diameter.ends) == [(30, 49.5), (30, 57.5)]


def test_an_empty_mask_has_no_diameter():
    found = measure(np.zeros((5, 5), bool), (1.0, 1.0))
    assert (found.area, found.diameter, found.parts) == (0, None, 0)


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_scikit_image_where_pixels_are_square(seed):
    """Its largest Feret diameter is that of the same outline; it knows no anisotropic spacing."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((30, 40), bool)
    for row, column in rng.integers(5, 25, (4, 2)):
        mask[row - 4 : row + 4, column - 3 : column + rng.integers(2, 9)] = True
    for region in regionprops(measure_labels(mask)):
        part = np.pad(region.image, 1)
        assert longest_diameter(part).length == pytest.approx(region.feret_diameter_max)


def measure_labels(mask: np.ndarray) -> np.ndarray:
    return ndimage.label(mask, np.ones((3, 3)))[0]


def test_a_line_is_as_long_as_the_brute_force_says():
    """Over all pairs of edge middles of all pixels, with pixels of 0.7 by 0.3 mm."""
    rng = np.random.default_rng(1)
    mask = rng.random((9, 11)) < 0.3
    mask[4] = True
    steps = np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
    points = (np.argwhere(mask)[:, None] + steps).reshape(-1, 2) * (0.7, 0.3)
    expected = max(math.dist(one, other) for one in points for other in points)
    assert longest_diameter(mask, (0.7, 0.3)).length == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_of_many_parts_is_the_longest_of_each(seed):
    """Although the parts in small boxes are not measured at all."""
    mask = np.random.default_rng(seed).random((40, 50)) < 0.25
    labels = measure_labels(mask)
    expected = max(longest_diameter(labels == number, (0.5, 1.5)).length for number in range(1, labels.max() + 1))
    found = measure(mask, (0.5, 1.5))
    assert found.diameter.length == pytest.approx(expected)
    assert found.parts == labels.max()


def test_the_ends_are_as_far_apart_as_the_length_says():
    mask = box(20, 30, slice(3, 9), slice(4, 25))
    mask[3:5, 4:10] = False
    found = measure(mask, (0.4, 0.9)).diameter
    (row, column), (other_row, other_column) = found.ends
    assert math.hypot((row - other_row) * 0.4, (column - other_column) * 0.9) == pytest.approx(found.length)


def test_volume_of_a_stack():
    masks = np.zeros((4, 10, 10), bool)
    masks[1:3, 2:5, 2:6] = True  # 24 voxels
    assert volume(masks, (0.5, 2.0), 3.0) == 24 * 3.0
