"""TIFFs of every number type and layout give the pixels that are in the file, or a sentence."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, UnidentifiedImageError

from tpseg.core.errors import DataError
from tpseg.imaging.pictures.formats import decode, open_image, read_image, read_mask, size_of, to_rgb
from tpseg.imaging.pictures.samples import samples_of
from tpseg.imaging.regions import PictureRegions, open_regions

SHAPE = (37, 53)


def noise(kind: str, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(3)
    shape = (*SHAPE, channels) if channels > 1 else SHAPE
    if kind.startswith("float"):
        return rng.normal(5, 2, shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


def write(path: Path, values: np.ndarray, **options: object) -> Path:
    """A TIFF of colours (channels last) or grey; options as tifffile takes them."""
    options = {"photometric": "rgb" if values.ndim == 3 and values.shape[2] > 2 else "minisblack", **options}
    if values.ndim == 3:
        options = {"planarconfig": "contig", **options}
        if values.shape[2] in (2, 4):
            options = {"extrasamples": ["unassalpha"], **options}
        if options["planarconfig"] == "separate":
            values = np.moveaxis(values, 2, 0)
    tifffile.imwrite(path, values, **options)
    return path


def stretched(values: np.ndarray) -> np.ndarray:
    """What all but 8-bit values look like, (H, W, 3)."""
    wide = values.astype(np.float64)
    shown = np.round((wide - wide.min()) / (wide.max() - wide.min()) * 255).astype(np.uint8)
    return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)


def all_ways(path: Path) -> list[np.ndarray]:
    """The picture as RGB by its path, from its bytes, and put together from parts."""
    regions = open_regions(path)
    height, width = regions.size
    parts = [regions.read(top, 0, min(11, height - top), width) for top in range(0, height, 11)]
    return [read_image(path), to_rgb(decode(path.read_bytes(), path.name)), np.concatenate(parts)]


@pytest.mark.parametrize("kind", ["int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", [{}, {"planarconfig": "separate", "rowsperstrip": 10}, {"tile": (16, 32), "compression": "zlib"}])
def test_every_number_type_gives_the_pixels_of_the_file_in_all_ways(tmp_path: Path, kind: str, channels: int, layout: dict) -> None:
    values = noise(kind, channels)
    path = write(tmp_path / "a.tif", values, **(layout if channels > 1 else {**layout, "planarconfig": None}))
    samples = samples_of(open_image(path))
    colours = values if values.ndim == 2 else values[..., : 3 if channels > 2 else 1].squeeze()
    assert samples.values.dtype == values.dtype
    assert np.array_equal(samples.values, colours)
    assert (samples.alpha is None) == (channels in (1, 3))
    if samples.alpha is not None:
        assert np.array_equal(samples.alpha, values[..., -1])
    for found in all_ways(path):
        assert np.abs(found.astype(int) - stretched(colours)).max() <= (1 if kind == "float16" else 0)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("layout", [{}, {"planarconfig": "separate"}, {"compression": "zlib", "predictor": True}])
def test_eight_bits_are_shown_as_they_are_in_all_ways(tmp_path: Path, channels: int, layout: dict) -> None:
    values = noise("uint8", channels)
    path = write(tmp_path / "a.tif", values, **(layout if channels > 1 else {**layout, "planarconfig": None}))
    shown = np.repeat(values[..., None], 3, axis=2) if channels == 1 else values[..., :3]
    for found in all_ways(path):
        assert np.array_equal(found, shown)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", ["uint16", "int32", "uint32"])
def test_differences_along_rows_are_added_up(tmp_path: Path, byteorder: str, kind: str) -> None:
    values = noise(kind, 3)
    path = write(tmp_path / "a.tif", values, compression="zlib", predictor=True, byteorder=byteorder)
    assert np.array_equal(samples_of(open_image(path)).values, values)


def made(tags: dict[int, list[int]], strip: bytes) -> bytes:
    """A little-endian TIFF of one strip whose other tags are given as 16-bit numbers."""
    entries = {**{tag: ("H", 3, values) for tag, values in tags.items()}, 273: ("I", 4, [0]), 279: ("I", 4, [len(strip)])}
    start = 8 + 2 + 12 * len(entries) + 4
    table, behind = b"", b""
    for tag, (code, kind, values) in sorted(entries.items()):
        packed = np.array(values, f"<{code}".replace("H", "u2").replace("I", "u4")).tobytes()
        if tag == 273:
            packed = b"STRP"
        if len(packed) > 4:
            packed, behind = int(start + len(behind)).to_bytes(4, "little"), behind + packed
        table += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + len(values).to_bytes(4, "little") + packed.ljust(4, b"\0")
    table = table.replace(b"STRP", (start + len(behind)).to_bytes(4, "little"))
    return b"II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little") + table + bytes(4) + behind + strip


def tags_of(values: np.ndarray, **others: int) -> dict[int, list[int]]:
    height, width, channels = values.shape
    named = {"compression": 259, "predictor": 317, "photometric": 262, "planar": 284, "format": 339, "orientation": 274}
    tags = {
        256: [width],
        257: [height],
        258: [8 * values.itemsize] * channels,
        262: [2 if channels > 2 else 1],
        277: [channels],
        278: [height],
    }
    return tags | {named[name]: [value] for name, value in others.items()}


@pytest.mark.parametrize(("compression", "code"), [("tiff_lzw", 5), ("packbits", 32773), ("tiff_adobe_deflate", 8)])
@pytest.mark.parametrize("predictor", [1, 2])
def test_deep_colours_are_read_however_they_are_packed(tmp_path: Path, compression: str, code: int, predictor: int) -> None:
    values = noise("uint16", 3)
    stored = np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1])) if predictor == 2 and code != 32773 else values
    stream = io.BytesIO()
    Image.fromarray(stored.view(np.uint8).reshape(SHAPE[0], -1)).save(stream, "TIFF", compression=compression, tiffinfo={278: SHAPE[0]})
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        assert len(page.dataoffsets) == 1
        strip = stream.getvalue()[page.dataoffsets[0] :][: page.databytecounts[0]]
    (tmp_path / "a.tif").write_bytes(made(tags_of(values, compression=code, predictor=predictor), strip))
    assert np.array_equal(samples_of(open_image(tmp_path / "a.tif")).values, values)


def test_floating_point_in_planes_of_bytes_is_joined(tmp_path: Path) -> None:
    """As Pillow's libtiff packs it, which is asked for another opinion."""
    values = noise("float32")
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={317: 3})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.predictor == 3
    assert np.array_equal(samples_of(open_image(tmp_path / "a.tif")).values, values)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32"])
