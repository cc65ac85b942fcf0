"""Any image a user has becomes RGB, any binary mask a mask, and everything else an error that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_releases import png16
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.datasets.pictures import lesion
from tpseg.imaging.pictures.formats import decode, read_image, read_mask, stretch

SQUARE = np.zeros((16, 24), np.uint8)
SQUARE[4:12, 6:14] = 255


def save(image: Image.Image | np.ndarray, path: Path, **options: object) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def disc(height: int = 120, width: int = 160) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.where((rows - 60) ** 2 + (columns - 80) ** 2 < 40**2, 255, 0).astype(np.uint8)


# images


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb_of_the_same_look(mode: str, tmp_path: Path) -> None:
    path = save(Image.fromarray(SQUARE).convert(mode), tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    rgb = read_image(path)
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, np.repeat(SQUARE[..., None], 3, axis=2))


def test_colours_and_their_order_are_kept(tmp_path: Path) -> None:
    path = save(np.full((2, 3, 3), (200, 100, 50), np.uint8), tmp_path / "a.bmp")
    assert read_image(path)[1, 2].tolist() == [200, 100, 50]


def test_transparent_palette_image_is_read_without_its_transparency(tmp_path: Path) -> None:
    path = save(Image.fromarray(SQUARE).convert("P"), tmp_path / "a.png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(read_image(path)[..., 0], SQUARE)


def test_sixteen_bits_are_stretched_from_the_images_own_range(tmp_path: Path) -> None:
    values = np.array([[1000, 1500], [2000, 3000]], np.uint16)  # range 2000: 0, 1/4, 1/2, 1
    rgb = read_image(save(values, tmp_path / "a.png"))
    assert rgb[..., 0].tolist() == [[0, 64], [128, 255]]  # 63.75 and 127.5, rounded to even


def test_float_tiff_is_stretched_too(tmp_path: Path) -> None:
    rgb = read_image(save(np.array([[-1.0, 0.0, 1.0]], np.float32), tmp_path / "a.tif"))
    assert rgb[..., 2].tolist() == [[0, 128, 255]]


def test_constant_deep_image_becomes_black_rather_than_a_division_by_zero() -> None:
    assert not stretch(np.full((3, 3), 700, np.uint16)).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_or_infinity_in_an_image_is_an_error(bad: float, tmp_path: Path) -> None:
    path = save(np.array([[0.0, bad]], np.float32), tmp_path / "scan.tif")
    with pytest.raises(DataError, match=r"scan\.tif: holds NaN or infinite pixels; replace"):
        read_image(path)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    left_is_white = np.zeros((16, 32), np.uint8)
    left_is_white[:, :16] = 255
    rgb = read_image(save(left_is_white, tmp_path / "phone.jpg", exif=exif, quality=95))
    assert rgb.shape == (32, 16, 3)
    assert rgb[:14].min() > 200  # left has become the top
    assert rgb[18:].max() < 50


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 20000)])
def test_extreme_sizes_are_read(height: int, width: int, tmp_path: Path) -> None:
    path = save(np.zeros((height, width), np.uint8), tmp_path / "a.png")
    assert read_image(path).shape == (height, width, 3)
    assert read_mask(path).mask.shape == (height, width)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_truncated_file_is_an_error_that_names_it(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(noise, tmp_path / f"scan{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"scan\{suffix}: cannot be decoded .*is it complete"):
        read_image(path)


@pytest.mark.parametrize(("mode", "side"), [("1", 2000), ("L", 2000), ("P", 2000), ("RGB", 1500), ("RGBA", 1500)])
def test_no_png_is_too_small_for_what_is_in_it(mode: str, side: int, tmp_path: Path) -> None:
    """One colour compresses best."""
    Image.new(mode, (side, side)).save(tmp_path / "a.png", compress_level=9)
    assert read_image(tmp_path / "a.png").shape == (side, side, 3)


def test_a_png_of_more_colours_than_deflate_could_make_of_its_bytes_is_refused(tmp_path: Path) -> None:
    """Grey of one bit could be so large."""
    Image.new("RGB", (4000, 4000)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: 4000 * 4000 * 3 // 1033])
    with pytest.raises(DataError, match=r"a\.png: its header says 4000x4000 pixels, more than 46,466 bytes can hold"):
        read_image(tmp_path / "a.png")


def test_text_renamed_to_png_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(DataError, match=r"notes\.png: cannot be decoded .*really a \.png file"):
        read_image(path)


def test_missing_file_and_foreign_suffix_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"a\.docx: cannot read '\.docx' files; expected one of \.png"):
        read_image(tmp_path / "a.docx")


# masks


@pytest.mark.parametrize("high", [1, 255])
def test_mask_values_may_be_0_and_1_or_0_and_255(high: int, tmp_path: Path) -> None:
    reading = read_mask(save(SQUARE // 255 * np.uint8(high), tmp_path / "m.png"))
    np.testing.assert_array_equal(reading.mask, SQUARE == 255)
    assert reading.mask.dtype == bool
    assert reading.note == ""


@pytest.mark.parametrize(("mode", "note"), [("1", ""), ("LA", ""), ("P", "palette"), ("RGB", "rgb"), ("RGBA", "rgb"), ("CMYK", "rgb")])
def test_mask_of_any_mode_is_read_as_it_looks_and_noted(mode: str, note: str, tmp_path: Path) -> None:
    reading = read_mask(save(Image.fromarray(SQUARE).convert(mode), tmp_path / ("m.tif" if mode == "CMYK" else "m.png")))
    np.testing.assert_array_equal(reading.mask, SQUARE == 255)
    assert reading.note == note


@pytest.mark.parametrize("colour", [(128, 0, 0), (128, 128, 128), (1, 1, 1)])
def test_palette_of_two_entries_is_0_and_1_whatever_its_colours(colour: tuple[int, int, int], tmp_path: Path) -> None:
    image = Image.fromarray(SQUARE // 255, mode=None).convert("P")
    image.putpalette([0, 0, 0, *colour])
    reading = read_mask(save(image, tmp_path / "m.png"))
    np.testing.assert_array_equal(reading.mask, SQUARE == 255)


@pytest.mark.parametrize("index", [0, 1])
def test_a_palette_mask_of_one_index_is_empty_or_full(index: int, tmp_path: Path) -> None:
    """An image without a lesion names the background alone; no other index is there to tell it by."""
    image = Image.fromarray(np.full((16, 24), index, np.uint8)).convert("P")
    image.putpalette([0, 0, 128, 128, 0, 0])
    mask = read_mask(save(image, tmp_path / "m.png")).mask
    assert mask.tolist() == np.full((16, 24), index == 1).tolist()


def test_black_and_white_palette_is_taken_as_it_looks_even_if_white_comes_first(tmp_path: Path) -> None:
    image = Image.fromarray((SQUARE == 0).astype(np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(save(image, tmp_path / "m.png")).mask, SQUARE == 255)


@pytest.mark.parametrize("quality", [50, 75, 90, 95, 100])
def test_jpeg_mask_is_cut_at_128_and_noted(quality: int, tmp_path: Path) -> None:
    reading = read_mask(save(disc(), tmp_path / "m.jpg", quality=quality))
    assert reading.note == "soft edges, cut at 128"
    assert (reading.mask != (disc() == 255)).sum() <= 5


def test_antialiased_mask_is_cut_at_128(tmp_path: Path) -> None:
    half = Image.fromarray(disc()).resize((80, 60), Image.Resampling.BILINEAR)
    reading = read_mask(save(half, tmp_path / "m.png"))
    np.testing.assert_array_equal(reading.mask, np.asarray(half) >= 128)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0, 1, 2], "0, 1, 2;"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "0, 1, 2, 3, 4, 5, ...;"),
        ([0, 1, 255], "0, 1, 255;"),  # 255 is the usual 'ignore' value of class ids
        ([0, 128], "0, 128;"),
        ([0, 85, 170, 255], "0, 85, 170, 255;"),
    ],
)
def test_class_ids_are_refused_with_the_values_and_what_to_do(values: list[int], shown: str, tmp_path: Path) -> None:
    path = save(np.repeat(np.array(values, np.uint8), 8).reshape(1, -1), tmp_path / "m.png")
    with pytest.raises(DataError, match="Convert class ids to one binary mask per task") as caught:
        read_mask(path)
    assert str(caught.value).startswith(f"{path}: mask values {shown}")


def nuclei(count: int, side: int = 5) -> np.ndarray:
    """Instance ids 1 to `count`, each a square, 16 in a row."""
    ids = np.zeros((16 * (side + 3), 16 * (side + 3)), np.uint8)
    for number in range(count):
        top, left = (number // 16) * (side + 3), (number % 16) * (side + 3)
        ids[top : top + side, left : left + side] = number + 1
    return ids


@pytest.mark.parametrize("count", [223, 224, 240, 255])
@pytest.mark.parametrize("side", [2, 5])
def test_instance_ids_are_no_soft_edges_however_many_there_are(count: int, side: int, tmp_path: Path) -> None:
    ids = nuclei(count, side)
    ids = np.pad(ids, ((0, 600), (0, 600)))  # so that they cover little of the picture
    with pytest.raises(DataError, match=r"mask values 0, 1, 2, 3, 4, 5, \.\.\.; .*Convert class ids"):
        read_mask(save(ids, tmp_path / "m.png"))


def test_a_grey_area_beside_a_white_one_is_no_soft_edge(tmp_path: Path) -> None:
    """A disc of 128 around a cup of 255, as of the optic nerve's head."""
    values = np.zeros((200, 200), np.uint8)
    values[60:90, 60:90] = 128
    values[65:85, 65:85] = 255
    with pytest.raises(DataError, match="mask values 0, 128, 255;"):
        read_mask(save(values, tmp_path / "m.png"))


