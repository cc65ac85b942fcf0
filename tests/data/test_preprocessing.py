"""Preprocessing by hand; augmentation that moves image and mask together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from tpseg.data.preprocessing import augment, normalise, preprocess, resize_image, resize_mask, to_tensor, warp


def disc(size: int = 64) -> np.ndarray:
    """A disc left of the middle, (S, S) bool: no mirror image or turn of it is itself."""
    rows, columns = np.mgrid[:size, :size]
    return (rows - 0.4 * size) ** 2 + (columns - 0.3 * size) ** 2 < (0.2 * size) ** 2


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """An image that is its own mask: (3, 64, 64) and (1, 64, 64)."""
    mask = torch.from_numpy(disc().astype(np.float32))[None]
    return mask.repeat(3, 1, 1), mask


def test_normalisation_by_hand():
    image = np.full((2, 5, 3), (255, 0, 51), np.uint8)
    values = preprocess(image, 32)
    assert values.shape == (3, 32, 32)
    assert values.dtype == torch.float32
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]  # 2.2489, -2.0357, -0.9156
    assert_close(values.mean((1, 2)), torch.tensor(expected))
    assert_close(values, values[:, :1, :1].expand(3, 32, 32))


def test_channels_keep_their_order_and_pixels_their_place():
    image = np.zeros((32, 32, 3), np.uint8)
    image[3, 7, 2] = 255
    assert torch.nonzero(to_tensor(image)).tolist() == [[2, 3, 7]]


def test_an_image_of_the_models_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(resize_image(image, 64), image)
    assert_close(preprocess(image, 64), normalise(torch.from_numpy(image).permute(2, 0, 1) / 255))


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (20000, 16), (16, 20000), (33, 65)])
def test_every_size_becomes_the_square(shape):
    image, mask = np.full((*shape, 3), 100, np.uint8), np.ones(shape, bool)
    assert (resize_image(image, 64) == 100).all()
    assert resize_image(image, 64).shape == (64, 64, 3)
    resized = resize_mask(mask, 64)
    assert resized.shape == (64, 64)
    assert resized.dtype == np.bool_
    assert resized.all()


@pytest.mark.parametrize("size", [32, 50, 128])
def test_a_mask_resized_where_its_lesion_is_has_the_pixels_of_the_whole_resized(size):
    rng = np.random.default_rng(size)
    for number in range(60):
        height, width = rng.integers(1, 200, 2)
        mask = rng.random((height, width)) < rng.random()  # scattered, or of one box, or empty
        if number % 3:
            (top, bottom), (left, right) = (np.sort(rng.integers(0, side + 1, 2)) for side in (height, width))
            box = np.zeros_like(mask)
            box[top:bottom, left:right] = True
            mask = box if number % 3 == 1 else box & mask
        whole = Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BOX)
        assert np.array_equal(resize_mask(mask, size), np.asarray(whole) >= 0.5)


def test_a_fine_checkerboard_shrinks_to_grey():
    """Anti-aliased: without it, every second pixel would be picked, all black or all white."""
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = resize_image(np.repeat(board[..., None], 3, axis=2), 64)
    assert abs(shrunk.astype(int) - 127.5).max() < 4


def test_a_mask_shrinks_by_area():
    mask = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    assert resize_mask(mask, 2).tolist() == [[False, True], [True, False]]  # 1/4, 3/4; 2/4, 0/4


def test_a_mask_grows_without_new_values():
    grown = resize_mask(np.array([[1, 0], [0, 1]], bool), 6)
    assert np.array_equal(grown, np.kron(np.eye(2), np.ones((3, 3))).astype(bool))


@pytest.mark.parametrize("kind", ["flip", "full"])
def test_masks_stay_binary_and_shapes_stay(kind):
    image, mask = pair()
    for seed in range(30):
        varied, moved = augment(image, mask, kind, np.random.default_rng(seed))
        assert varied.shape == image.shape
        assert moved.shape == mask.shape
        assert set(moved.unique().tolist()) <= {0.0, 1.0}
        assert varied.dtype == moved.dtype == torch.float32
        assert varied.min() >= 0
        assert varied.max() <= 1


def test_warping_moves_image_and_mask_together():
    image, mask = pair()
    moved_far = 0
    for seed in range(20):
        varied, moved = warp(image, mask, np.random.default_rng(seed))
        assert_close((varied[:1] >= 0.5).float(), moved)  # up to interpolation, the image is its mask still
        moved_far += int((moved != mask).sum() > 100)
    assert moved_far > 15


def test_warping_stays_within_its_bounds():
    """Turned by at most 30°, scaled at most by 1.33 · 1.1, shifted by at most a tenth: the middle stays inside."""
    mask = torch.zeros(1, 64, 64)
    mask[:, 24:40, 24:40] = 1  # 256 pixels
    areas = []
    for seed in range(40):
        moved = warp(mask.repeat(3, 1, 1), mask, np.random.default_rng(seed))[1]
        areas.append(moved.sum().item())
        rows, columns = torch.nonzero(moved[0], as_tuple=True)
        assert abs(rows.float().mean() - 31.5) < 14
        assert abs(columns.float().mean() - 31.5) < 14
    assert 256 / 1.33**2 / 1.25 < min(areas) < 200
    assert 320 < max(areas) < 256 * 1.33**2 * 1.25


def test_full_moves_image_and_mask_together():
    """Colour may hide it, so on average: the picture stays bright where the mask is."""
    image, mask = pair()
    contrast = []
    for seed in range(30):
        varied, moved = augment(image, mask, "full", np.random.default_rng(seed))
        grey = varied.mean(0, keepdim=True)
        contrast.append((grey[moved > 0.5].mean() - grey[moved < 0.5].mean()).item())
    assert min(contrast) > 0.4


def test_each_axis_is_mirrored_half_of_the_time():
    image, mask = pair()
    versions = {"none": mask, "rows": mask.flip(1), "columns": mask.flip(2), "both": mask.flip(1, 2)}
    counts = dict.fromkeys(versions, 0)
    for seed in range(400):
        varied, moved = augment(image, mask, "flip", np.random.default_rng(seed))
        assert torch.equal(varied[:1], moved)
        counts[next(name for name, version in versions.items() if torch.equal(version, moved))] += 1
    assert all(60 < count < 140 for count in counts.values())  # 100 expected, 4.6 standard deviations of 8.7


def test_no_augmentation_returns_its_input():
    image, mask = pair()
    varied, moved = augment(image, mask, "none", np.random.default_rng(0))
    assert torch.equal(varied, image)
    assert torch.equal(moved, mask)


def test_augmentation_leaves_its_input_alone():
    image, mask = pair()
    augment(image, mask, "full", np.random.default_rng(1))
    assert torch.equal(image, pair()[0])
    assert torch.equal(mask, pair()[1])