def test_grey_in_which_0_is_white_is_inverted(tmp_path: Path, kind: str) -> None:
    values = noise(kind)
    dark, light = (all_ways(write(tmp_path / f"{name}.tif", values, photometric=name)) for name in ("minisblack", "miniswhite"))
    for one, other in zip(dark, light, strict=True):
        assert np.array_equal(one, 255 - other)


def test_twelve_bits_packed_tightly_are_unpacked_where_0_is_black_and_refused_where_it_is_white(tmp_path: Path) -> None:
    values = np.array([[0, 0x123, 0xABC, 0xFFF]], np.uint16)
    strip = bytes([0x00, 0x01, 0x23, 0xAB, 0xCF, 0xFF])
    tags = tags_of(values[..., None]) | {258: [12]}
    (tmp_path / "a.tif").write_bytes(made(tags, strip))
    for found in all_ways(tmp_path / "a.tif"):
        assert np.array_equal(found, stretched(values))
    (tmp_path / "a.tif").write_bytes(made(tags | {262: [0]}, strip))
    with pytest.raises(DataError, match=r"a\.tif: 1 channel of uint16 \(12 bits each\)"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("scale", [1, 257])
def test_a_palette_of_8_bits_in_words_is_as_bright_as_it_is(tmp_path: Path, scale: int) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    values = noise("uint8")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="palette", colormap=colours.T.astype(np.uint16) * np.uint16(scale))
    for found in all_ways(tmp_path / "a.tif"):
        assert np.array_equal(found, colours[values])


@pytest.mark.parametrize("subsampling", [{530: [2, 2]}, {}])
def test_plain_pixels_that_share_their_colours_are_refused(tmp_path: Path, subsampling: dict) -> None:
    """Two by two unless the file says otherwise; Pillow would read on into what follows."""
    values = noise("uint8", 3)
    (tmp_path / "a.tif").write_bytes(made(tags_of(values, photometric=6) | subsampling, values.tobytes()))
    with pytest.raises(DataError, match=r"a\.tif: YCbCr of which several pixels share a colour"):
        open_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(made(tags_of(values, photometric=6) | {530: [1, 1]}, values.tobytes()))
    assert np.array_equal(read_image(tmp_path / "a.tif"), np.asarray(Image.fromarray(values, "YCbCr").convert("RGB")))


def test_a_mask_in_which_0_is_white_is_the_same_mask(tmp_path: Path) -> None:
    """Of one bit, too."""
    square = np.zeros(SHAPE, bool)
    square[5:20, 7:30] = True
    for name, values in (("bits", ~square), ("bytes", np.where(square, 0, 255).astype(np.uint8)), ("words", np.where(square, 0, 65535))):
        path = write(tmp_path / f"{name}.tif", values if name != "words" else values.astype(np.uint16), photometric="miniswhite")
        assert np.array_equal(read_mask(path).mask, square), name


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", "uint64", "int64", "float16", "float64"])
@pytest.mark.parametrize("high", [1, 255])
def test_a_mask_may_be_of_any_number_type(tmp_path: Path, kind: str, high: int) -> None:
    if kind == "int8" and high == 255:
        pytest.skip("no such number")
    square = np.zeros(SHAPE, bool)
    square[5:20, 7:30] = True
    assert np.array_equal(read_mask(write(tmp_path / "m.tif", (square * high).astype(kind))).mask, square)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pictures_are_turned_upright_as_others_are(tmp_path: Path, orientation: int) -> None:
    plain = noise("uint8", 3)
    deep = plain.astype(np.uint16)
    found = []
    for name, values in (("plain", plain), ("deep", deep)):
        (tmp_path / f"{name}.tif").write_bytes(made(tags_of(values, orientation=orientation), values.tobytes()))
        picture = open_image(tmp_path / f"{name}.tif")
        with (tmp_path / f"{name}.tif").open("rb") as file:
            assert size_of(file) == (picture.height, picture.width)
        assert open_regions(tmp_path / f"{name}.tif").size == (picture.height, picture.width)
        found.append(samples_of(picture).values)
    assert np.array_equal(found[0], found[1])