@pytest.mark.parametrize("radius", [2, 4, 15])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_small_lesions_with_soft_edges_are_masks(radius: int, suffix: str, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:400, :400]
    hard = Image.fromarray(((rows - 201) ** 2 + (columns - 203) ** 2 < (4 * radius) ** 2).astype(np.uint8) * 255)
    soft = hard.resize((100, 100), Image.Resampling.BILINEAR)
    found = read_mask(save(soft, tmp_path / f"m{suffix}"))
    assert found.note == "soft edges, cut at 128"
    assert abs(found.mask.sum() - np.pi * radius**2) < 0.15 * np.pi * radius**2 + 2


def test_a_soft_mask_enlarged_twofold_without_smoothing_stays_one(tmp_path: Path) -> None:
    half = Image.fromarray(disc()).resize((80, 60), Image.Resampling.BILINEAR)
    read = read_mask(save(half.resize((160, 120), Image.Resampling.NEAREST), tmp_path / "m.png"))
    assert read.note == "soft edges, cut at 128"


def test_a_small_grey_lesion_is_no_soft_edge(tmp_path: Path) -> None:
    values = np.zeros((100, 100), np.uint8)
    values[40:45, 40:45] = 128  # a quarter of a percent
    with pytest.raises(DataError, match="mask values 0, 128"):
        read_mask(save(values, tmp_path / "m.png"))


