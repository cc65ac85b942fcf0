"""nnU-Net's layout: labels by name, channels, slices of one case in one group and on one scale of grey, and bad volumes left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.data.manifest import read_dataset
from tpseg.data.quality.check import check_dataset
from tpseg.datasets.nnunet import NnunetSource
from tpseg.datasets.prepare import prepare
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair

SHAPE = (10, 12, 8)
RAS = np.diag([1.0, 1.0, 2.5, 1.0])
LPS = np.diag([-1.0, -1.0, 2.5, 1.0])
V1 = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "tumour"}}
V2 = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "liver": 1, "tumour": 2, "organ": [1, 2]},
    "file_ending": ".nii.gz",
}


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = RAS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, affine).to_filename(path)


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, SHAPE).astype(np.int16)


def label_map() -> np.ndarray:
    """Liver in slices 2 to 5, a tumour in slice 4: 3 x 2 voxels at i 1 to 3, j 7 to 8."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:8, 2:10, 2:6] = 1
    labels[1:4, 7:9, 4] = 2
    return labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two cases of two channels, as downloaded: in a folder of its own."""
    root = tmp_path / "download" / "Dataset042_Liver"
    for case in ("liver_001", "liver_002"):
        for channel in range(2):
            save(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz", volume(channel))
        save(root / "labelsTr" / f"{case}.nii.gz", label_map())
    (root / "dataset.json").write_text(json.dumps(V1))
    return root


def found(root: Path, **options: Any) -> tuple[dict[str, Pair], list[LeftOut]]:
    release = Release(root)
    with release:
        listed = list(NnunetSource(**options).pairs(release))
    return {one.name: one for one in listed if isinstance(one, Pair)}, [one for one in listed if isinstance(one, LeftOut)]


def picture(pair: Pair) -> np.ndarray:
    content = pair.image()
    assert isinstance(content, np.ndarray)
    return content


def test_every_slice_with_lesion_is_a_case_and_those_of_a_volume_are_one_group(root: Path) -> None:
    pairs, left_out = found(root.parent)
    assert list(pairs) == [f"liver_{case:03d}_{slice:04d}" for case in (1, 2) for slice in (3, 4, 5, 6)]
    assert {pair.group for pair in pairs.values()} == {"liver_001", "liver_002"}
    assert {pair.split for pair in pairs.values()} == {""}  # drawn, group by group
    assert [(one.reason, one.detail) for one in left_out] == [("slices without lesion", "4 of 8")] * 2


def test_image_and_mask_lie_alike_as_radiologists_look_at_them(root: Path) -> None:
    """Rows run to the back, columns to the patient's left; in RAS both run against the voxels."""
    pair = found(root, labels=["tumour"], window="0,2001")[0]["liver_001_0005"]
    mask, image = pair.mask(), picture(pair)
    assert mask.shape == image.shape == (12, 10)
    expected = (label_map()[:, :, 4] == 2)[::-1, ::-1].T
    assert (mask == expected).all()
    grey = volume(0)[:, :, 4][::-1, ::-1].T.astype(float)
    assert np.abs(image - np.clip((grey + 1000) / 2000 * 255, 0, 255)).max() <= 1


