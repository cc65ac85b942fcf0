"""The order to look at cases in: the curve by hand, the list of `--review`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tpseg.calibration.confidence import Confidence
from tpseg.calibration.expected_dice import Regression
from tpseg.calibration.input_check import Advice
from tpseg.calibration.review import COLUMNS, Reviewer, caught_interval, review_curve, write_review
from tpseg.calibration.task_recognition import Judgement
from tpseg.calibration.temperature import Scaling
from tpseg.calibration.thresholds import Threshold
from tpseg.imaging.reading.opening import Found
from tpseg.inference import Answer

SOFT = Confidence(Scaling(), Threshold(-1.0, 0.1), Regression((1.0, 0, 0, 0, 0), 0), images=5, lesion_free=0, augmented=False)
CONFIDENCE = {"lesion": SOFT}


def test_the_curve_by_hand():
    # errors 0.1, 0.5, 0.4, 0: the first to look at is the third image, then the second
    dice, expected = np.array([0.9, 0.5, 0.6, 1.0]), np.array([0.7, 0.5, 0.2, 0.9])
    curve = review_curve(expected, dice)
    assert curve.reviewed.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.caught == pytest.approx([0, 0.4, 0.9, 1, 1])
    assert curve.oracle == pytest.approx([0, 0.5, 0.9, 1, 1])
    assert curve.at(0.25) == pytest.approx((0.4, 0.5))


def test_no_order_catches_more_than_the_oracle_and_a_constant_one_about_its_share():
    generator = np.random.default_rng(0)
    dice = generator.uniform(0, 1, 400)
    for expected in (generator.uniform(0, 1, 400), dice + generator.normal(0, 0.2, 400)):
        curve = review_curve(expected, dice)
        assert (curve.caught <= curve.oracle + 1e-12).all()
    assert review_curve(np.zeros(400), dice).at(0.5)[0] == pytest.approx(0.5, abs=0.06)
    low, high = caught_interval(dice, dice, 0.2)
    assert low < review_curve(dice, dice).at(0.2)[0] < high


def test_without_error_all_is_caught():
    assert review_curve(np.array([0.5, 0.6]), np.ones(2)).caught.tolist() == [1, 1, 1]
    assert caught_interval(np.array([0.5, 0.6]), np.ones(2), 0.5) == (1, 1)


def test_one_image_has_no_interval():
    assert caught_interval(np.array([0.5]), np.array([0.6]), 0.5) is None


def found(name: str) -> Found:
    path = Path("folder") / f"{name}.png"
    return Found(path, (path,), name)


def answer(inside: float, side: int = 8, rows: int = 4) -> Answer:
    logits = torch.full((1, side, side), -6.0)
    logits[:, :rows] = inside
    return Answer(logits, None, (side, side), "lesion")


def judged(strangeness: float) -> Judgement:
    return Judgement((("lesion", 1.0),), strangeness, doubt=0.5)


def test_the_least_sure_comes_first_and_what_was_warned_of_before_all():
    reviewer = Reviewer(CONFIDENCE)
    for name, inside in (("sure", 5.0), ("unsure", 0.4), ("empty", -5.0), ("other", 0.1), ("strange", 6.0)):
        reviewer.add(found(name), answer(inside))
        reviewer.close(found(name), whole=True)
    warning = "unlike anything the model was trained on (3.0 times the limit); do not rely on its mask"
    table = reviewer.table({
        found("strange"): Advice("strange", ("lesion",), judged(3.0), (warning,)),
        found("other"): Advice("other", ("lesion",), judged(0.9), ("looks like another task",)),
        found("strangest"): Advice("strangest", (), judged(5.0), ("no task is chosen",)),  # which `auto` declined: there is no mask
        found("sure"): Advice("sure", ("lesion",), judged(0.1), ()),
    })  # fmt: skip
    assert list(table.columns) == list(COLUMNS)
    assert list(table["name"]) == ["strangest", "strange", "other", "empty", "unsure", "sure"]
    assert list(table["reasons"]) == ["no task is chosen", warning, "looks like another task", "empty mask", "", ""]
    assert table["expected_dice"].isna().tolist() == [True, True, True, False, False, False]
    assert table["expected_dice"].tolist()[4:] == pytest.approx([2 * 0.6 / 1.6, 0.995], abs=0.005)  # a mask of 0.6 and of 0.993
    assert table["share_of_image"].tolist()[1:] == [0.5, 0.5, 0, 0.5, 0.5]
    assert (table["threshold"][1:] == 0.5).all()


def test_frames_of_a_scan_are_one_line_and_a_scan_that_failed_none():
    reviewer = Reviewer(CONFIDENCE)
    for inside in (5.0, -5.0):
        reviewer.add(found("volume"), answer(inside))
    reviewer.add(found("broken"), answer(1.0))
    reviewer.close(found("volume"), whole=True)
    reviewer.close(found("broken"), whole=False)
    table = reviewer.table()
    assert list(table["name"]) == ["volume"]
    assert table["share_of_image"][0] == 0.25


def test_a_threshold_other_than_one_half_is_undone_for_the_probabilities_and_named():
    plain, shifted = Reviewer(CONFIDENCE), Reviewer(CONFIDENCE, {"lesion": SOFT.threshold})
    plain.add(found("one"), answer(-0.5))
    moved = answer(-0.5)
    shifted.add(found("one"), Answer(moved.logits + 1.0, None, moved.size, "lesion"))  # the network's logits less the cut of -1
    for reviewer in (plain, shifted):
        reviewer.close(found("one"), whole=True)
    assert plain.table()["share_of_image"][0] == 0
    row = shifted.table().iloc[0]
    assert (row["share_of_image"], row["reasons"]) == (0.5, "")
    assert row["threshold"] == pytest.approx(0.2689, abs=1e-4)
    small = answer(2.0, side=32, rows=2)  # 6 % of the image: less than the smallest mask
    shifted.add(found("small"), small)
    shifted.close(found("small"), whole=True)
    assert shifted.table().set_index("name").loc["small", "reasons"] == "empty mask"


def test_the_list_is_a_csv_of_files(tmp_path):
    reviewer = Reviewer(CONFIDENCE)
    reviewer.add(found("one"), answer(2.0))
    reviewer.close(found("one"), whole=True)
    write_review(reviewer.table(), tmp_path / "review.csv")
    read = pd.read_csv(tmp_path / "review.csv", keep_default_na=False)
    assert read.loc[0, ["name", "file", "task", "reasons"]].tolist() == ["one", "folder/one.png", "lesion", ""]
