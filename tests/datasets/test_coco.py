"""COCO's layout: what is drawn is united, images without annotations are empty, and what the JSON gets wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tpseg.core.errors import DataError, UsageError
from tpseg.datasets.coco import CocoSource
from tpseg.datasets.prepare import prepare
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair

CATEGORIES = [{"id": 1, "name": "polyp"}, {"id": 7, "name": "instrument"}]
SQUARE = [[2, 3, 6, 3, 6, 5, 2, 5]]  # rows 3 and 4, columns 2 to 5


def save(path: Path, width: int = 10, height: int = 8, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def image(id: Any, name: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "file_name": name, "width": 10, "height": 8, **more}


def annotation(image: Any, segmentation: Any, category: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": 50, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def write(path: Path, images: list[Any], annotations: list[Any], categories: list[Any] = CATEGORIES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images: two polygons, a polygon and an instrument, run lengths of a crowd, nothing."""
    for number, name in enumerate(("a.png", "b.jpg", "deep/c.png", "d.png")):
        save(tmp_path / "set" / "images" / name, seed=number)
    runs = {"counts": [0, 8, 72], "size": [8, 10]}  # the first column
    annotations = [
        annotation(1, SQUARE), annotation(1, [[0, 0, 2, 0, 2, 1, 0, 1]]),
        annotation(2, SQUARE, 7), annotation(2, [[8, 6, 10, 6, 10, 8, 8, 8]]),
        annotation(3, runs, iscrowd=1),
    ]  # fmt: skip
    images = [image(1, "a.png"), image(2, "b.jpg"), image(3, "deep/c.png"), image(4, "d.png")]
    write(tmp_path / "set" / "annotations" / "all.json", images, annotations)
    return tmp_path / "set"


def found(root: Path, **options: Any) -> tuple[dict[str, Pair], list[LeftOut]]:
    """Cases by name with their masks drawn, and what is left out."""
    with Release(root) as release:
        listed = list(CocoSource(**options).pairs(release))
    return {one.name: one for one in listed if isinstance(one, Pair)}, [one for one in listed if isinstance(one, LeftOut)]


def test_annotations_of_an_image_are_united_crowds_too_and_images_without_any_are_empty(root: Path) -> None:
    pairs, left_out = found(root)
    assert sorted(pairs) == ["a", "b", "c", "d"]
    assert left_out == []
    assert [pair.mask().shape for pair in pairs.values()] == [(8, 10)] * 4
    a, b, c, d = (pairs[name].mask() for name in "abcd")
    assert a.sum() == 8 + 2
    assert a[3:5, 2:6].all()
    assert a[0, :2].all()
    assert b.sum() == 8 + 4
    assert c.sum() == 8
    assert c[:, 0].all()
    assert not d.any()


@pytest.mark.parametrize(("labels", "pixels"), [(["polyp"], 4), (["7"], 8), (["instrument", "1"], 12)])
def test_categories_are_chosen_by_name_or_id(root: Path, labels: list[str], pixels: int) -> None:
    assert found(root, labels=labels)[0]["b"].mask().sum() == pixels


