"""The contact sheet: which cases it shows, what it draws of them, and names that are no HTML."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.manifest import Case, DataSet, read_dataset
from tpseg.data.quality.contact_sheet import ACROSS, GAP, LINE, SIDE, choose, write_sheet
from tpseg.imaging.overlay import TRUE


def listed(counts: dict[str, int], groups: int = 0, tasks: tuple[str, ...] = ("t",)) -> DataSet:
    """Cases without files: so many of each split, in so many groups."""
    cases = [
        Case(task, Path(f"{split}{number}.png"), Path("m.png"), split, f"{split}{number % groups}" if groups else "", f"{split}{number}")
        for task in tasks
        for split, count in counts.items()
        for number in range(count)
    ]
    return DataSet(Path("tasks.yaml"), TaskSet([Task(task) for task in tasks]), tuple(cases))


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


def test_the_choice_is_spread_over_splits_in_their_order() -> None:
    data = listed({"test": 50, "train": 100, "val": 2})
    chosen = [case.split for case in choose(data, "t", 9)]
    assert Counter(chosen) == {"train": 4, "val": 2, "test": 3}  # val has no more
    assert chosen == sorted(chosen, key=("train", "val", "test").index)
    assert {case.split for case in choose(data, "t", 9, split="test")} == {"test"}


def test_the_seed_decides_and_nothing_else() -> None:
    data, more = listed({"train": 40, "val": 40}), listed({"train": 40, "val": 40}, tasks=("other", "t"))
    assert names(choose(data, "t", 8)) == names(choose(data, "t", 8)) == names(choose(more, "t", 8))
    assert names(choose(data, "t", 8)) != names(choose(data, "t", 8, seed=1))
    assert set(names(choose(data, "t", 8))) < set(names(choose(data, "t", 20)))
    first = names(choose(data, "t", 8, split="train"))
    assert first != [f"train{number}" for number in range(8)]


def test_every_group_is_shown_before_one_is_shown_twice() -> None:
    data = listed({"train": 60}, groups=5)
    assert sorted(case.group for case in choose(data, "t", 5)) == [f"train{number}" for number in range(5)]
    assert set(Counter(case.group for case in choose(data, "t", 10)).values()) == {2}


def test_asking_for_more_than_there_is_shows_all_once() -> None:
    assert sorted(names(choose(listed({"train": 3, "test": 2}), "t", 100))) == ["test0", "test1", "train0", "train1", "train2"]


def cyan(picture: np.ndarray) -> int:
    """Pixels near the colour of true contours."""
    return int((np.abs(picture.astype(int) - TRUE).max(-1) < 40).sum())


def test_a_picture_has_a_tile_for_each_case_with_its_contour(discs: Path, tmp_path: Path) -> None:
    tiles = write_sheet(read_dataset(discs), tmp_path / "sheet.png", number=10)
    assert len(tiles) == 20
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    height = round(SIDE * 48 / 64)
    row = height + 2 * LINE + 3 + GAP
    assert pixels.shape == (2 * (28 + 2 * row) + 2 * GAP, GAP + ACROSS * (SIDE + GAP), 3)  # 10 tiles: a row of 8 and one of 2
    for column in range(ACROSS):
        left = GAP + column * (SIDE + GAP)
        tile = pixels[GAP + 28 : GAP + 28 + height, left : left + SIDE]
        assert cyan(tile) > 100
        assert np.abs(tile[height // 20, :5].astype(int) - 128).max() < 60  # the grey ground of the picture itself
    below = pixels[GAP + 28 + height : GAP + 28 + row, GAP : GAP + SIDE]
    assert below.min() < 100  # its name
    assert pixels[:, -GAP + 1 :].min() == 255  # nothing runs over the edge


def test_a_lesion_of_a_pixel_is_seen_and_an_empty_mask_is_said(tmp_path: Path) -> None:
    Image.new("L", (900, 900)).save(tmp_path / "image.png")
    mask = Image.new("L", (900, 900))
    mask.save(tmp_path / "empty.png")
    mask.putpixel((450, 450), 255)
    mask.save(tmp_path / "mask.png")
    (tmp_path / "split.csv").write_text("image,mask,split,group\nimage.png,mask.png,train,p7\nimage.png,empty.png,val,\n")
    (tmp_path / "tasks.yaml").write_text("tasks:\n  t: {data: split.csv}\n")
    lesion, empty = write_sheet(read_dataset(tmp_path), tmp_path / "sheet.html")
    assert cyan(lesion.picture) >= 1
    assert (lesion.caption, lesion.note) == ("train · p7", "")
    assert cyan(empty.picture) == 0
    assert (empty.caption, empty.note) == ("val", "no lesion")
    assert "no lesion" in (tmp_path / "sheet.html").read_text()


def test_a_page_holds_its_pictures_and_escapes_names(tmp_path: Path, make_pairs) -> None:
    name = "<script>alert(1)<&>'\"é.png"
    make_pairs(tmp_path / "t", count=1)
    (tmp_path / "t" / "images" / "case00.png").rename(tmp_path / "t" / name.replace("/", ""))
    quoted = '"' + name.replace('"', '""') + '"'
    (tmp_path / "t" / "split.csv").write_text(f"image,mask,split,group\n{quoted},masks/case00.png,train,<b>group\n", encoding="utf-8")
    (tmp_path / "tasks.yaml").write_text("tasks:\n  t: {data: t/split.csv, description: '<i>lesion'}\n")
    write_sheet(read_dataset(tmp_path), tmp_path / "out" / "sheet.html")
    page = (tmp_path / "out" / "sheet.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<b>|<i>", page)
    assert "&lt;script&gt;alert(1)&lt;&amp;&gt;" in page
    assert "train · &lt;b&gt;group" in page
    assert re.findall(r'src="([^"]{0,10})', page) == ["data:image"]
    picture = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert Image.open(io.BytesIO(picture)).size == (SIDE, SIDE * 24 // 32)


@pytest.mark.parametrize("kind", ["png", "html"])
def test_a_case_that_cannot_be_read_stands_there_with_the_reason(
    tiny_dataset: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in read_dataset(tiny_dataset).cases[:10]:
        case.image.write_bytes(b"nothing")
    out = tmp_path / f"sheet.{kind}"
    assert main(["data", "view", str(tiny_dataset), "--number", "2", "--out", str(out)]) == 1
    found = capsys.readouterr()
    assert found.err.count("cannot be shown: ") == 2
    assert f"wrote {out}: 2 images" in found.out
    if kind == "html":
        assert out.read_text().count("cannot be decoded") == 2
    else:
        with Image.open(out) as sheet:
            assert np.asarray(sheet)[GAP + 28 : GAP + 28 + SIDE, GAP : GAP + SIDE].min() < 100


def test_the_verb_shows_one_task_and_split(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.html"
    assert main(["data", "view", str(tiny_dataset), "--task", "breast_lesion", "--split", "test", "--out", str(out)]) == 0
    page = out.read_text()
    assert page.count("<figure>") == 2
    assert "skin_lesion" not in page
    assert "train" not in page


def test_the_same_command_gives_the_same_bytes(tiny_dataset: Path, tmp_path: Path) -> None:
    for kind in ("png", "html"):
        for place in ("one", "two"):
            write_sheet(read_dataset(tiny_dataset), tmp_path / f"{place}.{kind}", number=3)
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def test_wrong_usage_is_one_sentence(tiny_dataset: Path, tmp_path: Path) -> None:
    data = read_dataset(tiny_dataset)
    with pytest.raises(UsageError, match=r"--out sheet\.gif: found '\.gif', expected \.png or \.html"):
        write_sheet(data, Path("sheet.gif"))
    with pytest.raises(UsageError, match="--number: found 0, expected 1 or more"):
        write_sheet(data, tmp_path / "sheet.png", number=0)
    with pytest.raises(DataError, match="no case has split 'val'"):
        write_sheet(DataSet(data.source, data.tasks, tuple(data.split("train"))), tmp_path / "sheet.png", split="val")
    assert not (tmp_path / "sheet.png").exists()