def test_the_same_scan_stored_in_another_orientation_gives_the_same_cases(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "lps"
    save(other / "imagesTr" / "liver_001_0000.nii", volume(0)[::-1, ::-1], LPS)
    save(other / "labelsTr" / "liver_001.nii", label_map()[::-1, ::-1], LPS)
    one, two = (found(folder)[0]["liver_001_0004"] for folder in (root, other))
    assert (one.mask() == two.mask()).all()
    assert (picture(one) == picture(two)).all()


@pytest.mark.parametrize(
    ("description", "labels", "pixels"),
    [
        (V1, [], 50), (V1, ["tumour"], 6), (V1, ["2"], 6), (V1, ["liver"], 44),
        (V2, [], 50), (V2, ["organ"], 50), (V2, ["tumour"], 6), (None, ["2"], 6), (None, [], 50),
    ],
)  # fmt: skip
def test_labels_are_chosen_by_name_id_or_region(root: Path, description: dict | None, labels: list[str], pixels: int) -> None:
    """In slice 4: liver 6 x 8 voxels less the 2 x 2 that are tumour, 44; tumour 3 x 2. By default all but the background."""
    (root / "dataset.json").unlink()
    if description is not None:
        (root / "dataset.json").write_text(json.dumps(description))
    assert found(root, labels=labels)[0]["liver_001_0005"].mask().sum() == pixels


def test_an_unknown_label_names_the_nearest_and_names_need_a_dataset_json(root: Path) -> None:
    with pytest.raises(
        UsageError, match=r"unknown 'tumor'; did you mean 'tumour'\? \(labels: background \(0\), liver \(1\), tumour \(2\)\)"
    ):
        found(root, labels=["tumor"])
    (root / "dataset.json").unlink()
    with pytest.raises(UsageError, match="found 'tumour', expected ids"):
        found(root, labels=["tumour"])


def test_a_channel_is_chosen_and_a_case_without_it_left_out(root: Path) -> None:
    (root / "imagesTr" / "liver_002_0001.nii.gz").unlink()
    pairs, left_out = found(root, channel=1, window="0,2001")
    assert {pair.group for pair in pairs.values()} == {"liver_001"}
    grey = volume(1)[:, :, 4][::-1, ::-1].T.astype(float)
    assert np.abs(picture(pairs["liver_001_0005"]) - np.clip((grey + 1000) / 2000 * 255, 0, 255)).max() <= 1
    assert ("liver_002", "no channel 1", "its channels: 0") in [(one.name, one.reason, one.detail) for one in left_out]


@pytest.mark.parametrize(("share", "slices"), [(0.5, [2, 3, 4, 5, 6, 8]), (1.0, [1, 2, 3, 4, 5, 6, 7, 8])])
def test_slices_without_lesion_are_kept_on_request_evenly_spaced(root: Path, share: float, slices: list[int]) -> None:
    pairs, _ = found(root, empty_slices=share)
    assert [int(name[-4:]) for name in pairs if name.startswith("liver_001")] == slices
    with pytest.raises(UsageError, match=r"empty slices: found 50, expected a share from 0 to 1"):
        NnunetSource(empty_slices=50)


def test_grey_values_of_all_slices_are_on_one_scale(root: Path) -> None:
    """Each slice has one value here: stretched by itself each would be the same."""
    voxels = np.broadcast_to(np.arange(8, dtype=np.int16) * 100, SHAPE).copy()
    save(root / "imagesTr" / "liver_001_0000.nii.gz", voxels)
    means = [picture(pair).mean() for name, pair in found(root, empty_slices=1.0)[0].items() if name.startswith("liver_001")]
    assert means == pytest.approx([255 * index / 7 for index in range(8)], abs=1)


def test_an_axis_is_chosen(root: Path) -> None:
    pairs, _ = found(root, axis="sagittal", labels=["tumour"])
    assert {pair.mask().shape for pair in pairs.values()} == {(8, 12)}
    assert len(pairs) == 2 * 3  # i 1 to 3
    with pytest.raises(UsageError, match="axis 'axiel'"):
        found(root, axis="axiel")


def test_the_test_part_is_test_where_it_has_labels(root: Path) -> None:
    save(root / "imagesTs" / "liver_009_0000.nii.gz", volume(5))
    assert {pair.split for pair in found(root)[0].values()} == {""}
    save(root / "labelsTs" / "liver_009.nii.gz", label_map())
    splits = {pair.group: pair.split for pair in found(root)[0].values()}
    assert splits == {"liver_001": "train", "liver_002": "train", "liver_009": "test"}


def test_the_decathlons_names_have_no_channel(tmp_path: Path) -> None:
    save(tmp_path / "Task03" / "imagesTr" / "liver_0.nii.gz", volume(0))
    save(tmp_path / "Task03" / "labelsTr" / "liver_0.nii.gz", label_map())
    assert {pair.group for pair in found(tmp_path)[0].values()} == {"liver_0"}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_the_decathlons_images_of_four_axes_hold_the_channels(suffix: str, tmp_path: Path) -> None:
    save(tmp_path / "imagesTr" / f"brain_1{suffix}", np.stack([volume(0), volume(1)], axis=-1))
    save(tmp_path / "labelsTr" / f"brain_1{suffix}", label_map())
    for channel in range(2):
        pairs, left_out = found(tmp_path, channel=channel, window="0,2001")
        grey = volume(channel)[:, :, 4][::-1, ::-1].T.astype(float)
        assert np.abs(picture(pairs["brain_1_0005"]) - np.clip((grey + 1000) / 2000 * 255, 0, 255)).max() <= 1
        assert (f"channels but {channel}", "of 2", True) in [(one.reason, one.detail, one.meant) for one in left_out]
    with pytest.raises(DataError, match="has no channel 2; expected 0 to 1"):
        found(tmp_path, channel=2)


def test_pictures_are_taken_as_they_are_with_ids_as_masks(tmp_path: Path) -> None:
    labels = np.zeros((8, 10), np.uint8)
    labels[2:4, 3:6], labels[5, 5] = 1, 2
    for place, values in (("imagesTr/scan_7_0000.png", labels * 90), ("labelsTr/scan_7.png", labels)):
        (tmp_path / place).parent.mkdir()
        Image.fromarray(values).save(tmp_path / place)
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "lesion": 1, "ignore": 2}, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps({**description, "labels": {"background": 0, "lesion": 1, "other": 2}}))
    pair = found(tmp_path)[0]["scan_7"]
    assert pair.image() == (tmp_path / "imagesTr" / "scan_7_0000.png").read_bytes()
    assert (pair.mask().sum(), found(tmp_path, labels=["lesion"])[0]["scan_7"].mask().sum()) == (7, 6)
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match=r"labelsTr/scan_7\.png: holds pixels that are not labelled \(id 2\)"):
        found(tmp_path)[0]["scan_7"].mask()


