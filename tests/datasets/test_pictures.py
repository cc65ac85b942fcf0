"""Pictures are kept as they are where they can be; masks of every kind become the same lesion."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from fake_releases import bit_mask, case, encode, grey_mask, in_folder, palette_mask, rgb, rgb_mask, soft_mask
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.datasets.pictures import decode, labels, lesion, mask, picture, suffix_of
from tpseg.datasets.release import Release

IMAGE, LESION = case(1)


@pytest.mark.parametrize(
    "made",
    [
        grey_mask,
        rgb_mask,
        bit_mask,
        palette_mask,
        soft_mask,
        lambda one: one.astype(np.uint8),
        lambda one: grey_mask(one).astype(np.uint16),
    ],
)
def test_a_mask_of_every_kind_is_the_same_lesion(made: Callable[[np.ndarray], np.ndarray]) -> None:
    assert (lesion(decode(encode(made(LESION)), "m.png"), "m.png") == LESION).all()


def test_a_mask_stored_as_jpeg_is_cut_at_128() -> None:
    found = lesion(decode(encode(grey_mask(LESION), "JPEG", quality=50), "m.jpg"), "m.jpg")
    assert (found != LESION).mean() < 0.01


def test_values_of_127_are_ground_and_of_128_lesion() -> None:
    values = np.array([[0, 127, 128, 255]], np.uint8)
    assert lesion(Image.fromarray(values), "m.png").tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("values", [[0, 1, 2, 3], [0, 100, 127, 200]])
def test_class_ids_are_no_mask(values: list[int]) -> None:
    with pytest.raises(DataError, match=r"m\.png: mask values up to"):
        lesion(Image.fromarray(np.array([values], np.uint8)), "m.png")


def test_a_coloured_mask_is_refused() -> None:
    coloured = rgb(grey_mask(LESION))
    coloured[..., 1] = 0
    with pytest.raises(DataError, match=r"m\.png: a coloured mask"):
        lesion(Image.fromarray(coloured), "m.png")


def test_png_and_jpeg_are_kept_byte_for_byte_whatever_they_are_called_and_others_decoded(tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    png, jpeg = encode(IMAGE), encode(IMAGE, "JPEG")
    for name, content in (("a.png", png), ("b.png", jpeg), ("c.tif", encode(IMAGE, "TIFF")), ("d.bmp", encode(IMAGE, "BMP"))):
        put(name, content)
    with Release(tmp_path) as release:
        read = [picture(release, name)() for name in release.files]
    assert read[:2] == [png, jpeg]
    assert [suffix_of(content) for content in (png, jpeg, b"GIF89a")] == [".png", ".jpg", ""]
    assert all((one == rgb(IMAGE)).all() for one in read[2:])


def test_a_picture_that_cannot_be_decoded_is_named() -> None:
    with pytest.raises(DataError, match=r"set/a\.png: cannot be decoded"):
        decode(encode(IMAGE)[:100], "set/a.png")


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(IMAGE).save(stream, "PNG", exif=exif)
    assert decode(stream.getvalue(), "a.png").size == IMAGE.shape


def test_several_masks_are_united_and_class_ids_are_lesion_but_for_0(tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    left, right = LESION.copy(), LESION.copy()
    left[:, 24:], right[:, :24] = False, False
    put("a.png", encode(grey_mask(left)))
    put("b.png", encode(rgb_mask(right)))
    put("ids.png", encode(LESION.astype(np.uint8) * 4))
    put("colours.png", encode(np.dstack([IMAGE, IMAGE, IMAGE // 2])))
    with Release(tmp_path) as release:
        assert (mask(release, PurePosixPath("a.png"), PurePosixPath("b.png"))() == LESION).all()
        assert (labels(release, PurePosixPath("ids.png"))() == LESION).all()
        with pytest.raises(DataError, match=r"colours\.png: a coloured label map; expected one channel of ids"):
            labels(release, PurePosixPath("colours.png"))()
