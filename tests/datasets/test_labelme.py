"""labelme's layout: shapes are united, pictures without a JSON file are left out, nothing outside the data set is read."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tpseg.core.errors import DataError, UsageError
from tpseg.datasets.labelme import LabelmeSource
from tpseg.datasets.prepare import prepare
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair


def save(path: Path, width: int = 10, height: int = 8, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def shape(kind: str, *points: tuple[float, float], label: str = "nodule", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, "group_id": None, "flags": {}, **more}


def in_base64(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write(path: Path, *shapes: Any, picture: str | None = None, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": picture or f"{path.stem}.png", "imageData": None}
    path.write_text(json.dumps({**content, "imageHeight": 8, "imageWidth": 10, **more}))


def found(root: Path, **options: Any) -> tuple[dict[str, Pair], list[LeftOut]]:
    with Release(root) as release:
        listed = list(LabelmeSource(**options).pairs(release))
    return {one.name: one for one in listed if isinstance(one, Pair)}, [one for one in listed if isinstance(one, LeftOut)]


def drawn(root: Path, *shapes: Any, **more: Any) -> np.ndarray:
    """The mask of a picture with these shapes."""
    save(root / "a.png")
    write(root / "a.json", *shapes, **more)
    return found(root)[0]["a"].mask()


def test_polygons_and_rectangles_are_united(tmp_path: Path) -> None:
    mask = drawn(tmp_path, shape("polygon", (2, 3), (6, 3), (6, 5), (2, 5)), shape("rectangle", (10, 8), (8, 6)))
    assert mask.sum() == 8 + 4
    assert mask[3:5, 2:6].all()
    assert mask[6:, 8:].all()


def test_a_circle_and_a_painted_mask(tmp_path: Path) -> None:
    assert drawn(tmp_path, shape("circle", (5, 4), (5, 2))).sum() == 12  # radius 2 around a corner between pixels
    patch = Image.fromarray(np.array([[255, 0], [255, 255], [0, 255]], np.uint8))
    mask = drawn(tmp_path, shape("mask", (4, 2), (5, 4), mask=in_base64(patch)))
    assert mask[2:5, 4:6].tolist() == [[True, False], [True, True], [False, True]]
    assert mask.sum() == 4


def test_no_shapes_is_no_lesion_and_no_json_is_left_out(tmp_path: Path) -> None:
    save(tmp_path / "unseen.png")
    assert not drawn(tmp_path).any()
    assert [(one.name, one.reason) for one in found(tmp_path)[1]] == [("unseen.png", "no JSON file")]


def test_labels_are_chosen_by_name(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    write(tmp_path / "a.json", shape("rectangle", (0, 0), (2, 2)), shape("point", (5, 5), label="centre"))
    assert found(tmp_path, labels=["nodule"])[0]["a"].mask().sum() == 4
    with pytest.raises(DataError, match=r"a\.json: shape 2 \(centre\): a point, which has no area; choose labels"):
        found(tmp_path, labels=["nodule", "centre"])[0]["a"].mask()
    with pytest.raises(UsageError, match=r"unknown 'nodul'; did you mean 'nodule'\? \(labels: centre, nodule\)"):
        found(tmp_path, labels=["nodul"])


def test_a_label_of_points_alone_is_no_lesion_and_is_named_and_a_point_of_a_lesion_s_label_fails(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.png")
    write(tmp_path / "a.json", shape("rectangle", (0, 0), (2, 2)), shape("point", (5, 5), label="centre"))
    write(tmp_path / "b.json", shape("linestrip", (0, 0), (2, 2), label="centre"))
    pairs, left_out = found(tmp_path)
    assert [pair.mask().sum() for pair in pairs.values()] == [4, 0]
    assert [(one.name, one.reason) for one in left_out] == [("label centre", "a label of points or lines alone, which has no area")]
    write(tmp_path / "b.json", shape("point", (5, 5)))
    with pytest.raises(DataError, match=r"b\.json: shape 1 \(nodule\): a point, which has no area; choose"):
        found(tmp_path)[0]["b"].mask()


@pytest.mark.parametrize("kind", ["rectangle", "rotation"])
def test_a_rectangle_may_have_its_four_corners_and_be_turned(kind: str, tmp_path: Path) -> None:
    """As X-AnyLabeling writes it."""
    mask = drawn(tmp_path, shape(kind, (2, 3), (6, 3), (6, 5), (2, 5)))
    assert (mask.sum(), mask[3:5, 2:6].all()) == (8, True)
    assert drawn(tmp_path, shape(kind, (4, 0), (7, 3), (4, 6), (1, 3))).sum() == 18  # half of 6 x 6, turned by 45 degrees
    with pytest.raises(DataError, match=r"of 4 points; expected .* a rectangle's corners, in their order"):
        drawn(tmp_path, shape(kind, (2, 3), (6, 5), (6, 3), (2, 5)))


@pytest.mark.parametrize("encoding", ["gbk", "utf-8-sig", "utf-16"])
def test_json_of_windows_is_read(encoding: str, tmp_path: Path) -> None:
    save(tmp_path / "肿瘤.png")
    write(tmp_path / "肿瘤.json", shape("rectangle", (0, 0), (2, 2), label="肿瘤"), shape("rectangle", (5, 5), (6, 6), label="其他"))
    content = json.loads((tmp_path / "肿瘤.json").read_text())
    (tmp_path / "肿瘤.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert found(tmp_path, labels=["肿瘤"])[0]["肿瘤"].mask().sum() == 4


def test_the_picture_is_where_its_path_says_or_beside_the_file_or_in_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    save(root / "images" / "a.png", seed=1)
    write(root / "json" / "a.json", picture="..\\images\\a.png")
    save(root / "json" / "b.png", seed=2)
    write(root / "json" / "b.json", picture="renamed_since.jpg")
    kept = Image.fromarray(np.random.default_rng(3).integers(0, 256, (8, 10, 3), dtype=np.uint8))
    write(root / "json" / "c.json", shape("rectangle", (0, 0), (3, 1)), picture="lost.png", imageData=in_base64(kept))
    write(root / "json" / "d.json", picture="lost.png")
    pairs, _ = found(root)
    assert pairs["a"].image() == (root / "images" / "a.png").read_bytes()
    assert pairs["b"].image() == (root / "json" / "b.png").read_bytes()
    assert pairs["c"].mask().sum() == 3
    content = pairs["c"].image()
    assert isinstance(content, bytes)
    assert (np.asarray(Image.open(io.BytesIO(content))) == np.asarray(kept)).all()
    with pytest.raises(DataError, match=r"json/d\.json: the picture 'lost\.png' is not there"):
        pairs["d"].image()


@pytest.mark.parametrize("told", ["C:\\Users\\me\\data\\{}.png", "..\\..\\data\\{}.png", "/home/me/{}.png", "../../{}.png"])
def test_a_path_of_another_machine_means_the_picture_beside_or_else_the_only_one_of_its_name(tmp_path: Path, told: str) -> None:
    for number, place in enumerate(("a", "named", "../images/b", "../images/named")):
        save(tmp_path / "json" / f"{place}.png", seed=number)
    write(tmp_path / "json" / "a.json", picture=told.format("a"))
    write(tmp_path / "json" / "c.json", picture=told.format("named"))
    write(tmp_path / "json" / "d.json", picture=told.format("b"))
    pairs, left_out = found(tmp_path)
    assert [one.name for one in left_out] == ["images/named.png"]
    for name, path in (("a", "json/a.png"), ("c", "json/named.png"), ("d", "images/b.png")):
        assert pairs[name].image() == (tmp_path / path).read_bytes()
        assert pairs[name].mask().shape == (8, 10)


def test_a_path_of_another_machine_means_no_picture_that_two_may_mean(tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png")
    for patient in ("p1", "p2"):
        write(tmp_path / patient / "1.json", picture=f"/home/me/{patient}/1.png")
    for pair in found(tmp_path)[0].values():
        with pytest.raises(DataError, match=r"the picture '/home/me/p\d/1\.png' leads out of the data set"):
            pair.image()
    for suffix in ("png", "bmp"):
        save(tmp_path / "p1" / f"1.{suffix}")
    with pytest.raises(DataError, match=r"belongs to p1/1\.bmp, p1/1\.png, and imagePath 'gone\.jpg' to none"):
        write(tmp_path / "p1" / "1.json", picture="gone.jpg")
        found(tmp_path)[0]["p1_1"].image()


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/secret.png", "..\\..\\..\\secret.png", "D:secret.png"])
def test_a_path_that_leads_out_of_the_data_set_fails(tmp_path: Path, name: str) -> None:
    save(tmp_path / "secret.png")
    save(tmp_path / "set" / "a" / "c.png")
    write(tmp_path / "set" / "a" / "b.json", picture=name)
    with pytest.raises(DataError, match="leads out of the data set"):
        found(tmp_path / "set")[0]["b"].image()


IN_ALPHA = Image.fromarray(np.array([[[0, 0], [0, 255]]], np.uint8), "LA")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (shape("polygon", (1, 1), (2, 2)), "at least 3 points"),
        (shape("rectangle", (1, 1), (2, 2), (3, 3)), "a rectangle of 3 points; expected 2 or 4"),
        (shape("polygon", (1, 1), (2, 2), (float("inf"), 3)), "coordinates of inf"),
        (shape("spline", (1, 1), (2, 2), (3, 3)), "a 'spline'; expected polygon, rectangle, rotation, circle, mask"),
        (shape("mask", (0, 0), (1, 1), mask="!!"), "not a picture in base64"),
        (shape("mask", (0, 0), (1, 1), mask=in_base64(Image.new("L", (5, 5)))), "a painted mask of 5x5 pixels for 0,0 to 1,1"),
        (shape("mask", (9, 6), (10, 7), mask=in_base64(Image.new("L", (2, 2)))), "a painted mask of 2x2"),
        (shape("mask", (8, 7), (9, 8), mask=in_base64(Image.new("L", (2, 2)))), "a painted mask of 2x2"),
        (shape("mask", (-1, 0), (0, 1), mask=in_base64(Image.new("L", (2, 2)))), "a painted mask of 2x2"),
        (shape("mask", (0, -1), (1, 0), mask=in_base64(Image.new("L", (2, 2)))), "a painted mask of 2x2"),
        (shape("mask", (0, 0), (1, 0), mask=in_base64(IN_ALPHA)), "mask: its alpha channel varies but its colours do not"),
        (7, "found 7, expected an object"),
    ],
)
def test_a_shape_that_makes_no_sense_is_named(tmp_path: Path, bad: Any, words: str) -> None:
    with pytest.raises(DataError, match=r"a\.json: shape 2.*" + words):
        drawn(tmp_path, shape("rectangle", (0, 0), (2, 2)), bad)


def test_another_size_than_the_picture_has_fails_whatever_the_file_asks_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"drawn on 1000000000x8 pixels, but a\.png has 10x8"):
        drawn(tmp_path, imageWidth=10**9)


def test_a_damaged_json_is_left_out_and_one_of_another_kind_is_not_ours(tmp_path: Path) -> None:
    drawn(tmp_path)
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    pairs, left_out = found(tmp_path)
    assert list(pairs) == ["a"]
    assert [(one.name, one.reason) for one in left_out] == [("b.json", "a JSON file that cannot be read")]


def test_folders_give_the_split_and_cases_in_none_of_them_are_left_out(tmp_path: Path) -> None:
    for number, place in enumerate(("train", "test/batch1", "spare")):
        save(tmp_path / place / f"{number}.png")
        write(tmp_path / place / f"{number}.json")
    pairs, left_out = found(tmp_path)
    assert {name: pair.split for name, pair in pairs.items()} == {"0": "train", "1": "test"}
    assert [(one.name, one.reason) for one in left_out] == [("2", "in no split, though other cases are")]


def test_it_becomes_a_data_set_and_a_case_that_fails_is_left_out(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "set" / f"{number}.png", seed=number)
        write(tmp_path / "set" / f"{number}.json", shape("rectangle", (0, 0), (number, 2)))
    write(tmp_path / "set" / "5.json", shape("line", (0, 0), (1, 1)))
    made = prepare(LabelmeSource(task="nodule"), tmp_path / "set", tmp_path / "out", most_left_out=0.2)
    masks = {path.stem: int((np.asarray(Image.open(path)) > 0).sum()) for path in (made.folder / "masks").iterdir()}
    assert masks == {str(number): 2 * number for number in range(5)}
    assert [one.name for one in made.left_out] == ["5"]
