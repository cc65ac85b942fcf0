"""Confidence: fitted on val, kept as plain JSON, stated on test."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tpseg.calibration.calibration_report import expected_and_true, state_confidence
from tpseg.calibration.collected_logits import Observed
from tpseg.calibration.confidence import Confidence, fit_confidence, read_confidence
from tpseg.calibration.expected_dice import look
from tpseg.calibration.logit_counts import border_band, count_by_truth, count_logits
from tpseg.calibration.thresholds import HALF, dice_at
from tpseg.core.errors import DataError

OVERSURE = 2.0
"""What the made-up network multiplies the true logits with."""


def made(task: str, count: int, seed: int, empty: int = 0) -> list[Observed]:
    """Images whose truth is drawn from blurred probabilities, of which the network is too sure."""
    generator = torch.Generator().manual_seed(seed)
    observed = []
    for number in range(count):
        rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
        softness = 1 + 8 * torch.rand(1, generator=generator)
        distance = 10 - ((rows - 20) ** 2 + (columns - 20) ** 2).sqrt()
        logits = distance.clip(-12, 12) / softness
        truth = torch.rand(logits.shape, generator=generator) < torch.sigmoid(logits)
        if number < empty:
            truth, logits = torch.zeros_like(truth), logits / 20 + 0.1
        wrong = logits * OVERSURE
        band = torch.from_numpy(border_band(truth.numpy()))
        counts, near = count_by_truth(wrong, truth), count_by_truth(wrong[band], truth[band])
        observed.append(Observed(task, f"{task}{number}", counts, near, look(count_logits(wrong), (wrong > 0).numpy())))
    return observed


VAL = [*made("round", 30, 0), *made("other", 8, 1, empty=4)]
TEST = [*made("round", 30, 2), *made("other", 8, 3, empty=4)]
CONFIDENCE = fit_confidence(VAL)


def test_every_task_has_its_own_and_says_what_it_was_fitted_on():
    assert list(CONFIDENCE) == ["round", "other"]
    assert (CONFIDENCE["round"].images, CONFIDENCE["round"].lesion_free) == (30, 0)
    assert (CONFIDENCE["other"].images, CONFIDENCE["other"].lesion_free) == (8, 4)
    assert not CONFIDENCE["round"].augmented
    assert CONFIDENCE["round"].scaling.temperature == pytest.approx(OVERSURE, rel=0.1)


def test_on_val_itself_the_expectations_add_up_to_the_dice():
    """As of any regression with an offset that is free, if it is asked with the signs that it was fitted on."""
    expected = sum(CONFIDENCE[one.task].expected_dice(one.look) for one in VAL)
    assert expected == pytest.approx(dice_at(np.stack([one.counts for one in VAL]), HALF).sum(), abs=0.01)


def test_it_is_plain_json_and_comes_back_the_same():
    entries = json.loads(json.dumps({task: one.to_json() for task, one in CONFIDENCE.items()}, allow_nan=False))
    assert read_confidence(entries) == CONFIDENCE


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("scaling", "temperature"), 0),
        (("scaling", "bias"), "much"),
        (("scaling", "colour"), 1),
        (("threshold", "cut"), 99),
        (("regression", "weights"), [1.0]),
        (("regression", "offset"), float("nan")),
        (("images",), None),
    ],
)
def test_a_damaged_entry_is_refused(path, value):
    entry = json.loads(json.dumps(CONFIDENCE["round"].to_json()))
    place = entry
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError, match="run 'tpseg calibrate' again"):
        Confidence.from_json(entry)


def test_no_validation_images_are_refused():
    with pytest.raises(DataError, match="split val"):
        fit_confidence([])


def test_probabilities_are_calibrated_as_fitted():
    one = CONFIDENCE["round"]
    probability = np.array([[0.0, 0.5], [0.9, 1.0]], np.float32)
    found = one.calibrate(probability)
    assert found.dtype == np.float32
    assert found[0, 0] == 0
    assert found[1, 1] == 1
    logit = np.log(9) / one.scaling.temperature + one.scaling.bias
    assert found[1, 0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


def test_what_is_stated_of_test():
    stated = state_confidence(TEST, CONFIDENCE, "test")
    one, other = stated.tasks["round"], stated.tasks["other"]
    assert one.before.all > 0.02 > 0.008 > one.after.all
    assert one.before.band > one.after.band
    assert one.before.confidence > one.after.confidence
    assert (one.lesion_free, one.false_alarms, one.false_alarms_at_threshold) == (0, None, None)
    assert (other.lesion_free, other.false_alarms) == (4, 1.0)  # all four get a mask
    assert other.false_alarms_at_threshold < 1
    assert other.dice_at_threshold > other.dice
    assert stated.rank_correlation > 0.8
    assert stated.mean_error < 0.1
    assert abs(stated.bias) <= stated.mean_error
    (caught, oracle), (low, high) = stated.caught["0.2"], stated.interval["0.2"]
    assert low < caught < high
    assert 0.2 < caught <= oracle


def test_expected_dice_does_not_look_at_the_truth():
    blind = [Observed(one.task, one.name, one.counts[::-1], one.band, one.look) for one in TEST]
    assert (expected_and_true(blind, CONFIDENCE).expected == expected_and_true(TEST, CONFIDENCE).expected).all()


def test_tasks_without_a_confidence_are_left_out():
    stated = state_confidence([*TEST, *made("new", 2, 4)], CONFIDENCE, "test")
    assert list(stated.tasks) == ["round", "other"]
