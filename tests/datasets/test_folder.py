"""Any pairs of folders: found by their names or named, pictures, DICOM files and volumes, with what does not fit left out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import write_dicom
from PIL import Image

from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.data.manifest import read_dataset
from tpseg.data.quality.check import check_dataset
from tpseg.datasets.folder import FolderSource, _part_by_name
from tpseg.datasets.layout import split_of
from tpseg.datasets.pairing import Unclear
from tpseg.datasets.prepare import prepare
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair

MASK = np.zeros((8, 10), np.uint8)
MASK[2:4, 3:6] = 255  # 6 pixels


def picture(path: Path, values: np.ndarray | None = None, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8) if values is None else values).save(path)


def volume(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(values, np.eye(4)).to_filename(path)


def found(root: Path, **options: Any) -> tuple[dict[str, Pair], list[LeftOut]]:
    with Release(root) as release:
        listed = list(FolderSource(**options).pairs(release))
    return {one.name: one for one in listed if isinstance(one, Pair)}, [one for one in listed if isinstance(one, LeftOut)]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.png", "masks/a.png"),
        ("Image/a.jpg", "MASK/a_Segmentation.bmp"),
        ("deep/down/imgs/a.tif", "deep/down/ground_truth/a-mask.png"),
        ("images/p1/a.png", "labels/p1/a_gt.png"),
        ("labels/images/a.png", "labels/masks/a.png"),  # the inner folder counts
    ],
)
def test_folders_are_found_by_their_names_at_any_depth(tmp_path: Path, image: str, mask: str) -> None:
    picture(tmp_path / image)
    picture(tmp_path / mask, MASK)
    pairs, left_out = found(tmp_path)
    assert (list(pairs), left_out) == (["a"], [])
    assert pairs["a"].mask().sum() == 6


def test_folders_may_be_named_and_one_may_hold_the_other(tmp_path: Path) -> None:
    for name in ("scan 1", "scan 2"):
        picture(tmp_path / "photos" / f"{name}.png")
        picture(tmp_path / "photos" / "by hand" / f"{name}.png", MASK)
    picture(tmp_path / "images" / "not these.png")
    pairs, left_out = found(tmp_path, images="photos", masks="photos/by hand")
    assert (list(pairs), left_out) == (["scan 1", "scan 2"], [])
    with pytest.raises(DataError, match="has no folder photo with files, which was named for the images"):
        found(tmp_path, images="photo", masks="photos/by hand")
    with pytest.raises(DataError, match=r"has no folder \.\./x"):
        found(tmp_path, images="../x", masks="photos")
    with pytest.raises(UsageError, match="name both"):
        FolderSource(images="photos")


@pytest.mark.parametrize("layout", ["{split}/images/{n}.png {split}/masks/{n}.png", "images/{split}/{n}.png masks/{split}/{n}.png"])
def test_folders_of_splits_give_the_split_on_either_level(tmp_path: Path, layout: str) -> None:
    for number, split in enumerate(("train", "Validation", "test")):
        image, mask = layout.format(split=split, n=number).split()
        picture(tmp_path / image)
        picture(tmp_path / mask, MASK)
    assert {name: pair.split for name, pair in found(tmp_path)[0].items()} == {"0": "train", "1": "val", "2": "test"}


def test_numbered_masks_of_an_image_are_united(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "masks" / "a_mask.png", MASK)
    picture(tmp_path / "masks" / "a_mask_1.png", np.roll(MASK, 4, axis=0))
    assert found(tmp_path)[0]["a"].mask().sum() == 12
    picture(tmp_path / "masks" / "a_mask_1.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(DataError, match=r"a_mask_1\.png: 5x5 pixels, unlike masks/a_mask\.png"):
        found(tmp_path)[0]["a"].mask()


def test_pictures_of_class_ids_need_labels(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    ids = np.zeros((8, 10), np.uint8)
    ids[0, :3], ids[1, :5] = 1, 2
    picture(tmp_path / "masks" / "a.png", ids)
    with pytest.raises(DataError, match=r"masks/a\.png: mask values 0, 1, 2; expected 0 and 255.*--labels 1,2"):
        found(tmp_path)[0]["a"].mask()
    picture(tmp_path / "masks" / "a.png", ids.astype(np.uint16) * 300)
    with pytest.raises(DataError, match=r"or choose what is lesion with --labels 300,600$"):
        found(tmp_path)[0]["a"].mask()
    picture(tmp_path / "masks" / "a.png", ids)
    assert [found(tmp_path, labels=labels)[0]["a"].mask().sum() for labels in (["1"], ["2"], ["1", "2"])] == [3, 5, 8]
    with pytest.raises(UsageError, match="found 'tumour', expected ids"):
        FolderSource(labels=["tumour"])


def test_what_has_no_partner_or_several_is_left_out(tmp_path: Path) -> None:
    for name in ("images/a.png", "images/b.png", "images/b.jpg", "images/c.png", "images/notes.txt"):
        picture(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    for name in ("masks/b.png", "masks/c.png", "masks/d_mask.png"):
        picture(tmp_path / name, MASK)
    pairs, left_out = found(tmp_path)
    assert list(pairs) == ["c"]
    assert {(one.name, one.reason, one.detail) for one in left_out} == {
        ("images/b.jpg", "images of one name", "also images/b.png; keep one"),
        ("images/a.png", "no partner", "an image without a mask"),
        ("masks/d_mask.png", "no partner", "a mask without an image"),
    }


def pair(root: Path, image: str, mask: str, seed: int = 0) -> None:
    picture(root / image, seed=seed)
    picture(root / mask, MASK)


@pytest.mark.parametrize(
    ("image", "mask", "name"),
    [
        ("{}.jpg", "{}_mask.png", "1"),  # by ending
        ("set/{}.png", "set/{}-Segmentation.png", "1"),
        ("set/{}_img.png", "set/{}_mask.png", "1_img"),
        ("img_{}.png", "mask_{}.png", "1"),  # by beginning
        ("{}.jpg", "Mask {}.png", "1"),
        ("set/image-{}.png", "set/seg-{}.png", "1"),
        ("{}.jpg", "{}.png", "1"),  # by format
        ("set/{}.JPEG", "set/{}.bmp", "1"),
        ("p{}/scan.png", "p{}/mask.png", "p1"),  # a folder for each patient
        ("p{}/p{}.png", "p{}/label.png", "p1"),
        ("p{0}/a{0}.png", "p{0}/a{0}_gt.png", "a1"),
        ("Photos/{}.png", "Ground Truth/{}.png", "1"),  # folders whose names say it
        ("ISIC_Data/{}.jpg", "ISIC_GroundTruth/{}_Segmentation.png", "ISIC_1"),
        ("images/{}.png", "Contours/{}.png", "1"),
        ("part{0}/{0}.png", "part{0}_masks/{0}.png", "1"),
        ("Part{0}_Input/{0}.jpg", "Part{0}_GroundTruth/{0}_segmentation.png", "1"),
    ],
)
def test_any_layout_whose_names_say_it_is_paired(image: str, mask: str, name: str, tmp_path: Path) -> None:
    for number in range(1, 5):
        stem = f"ISIC_{number}" if "ISIC" in image else number
        pair(tmp_path, image.format(stem, stem), mask.format(stem, stem), number)
    pairs, left_out = found(tmp_path)
    assert left_out == []
    assert len(pairs) == 4
    first = next(one for one in pairs.values() if str(one.files[0]) == image.format(*["ISIC_1" if "ISIC" in image else 1] * 2))
    assert first.mask().sum() == 6
    assert first.name.removesuffix("_img") == name.removesuffix("_img")


def test_several_masks_beside_an_image_are_united_and_what_has_no_mask_is_named(tmp_path: Path) -> None:
    """As BUSI has it."""
    for number in range(1, 4):
        pair(tmp_path, f"benign ({number}).png", f"benign ({number})_mask.png", number)
    picture(tmp_path / "benign (2)_mask_1.png", np.roll(MASK, 4, axis=0))
    picture(tmp_path / "benign (9).png")
    pairs, left_out = found(tmp_path)
    assert [one.mask().sum() for one in pairs.values()] == [6, 12, 6]
    assert [(one.name, one.detail, one.meant) for one in left_out] == [("benign (9).png", "an image without a mask", False)]


@pytest.mark.parametrize("ending", ["_mask{}", "_mask_{}", " label-{}"])
def test_masks_numbered_in_any_way_are_united(ending: str, tmp_path: Path) -> None:
    for number in range(1, 4):
        pair(tmp_path, f"a{number}.jpg", f"a{number}{ending.format(1)}.png", number)
        picture(tmp_path / f"a{number}{ending.format(2)}.png", np.roll(MASK, 4, axis=0))
    pairs, left_out = found(tmp_path)
    assert ([one.mask().sum() for one in pairs.values()], left_out) == ([12, 12, 12], [])


@pytest.mark.parametrize(
    ("image", "drawn", "pattern"),
    [("{}.jpg", "{}_overlay.png", "*.jpg"), ("{}.png", "{}_overlay.png", "*.png"), ("{}.jpg", "{}_overlay.jpg", "*.jpg")],
)
def test_what_is_drawn_beside_image_and_mask_is_not_taken_or_proposed_for_the_image(
    image: str, drawn: str, pattern: str, tmp_path: Path
) -> None:
    for number in range(30):
        pair(tmp_path, image.format(number), f"{number}_mask.png", number)
        picture(tmp_path / drawn.format(number))
    for missing in (0, 1):
        with pytest.raises(Unclear, match="may both be images") as caught:
            found(tmp_path)
        assert caught.value.options[:4] == ["--images", pattern, "--masks", "*_mask*"]
        (tmp_path / image.format(missing)).unlink()


def test_a_proposal_that_leaves_much_out_accepts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        pair(tmp_path / "set", f"{number}.png", f"{number}_mask.png", number)
        picture(tmp_path / "set" / f"{number}_overlay.png")
    command = ["data", "prepare", "folder", "--source", str(tmp_path / "set"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "would give 4 images with masks and leave out 4 files" in said
    assert main(shlex.split(said[said.index("tpseg data prepare") : said.index(" --preview, then")])[1:]) == 0


def test_what_fits_no_pair_is_lost_where_pairs_were_told_from_names(tmp_path: Path) -> None:
    """Nobody has said that these pictures are none."""
    for number in range(1, 6):
        pair(tmp_path, f"{number}.jpg", f"{number}_mask.png", number)
    for number in range(3):
        picture(tmp_path / "other" / f"scan{number}.tif")
    pairs, left_out = found(tmp_path)
    assert len(pairs) == 5
    assert [(one.name, one.meant) for one in left_out] == [(f"other/scan{number}.tif", False) for number in range(3)]
    assert found(tmp_path, images="*.jpg", masks="*_mask")[1] == []


def test_patterns_say_what_names_do_not(tmp_path: Path) -> None:
    for number in range(1, 4):
        for kind in ("t1", "flair", "drawn"):
            picture(tmp_path / f"p{number}" / f"{kind}.png", MASK if kind == "drawn" else None, number)
    pairs, left_out = found(tmp_path, images="*/flair.png", masks="*/drawn.png", group="p.")
    assert ([(name, str(one.files[0]), one.group) for name, one in pairs.items()], left_out) == (
        [(f"p{number}", f"p{number}/flair.png", f"p{number}") for number in range(1, 4)], [],
    )  # fmt: skip
    assert all(one.mask().sum() == 6 for one in pairs.values())
    with pytest.raises(DataError, match=r"no file fits '\*_seg'; files there: p1/drawn\.png"):
        found(tmp_path, images="*/t1", masks="*_seg")


@pytest.mark.parametrize(
    ("image", "mask", "options"),
    [
        ("{}.tif", "{}.png", ["--images", "*.tif", "--masks", "*.png"]),
        ("a/{}.png", "b/{}.png", ["--images", "a/*", "--masks", "b/*"]),
        ("{}_raw.png", "{}_drawn.png", ["--images", "*_raw", "--masks", "*_drawn"]),
        ("p{}/raw.png", "p{}/drawn.png", ["--images", "*/raw", "--masks", "*/drawn"]),
    ],
)
def test_where_names_do_not_say_it_the_refusal_has_options_that_work(image: str, mask: str, options: list[str], tmp_path: Path) -> None:
    for number in range(1, 4):
        pair(tmp_path, image.format(number), mask.format(number), number)
    with pytest.raises(Unclear, match="names do not say which are masks") as caught:
        found(tmp_path)
    assert caught.value.options == options
    pairs, left_out = found(tmp_path, images=options[1], masks=options[3])
    assert ([one.mask().sum() for one in pairs.values()], left_out) == ([6] * 3, [])


def test_two_kinds_of_images_are_not_chosen_from(tmp_path: Path) -> None:
    """As BraTS has them."""
    for number in range(1, 4):
        for kind in ("t1", "flair"):
            volume(tmp_path / f"BraTS_{number}" / f"BraTS_{number}_{kind}.nii.gz", slab())
        volume(tmp_path / f"BraTS_{number}" / f"BraTS_{number}_seg.nii.gz", slab())
    with pytest.raises(
        Unclear, match=r"'\*_(t1|flair)' and '\*_(t1|flair)' may both be images; --images '\*_(t1|flair)' --masks '\*_seg\*'"
    ):
        found(tmp_path)
    assert {one.group for one in found(tmp_path, images="*_flair", masks="*_seg")[0].values()} == {
        f"BraTS_{n}/BraTS_{n}" for n in range(1, 4)
    }


def test_two_kinds_of_masks_are_not_chosen_from(tmp_path: Path) -> None:
    for number in range(1, 4):
        pair(tmp_path, f"{number}.jpg", f"{number}_mask.png")
        picture(tmp_path / f"{number}_label.png", MASK)
    with pytest.raises(Unclear, match=r"'\*_(mask|label)\*' and '\*_(mask|label)\*' may both be masks"):
        found(tmp_path)


def test_masks_in_colours_are_chosen_by_colour(tmp_path: Path) -> None:
    drawn = np.zeros((8, 10, 3), np.uint8)
    drawn[0, :3], drawn[1, :5] = (255, 0, 0), (0, 255, 0)
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "masks" / "a.png", drawn)
    with pytest.raises(DataError, match=r"its colours are #000000, #00ff00, #ff0000: choose with --labels '#00ff00,#ff0000'"):
        found(tmp_path)[0]["a"].mask()
    for labels, pixels in ((["#ff0000"], 3), (["#FF0000", "#00ff00"], 8), (["#0000ff"], 0)):
        assert found(tmp_path, labels=labels)[0]["a"].mask().sum() == pixels
    drawn[0, :3] = (254, 0, 2)
    picture(tmp_path / "masks" / "a.png", drawn)
    with pytest.raises(DataError, match="3 pixels are nearly #ff0000, 0 exactly; soft edges, or saved as JPEG"):
        found(tmp_path, labels=["#ff0000"])[0]["a"].mask()
    with pytest.raises(UsageError, match="found '1' among colours, expected '#rrggbb'"):
        FolderSource(labels=["#ff0000", "1"])


def test_labels_that_no_mask_has_are_refused_not_taken_for_empty_masks(tmp_path: Path) -> None:
    for number in range(3):
        pair(tmp_path / "set", f"images/{number}.png", f"masks/{number}.png", number)
    with pytest.raises(DataError, match="all 3 masks are empty; are the labels that you chose"):
        prepare(FolderSource(labels=["7"]), tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_preview_shows_the_pairs_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 25):
        pair(tmp_path / "set", f"p{number // 2}_{number}.jpg", f"p{number // 2}_{number}_mask.png", number)
    command = ["data", "prepare", "folder", "--source", str(tmp_path / "set"), "--out", str(tmp_path / "out"), "--preview"]
    assert main([*command, "--group", "p[0-9]+"]) == 0
    said = capsys.readouterr().out
    assert "p0_1: p0_1.jpg + p0_1_mask.png (group p0)" in said
    assert "... 4 more ..." in said
    assert "24 cases; nothing was written" in said
    assert main([*command, "--json"]) == 0
    assert {"name": "p0_1", "split": "", "group": "", "files": ["p0_1.jpg", "p0_1_mask.png"]} in json.loads(capsys.readouterr().out)[
        "pairs"
    ]
    for number in range(30, 33):
        picture(tmp_path / "set" / f"{number}.jpg")
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "3 of 27 would be left out, more than 5%" in said
    assert "no groups, though names look like those of patients" in said
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_refusal_prints_the_command_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 5):
        pair(tmp_path / "my set", f"{number}.tif", f"{number}.png", number)
    command = ["data", "prepare", "folder", "--source", str(tmp_path / "my set"), "--out", str(tmp_path / "out"), "--task", "wound"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    printed = said[said.index("tpseg data prepare") : said.index(", then leave out --preview")]
    words = shlex.split(printed)[1:]
    assert main(words) == 0
    assert main(words[:-1]) == 0
    assert len(list((tmp_path / "out" / "wound" / "masks").iterdir())) == 4


def test_the_command_that_is_noted_accepts_what_the_user_accepted(tmp_path: Path) -> None:
    for number in range(1, 5):
        pair(tmp_path / "set", f"{number}.jpg", f"{number}_mask.png", number)
    picture(tmp_path / "set" / "5.jpg")
    command = ["data", "prepare", "folder", "--source", str(tmp_path / "set"), "--out", str(tmp_path / "out")]
    assert main([*command, "--max-left-out", "0.2"]) == 0
    assert " --seed 0 --max-left-out 0.2`" in (tmp_path / "out" / "lesion" / "SOURCE.md").read_text()


def test_equal_names_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for place in ("x", "y"):
        picture(tmp_path / "images" / place / "A.png" if place == "x" else tmp_path / "images" / place / "a.png")
        picture(tmp_path / "masks" / place / "A.png" if place == "x" else tmp_path / "masks" / place / "a.png", MASK)
    assert list(found(tmp_path)[0]) == ["x_A", "y_a"]


def test_groups_are_searched_below_the_folder_of_images(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        picture(tmp_path / "images" / patient / f"{patient}_1.png")
        picture(tmp_path / "masks" / patient / f"{patient}_1.png", MASK)
    assert [pair.group for pair in found(tmp_path, group="^(.*)/")[0].values()] == ["p1", "p2"]


def slab(shape: Sequence[int] = (10, 8, 6)) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[2:5, 3:5, 1:3] = 1
    labels[7, 6, 4] = 2
    return labels


def test_volumes_become_slices_of_one_group(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for case in ("one", "two"):
        volume(tmp_path / "images" / f"{case}.nii.gz", rng.integers(-1000, 1000, (10, 8, 6)).astype(np.int16))
        volume(tmp_path / "masks" / f"{case}_seg.nii", slab())
    pairs, left_out = found(tmp_path)
    assert list(pairs) == [f"{case}_{slice:04d}" for case in ("one", "two") for slice in (2, 3, 5)]
    assert {pair.group for pair in pairs.values()} == {"one", "two"}
    assert [pair.mask().sum() for pair in pairs.values()] == [6, 6, 1] * 2
    assert [one.reason for one in left_out] == ["slices without lesion"] * 2
    assert list(found(tmp_path, labels=["2"])[0]) == ["one_0005", "two_0005"]


def test_a_volume_with_a_picture_as_mask_is_left_out_and_so_is_a_picture_with_a_volume(tmp_path: Path) -> None:
    volume(tmp_path / "images" / "a.nii", slab())
    picture(tmp_path / "masks" / "a.png", MASK)
    picture(tmp_path / "images" / "b.png")
    volume(tmp_path / "masks" / "b.nii", slab())
    with pytest.raises(
        DataError, match=r"nothing in it can be used: 1 left out, a volume without one .* mask: images/a\.nii \(masks/a\.png\)"
    ):
        found(tmp_path)
    picture(tmp_path / "images" / "c.png")
    picture(tmp_path / "masks" / "c.png", MASK)
    pairs, left_out = found(tmp_path)
    assert list(pairs) == ["c"]
    assert [one.reason for one in left_out] == ["a volume without one volume as its mask", "an image whose mask is no picture"]


def test_dicom_files_of_one_folder_are_one_group_and_use_the_window(tmp_path: Path) -> None:
    """LINEAR, PS3.3 C.11.2.1.2: with centre 40 and width 401, -160.5 + 0.5... -160 is black, 240 white."""
    values = np.tile(np.array([-160, 40, 240, 1000, -1000], np.int16), (8, 2))
    for number in range(2):
        write_dicom(tmp_path / "images" / "series" / f"IM{number}", values)
        picture(tmp_path / "masks" / "series" / f"IM{number}.png", MASK)
    pairs, left_out = found(tmp_path, window="40,401", modality="CT")
    assert left_out == []
    assert {name: pair.group for name, pair in pairs.items()} == {"IM0": "series", "IM1": "series"}
    content = pairs["IM0"].image()
    assert isinstance(content, np.ndarray)
    assert content[0, :5, 0].tolist() == pytest.approx([0, 127.5, 255, 255, 0], abs=1)


def test_a_dicom_series_with_a_volume_as_mask_is_left_out_with_what_to_do(tmp_path: Path) -> None:
    for number in range(3):
        write_dicom(tmp_path / "images" / "case1" / f"{number}.dcm", np.zeros((8, 10), np.int16))
    volume(tmp_path / "masks" / "case1.nii.gz", slab())
    picture(tmp_path / "images" / "c.png")
    picture(tmp_path / "masks" / "c.png", MASK)
    pairs, left_out = found(tmp_path)
    assert list(pairs) == ["c"]
    assert (left_out[0].name, left_out[0].reason) == ("masks/case1.nii.gz", "a volume as the mask of a DICOM series")
    assert "dcm2niix" in left_out[0].detail


def test_a_multi_frame_dicom_with_a_picture_as_mask_fails(tmp_path: Path) -> None:
    write_dicom(tmp_path / "images" / "a.dcm", np.zeros((3, 8, 10), np.uint8))
    picture(tmp_path / "masks" / "a.png", MASK)
    with pytest.raises(DataError, match=r"images/a\.dcm: 3 frames"):
        found(tmp_path)[0]["a"].image()


def test_a_folder_of_something_else_is_no_such_layout(tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"not a release of 'folder'; .* patient; found .*; say which are which by patterns .*--images"):
        prepare(FolderSource(), tmp_path / "pictures", tmp_path / "out")


def test_it_becomes_a_data_set_that_passes_the_check(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for number in range(12):
        picture(tmp_path / "set" / "images" / f"{number // 2}_{number}.jpg", rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        picture(tmp_path / "set" / "masks" / f"{number // 2}_{number}_mask.png", MASK)
    made = prepare(FolderSource(task="naevus", modality="dermoscopy", group="^[0-9]+"), tmp_path / "set", tmp_path / "out")
    data = read_dataset(made.tasks_file)
    assert [task.name for task in data.tasks] == ["naevus"]
    assert len({(case.group, case.split) for case in data.cases}) == 6
    assert check_dataset(data).problems == []


def test_the_innermost_folder_that_is_called_after_a_split_gives_it():
    assert split_of(PurePosixPath("test set/images/train/a.png")) == "train"
    assert split_of(PurePosixPath("images/Val2017/p1/a.png")) == "val"


def test_the_innermost_folder_called_after_images_or_masks_says_which_a_file_is():
    assert _part_by_name(PurePosixPath("images/p1/Labels/a.png")) == ("masks", ("images", "p1", "a.png"))
    assert _part_by_name(PurePosixPath("masks/scans/p1/a.png")) == ("images", ("masks", "p1", "a.png"))
    assert _part_by_name(PurePosixPath("p1/masks")) == ("", ())  # a file's own name says nothing