def test_an_unknown_category_names_the_nearest(root: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown 'polyps'; did you mean 'polyp'\?.*instrument \(7\)"):
        found(root, labels=["polyps"])


def test_pictures_are_handed_on_as_they_are(root: Path) -> None:
    assert found(root)[0]["b"].image() == (root / "images" / "b.jpg").read_bytes()


def test_json_files_and_folders_called_after_a_split_give_it(tmp_path: Path) -> None:
    """As COCO has it, the same name in two folders; and as Roboflow has it, the JSON beside the images."""
    for number, split in enumerate(("train2017", "val2017")):
        save(tmp_path / "coco" / split / "01.png", seed=number)
        write(tmp_path / "coco" / "annotations" / f"instances_{split}.json", [image(1, "01.png")], [])
    pairs, _ = found(tmp_path / "coco")
    assert {name: pair.split for name, pair in pairs.items()} == {"train2017_01": "train", "val2017_01": "val"}
    for number, split in enumerate(("train", "valid", "test")):
        save(tmp_path / "roboflow" / split / "01.png", seed=number)
        write(tmp_path / "roboflow" / split / "_annotations.coco.json", [image(1, "01.png")], [annotation(1, SQUARE)] * number)
    pairs, left_out = found(tmp_path / "roboflow")
    assert left_out == []
    assert {name: (pair.split, int(pair.mask().sum())) for name, pair in pairs.items()} == {
        "train_01": ("train", 0), "valid_01": ("val", 8), "test_01": ("test", 8),
    }  # fmt: skip


def test_an_image_in_two_splits_is_refused(root: Path) -> None:
    for split in ("train", "test"):
        write(root / f"{split}.json", [image(1, "a.png")], [])
    (root / "annotations" / "all.json").unlink()
    with pytest.raises(DataError, match=r"a\.png: in split 'test' by test\.json.*, in 'train' by train\.json"):
        found(root)


def test_one_of_several_json_files_may_be_named(root: Path) -> None:
    write(root / "other.json", [image(9, "d.png")], [annotation(9, SQUARE)])
    assert found(root, annotations="other.json")[0]["d"].mask().sum() == 8
    with pytest.raises(DataError, match=r"has no file others\.json; JSON files in it: annotations/all\.json, other\.json"):
        found(root, annotations="others.json")
    (root / "list.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"list\.json: not COCO's layout"):
        found(root, annotations="list.json")


def test_groups_come_from_the_name(root: Path) -> None:
    assert {name: pair.group for name, pair in found(root, group="[abc]|(?=d)d")[0].items()} == dict(zip("abcd", "abcd", strict=True))
    with pytest.raises(DataError, match="finds no group in a"):
        found(root, group="x(.)")
    with pytest.raises(UsageError, match="not a regular expression"):
        CocoSource(group="(")


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/secret.png", "C:\\secret.png", "..\\..\\secret.png"])
def test_names_that_lead_out_of_the_data_set_are_left_out(root: Path, name: str) -> None:
    save(root.parent.parent / "secret.png")
    save(root.parent / "secret.png")
    write(root / "annotations" / "all.json", [image(1, "a.png"), image(2, name)], [annotation(2, SQUARE)])
    pairs, left_out = found(root)
    assert list(pairs) == ["a"]
    assert "leads out of the data set" in left_out[0].detail


@pytest.mark.parametrize("told", ["C:\\Users\\me\\a.png", "/home/me/set/a.png", "../../label-studio/a.png", "elsewhere/a.png"])
def test_a_path_of_another_machine_means_the_only_picture_of_its_name(root: Path, told: str) -> None:
    write(root / "annotations" / "all.json", [image(1, told)], [annotation(1, SQUARE)])
    assert found(root)[0]["a"].mask().sum() == 8
    save(root / "more" / "a.png")
    with pytest.raises(DataError, match="an image that is not there"):
        found(root)


def test_a_path_of_another_machine_means_no_picture_that_another_path_or_split_may_mean(root: Path) -> None:
    write(root / "annotations" / "all.json", [image(1, "p1/a.png"), image(2, "p2/a.png"), image(3, "b.jpg")], [])
    pairs, left_out = found(root)
    assert list(pairs) == ["b"]
    assert [one.reason for one in left_out if "file_name" in one.detail] == ["an image that is not there"] * 2
    (root / "images").rename(root / "train")
    write(root / "annotations" / "all.json", [image(1, "val/a.png"), image(3, "train/b.jpg")], [])
    assert list(found(root)[0]) == ["b"]


@pytest.mark.parametrize("category", ["1", 1.0])
def test_category_ids_as_text_and_as_numbers_are_the_same(root: Path, category: Any) -> None:
    write(root / "annotations" / "all.json", [image(1, "a.png")], [annotation(1, SQUARE, category)])
    assert found(root, labels=["polyp"])[0]["a"].mask().sum() == 8
    write(root / "annotations" / "all.json", [image(1, "a.png")], [annotation(1, SQUARE)], [{"id": category, "name": "polyp"}])
    assert found(root)[0]["a"].mask().sum() == 8


@pytest.mark.parametrize("labels", [[], ["polyp"]])
def test_an_image_with_an_annotation_of_an_unknown_category_is_left_out_and_named(root: Path, labels: list[str]) -> None:
    """Its mask would lack a lesion, or all of them."""
    without = {"id": 51, "image_id": 3, "segmentation": SQUARE}
    images = [image(1, "a.png"), image(2, "b.jpg"), image(3, "deep/c.png")]
    write(root / "annotations" / "all.json", images, [annotation(1, SQUARE), annotation(2, SQUARE, 3), annotation(2, SQUARE), without])
    pairs, left_out = found(root, labels=labels)
    assert list(pairs) == ["a"]
    assert [(one.name, one.reason) for one in left_out[:2]] == [
        (f"images/{name}", "an annotation of a category that is not in the list of categories") for name in ("b.jpg", "deep/c.png")
    ]
    assert "annotation 50: category_id 3;" in left_out[0].detail
    assert "annotation 51: category_id None;" in left_out[1].detail
    write(root / "annotations" / "all.json", images, [annotation(id, SQUARE) for id in (1, 2, 3)], [])
    with pytest.raises(DataError if not labels else UsageError, match=r"category_id 1|unknown 'polyp'"):
        found(root, labels=labels)


def test_two_images_of_one_id_are_refused(root: Path) -> None:
    write(root / "annotations" / "all.json", [image(1, "a.png"), image(1, "b.jpg")], [annotation(1, SQUARE)])
    with pytest.raises(DataError, match="image 1: its id is that of another image, too"):
        found(root)


def test_missing_and_ambiguous_images_are_left_out_and_named(root: Path) -> None:
    save(root / "more" / "a.png")
    write(root / "annotations" / "all.json", [image(1, "a.png"), image(2, "gone.png"), "x", image(4, "d.png")], [annotation(2, SQUARE)])
    pairs, left_out = found(root)
    assert list(pairs) == ["d"]
    assert [one.reason for one in left_out[:3]] == ["an image that is not there"] * 3
    assert [(one.name, one.reason) for one in left_out[3:]] == [
        (f"{path}", "a picture that no JSON file lists") for path in ("images/a.png", "images/b.jpg", "images/deep/c.png", "more/a.png")
    ]
    assert "means 2 files, images/a.png, more/a.png" in left_out[0].detail
    assert "'gone.png' means no file" in left_out[1].detail
    assert "expected an object with id and file_name" in left_out[2].detail


def test_an_image_of_another_size_than_the_json_says_fails_with_both_whatever_the_json_asks_for(root: Path) -> None:
    write(root / "annotations" / "all.json", [image(1, "a.png", width=10**9, height=10**9)], [annotation(1, SQUARE)])
    with pytest.raises(DataError, match=r"a\.png: 10x8 pixels, but .*all\.json: image 1 says 1000000000x1000000000"):
        found(root)[0]["a"].mask()


def test_polygons_outside_the_image_are_cut_and_a_box_alone_is_refused(root: Path) -> None:
    outside, box = [[8, 6, 50, 6, 50, 50, 8, 50]], annotation(2, [], bbox=[1, 1, 4, 4])
    write(root / "annotations" / "all.json", [image(1, "a.png"), image(2, "b.jpg")], [annotation(1, outside), box])
    pairs, _ = found(root)
    assert pairs["a"].mask().sum() == 4
    with pytest.raises(DataError, match="annotation 50: found \\[\\], expected polygons or run lengths; a box alone"):
        pairs["b"].mask()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ('{"images": [], "annotations": [5], "categories": []}', "an annotation 5; expected"),
        ('{"images": [], "annotations": [{"id": 1, "image_id": 3}], "categories": []}', "annotation 1: of image 3, which is not"),
        ('{"images": [], "annotations": [], "categories": [{"name": "x"}]}', "categories: expected objects with id and name"),
    ],
)
def test_a_damaged_json_is_one_sentence(root: Path, text: str, words: str) -> None:
    (root / "annotations" / "all.json").write_text(text)
    with pytest.raises(DataError, match=r"all\.json: .*" + words):
        found(root)


def test_ids_as_text_and_as_numbers_are_the_same(root: Path) -> None:
    write(root / "annotations" / "all.json", [image("1", "a.png")], [annotation(1, SQUARE)])
    assert found(root)[0]["a"].mask().sum() == 8


def test_an_upright_image_is_measured_upright(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 10), (9, 9, 9)).save(root / "images" / "a.png", exif=exif)
    assert found(root)[0]["a"].mask().shape == (8, 10)


def test_it_becomes_a_data_set(root: Path, tmp_path: Path) -> None:
    made = prepare(CocoSource(task="polyp", modality="endoscopy"), root, tmp_path / "out")
    masks = {path.stem: int((np.asarray(Image.open(path)) > 0).sum()) for path in (made.folder / "masks").iterdir()}
    assert masks == {"a": 10, "b": 12, "c": 8, "d": 0}