def test_the_size_of_what_pillow_does_not_know_is_told(tmp_path: Path) -> None:
    with write(tmp_path / "a.tif", noise("float64")).open("rb") as file:
        assert size_of(file) == SHAPE


REFUSED = {
    "five channels": (noise("uint16", 5), {"photometric": "minisblack"}, "5 channels of uint16, photometric interpretation MINISBLACK"),
    "16-bit CMYK": (noise("uint16", 4), {"photometric": "separated", "extrasamples": []}, "photometric interpretation SEPARATED"),
    "two greys": (noise("uint16", 2), {"extrasamples": [0]}, "two channels of grey, and no word that the second is alpha"),
    "two greys of 8 bits": (noise("uint8", 2), {"extrasamples": [0]}, "two channels of grey, and no word that the second is alpha"),
    "multiplied by alpha": (noise("uint16", 4), {"extrasamples": ["assocalpha"]}, "its colours are multiplied by its alpha channel"),
    "complex": (np.ones(SHAPE, np.complex64), {}, "1 channel of complex64 .*expected 8, 16, 32 or 64 bits"),
    "light is negative": (
        noise("float64"),
        {"photometric": "miniswhite"},
        "float64 in which 0 is white, but nothing says",
    ),
    "a stack": (noise("float64", 5).transpose(2, 0, 1), {}, "a stack of 5 pages"),
    "Lab": (noise("uint8", 3), {"photometric": "cielab"}, "colours in Lab"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_faithfully_is_refused_in_all_ways(tmp_path: Path, name: str) -> None:
    values, options, words = REFUSED[name]
    if name == "a stack":
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    else:
        write(tmp_path / "a.tif", values, **options)
    for read in (open_image, lambda path: decode(path.read_bytes(), str(path)), open_regions):
        with pytest.raises(DataError, match=rf"a\.tif: .*{words}"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize(("tag", "value", "words"), [(259, 7, "packed as JPEG"), (266, 2, "fill order 2; expected"), (317, 9, "")])
def test_deep_pixels_that_are_packed_otherwise_are_refused(tmp_path: Path, tag: int, value: int, words: str) -> None:
    values = noise("uint16", 3)
    (tmp_path / "a.tif").write_bytes(made(tags_of(values, compression=8) | {tag: [value]}, values.tobytes()))
    with pytest.raises(DataError, match=rf"a\.tif: .*{words}"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_deep_tiff_cut_short_is_an_error_that_names_it(tmp_path: Path, compression: str | None) -> None:
    path = write(tmp_path / "a.tif", noise("float64", 3), compression=compression, rowsperstrip=5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    for read in (read_image, lambda path: decode(path.read_bytes(), str(path))):
        with pytest.raises(DataError, match=r"a\.tif: "):
            read(path)


def test_a_header_that_promises_more_than_the_file_can_hold_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    tags = tags_of(np.zeros((1, 1, 1)), compression=8, format=3) | {256: [60_000], 257: [60_000], 278: [60_000]}
    (tmp_path / "a.tif").write_bytes(made(tags, bytes(1000)))
    with pytest.raises(DataError, match=r"a\.tif: its header says 60000x60000 pixels, more than 1,"):
        open_image(tmp_path / "a.tif")


def test_a_tiff_without_pixels_is_refused(tmp_path: Path) -> None:
    values = noise("uint16", 3)
    (tmp_path / "a.tif").write_bytes(made(tags_of(values) | {256: [0]}, values.tobytes()))
    with pytest.raises(DataError, match=r"a\.tif: "):
        open_image(tmp_path / "a.tif")


def test_floats_whose_range_overflows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tif: pixels from -1\.7e\+308 to 1\.7e\+308, a range"):
        read_image(write(tmp_path / "a.tif", np.array([[-1.7e308, 1.7e308]])))


def test_deep_colours_of_a_large_tiff_are_read_in_parts(tmp_path: Path) -> None:
    """And all others whole, with the same pixels."""
    assert not isinstance(open_regions(write(tmp_path / "a.tif", noise("uint16", 3))), PictureRegions)
    assert isinstance(open_regions(write(tmp_path / "b.tif", noise("uint16", 4))), PictureRegions)


def test_what_is_no_picture_has_no_size() -> None:
    with pytest.raises(UnidentifiedImageError):
        size_of(io.BytesIO(b"II*no, this is a text" * 20))
    with pytest.raises(UnidentifiedImageError):
        size_of(io.BytesIO(b"a text" * 20))
