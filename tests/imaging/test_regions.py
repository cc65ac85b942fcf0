"""Parts of large pictures: the same pixels as decoding the whole, whatever the file's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.imaging.pictures.formats import read_image
from tpseg.imaging.regions import FrameRegions, PictureRegions, TiffRegions, open_regions, read_reduced, reduce

PARTS = [(0, 0, 70, 90), (10, 20, 30, 40), (69, 89, 1, 1), (0, 60, 70, 30), (33, 0, 17, 90)]


def colour(height: int = 70, width: int = 90, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)


def grey16() -> np.ndarray:
    return np.random.default_rng(2).integers(300, 3000, (70, 90), dtype=np.uint16)


def assert_parts(path: Path, kind: type) -> None:
    regions, whole = open_regions(path), read_image(path)
    assert isinstance(regions, kind)
    assert regions.size == whole.shape[:2]
    for top, left, height, width in PARTS:
        assert np.array_equal(regions.read(top, left, height, width), whole[top : top + height, left : left + width])


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 9}], ids=["one strip", "tiles", "strips"])
@pytest.mark.parametrize(
    "packing", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}], ids=["plain", "zlib", "zlib differences"]
)
@pytest.mark.parametrize("kind", ["rgb", "rgba", "grey", "grey16"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_tiff_is_read_in_parts(tmp_path: Path, layout: dict, packing: dict, kind: str, byteorder: str) -> None:
    values = {"rgb": colour(), "rgba": colour(channels=4), "grey": colour()[..., 0], "grey16": grey16()}[kind]
    photometric = "rgb" if kind.startswith("rgb") else "minisblack"
    extra = {"extrasamples": ["unassalpha"]} if kind == "rgba" else {}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric, byteorder=byteorder, **layout, **packing, **extra)
    assert_parts(tmp_path / "a.tif", TiffRegions)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_other_pictures_are_decoded_whole(tmp_path: Path, mode: str, suffix: str) -> None:
    if suffix == ".png" and mode in ("CMYK", "F"):
        pytest.skip("no such PNG")
    image = Image.fromarray(grey16()) if mode == "I;16" else Image.fromarray(colour()).convert(mode)
    image.save(tmp_path / f"a{suffix}", **({"compression": "tiff_lzw"} if suffix == ".tif" and mode != "F" else {}))
    assert_parts(tmp_path / f"a{suffix}", PictureRegions)


def test_a_turned_photo_is_upright(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(colour(90, 70)).save(tmp_path / "a.png", exif=tag)
    assert open_regions(tmp_path / "a.png").size == (70, 90)
    assert_parts(tmp_path / "a.png", PictureRegions)


def test_a_smaller_copy_is_made_of_means(tmp_path: Path) -> None:
    values = colour(1030, 40)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    small = read_reduced(open_regions(tmp_path / "a.tif"), 4)
    assert small.shape == (258, 10, 3)
    assert np.abs(small[:257] - values[:1028].reshape(257, 4, 10, 4, 3).mean(axis=(1, 3))).max() <= 0.5


@pytest.mark.parametrize("factor", [1, 3, 7, 600])
def test_a_smaller_copy_shows_no_bands_whatever_the_factor(factor: int) -> None:
    """It is read in bands of 512 rows or fewer, none of which may end within a pixel of the copy."""
    values = colour(1300, 40)
    assert np.array_equal(read_reduced(FrameRegions(values), factor), reduce(values, factor))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_cut_short_is_named(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colour(), photometric="rgb", compression=compression, rowsperstrip=7)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(DataError, match=r"a\.tif"):
        open_regions(path).read(0, 0, 70, 90)


def test_a_segment_that_unpacks_to_more_than_it_should_takes_no_more_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    values = np.zeros((4096, 4096), np.uint8)
    tifffile.imwrite(path, values, compression="zlib", rowsperstrip=4096)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags["RowsPerStrip"]
        length = file.pages.first.tags["ImageLength"]
    for entry in (tag, length):  # one strip of 16 rows, says the header now
        content = content[: entry.valueoffset] + (16).to_bytes(2, "little") + content[entry.valueoffset + 2 :]
    path.write_bytes(content)
    regions = open_regions(path)
    assert regions.size == (16, 4096)
    assert isinstance(regions, TiffRegions)
    assert regions.read(0, 0, 16, 4096).shape == (16, 4096, 3)
    assert sum(segment.nbytes for segment in regions._decoded.values()) == 16 * 4096


def test_a_stack_and_pixels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 20, 20), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="stack of 3 pages"):
        open_regions(tmp_path / "stack.tif")
    values = np.ones((20, 20), np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match="NaN"):
        open_regions(tmp_path / "nan.tif")
