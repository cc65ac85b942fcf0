"""The verdict of a calibration says in four lines what may be relied on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tpseg.calibration.calibrate import Measured
from tpseg.calibration.calibration_report import StatedConfidence
from tpseg.calibration.tables import recognition_table
from tpseg.calibration.verdict import expected, recognised, reviewed, unlike, verdict, write_tables

TASKS = ("polyp", "skin", "oct", "mr")
IMAGES = dict.fromkeys(TASKS, 25)
RIGHT = [[25 if row == column else 0 for column in range(4)] for row in range(4)]
MEASURED = Measured("test", IMAGES, RIGHT, 0.01, dict.fromkeys(TASKS, 0.0), {}, dict.fromkeys(TASKS, 0.04))
STATED = StatedConfidence("test", {}, 0.065, -0.014, None, None, {"0.2": (0.42, 0.6)}, {"0.2": (0.25, 0.62)})
TRUST: Any = SimpleNamespace(tasks=TASKS, outliers=SimpleNamespace(false_alarms=0.05))


def test_a_sound_model_is_told_so() -> None:
    assert verdict(MEASURED, STATED, TRUST) == [
        "Which task: 100.0 % of 100 test images are recognised.",
        "Unlike anything known: said of 4 of 100 images of the model's own tasks (4.0 %), within the limit of 5 %.",
        "How sure: the expected Dice is 6.5 points off on average, and in the mean 1.4 points too low.",
        "Review: the 20 % of images with the lowest expected Dice hold 42 % of the error (the true order 60 %, chance 20 %; 95 % interval "
        "25 to 62): it finds errors sooner than chance.",
    ]


def test_images_taken_for_another_task_are_counted_and_the_first_pairs_named() -> None:
    confused = [[20, 5, 0, 0], [0, 25, 0, 0], [1, 1, 22, 1], [0, 0, 0, 25]]
    said = recognised(replace(MEASURED, confusion=confused), TRUST)
    assert said.startswith("Which task: 92.0 % of 100 test images are recognised (5 of 25 polyp taken for skin; ")
    assert said.endswith("1 of 25 oct taken for polyp; 1 of 25 oct taken for skin and 1 more such pairs).")


@pytest.mark.parametrize(("share", "relied"), [(0.08, True), (0.12, False)])
def test_alarms_above_the_limit_are_no_accident_from_where_chance_falls_below_a_twentieth(share: float, relied: bool) -> None:
    """Of 100 images at 5 %: 8 or more have a chance of 0.128, 12 or more of 0.004."""
    said = unlike(replace(MEASURED, false_alarms={**dict.fromkeys(TASKS, share), "oct": share}), 0.05)
    assert ("above the limit of 5 %, but no more than chance explains." in said) == relied
    assert ("do not rely on this warning" in said) != relied


def test_the_task_of_most_alarms_is_named() -> None:
    said = unlike(replace(MEASURED, false_alarms={**dict.fromkeys(TASKS, 0.0), "oct": 0.6}), 0.05)
    assert "said of 15 of 100" in said
    assert "most often of oct (15 of 25)" in said


def test_a_review_is_better_than_chance_only_if_its_interval_says_so() -> None:
    assert reviewed(replace(STATED, interval={"0.2": (0.2, 0.62)})).endswith("it is not shown to find errors sooner than chance.")
    assert reviewed(replace(STATED, interval={"0.2": None})).endswith("one image tells nothing of others.")
    assert "3.0 points too high" in expected(replace(STATED, bias=0.03))


def test_the_numbers_behind_it_are_kept_as_text(tmp_path) -> None:
    write_tables(tmp_path / "tables.txt", ["one", "two [red]"])
    assert (tmp_path / "tables.txt").read_text() == "one\ntwo [red]\n"


def test_the_table_of_recognition_has_a_line_for_each_task() -> None:
    confused = [[20, 5, 0, 0], [0, 25, 0, 0], [1, 1, 22, 1], [0, 0, 0, 25]]
    trust: Any = SimpleNamespace(**vars(TRUST), recognition=SimpleNamespace(doubt=0.05))
    table = recognition_table(replace(MEASURED, confusion=confused, missed={"polyp": 0.125}), trust)
    cells = list(zip(*(column.cells for column in table.columns), strict=True))
    assert cells[0] == ("polyp", "25", "80.0", "0.0", "12.5", "4.0")
    assert cells[2] == ("oct", "25", "88.0", "0.0", "–", "4.0")
    assert len(cells) == 4
