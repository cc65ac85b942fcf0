"""The eight public sets: each fake release, with every oddity of the real one, becomes a data set that is right and can be checked."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_releases import MADE, case, encode, grey_mask, in_folder, palette_mask, rgb, slice16, write_release
from miniature import history, train_miniature

from tpseg.data.left_out import by_reason
from tpseg.data.manifest import read_dataset
from tpseg.data.quality.check import check_dataset
from tpseg.datasets import PUBLIC
from tpseg.datasets import prepare as making
from tpseg.datasets.amd_sd import lesion_of_colours
from tpseg.datasets.prepare import Prepared
from tpseg.datasets.release import Release
from tpseg.datasets.source import Pair
from tpseg.imaging.pictures.formats import read_image, read_mask

NAMES = list(MADE)
prepare = partial(making.prepare, most_left_out=1.0)
"""The made-up releases have as many oddities as the real ones, and few images."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prepared]:
    """All eight, prepared into one folder."""
    root = tmp_path_factory.mktemp("public")
    return {name: prepare(PUBLIC[name](), write_release(name, root / "downloads" / name), root / "out") for name in NAMES}


def table(done: Prepared) -> pd.DataFrame:
    return pd.read_csv(done.folder / "split.csv", dtype=str, keep_default_na=False).set_index("image", drop=False)


def mask_of(done: Prepared, image: str) -> np.ndarray:
    return read_mask(done.folder / table(done).loc[image, "mask"]).mask


def test_there_is_a_fake_for_every_public_set() -> None:
    assert list(PUBLIC) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_release_and_what_is_left_out_is_named(name: str, prepared: dict[str, Prepared]) -> None:
    done, made = prepared[name], MADE[name]
    assert (done.counts.train, done.counts.reported) == (made.train, made.reported)
    found = {reason: len(ones) for reason, ones in by_reason(done.left_out).items()}
    if name == "isic2018":
        assert "ISIC2018_Task1-2_Training_Input/ISIC_0000000_superpixels.png" in [
            one.name for one in by_reason(done.left_out)["in no case"]
        ]
    found.pop("in no case", 0)
    for words, number in made.left_out.items():
        assert [count for reason, count in found.items() if words in reason] == [number], f"{words}: {found}"
    assert len(found) == len(made.left_out)


@pytest.mark.parametrize("name", NAMES)
def test_val_is_cut_from_training_and_no_group_or_picture_crosses(name: str, prepared: dict[str, Prepared]) -> None:
    rows = table(prepared[name])
    assert set(rows["split"]) == {"train", "val", "test"}
    assert (rows["split"] == "test").sum() == MADE[name].reported
    for _, group in rows[rows["group"] != ""].groupby("group"):
        assert group["split"].nunique() == 1
    pictures = pd.Series({row.image: read_image(prepared[name].folder / row.image).tobytes() for row in rows.itertuples()})
    assert (rows["split"].groupby(pictures).nunique() == 1).all()


def test_the_eight_share_a_tasks_file_and_pass_the_check(prepared: dict[str, Prepared]) -> None:
    data = read_dataset(prepared["busi"].tasks_file)
    assert data.tasks.names == [PUBLIC[name].task.name for name in NAMES]
    assert data.tasks[1].finding == "SCT:126952004:Neoplasm of brain"
    report = check_dataset(data)
    assert report.ok, [problem for problem in report.problems if problem.level == "error"]
    assert {problem.kind for problem in report.problems} <= {"empty masks", "duplicate", "near-duplicate across splits"}


@pytest.mark.parametrize("name", NAMES)
def test_a_release_says_where_it_comes_from(name: str, prepared: dict[str, Prepared]) -> None:
    page = (prepared[name].folder / "SOURCE.md").read_text()
    facts = PUBLIC[name].facts
    assert facts is not None
    for text in (facts.title, facts.licence, facts.page, facts.citation, str(facts.counts["train"]), "Protocol tpseg", "seed 0"):
        assert text in page
    for one in prepared[name].left_out:
        assert one.name in page


@pytest.mark.parametrize("name", NAMES)
def test_no_other_set_recognises_the_release(name: str, tmp_path: Path) -> None:
    with Release(write_release(name, tmp_path), tmp_path / "scratch") as release:
        found = [other for other, kind in PUBLIC.items() if any(isinstance(one, Pair) for one in kind().pairs(release))]
    assert found == [name]