def test_slices_with_voxels_that_nobody_labelled_are_left_out(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "ignore": 2}}))
    pairs, left_out = found(root)
    assert [int(name[-4:]) for name in pairs if name.startswith("liver_001")] == [3, 4, 6]
    assert ("slices with voxels that are not labelled", "1 of 8") in [(one.reason, one.detail) for one in left_out]


def moved(affine: np.ndarray, millimetres: float) -> np.ndarray:
    other = affine.copy()
    other[0, 3] += millimetres
    return other


def turned(affine: np.ndarray) -> np.ndarray:
    """By a tenth of a radian around the head's axis."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    return turn @ affine


def test_rounding_in_a_header_is_no_other_geometry(root: Path) -> None:
    save(root / "labelsTr" / "liver_001.nii.gz", label_map(), moved(RAS, 0.4) + np.diag([0.001, 0, 0, 0]))
    assert {pair.group for pair in found(root)[0].values()} == {"liver_001", "liver_002"}


def test_labels_below_0_are_refused_without_a_dataset_json_too(root: Path) -> None:
    (root / "dataset.json").unlink()
    labels = label_map().astype(np.int16)
    labels[0, 0, 0] = -1
    save(root / "labelsTr" / "liver_001.nii.gz", labels)
    assert "1 labels with values -1; expected 0 and above" in found(root)[1][0].detail
    assert {pair.group for pair in found(root, labels=["1"])[0].values()} == {"liver_001", "liver_002"}


def test_pictures_with_ids_that_dataset_json_does_not_list_are_refused(tmp_path: Path) -> None:
    for place in ("imagesTr/a_0000.png", "labelsTr/a.png"):
        (tmp_path / place).parent.mkdir()
        Image.fromarray(np.full((8, 10), 2, np.uint8)).save(tmp_path / place)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1}}))
    with pytest.raises(DataError, match=r"labelsTr/a\.png: 80 labels with values 2; expected those of dataset\.json, 0, 1"):
        found(tmp_path)[0]["a"].mask()


def test_cases_that_dataset_json_lists_and_are_not_there_and_test_images_without_labels_are_named(root: Path) -> None:
    save(root / "imagesTs" / "liver_009_0000.nii.gz", volume(5))
    listed = [{"image": f"./imagesTr/liver_{number:03d}.nii.gz", "label": "x"} for number in (1, 2, 3)]
    (root / "dataset.json").write_text(json.dumps({**V1, "training": [*listed, 5]}))
    left_out = {one.name: one for one in found(root)[1]}
    assert left_out["liver_003"].reason == "named in dataset.json, not in the download"
    assert (left_out["liver_009"].reason, left_out["liver_009"].meant) == ("a test image without a label map", True)
    assert not left_out["liver_003"].meant


def with_nan() -> np.ndarray:
    voxels = label_map().astype(np.float32)
    voxels[0, 0, 0] = np.nan
    return voxels


@pytest.mark.parametrize(
    ("part", "voxels", "affine", "words"),
    [
        ("imagesTr", volume(0)[..., None].repeat(2, 3), RAS, "4 axes"),
        ("imagesTr", volume(0), np.diag([1.0, 0.0, 1.0, 1.0]), "singular"),
        ("imagesTr", volume(0)[:, :, :5], RAS, "10 x 12 x 5, its label map 10 x 12 x 8 voxels"),
        ("labelsTr", label_map(), LPS, "its axes run RAS, those of its label map LPS"),
        ("labelsTr", label_map(), np.diag([1.0, 1.0, 5.0, 1.0]), r"its spacing is 1 x 1 x 2\.5 mm, its label map's 1 x 1 x 5 mm"),
        ("labelsTr", label_map(), moved(RAS, 300), "its origin is 300 mm from its label map's"),
        ("labelsTr", label_map(), moved(RAS, 0.6), r"its origin is 0\.6 mm from its label map's"),
        ("labelsTr", label_map(), turned(RAS), "turned against those of its label map, so that corners are up to .* mm apart"),
        ("labelsTr", label_map() * 3, RAS, "194 labels with values 3, 6; expected those of dataset.json, 0, 1, 2"),
        ("labelsTr", label_map().astype(np.int16) - 1, RAS, "labels with values -1; expected those of dataset.json"),
        ("labelsTr", with_nan(), RAS, "NaN or infinite labels"),
        ("labelsTr", label_map() * 0.5, RAS, r"label values such as 0\.5; expected whole numbers"),
    ],
)
def test_a_volume_that_cannot_be_used_is_left_out_with_its_reason(
    root: Path, part: str, voxels: np.ndarray, affine: np.ndarray, words: str
) -> None:
    path = root / part / ("liver_001_0000.nii.gz" if part == "imagesTr" else "liver_001.nii.gz")
    image = nib.Nifti1Image(voxels, RAS)
    if (affine != RAS).any():
        image.header["sform_code"], image.header["qform_code"] = 1, 0
        image.header.set_sform(affine, 1)
        image = nib.Nifti1Image(voxels, None, image.header)
    image.to_filename(path)
    pairs, left_out = found(root)
    assert {pair.group for pair in pairs.values()} == {"liver_002"}
    assert left_out[0].reason == "a volume that cannot be used"
    with pytest.raises(DataError, match=words):
        raise DataError(left_out[0].detail)


def test_nan_in_an_image_fails_in_the_slices_that_have_it(root: Path) -> None:
    voxels = volume(0).astype(np.float32)
    voxels[0, 0, 3] = np.nan
    save(root / "imagesTr" / "liver_001_0000.nii.gz", voxels)
    pairs, _ = found(root)
    assert picture(pairs["liver_001_0003"]).shape == (12, 10)
    with pytest.raises(DataError, match="slice 4 of 8 holds NaN"):
        pairs["liver_001_0004"].image()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"labels": [1, 2]}',
        '{"labels": {"x": "y"}}',
        '{"labels": {"x": []}}',
        '{"labels": {"x": {}}}',
        '{"labels": {"x": Infinity}}',
        '{"labels": {"x": [1, 1e999]}}',
    ],
)
def test_a_damaged_dataset_json_is_one_sentence(root: Path, text: str) -> None:
    (root / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json: (not a JSON file|labels: )"):
        found(root)


def test_missing_partners_are_left_out_and_two_data_sets_refused(root: Path) -> None:
    (root / "labelsTr" / "liver_001.nii.gz").unlink()
    save(root / "labelsTr" / "liver_003.nii.gz", label_map())
    assert {(one.name, one.reason) for one in found(root)[1]} >= {
        ("liver_001", "no label map"), ("labelsTr/liver_003.nii.gz", "a label map without an image"),
    }  # fmt: skip
    save(root.parent / "Dataset043" / "imagesTr" / "x_0000.nii.gz", volume(0))
    with pytest.raises(DataError, match="2 data sets"):
        found(root.parent)


def test_it_becomes_a_data_set_without_a_case_in_two_splits(root: Path, tmp_path: Path) -> None:
    for number in range(3, 13):
        save(root / "imagesTr" / f"liver_{number:03d}_0000.nii.gz", volume(number))
        save(root / "labelsTr" / f"liver_{number:03d}.nii.gz", label_map())
    made = prepare(NnunetSource(task="liver", modality="CT", window="abdomen"), root.parent, tmp_path / "out")
    data = read_dataset(made.tasks_file)
    assert data.tasks[0].window == "abdomen"
    assert len(data.cases) == 12 * 4
    assert {case.split for case in data.cases} == {"train", "val", "test"}
    assert [problem.kind for problem in check_dataset(data).problems if problem.level == "error"] == []


def test_losses_are_counted_in_volumes_not_in_slices(root: Path, tmp_path: Path) -> None:
    save(root / "labelsTr" / "liver_001.nii.gz", label_map(), LPS)
    with pytest.raises(DataError, match="1 of 2 would be left out"):
        prepare(NnunetSource(task="liver"), root, tmp_path / "out", most_left_out=0.3)  # 1 of 5, were slices counted


def test_the_command_line_takes_the_options(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "prepare", "nnunet", "--source", str(root), "--out", str(tmp_path / "out"), "--task", "tumour"]
    options = ["--labels", "tumour,organ", "--window", "40,400", "--axis", "coronal", "--channel", "1", "--empty-slices", "0.5"]
    (root / "dataset.json").write_text(json.dumps(V2))
    assert main([*command, *options]) == 0
    data = read_dataset(tmp_path / "out")
    assert data.tasks[0].window == "40,400"
    assert len(data.cases) == 2 * (8 + 2)  # j 2 to 9 with lesion, and two of the other four
    assert main([*command, "--images", "imagesTr"]) == 2
    assert "--images: 'nnunet' has no such option; it is for folder" in capsys.readouterr().err


def test_where_nothing_can_be_used_the_reason_is_given(root: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        save(root / "labelsTr" / f"liver_{number:03d}.nii.gz", with_nan())
    with pytest.raises(
        DataError,
        match=r"nothing in it can be used: 2 left out, .*: imagesTr/liver_001_0000\.nii\.gz .*NaN or infinite labels",
    ):
        prepare(NnunetSource(), root, tmp_path / "out")
