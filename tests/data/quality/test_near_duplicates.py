"""An altered copy of a picture is near it, another picture is not; each image is told the nearest one of an earlier split."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from tpseg.data.quality import near_duplicates
from tpseg.data.quality.near_duplicates import BITS, NEAR, nearest_elsewhere, perceptual_hash


@cache
def picture(seed: int, height: int = 240, width: int = 320) -> Image.Image:
    """A smooth picture with structure of all sizes."""
    rng = np.random.default_rng(seed)
    layers = sum(s * gaussian_filter(rng.normal(size=(height, width, 3)), (s, s, 0)) for s in (2, 8, 32))
    return Image.fromarray(np.interp(layers, (layers.min(), layers.max()), (30, 220)).astype(np.uint8))


def as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again as JPEG": as_jpeg,
    "half the size": lambda image: image.resize((160, 120)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "cut by 1 % at each side": lambda image: image.crop((3, 2, 317, 238)),
}


def look(image: Image.Image) -> np.ndarray:
    return perceptual_hash(np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_an_altered_copy_is_near(alteration: str) -> None:
    for seed in range(5):
        assert (look(picture(seed)) != look(ALTERATIONS[alteration](picture(seed)))).sum() <= NEAR


def test_another_picture_is_not_near() -> None:
    looks = [look(picture(seed)) for seed in range(12)]
    distances = [(looks[i] != looks[j]).sum() for i in range(12) for j in range(i)]
    assert min(distances) > 2 * NEAR


def flipped(bits: np.ndarray, count: int) -> np.ndarray:
    """The same hash with its first bits changed."""
    return np.concatenate([~bits[:count], bits[count:]])


def test_each_image_is_told_the_nearest_of_the_splits_before_its_own() -> None:
    a, b = np.random.default_rng(0).random((2, BITS)) < 0.5
    looks = np.array([flipped(a, 9), a, b, flipped(a, 4), flipped(b, NEAR), flipped(b, NEAR + 1), a])
    places = np.array([0, 0, 0, 1, 2, 2, 2])  # train, train, train, val, test, test, test
    found = list(nearest_elsewhere(looks, places))
    assert found == [(3, 1, 4), (4, 2, NEAR), (6, 1, 0)]  # 5 is one bit too far; 0 and 1 are of one split


def test_a_nearer_one_in_a_later_split_or_in_its_own_is_not_told() -> None:
    a = np.random.default_rng(0).random(BITS) < 0.5
    looks = np.array([flipped(a, 9), a, flipped(a, 1), a, flipped(a, 9)])
    places = np.array([0, 1, 1, 2, 0])  # train, val, val, test, train: for val the test image would be nearer
    assert list(nearest_elsewhere(looks, places)) == [(1, 0, 9), (2, 0, 8), (3, 1, 0)]  # of two alike the first


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    looks = np.array([flipped(look, rng.integers(0, 50)) for look in np.repeat(rng.random((10, BITS)) < 0.5, 6, axis=0)])
    places = rng.integers(0, 3, len(looks))
    whole = list(nearest_elsewhere(looks, places))
    assert len(whole) > 10
    for cells in (1, 100):
        monkeypatch.setattr(near_duplicates, "CELLS", cells)
        assert list(nearest_elsewhere(looks, places)) == whole


@pytest.mark.parametrize("places", [[], [0, 0], [2, 2]])
def test_a_single_split_has_none(places: list[int]) -> None:
    assert list(nearest_elsewhere(np.ones((len(places), BITS), bool), np.array(places, int))) == []


def test_ten_thousand_images_are_compared_in_seconds() -> None:
    rng = np.random.default_rng(2)
    looks, places = rng.random((10_000, BITS)) < 0.5, rng.choice(3, 10_000, p=[0.7, 0.1, 0.2])
    looks[places == 2] = flipped(looks[np.flatnonzero(places == 0)[0]], 5)
    begun = time.process_time()
    assert len(list(nearest_elsewhere(looks, places))) == (places == 2).sum()
    assert time.process_time() - begun < 10  # 0.9 s measured