@pytest.mark.slow
@pytest.mark.usefixtures("miniature_trunk")
@pytest.mark.parametrize("name", NAMES)
def test_each_passes_the_check_and_trains_for_an_epoch_by_itself(name: str, prepared: dict[str, Prepared], tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text(f"tasks: {{{PUBLIC[name].task.name}: {{data: {prepared[name].folder / 'split.csv'}}}}}\n")
    assert check_dataset(read_dataset(tmp_path / "tasks.yaml")).ok
    run = train_miniature(tmp_path / "tasks.yaml", tmp_path / "run", training={"epochs": 1})
    assert np.isfinite(history(run)["train/loss"]).all()
    assert len(history(run)) == 1


# AMD-SD


def test_amd_sd_s_panels_are_taken_apart_and_any_lesion_colour_counts(prepared: dict[str, Prepared]) -> None:
    image, mask = case(10_000 + 3, 38, 57)
    assert (read_image(prepared["amd-sd"].folder / "images/101_2_0.png") == rgb(image)).all()
    assert (mask_of(prepared["amd-sd"], "images/101_2_0.png") == mask).all()
    assert not mask_of(prepared["amd-sd"], "images/100_1_0.png").any()  # a white mark alone


def test_amd_sd_s_five_colours_are_lesion_and_no_other(prepared: dict[str, Prepared]) -> None:
    lesions = [(255, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 0), (0, 0, 255), (129, 120, 130)]
    ground = [(0, 0, 0), (255, 255, 255), (0, 255, 255), (127, 100, 90), (200, 210, 190)]
    found = lesion_of_colours(np.array([lesions + ground], np.uint8))
    assert found.tolist() == [[True] * len(lesions) + [False] * len(ground)]


def test_amd_sd_s_split_is_that_of_its_text_files_by_patient(prepared: dict[str, Prepared]) -> None:
    rows = table(prepared["amd-sd"])
    assert set(rows.loc[rows["split"] == "test", "group"]) == {"200", "201"}
    assert rows.loc["images/101_2_1.png", "group"] == "101"


@pytest.mark.parametrize("lines", [["100", "101"], ["100/1_0", "101/2_0.png"], ["images/100/1_0.png label", "'101\\2_0.png'"]])
def test_amd_sd_s_text_files_may_name_patients_or_paths(lines: list[str], tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    for path in ("100/1_0", "101/2_0", "102/3_0"):
        put(f"images/{path}.png", encode(np.zeros((10, 40, 3), np.uint8)))
    put("Training.txt", "\n".join(lines).encode())
    put("validation.txt", b"102/3_0.png\n")
    with Release(tmp_path) as release:
        pairs = [one for one in PUBLIC["amd-sd"]().pairs(release) if isinstance(one, Pair)]
    assert [(pair.group, pair.split) for pair in pairs] == [("100", "train"), ("101", "train"), ("102", "test")]


def test_amd_sd_s_mirror_of_class_ids_is_read_and_drawn_by_eye(tmp_path: Path) -> None:
    put = in_folder(tmp_path / "download")
    for eye in range(12):
        for number in (1, 2):
            image, mask = case(10 * eye + number)
            put(f"images/{100 + eye}_{number}.png", encode(image))
            put(f"masks/{100 + eye}_{number}.png", encode(mask.astype(np.uint8) * (1 + eye % 5)))
    done = prepare(PUBLIC["amd-sd"](), tmp_path / "download", tmp_path / "out")
    assert (done.counts.train, done.counts.reported) == (18, 6)  # 2346 : 703 is nearest to 9 : 3 eyes
    assert (mask_of(done, "images/104_1.png") == case(41)[1]).all()


# BTD


def test_btd_is_transposed_stretched_and_split_by_number(prepared: dict[str, Prepared]) -> None:
    done = prepared["btd"]
    rows = table(done)
    image, mask = slice16(768, 24, 32)
    expected = np.round((image - image.min()) / (image.max() - image.min()) * 255)
    assert (read_image(done.folder / "images/0768.png")[..., 0] == expected).all()
    assert (mask_of(done, "images/0768.png") == mask).all()
    assert rows.index[rows["split"] == "test"].tolist() == [f"images/{number}.png" for number in (2299, 2300, 2301)]
    assert rows.loc["images/0001.png", ["group", "kind"]].tolist() == ["100360", "meningioma"]


def test_btd_s_patients_of_the_reported_archive_are_not_trained_on_unless_the_paper_s_protocol_asks(
    prepared: dict[str, Prepared], tmp_path: Path
) -> None:
    assert sorted(one.name for one in prepared["btd"].left_out if one.detail == "103456") == ["images/1535.png", "images/1536.png"]
    done = prepare(PUBLIC["btd"](), write_release("btd", tmp_path / "download"), tmp_path / "out", protocol="paper")
    assert (done.counts.train, done.counts.reported, done.counts.leaks) == (10, 3, 2)
    assert "2 of the training images are of a patient" in str(done.counts)


@pytest.mark.slow
def test_btd_s_copy_as_pictures_is_taken_if_it_is_complete(tmp_path: Path) -> None:
    put = in_folder(tmp_path / "download")
    image, mask = encode(case(1, 24, 24)[0]), encode(grey_mask(case(1, 24, 24)[1]))
    for number in range(1, 3064):
        put(f"images/{number}.png", image)
        put(f"masks/{number}.png", mask)
    for complete in (False, True):
        if complete:
            put("images/3064.png", image)
            put("masks/3064.png", mask)
        with Release(tmp_path / "download") as release:
            pairs = [one for one in PUBLIC["btd"]().pairs(release) if isinstance(one, Pair)]
        assert [sum(pair.split == part for pair in pairs) for part in ("train", "test")] == ([2298, 766] if complete else [0, 0])


# EBHI-Seg


def test_ebhi_seg_s_adenocarcinomas_alone_are_taken_by_case(prepared: dict[str, Prepared]) -> None:
    rows = table(prepared["ebhi-seg"])
    assert rows["group"].value_counts().tolist() == [2] * 10
    for number in range(20):  # four kinds of labels
        image = f"images/GT20121{number // 2:02d}-1-400-{number % 2 + 1:03d}.png"
        assert (mask_of(prepared["ebhi-seg"], image) == case(30_000 + number, 32, 32)[1]).all()


# TNUI-2021


def test_tnui_s_val_is_reported_and_its_soft_masks_are_cut(prepared: dict[str, Prepared]) -> None:
    rows = table(prepared["tnui-2021"])
    assert sorted(rows.index[rows["split"] == "test"]) == [f"images/val_{number:03d}.png" for number in range(4)]
    assert (mask_of(prepared["tnui-2021"], "images/train_003.png") == case(40_003)[1]).all()
    assert (mask_of(prepared["tnui-2021"], "images/val_003.png") == case(40_103)[1]).all()


# Polyps


def test_polyps_keep_their_five_sets(prepared: dict[str, Prepared]) -> None:
    rows = table(prepared["polyps"])
    reported = rows[rows["split"] == "test"]
    assert reported["set"].value_counts().to_dict() == dict.fromkeys(
        ("CVC-300", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "Kvasir"), 2
    )
    assert set(rows.loc[rows["split"] != "test", "set"]) == {"TrainDataset"}
    assert (mask_of(prepared["polyps"], "images/train_5.png") == case(50_005, 38, 48)[1]).all()
    assert "images/train_11.png" not in rows.index  # the first picture of CVC-300


def test_polyps_may_be_in_plural_folders_at_any_depth(tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    for folder in ("PraNet/data/TrainDataset", "PraNet/data/TestDataset/Kvasir"):
        put(f"{folder}/images/1.png", encode(case(1)[0]))
        put(f"{folder}/masks/1.png", encode(grey_mask(case(1)[1])))
    with Release(tmp_path) as release:
        pairs = [one for one in PUBLIC["polyps"]().pairs(release) if isinstance(one, Pair)]
    assert sorted((pair.split, pair.columns["set"]) for pair in pairs) == [("test", "Kvasir"), ("train", "TrainDataset")]


# COVID-19


def test_covid_s_jpegs_are_kept_byte_for_byte_and_names_are_made_safe(prepared: dict[str, Prepared], tmp_path: Path) -> None:
    done = prepared["covid-19"]
    release = write_release("covid-19", tmp_path)
    original = release / "COVID-19_Lung_Infection_test" / "COVID" / "images" / "001 a_4.jpg"
    assert (done.folder / "images" / "test_001_a_4.jpg").read_bytes() == original.read_bytes()
    assert not mask_of(done, "images/train_001_a_0.jpg").any()


def test_covid_s_scans_are_groups_of_training_slices_alone(prepared: dict[str, Prepared]) -> None:
    rows = table(prepared["covid-19"])
    assert rows.loc["images/train_001_a_0.jpg", ["group", "scan"]].tolist() == ["001 a"] * 2
    assert rows.loc["images/train_9_tiny.jpg", ["group", "scan"]].tolist() == [""] * 2
    assert rows.loc["images/test_001_a_4.jpg", ["group", "scan"]].tolist() == ["", "001 a"]


# BUSI


def test_busi_s_masks_of_an_image_are_united_and_normals_left_out(prepared: dict[str, Prepared]) -> None:
    done = prepared["busi"]
    rows = table(done)
    assert (mask_of(done, "images/benign_001.png") == case(70_001)[1]).all()  # from three masks, each of another kind
    assert (mask_of(done, "images/malignant_002.png") == case(70_102)[1]).all()
    assert not rows.index.str.contains("normal").any()
    assert rows["kind"].value_counts().to_dict() == {"benign": 10, "malignant": 6}


def test_busi_s_images_and_masks_may_be_packed_in_two_folders(tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    for number in (1, 2):
        put(f"breast/images/benign ({number}).png", encode(case(number)[0]))
        put(f"breast/masks/benign ({number}).png", encode(grey_mask(case(number)[1])))
    with Release(tmp_path) as release:
        pairs = list(PUBLIC["busi"]().pairs(release))
        assert [pair.name for pair in pairs if isinstance(pair, Pair) and pair.mask().any()] == ["benign_001", "benign_002"]


def test_busi_s_same_picture_twice_is_one_group(prepared: dict[str, Prepared]) -> None:
    rows = table(prepared["busi"])
    groups = rows.loc[["images/benign_002.png", "images/malignant_004.png"], "group"]
    assert groups.tolist() == ["benign_002"] * 2
    assert (rows["group"] != "").sum() == 2


def test_busi_s_masks_of_different_sizes_are_an_error_of_that_image_alone(tmp_path: Path) -> None:
    put = in_folder(tmp_path / "download")
    for number in (1, 2, 3, 4):
        put(f"benign ({number}).png", encode(case(number)[0]))
        put(f"benign ({number})_mask.png", encode(palette_mask(case(number)[1])))
    put("benign (2)_mask_1.png", encode(grey_mask(case(2, 30, 30)[1])))
    done = prepare(PUBLIC["busi"](), tmp_path / "download", tmp_path / "out")
    assert [(one.name, one.reason) for one in done.left_out] == [("benign_002", "cannot be used")]
    assert "masks of one image have one size" in done.left_out[0].detail


# ISIC 2018


def test_isic_s_training_and_validation_are_pooled_and_drawn(prepared: dict[str, Prepared]) -> None:
    rows = table(prepared["isic2018"])
    assert len(rows) == 16  # 14 + 2; 7:3 of them is 11 : 5
    assert "images/ISIC_0000101.jpg" in rows.index
    assert not any("superpixels" in name for name in rows.index)


@pytest.mark.parametrize(("image", "mask"), [("ISIC_{:07d}", "ISIC_{:07d}_segmentation"), ("ISIC_{:07d}", "ISIC_{:07d}"), ("{}", "{}")])
def test_isic_s_packed_split_is_kept_and_taken_for_no_other_set(image: str, mask: str, tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    for number in range(6):
        part = "val" if number < 2 else "train"
        put(f"data/isic2018/{part}/images/{image.format(number)}.png", encode(case(number)[0]))
        put(f"data/isic2018/{part}/masks/{mask.format(number)}.png", encode(grey_mask(case(number)[1])))
    with Release(tmp_path) as release:
        pairs = [one for one in PUBLIC["isic2018"]().pairs(release) if isinstance(one, Pair)]
        assert not [name for name in NAMES if name != "isic2018" and list(PUBLIC[name]().pairs(release))]
    assert sorted(pair.split for pair in pairs) == ["test"] * 2 + ["train"] * 4
