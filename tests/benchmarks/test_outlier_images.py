"""The strange images that outlier scores are measured on: what they are said to be, and the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.outliers import CROPS, KINDS, MATPLOTLIB, NOISE, NOISES, SKIMAGE, coloured, natural, random_page


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "natural images"])
def test_each_kind_is_pictures_and_the_same_for_a_seed(kind):
    first, second = (KINDS[kind](np.random.default_rng(3)) for _ in range(2))
    assert all(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and min(image.shape[:2]) >= 32 for image in first)
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_natural_images_are_whole_and_in_crops_and_need_no_download():
    assert len(natural(np.random.default_rng(0))) == (len(SKIMAGE) + len(MATPLOTLIB)) * (1 + CROPS)


def test_noise_is_of_every_kind():
    assert len(KINDS["noise"](np.random.default_rng(0))) == NOISES * len(NOISE)


def test_brown_noise_is_smoother_than_pink_noise():
    steps = [np.abs(np.diff(coloured(128, power, np.random.default_rng(0))[..., 0].astype(int))).mean() for power in (1, 2)]
    assert steps[1] < 0.5 * steps[0]


def test_a_page_is_mostly_paper_with_dark_letters():
    page = random_page(0, np.random.default_rng(0))
    assert np.median(page) > 150
    assert np.quantile(page, 0.02) < 120