def test_coloured_mask_is_refused(tmp_path: Path) -> None:
    values = np.zeros((8, 8, 3), np.uint8)
    values[2:4, 2:4] = (255, 0, 0)
    with pytest.raises(DataError, match=r"overlay\.png: a coloured mask; expected one channel"):
        read_mask(save(values, tmp_path / "overlay.png"))


def test_palette_of_several_classes_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    with pytest.raises(DataError, match="coloured mask"):
        read_mask(save(image, tmp_path / "m.png"))


def test_nan_in_a_mask_is_an_error_and_no_background(tmp_path: Path) -> None:
    values = SQUARE.astype(np.float32)
    values[0, 0] = np.nan
    with pytest.raises(DataError, match=r"m\.tif: holds NaN or infinite pixels; expected 0 and 255"):
        read_mask(save(values, tmp_path / "m.tif"))


@pytest.mark.parametrize("high", [1, 255, 65535])
def test_sixteen_bit_mask_may_hold_0_and_1_or_0_and_white_of_8_or_16_bits(high: int, tmp_path: Path) -> None:
    values = (SQUARE == 255) * np.uint16(high)
    np.testing.assert_array_equal(read_mask(save(values, tmp_path / "m.png")).mask, SQUARE == 255)
    (tmp_path / "rgb.png").write_bytes(png16(np.repeat(values[..., None], 3, axis=2)))
    np.testing.assert_array_equal(read_mask(tmp_path / "rgb.png").mask, SQUARE == 255)
    with pytest.raises(DataError, match="mask values 0, 200;"):
        read_mask(save(values // np.uint16(high) * np.uint16(200), tmp_path / "n.png"))


# masks in the alpha channel


def with_alpha(colour: np.ndarray | int, alpha: np.ndarray) -> Image.Image:
    """An RGBA mask of grey colours."""
    grey = np.broadcast_to(np.asarray(colour, np.uint8), alpha.shape)
    return Image.fromarray(np.dstack([grey, grey, grey, alpha.astype(np.uint8)]))


def transparent_palette(colours: list[int], alphas: bytes, path: Path) -> Path:
    image = Image.fromarray(SQUARE // 255).convert("P")
    image.putpalette(colours)
    return save(image, path, transparency=alphas)


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_mask_drawn_in_the_alpha_channel_is_refused(colour: int, tmp_path: Path) -> None:
    """Whether lesion is what was painted or what was erased, it does not say."""
    words = r"its alpha channel varies but its colours do not; flatten it"
    deep = np.dstack([np.full_like(SQUARE, colour, np.uint16), SQUARE * np.uint16(257)])
    (tmp_path / "deep.png").write_bytes(png16(deep))
    files = [
        save(with_alpha(colour, SQUARE), tmp_path / "rgba.png"),
        save(with_alpha(colour, SQUARE).convert("LA"), tmp_path / "la.png"),
        save(with_alpha(colour, SQUARE), tmp_path / "rgba.tif"),
        transparent_palette([colour] * 6, bytes([0, 255]), tmp_path / "palette.png"),
        transparent_palette([colour, 0, 0] * 2, bytes([255, 0]), tmp_path / "coloured.png"),
        tmp_path / "deep.png",
    ]
    for path in files:
        with pytest.raises(DataError, match=rf"{path.stem}\{path.suffix}: {words}"):
            read_mask(path)
        if path.stem != "coloured":
            with pytest.raises(DataError, match=rf"{path.stem}\{path.suffix}: {words}"):
                lesion(decode(path.read_bytes(), path.name), path.name)


def test_white_that_is_transparent_is_refused(tmp_path: Path) -> None:
    hidden = np.full_like(SQUARE, 255)
    hidden[5, 7] = 0
    for image in (with_alpha(SQUARE, hidden), with_alpha(SQUARE, 255 - SQUARE)):
        with pytest.raises(DataError, match=r"m\.png: its alpha channel hides pixels that are not black; flatten"):
            read_mask(save(image, tmp_path / "m.png"))
    with pytest.raises(DataError, match="hides pixels that are not black"):
        read_mask(transparent_palette([0, 0, 0, 128, 0, 0], bytes([255, 0]), tmp_path / "p.png"))


def test_what_is_white_and_transparent_all_over_is_no_full_mask(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.png: all of it is transparent, but not black; save the lesion in white"):
        read_mask(save(with_alpha(255, SQUARE * 0), tmp_path / "m.png"))
    assert not read_mask(save(with_alpha(0, SQUARE * 0), tmp_path / "e.png")).mask.any()


def test_a_palette_of_one_colour_hides_a_mask_which_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(SQUARE // 255).convert("P")
    image.putpalette([0, 0, 0] * 2)
    with pytest.raises(DataError, match=r"m\.png: its palette shows all of it in one colour; save the lesion in white"):
        read_mask(save(image, tmp_path / "m.png"))
    image.paste(0, (0, 0, *image.size))
    assert not read_mask(save(image, tmp_path / "e.png")).mask.any()


def test_alpha_that_agrees_with_the_colours_or_says_nothing_does_no_harm(tmp_path: Path) -> None:
    whole = np.full_like(SQUARE, 255)
    for image in (with_alpha(SQUARE, SQUARE), with_alpha(SQUARE, SQUARE // 2), with_alpha(SQUARE, whole), with_alpha(SQUARE, whole * 0)):
        np.testing.assert_array_equal(read_mask(save(image, tmp_path / "m.png")).mask, SQUARE == 255)
    for alphas in (bytes([0, 255]), bytes([255, 255])):
        path = transparent_palette([0, 0, 0, 128, 0, 0], alphas, tmp_path / "p.png")
        np.testing.assert_array_equal(read_mask(path).mask, SQUARE == 255)
    assert not read_mask(save(with_alpha(0, whole), tmp_path / "e.png")).mask.any()


def test_empty_and_full_masks_are_masks(tmp_path: Path) -> None:
    assert not read_mask(save(np.zeros((4, 4), np.uint8), tmp_path / "e.png")).mask.any()
    assert read_mask(save(np.full((4, 4), 255, np.uint8), tmp_path / "f.png")).mask.all()


def test_a_tiff_stack_is_refused_and_a_pyramid_is_its_first_page(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"stack\.tif: a stack of 2 pages"):
        read_image(tmp_path / "stack.tif")
    pages[0].save(tmp_path / "pyramid.tif", save_all=True, append_images=[pages[1].resize((4, 4))])
    assert (read_image(tmp_path / "pyramid.tif") == 10).all()
