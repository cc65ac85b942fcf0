"""PNGs of 16 bits a channel keep both bytes of every value, in all ways in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_releases import png16, png_chunk
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.imaging.pictures.formats import decode, open_image, read_image, size_of, to_rgb
from tpseg.imaging.pictures.samples import samples_of
from tpseg.imaging.regions import open_regions

SHAPE = (31, 17)


def noise(channels: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 65536, (*SHAPE, channels), dtype=np.uint16)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_both_bytes_of_every_value_are_read(channels: int, tmp_path: Path) -> None:
    values = noise(channels)
    (tmp_path / "a.png").write_bytes(png16(values))
    for picture in (open_image(tmp_path / "a.png"), decode(png16(values), "a.png")):
        samples = samples_of(picture)
        assert np.array_equal(samples.values, values[..., 0] if channels == 2 else values[..., :3])
        if channels == 3:
            assert samples.alpha is None
        else:
            assert np.array_equal(samples.alpha, values[..., -1])


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_twelve_bits_in_sixteen_are_stretched_over_all_colours_together(channels: int, tmp_path: Path) -> None:
    values = np.zeros((4, 5, channels), np.uint16)
    values[..., 0] = 1000  # the lowest value is in the other colours, the highest in the first
    values[0, 0, 0] = 4095
    if channels in (2, 4):
        values[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png16(values))
    colours = values[..., :1].repeat(3, axis=2) if channels == 2 else values[..., :3]
    expected = np.round((colours - colours.min()) / (4095 - colours.min()) * 255)
    whole, part = read_image(tmp_path / "a.png"), open_regions(tmp_path / "a.png").read(1, 2, 3, 3)
    assert np.array_equal(whole, expected)
    assert np.array_equal(part, expected[1:, 2:])
    assert np.array_equal(to_rgb(decode(png16(values), "a.png")), expected)


def test_a_deep_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = noise(3)
    (tmp_path / "a.png").write_bytes(png16(values, png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
    assert np.array_equal(samples_of(open_image(tmp_path / "a.png")).values, np.rot90(values, -1))
    assert open_regions(tmp_path / "a.png").size == SHAPE[::-1]
    with (tmp_path / "a.png").open("rb") as file:
        assert size_of(file) == SHAPE[::-1]


def test_a_deep_picture_cut_short_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png16(noise(4))[:2000])
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded .*is it complete"):
        open_image(tmp_path / "a.png")
