"""Splits are drawn by group, near the fractions, alike on every machine; pairs are found by stem and nothing is lost."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task
from tpseg.data.manifest import read_dataset
from tpseg.data.quality.check import check_dataset
from tpseg.data.splits import draw_split, pair_folder, split_folder

MakePairs = Callable[..., Path]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table(sizes: list[int]) -> pd.DataFrame:
    """Cases of groups g0, g1, ... of the sizes given."""
    names = [(f"images/g{group}_{number}.png", f"g{group}") for group, size in enumerate(sizes) for number in range(size)]
    return pd.DataFrame([(image, image.replace("images", "masks"), group) for image, group in names], columns=["image", "mask", "group"])


def counts(drawn: pd.DataFrame) -> tuple[int, ...]:
    return tuple(Counter(drawn["split"])[split] for split in ("train", "val", "test"))


# pairs


def test_pairs_are_found_by_stem_whatever_the_suffix_and_sorted(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "b.jpg", "a.PNG", "c.tif", "d.e.png")
    masks = touch(tmp_path / "masks", "c.png", "a.png", "b.bmp", "d.e.png")
    assert pair_folder(images, masks)[0] == [("a.PNG", "a.png"), ("b.jpg", "b.bmp"), ("c.tif", "c.png"), ("d.e.png", "d.e.png")]


@pytest.mark.parametrize("ending", ["_mask", "_seg", "_segmentation", "_gt", "_label", "_Segmentation", "-mask", "_labels", "_mask1"])
def test_masks_may_have_a_usual_ending(ending: str, tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "ISIC_01.jpg", "x_mask.jpg")
    masks = touch(tmp_path / "masks", f"ISIC_01{ending}.png", "x_mask.png")  # an image may end so itself
    assert pair_folder(images, masks)[0] == [("ISIC_01.jpg", f"ISIC_01{ending}.png"), ("x_mask.jpg", "x_mask.png")]


def test_sub_folders_pair_with_the_same_sub_folder(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "p2/1.png", "p1/1.png")
    masks = touch(tmp_path / "masks", "p1/1_mask.png", "p2/1.png")
    assert pair_folder(images, masks)[0] == [("p1/1.png", "p1/1_mask.png"), ("p2/1.png", "p2/1.png")]


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "a.png", "._a.png", ".hidden/z.png", "Thumbs.db", "readme.txt")
    assert pair_folder(images, touch(tmp_path / "masks", "a.png"))[0] == [("a.png", "a.png")]


def test_whatever_has_no_partner_or_several_is_left_out_and_named(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "a.png", "b.png", "c.png", "c.jpg", "d.png", "x.webp", "notes.txt")
    masks = touch(tmp_path / "masks", "a.png", "c.png", "d.png", "d_mask.png", "z.png")
    (images / "gone.png").symlink_to("nowhere.png")
    pairs, left_out = pair_folder(images, masks)
    assert pairs == [("a.png", "a.png")]
    assert {(one.name, one.reason, one.meant) for one in left_out} == {
        ("images/b.png", "an image without a mask", False), ("images/c.jpg", "images of one name", False),
        ("images/d.png", "several masks of one image", False), ("masks/z.png", "a mask without an image", False),
        ("images/gone.png", "a broken link", False), ("images/x.webp", "no picture", True),
    }  # fmt: skip


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.png")
    images, masks = touch(tmp_path / "images", "b.png"), touch(tmp_path / "masks", "p1/a.png", "b.png")
    (images / "p1").symlink_to(tmp_path / "elsewhere")
    (images / "round").symlink_to(images)
    assert pair_folder(images, masks) == ([("b.png", "b.png"), ("p1/a.png", "p1/a.png")], [])


def test_an_image_without_a_mask_is_left_out_and_more_than_a_few_percent_are_refused(tmp_path: Path, make_pairs: MakePairs) -> None:
    """The rule of `data prepare`."""
    folder = make_pairs(tmp_path / "skin", count=20)
    touch(folder, "images/x1.png")
    drawn = split_folder(folder, "skin_lesion")
    assert (len(drawn.table), [one.name for one in drawn.left_out]) == (20, ["images/x1.png"])
    touch(folder, "images/x2.png")
    words = r"skin: 2 of 22 would be left out, more than 5%; mend them, or accept it with --max-left-out 0\.1: 2 left out, an image without"
    with pytest.raises(DataError, match=words):
        split_folder(folder, "skin_lesion", overwrite=True)
    assert len(split_folder(folder, "skin_lesion", overwrite=True, most_left_out=0.1).left_out) == 2


def test_names_like_patients_are_pointed_out_where_no_groups_are_given(tmp_path: Path) -> None:
    for number in range(20):
        touch(tmp_path / "skin", f"images/p{number // 4}_{number}.png", f"masks/p{number // 4}_{number}.png")
    assert "20 images of 5 (p0, p1, p2 and 2 more)" in split_folder(tmp_path / "skin", "skin_lesion").hint
    assert split_folder(tmp_path / "skin", "skin_lesion", group_pattern=r"^(\D*\d+)\D", overwrite=True).hint == ""


def test_programs_read_what_is_left_out_and_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str], make_pairs: MakePairs) -> None:
    make_pairs(tmp_path / "skin", count=4)
    touch(tmp_path / "skin" / "images", "x.png")
    assert main(["data", "split", str(tmp_path / "skin"), "--task", "skin", "--max-left-out", "0.2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["reason"]) for one in said["left_out"]] == [("images/x.png", "an image without a mask")]
    assert said["hint"] == ""


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images: no such folder"):
        pair_folder(tmp_path / "images", tmp_path / "masks")
    with pytest.raises(DataError, match=r"images: holds no image files; expected \.png"):
        pair_folder(touch(tmp_path / "images", "a.gif"), tmp_path / "masks")


# the draw


@pytest.mark.parametrize(("images", "expected"), [(10, (7, 1, 2)), (100, (70, 10, 20)), (3, (1, 1, 1)), (4, (2, 1, 1))])
def test_single_images_meet_the_fractions(images: int, expected: tuple[int, int, int]) -> None:
    drawn = draw_split(table([1] * images).drop(columns="group"))
    assert counts(drawn) == expected
    assert set(drawn["group"]) == {""}


@pytest.mark.parametrize("sizes", [[5] * 20, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [40, 1, 1], [30, 20, 10, 10, 10, 10, 5, 5]])
def test_no_group_crosses_a_split_and_none_is_empty(sizes: list[int]) -> None:
    for seed in range(5):
        drawn = draw_split(table(sizes), seed=seed)
        assert drawn.groupby("group")["split"].nunique().max() == 1
        assert min(counts(drawn)) > 0
        assert len(drawn) == sum(sizes)


@pytest.mark.parametrize("sizes", [[8, 5, 3, 2, 1, 1], [40, 20, 8, 5, 3, 2], [3, 3, 3, 3, 3, 3], [20, 5, 5, 2, 2, 1, 1]])
def test_the_fractions_are_met_as_nearly_as_the_groups_allow(sizes: list[int]) -> None:
    total, fractions = sum(sizes), (0.7, 0.1, 0.2)

    def error(found: tuple[int, ...]) -> float:
        return max(abs(count - fraction * total) for count, fraction in zip(found, fractions, strict=True))

    every = itertools.product(range(3), repeat=len(sizes))  # every possible assignment without an empty split
    best = min(
        error(tuple(sum(size for size, place in zip(sizes, places, strict=True) if place == split) for split in range(3)))
        for places in every
        if len(set(places)) == 3
    )
    assert error(counts(draw_split(table(sizes), fractions))) <= max(best, 1) + 0.03 * total


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_rows() -> None:
    cases = table([3] * 30)
    drawn = draw_split(cases, seed=1)
    shuffled = draw_split(cases.sample(frac=1, random_state=0), seed=1)
    pd.testing.assert_frame_equal(drawn, shuffled.sort_index())
    assert (drawn["split"] != draw_split(cases, seed=2)["split"]).any()


def test_the_draw_stays_the_same_in_later_versions() -> None:
    drawn = draw_split(table([1] * 10), seed=0)
    assert "".join(split[1] for split in drawn["split"]) == "rrrrraerer"  # tRain, vAl, tEst


def test_a_split_of_fraction_0_gets_nothing_and_two_groups_go_to_train_and_test() -> None:
    assert counts(draw_split(table([1] * 10), (0.8, 0, 0.2))) == (8, 0, 2)
    assert counts(draw_split(table([4, 4, 2]), (0, 0, 1))) == (0, 0, 10)
    assert counts(draw_split(table([6, 3]))) == (6, 0, 3)


def test_images_without_a_group_are_drawn_one_by_one_beside_those_with_one() -> None:
    cases = table([10] + [1] * 90)
    cases.loc[10:, "group"] = ""
    drawn = draw_split(cases)
    assert drawn["split"][:10].nunique() == 1
    assert counts(drawn) == (70, 10, 20)


@pytest.mark.parametrize(
    ("pattern", "groups"), [(r"^(p\d+)_", ["p1", "p1", "p12"]), (r"p\d+", ["p1", "p1", "p12"]), (r"^(?:p)(\d)", ["1", "1", "1"])]
)
def test_the_pattern_names_groups_by_its_first_group_or_its_match(pattern: str, groups: list[str]) -> None:
    images = ["images/p1_a.png", "images/p1_b.png", "images/p12_a.png"]
    drawn = draw_split(pd.DataFrame({"image": images, "mask": images}), group=pattern)
    assert list(drawn["group"]) == groups


def test_the_pattern_is_a_regular_expression_and_sees_the_stem_only() -> None:
    cases = pd.DataFrame({"image": ["p9/a_1.png"], "mask": ["m.png"]})
    with pytest.raises(UsageError, match=r"group pattern '\(p': not a regular expression"):
        draw_split(cases, group="(p")
    with pytest.raises(DataError, match=r"pattern 'p\\d' finds no group in 1 of 1 images: p9/a_1\.png; it is searched in the file name"):
        draw_split(cases, group=r"p\d")
    assert list(draw_split(cases, group=r"^[^.]+$")["group"]) == ["a_1"]


@pytest.mark.parametrize("pattern", [r"^q", r"(q)?case", r"q*"])
def test_an_image_without_a_match_or_with_an_empty_one_is_an_error(pattern: str) -> None:
    with pytest.raises(DataError, match=r"finds no group in 1 of 1 images: case\.png"):
        draw_split(pd.DataFrame({"image": ["case.png"], "mask": ["m.png"]}), group=pattern)


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.4, 0.2), (70, 10, 20), (float("nan"), 0.5, 0.5)])
def test_fractions_must_be_three_and_sum_to_one(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="expected three numbers of 0 or more that sum to 1"):
        draw_split(table([1] * 5), fractions)


def test_the_table_given_is_left_alone_and_its_other_columns_kept() -> None:
    cases = table([1] * 5).assign(site="A")
    drawn = draw_split(cases)
    assert list(cases.columns) == ["image", "mask", "group", "site"]
    assert list(drawn.columns) == ["image", "mask", "split", "group", "site"]


# a folder


def test_a_folder_becomes_a_data_set_that_passes_the_check(tmp_path: Path, make_pairs: MakePairs) -> None:
    make_pairs(tmp_path / "skin", count=10, mask_ending="_mask")
    make_pairs(tmp_path / "colon", count=10, seed=1)
    split_folder(tmp_path / "skin", "skin_lesion", "dermoscopy")
    split_folder(tmp_path / "colon", "colon_polyp", "endoscopy")
    data = read_dataset(tmp_path)
    assert list(data.tasks) == [Task("skin_lesion", "dermoscopy"), Task("colon_polyp", "endoscopy")]
    assert [len(data.only(["skin_lesion"]).split(split)) for split in ("train", "val", "test")] == [7, 1, 2]
    assert check_dataset(data).problems == []
    assert yaml.safe_load((tmp_path / "tasks.yaml").read_text())["tasks"]["skin_lesion"]["data"] == "skin/split.csv"
    assert not list(tmp_path.rglob(".*"))  # no temporary file is left


def test_the_table_returned_is_the_one_written(tmp_path: Path, make_pairs: MakePairs) -> None:
    drawn = split_folder(make_pairs(tmp_path / "skin"), "skin_lesion", group_pattern=r"\d+").table
    written = pd.read_csv(tmp_path / "skin" / "split.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(drawn, written, check_dtype=False)
    assert list(written["image"])[:2] == ["images/case00.png", "images/case01.png"]
    assert list(written["group"]) == ["00", "01", "02", "03"]


def test_folders_may_be_named_image_and_mask_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path / "skin", "image/a.png", "mask/a.png")
    assert split_folder(tmp_path / "skin", "skin_lesion").table.loc[0, ["image", "mask"]].tolist() == ["image/a.png", "mask/a.png"]
    with pytest.raises(DataError, match=r"colon: has no folder images/; expected images/ and masks/ in it"):
        split_folder(touch(tmp_path / "colon", "pictures/a.png"), "colon_polyp")


def test_another_tasks_file_gets_a_relative_path(tmp_path: Path, make_pairs: MakePairs) -> None:
    make_pairs(tmp_path / "raw" / "skin")
    tasks_file = tmp_path / "sets" / "all.yaml"
    split_folder(tmp_path / "raw" / "skin", "skin_lesion", tasks_file=tasks_file)
    assert yaml.safe_load(tasks_file.read_text())["tasks"]["skin_lesion"]["data"] == "../raw/skin/split.csv"
    assert read_dataset(tasks_file).cases[0].image.exists()


def test_the_current_folder_is_listed_in_its_parents_tasks_file(
    tmp_path: Path, make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_pairs(tmp_path / "skin"))
    split_folder(Path(), "skin_lesion")
    assert read_dataset(tmp_path).tasks.names == ["skin_lesion"]


def test_an_existing_split_is_replaced_only_on_request(tmp_path: Path, make_pairs: MakePairs) -> None:
    folder = make_pairs(tmp_path / "skin", count=20)
    split_folder(folder, "skin_lesion", seed=0)
    before = (folder / "split.csv").read_text()
    with pytest.raises(UsageError, match=r"split\.csv: exists"):
        split_folder(folder, "skin_lesion", seed=1)
    assert (folder / "split.csv").read_text() == before
    split_folder(folder, "skin_lesion", seed=1, overwrite=True)
    assert (folder / "split.csv").read_text() != before


def test_overwriting_lists_the_folder_anew_and_keeps_groups(tmp_path: Path, make_pairs: MakePairs) -> None:
    folder = make_pairs(tmp_path / "skin", count=6)
    split_folder(folder, "skin_lesion", group_pattern=r"case(\d\d)")
    make_pairs(folder, count=8)  # two more
    assert list(split_folder(folder, "skin_lesion", overwrite=True).table["group"]) == ["00", "01", "02", "03", "04", "05", "", ""]
    assert set(split_folder(folder, "skin_lesion", group_pattern="(case)", overwrite=True).table["group"]) == {"case"}


def test_a_list_of_cases_without_splits_keeps_its_groups_and_columns(tmp_path: Path) -> None:
    rows = [f"x/{number}.png,y/{number}.png,p{number // 4},A" for number in range(40)]
    folder = touch(tmp_path / "skin", "split.csv")
    (folder / "split.csv").write_text("\n".join(["image,mask,group,site", *rows, ""]))
    drawn = split_folder(folder, "skin_lesion").table
    assert list(drawn["group"]) == [f"p{number // 4}" for number in range(40)]
    assert set(drawn["site"]) == {"A"}
    assert drawn.groupby("group")["split"].nunique().max() == 1
    assert counts(drawn) == (28, 4, 8)


def test_a_pattern_against_groups_that_stand_is_refused(tmp_path: Path) -> None:
    folder = touch(tmp_path / "skin", "split.csv")
    (folder / "split.csv").write_text("image,mask,group\na_1.png,m.png,p1\n")
    with pytest.raises(UsageError, match=r"split\.csv: names groups already"):
        split_folder(folder, "skin_lesion", group_pattern="a")


@pytest.mark.parametrize("name", ["no", "123", "null"])
def test_a_task_name_that_yaml_would_take_for_something_else_is_quoted(name: str, tmp_path: Path, make_pairs: MakePairs) -> None:
    split_folder(make_pairs(tmp_path / "skin"), "skin_lesion")
    split_folder(make_pairs(tmp_path / "skin2"), name)
    assert read_dataset(tmp_path).tasks.names == ["skin_lesion", name]


@pytest.mark.parametrize("text", ["", "image;mask\na;b\n", "image,mask\n"])
def test_a_bad_list_of_cases_is_named(text: str, tmp_path: Path) -> None:
    folder = touch(tmp_path / "skin", "split.csv")
    (folder / "split.csv").write_text(text)
    with pytest.raises(DataError, match=r"split\.csv: "):
        split_folder(folder, "skin_lesion")


def test_other_entries_and_comments_of_the_tasks_file_are_kept(tmp_path: Path, make_pairs: MakePairs) -> None:
    make_pairs(tmp_path / "skin")
    before = "# our study\ntasks:\n  colon_polyp: {modality: endoscopy, data: c.csv, description: Polyp}  # site A\n"
    (tmp_path / "tasks.yaml").write_text(before)
    split_folder(tmp_path / "skin", "skin_lesion", "dermoscopy")
    assert (tmp_path / "tasks.yaml").read_text() == before + "  skin_lesion: {modality: dermoscopy, data: skin/split.csv}\n"


@pytest.mark.parametrize(
    "before", ["tasks: {a: {data: a.csv}}\n", "tasks:\n    a:\n        data: a.csv\n", "tasks:\n  a: {data: a.csv}\nnotes: {b: 1}\n"]
)
def test_a_tasks_file_of_another_shape_gets_the_entry_too(before: str, tmp_path: Path, make_pairs: MakePairs) -> None:
    make_pairs(tmp_path / "skin")
    (tmp_path / "tasks.yaml").write_text(before)
    split_folder(tmp_path / "skin", "skin_lesion")
    expected = yaml.safe_load(before)
    expected["tasks"]["skin_lesion"] = {"modality": "unknown", "data": "skin/split.csv"}
    after = yaml.safe_load((tmp_path / "tasks.yaml").read_text())
    assert after == expected
    assert list(after["tasks"]) == ["a", "skin_lesion"]


def test_an_entry_is_brought_up_to_date_in_its_place(tmp_path: Path, make_pairs: MakePairs) -> None:
    make_pairs(tmp_path / "skin")
    (tmp_path / "tasks.yaml").write_text("tasks:\n  skin_lesion: {data: skin/split.csv, description: Haut}\n  z: {data: z.csv}\n")
    split_folder(tmp_path / "skin", "skin_lesion", "dermoscopy")
    text = (tmp_path / "tasks.yaml").read_text()
    assert list(yaml.safe_load(text)["tasks"]) == ["skin_lesion", "z"]
    assert yaml.safe_load(text)["tasks"]["skin_lesion"] == {"data": "skin/split.csv", "description": "Haut", "modality": "dermoscopy"}
    (tmp_path / "tasks.yaml").write_text("# mine\n" + text)
    split_folder(tmp_path / "skin", "skin_lesion", "dermoscopy", overwrite=True)
    assert (tmp_path / "tasks.yaml").read_text() == "# mine\n" + text  # right already: left as it is


def test_a_task_name_in_use_for_other_data_is_refused(tmp_path: Path, make_pairs: MakePairs) -> None:
    make_pairs(tmp_path / "skin")
    (tmp_path / "tasks.yaml").write_text("tasks:\n  skin_lesion: {data: other/split.csv}\n")
    with pytest.raises(UsageError, match=r"tasks\.yaml: has a task 'skin_lesion' with data other/split\.csv"):
        split_folder(tmp_path / "skin", "skin_lesion")
    split_folder(tmp_path / "skin", "skin_lesion", overwrite=True)
    assert read_dataset(tmp_path).cases[0].name == "images/case00.png"


@pytest.mark.parametrize(
    ("options", "tasks_text", "error"),
    [
        ({"task": "skin lesion"}, None, UsageError),
        ({"fractions": (1, 1, 1)}, None, UsageError),
        ({"group_pattern": "zzz"}, None, DataError),
        ({}, "not: tasks\n", DataError),
    ],
)
def test_nothing_is_written_if_anything_is_wrong(
    options: dict, tasks_text: str | None, error: type[Exception], tmp_path: Path, make_pairs: MakePairs
) -> None:
    folder = make_pairs(tmp_path / "skin")
    if tasks_text:
        (tmp_path / "tasks.yaml").write_text(tasks_text)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(error):
        split_folder(folder, **{"task": "skin_lesion", **options})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
