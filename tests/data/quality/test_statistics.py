"""The statistics of a data set, worked out by hand on a few pixels; Table 1 of the paper; figures that show what there is."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from tpseg.cli import main
from tpseg.data.manifest import read_dataset
from tpseg.data.quality.statistics import ALL, IMAGE_COLUMNS, Statistics, count_components, measure_dataset
from tpseg.report.data_figures import draw_all

TABLE_1 = {
    "wet_amd": (2346, 703), "brain_tumor": (2298, 766), "adenocarcinoma": (636, 159), "thyroid_nodule": (966, 276),
    "colon_polyp": (1450, 798), "lung_infection": (894, 385), "breast_lesion": (486, 161), "skin_lesion": (1886, 808),
}  # fmt: skip
"""#Train and #Val of the paper."""


def write_case(folder: Path, name: str, image: np.ndarray, lesion: list[tuple[int, int]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(image.shape[:2], np.uint8)
    for row, column in lesion:
        mask[row, column] = 255
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}-mask.png")


def write_tasks(root: Path, cases: dict[str, list[tuple[str, str, str]]]) -> Path:
    """Task to (name, split, group) of its cases."""
    for task, rows in cases.items():
        lines = ["image,mask,split,group", *(f"{name}.png,{name}-mask.png,{split},{group}" for name, split, group in rows)]
        (root / task / "split.csv").write_text("\n".join([*lines, ""]))
    entries = [f"  {task}: {{modality: {task} scanner, data: {task}/split.csv, description: The {task}}}\n" for task in cases]
    (root / "tasks.yaml").write_text("tasks:\n" + "".join(entries))
    return root / "tasks.yaml"


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Task `grey`: 10x20 of value 40 with two lesions of 4 and 2 pixels, 20x20 of value 100 empty, 10x10 of value 200 with one
    lesion of 5 pixels that meet at corners. Task `colour`: one image of 5x4, red and green halves, without a lesion.
    """
    write_case(tmp_path / "grey", "a", np.full((10, 20), 40, np.uint8), [(0, 0), (0, 1), (1, 0), (1, 1), (9, 19), (8, 19)])
    write_case(tmp_path / "grey", "b", np.full((20, 20), 100, np.uint8), [])
    write_case(tmp_path / "grey", "c", np.full((10, 10), 200, np.uint8), [(n, n) for n in range(5)])
    halves = np.zeros((5, 4, 3), np.uint8)
    halves[:, :2, 0], halves[:, 2:, 1] = 250, 100
    write_case(tmp_path / "colour", "d", halves, [])
    return write_tasks(tmp_path, {"grey": [("a", "train", "p1"), ("b", "train", "p1"), ("c", "test", "p2")], "colour": [("d", "val", "")]})


def lines_of(statistics: Statistics) -> dict[str, dict]:
    return statistics.table.set_index("task").to_dict("index")


def test_groups_of_one_name_in_two_tasks_are_two(few: Path) -> None:
    table = few.parent / "colour" / "split.csv"
    table.write_text(table.read_text().replace("val,", "val,p1"))
    lines = lines_of(measure_dataset(read_dataset(few)))
    assert [lines[task]["groups"] for task in ("grey", "colour", ALL)] == [2, 1, 3]


def test_counts_by_hand(few: Path) -> None:
    lines = lines_of(measure_dataset(read_dataset(few)))
    columns = ("train", "val", "test", "total", "groups", "empty", "read")
    assert {task: tuple(line[column] for column in columns) for task, line in lines.items()} == {
        "grey": (2, 0, 1, 3, 2, 1, 3),
        "colour": (0, 1, 0, 1, 0, 1, 1),
        ALL: (2, 1, 1, 4, 2, 2, 4),
    }
    assert (lines["grey"]["title"], lines["grey"]["modality"]) == ("The grey", "grey scanner")


def test_sizes_lesions_and_regions_by_hand(few: Path) -> None:
    statistics = measure_dataset(read_dataset(few))
    grey, every = (lines_of(statistics)[task] for task in ("grey", ALL))
    assert [grey[f"height_{point}"] for point in ("min", "median", "max")] == [10, 10, 20]
    assert [grey[f"width_{point}"] for point in ("min", "median", "max")] == [10, 20, 20]
    assert [every[f"width_{point}"] for point in ("min", "median", "max", "mean")] == [4, 15, 20, 13.5]
    shares = [6 / 200, 5 / 100]  # of the two masks that are not empty
    points = {"min": 0.03, "q1": 0.035, "median": 0.04, "q3": 0.045, "max": 0.05, "mean": sum(shares) / 2}
    assert {point: pytest.approx(value) for point, value in points.items()} == {point: grey[f"lesion_share_{point}"] for point in points}
    assert [grey[f"components_{point}"] for point in ("min", "mean", "max")] == [1, 1.5, 2]
    assert all(math.isnan(lines_of(statistics)["colour"][f"{name}_median"]) for name in ("lesion_share", "components"))


def test_intensity_is_over_all_pixels_by_hand(few: Path) -> None:
    lines = lines_of(measure_dataset(read_dataset(few)))
    mean = (200 * 40 + 400 * 100 + 100 * 200) / 700  # 97.14
    deviation = math.sqrt((200 * (40 - mean) ** 2 + 400 * (100 - mean) ** 2 + 100 * (200 - mean) ** 2) / 700)
    assert not lines["grey"]["colour"]
    for channel in ("red", "green", "blue"):
        assert lines["grey"][f"intensity_mean_{channel}"] == pytest.approx(mean)
        assert lines["grey"][f"intensity_std_{channel}"] == pytest.approx(deviation)
    assert lines["colour"]["colour"]
    found = {kind: [lines["colour"][f"intensity_{kind}_{channel}"] for channel in ("red", "green", "blue")] for kind in ("mean", "std")}
    assert found == {"mean": [125, 50, 0], "std": [125, 50, 0]}


def test_a_line_for_each_image(few: Path) -> None:
    images = measure_dataset(read_dataset(few)).images
    assert tuple(images.columns) == IMAGE_COLUMNS
    assert images.iloc[0].to_dict() == {
        "task": "grey", "split": "train", "group": "p1", "image": "a.png", "height": 10, "width": 20, "lesion_share": 0.03,
        "components": 2, "mean_red": 40, "mean_green": 40, "mean_blue": 40,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(["000", "000"], 0), (["110", "011"], 1), (["100", "010", "001"], 1), (["101", "000", "101"], 4), (["111", "101", "111"], 1)],
)
def test_regions_touch_at_corners(rows: list[str], expected: int) -> None:
    assert count_components(np.array([[letter == "1" for letter in row] for row in rows])) == expected


def test_a_case_that_cannot_be_read_is_named_and_left_out(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (few.parent / "grey" / "a.png").write_bytes(b"no image")
    (few.parent / "grey" / "c-mask.png").unlink()
    statistics = measure_dataset(read_dataset(few))
    assert [problem.split(": ")[0].split("/")[-1] for problem in statistics.unreadable] == ["a.png", "c-mask.png"]
    line = lines_of(statistics)["grey"]
    assert (line["total"], line["read"], line["empty"], line["height_min"]) == (3, 1, 1, 20)
    assert main(["data", "stats", str(few)]) == 1
    assert "a.png" in capsys.readouterr().out


def test_a_task_without_a_readable_image_has_dashes(few: Path, tmp_path: Path) -> None:
    (few.parent / "colour" / "d.png").unlink()
    statistics = measure_dataset(read_dataset(few))
    text = io.StringIO()
    Console(file=text, width=100).print(statistics)
    assert [line.count("–") for line in text.getvalue().splitlines() if line.startswith("│ colour")] == [1, 3, 7]
    assert statistics.summary()["tasks"]["colour"]["height_median"] is None
    assert [path.name for path in draw_all(statistics, tmp_path)] == ["counts", "sizes", "intensity", "lesion-share", "components"]


def test_the_verb_prints_and_writes_everything(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["data", "stats", str(few), "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert "grey scanner" in printed.err
    content = json.loads((out / "statistics.json").read_text())
    assert json.loads(printed.out) == {"verb": "data stats", "exit_code": 0, "warnings": [], **content}
    assert sum(content["tasks"]["grey"]["histogram"]["red"]) == 700
    assert content["tasks"]["grey"]["histogram"]["green"][100] == 400
    table = pd.read_csv(out / "statistics.csv").set_index("task")
    assert table.loc[ALL, ["train", "val", "test"]].tolist() == [2, 1, 1]
    assert len(pd.read_csv(out / "images.csv")) == 4
    for name in ("counts", "sizes", "intensity", "lesion-share", "components"):
        with Image.open(out / f"{name}.png") as figure:
            assert min(figure.size) > 200
        assert (out / f"{name}.txt").read_text().strip()
        assert "The colour" in (out / f"{name}.svg").read_text()
    assert "3 = 2 + 0 + 1" in (out / "counts.svg").read_text()
    assert "2 empty masks left out" in (out / "lesion-share.txt").read_text()


def test_figures_are_the_same_bytes_each_time_and_those_of_lesions_need_lesions(few: Path, tmp_path: Path) -> None:
    data = read_dataset(few)
    for place in ("one", "two"):
        draw_all(measure_dataset(data), tmp_path / place)
    assert all(path.read_bytes() == (tmp_path / "two" / path.name).read_bytes() for path in (tmp_path / "one").iterdir())
    drawn = draw_all(measure_dataset(data.only(["colour"])), tmp_path / "none")
    assert [path.name for path in drawn] == ["counts", "sizes", "intensity"]


@pytest.mark.slow
def test_table_1_of_the_paper_can_be_read_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight tasks of the paper's sizes at 64 px: 10,962 for training, 4,056 for validation."""
    rng = np.random.default_rng(0)
    cases = {}
    for task, (train, val) in TABLE_1.items():
        splits = ["train"] * train + ["val"] * val
        for number in range(len(splits)):
            write_case(tmp_path / task, str(number), np.full((64, 64), rng.integers(256), np.uint8), [(number % 64, 3)])
        cases[task] = [(str(number), split, "") for number, split in enumerate(splits)]
    assert main(["data", "stats", str(write_tasks(tmp_path, cases)), "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    assert {task: (tasks[task]["train"], tasks[task]["val"]) for task in TABLE_1} == TABLE_1
    assert (tasks[ALL]["train"], tasks[ALL]["val"]) == (10962, 4056)
