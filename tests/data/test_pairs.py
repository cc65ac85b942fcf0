"""The quick way to the model's square gives the pixels of the plain way, whatever the file holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.data.manifest import Case
from tpseg.data.pairs import read_pair, read_square
from tpseg.data.preprocessing import resize_image, resize_mask
from tpseg.imaging.pictures.formats import open_image

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
IMAGES = {
    "RGB.png": Image.fromarray(PIXELS[..., :3]),
    "RGB.jpg": Image.fromarray(PIXELS[..., :3]),
    "L.png": Image.fromarray(PIXELS[..., 0]),
    "L.jpg": Image.fromarray(PIXELS[..., 0]),
    "RGBA.png": Image.fromarray(PIXELS),
    "LA.png": Image.fromarray(PIXELS).convert("LA"),
    "P.png": Image.fromarray(PIXELS[..., :3]).quantize(17),
    "1.png": Image.fromarray(PIXELS[..., 0] > 100),
    "CMYK.jpg": Image.fromarray(PIXELS[..., :3]).convert("CMYK"),
    "I16.png": Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200),
    "F.tif": Image.fromarray(PIXELS[..., 0].astype(np.float32) * 0.37),
}


def case(folder: Path, name: str, image: Image.Image, **options: object) -> Case:
    image.save(folder / name, **options)
    Image.fromarray((PIXELS[..., 1] > 90).astype(np.uint8) * 255).save(folder / "mask.png", **options)
    return Case("lesion", folder / name, folder / "mask.png", "train", "", name)


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize("name", IMAGES)
def test_the_square_is_that_of_the_plain_way_bit_for_bit(tmp_path: Path, name: str, size: int) -> None:
    one = case(tmp_path, name, IMAGES[name])
    image, mask = read_pair(one)
    square, small = read_square(one, size)
    assert (square.shape, square.dtype, small.shape, small.dtype) == ((3, size, size), np.uint8, (size, size), np.bool_)
    assert np.array_equal(square, resize_image(image, size).transpose(2, 0, 1))
    assert np.array_equal(small, resize_mask(mask, size))


def test_an_image_of_the_models_size_is_not_touched(tmp_path: Path) -> None:
    image = PIXELS[:50, :50, :3]
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image[..., 0] > 9).save(tmp_path / "m.png")
    assert np.array_equal(read_square(Case("t", tmp_path / "a.png", tmp_path / "m.png", "train", "", "a"), 50)[0], image.transpose(2, 0, 1))


def test_image_and_mask_are_turned_upright_alike(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6  # turn clockwise to see it upright
    one = case(tmp_path, "turned.png", IMAGES["RGB.png"], exif=tag)
    image, mask = read_pair(one)
    assert image.shape[:2] == mask.shape == (70, 50)
    assert np.array_equal(image, np.rot90(PIXELS[..., :3], -1))
    assert open_image(one.image).size == (50, 70)
    assert np.array_equal(read_square(one, 64)[0], resize_image(image, 64).transpose(2, 0, 1))


@pytest.mark.parametrize("read", [read_pair, lambda case: read_square(case, 32)])
def test_image_and_mask_of_different_size_are_an_error_that_names_both(tmp_path: Path, read) -> None:
    one = case(tmp_path, "image.png", Image.new("RGB", (71, 50)))
    with pytest.raises(DataError, match=r"image\.png: image and mask differ in size, 71x50 against 70x50 pixels; the mask is .*mask\.png"):
        read(one)
