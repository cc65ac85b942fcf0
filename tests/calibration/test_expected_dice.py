"""The Dice to expect of a mask: by hand, and by a regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from tpseg.calibration.expected_dice import Look, Regression, fit_regression, look, middle, signs, soft_dice, spearman
from tpseg.calibration.logit_counts import BINS, bin_of, count_logits
from tpseg.calibration.temperature import NONE, Scaling

SCALING = Scaling(2.0, -0.5)


def logit_of(probability: float) -> float:
    return float(logit(probability))


def test_expected_dice_of_a_map_by_hand():
    # 2 pixels of 0.9 and 1 of 0.6 are the mask, 4 of 0.1 are not: 2 · 2.4 / (3 + 2.8)
    logits = torch.tensor([logit_of(0.9)] * 2 + [logit_of(0.6)] + [logit_of(0.1)] * 4)
    assert soft_dice(count_logits(logits), NONE) == pytest.approx(2 * 2.4 / (3 + 2.8), abs=0.01)


def test_it_uses_calibrated_probabilities_and_the_raw_cut():
    logits = torch.tensor([1.0, 3.0, -2.0])  # the mask is the first two, whatever the scaling
    p = expit(logits.numpy() / 2 - 0.5)
    assert soft_dice(count_logits(logits), SCALING) == pytest.approx(2 * (p[0] + p[1]) / (2 + p.sum()), abs=0.01)
    assert soft_dice(count_logits(logits), SCALING, cut=2.0) == pytest.approx(2 * p[1] / (1 + p.sum()), abs=0.01)


def test_an_empty_mask_is_expected_to_have_none():
    assert soft_dice(count_logits(torch.tensor([-1.0, -4.0])), NONE) == 0


def test_the_middle_is_the_median_logit_of_the_mask():
    counts = count_logits(torch.tensor([-9.0, -3.0, 0.5, 1.0, 2.0, 6.0, 9.0]))
    assert middle(counts) == pytest.approx(2.0, abs=1 / 32)
    assert middle(counts, cut=1.5) == pytest.approx(6.0, abs=1 / 32)
    assert middle(counts, cut=-4.0) == pytest.approx(1.0, abs=1 / 32)
    assert middle(counts, cut=10.0) == 10.0
    assert middle(counts, cut=16.0) == 16.0


def test_the_expectation_is_the_mean_over_drawn_truths():
    """The ratio of expectations is near the expectation of the ratio where a mask has many pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 60, generator=generator) * 2
    truths = torch.rand(200, 60, 60, generator=generator) < torch.sigmoid(logits)
    mask = logits > 0
    dice = 2 * (truths & mask).sum((1, 2)) / (truths.sum((1, 2)) + mask.sum())
    assert soft_dice(count_logits(logits), NONE) == pytest.approx(float(dice.mean()), abs=0.005)


def test_the_shape_of_a_mask():
    mask = np.zeros((20, 20), bool)
    mask[5:9, 5:9] = True  # 16 pixels, border 16
    mask[15, 15:19] = True  # 4 pixels, border 10
    found = look(np.zeros(BINS), mask)
    assert (found.parts, found.size) == (2, 20)
    assert found.largest == 16 / 20
    assert found.border == pytest.approx(26 / 20**0.5)
    empty = look(np.zeros(BINS), np.zeros((4, 4), bool))
    assert (empty.parts, empty.largest, empty.border) == (0, 0, 0)


def test_frames_add_up_weighed_by_their_masks():
    counts = np.zeros(BINS)
    counts[bin_of(1.0)] = 1
    one, other, none = Look(counts, 1, 1.0, 4.0, 30), Look(counts, 3, 0.5, 8.0, 10), Look(counts, 0, 0, 0, 0)
    both = one + other + none
    assert both.counts.sum() == 3
    assert (both.parts, both.largest, both.border, both.size) == (1.5, 0.875, 5.0, 40)
    assert (none + none).parts == 0


def test_a_regression_that_made_the_dice_is_found_again():
    generator = np.random.default_rng(0)
    found = np.column_stack(
        [generator.normal(0, 1.5, 2000), generator.normal(1, 0.3, 2000), generator.uniform(0, 1, 2000)] + [np.zeros(2000)] * 2
    )
    task = generator.integers(0, 2, 2000)
    true = expit(found @ [1.2, -0.8, 0.5, 0, 0] + np.array([0.3, -0.7])[task])
    dice = np.clip(true + generator.normal(0, 0.03, 2000), 0, 1)
    one, other = fit_regression(found, dice, task, 2)
    assert one.weights == other.weights
    assert one.weights[:3] == pytest.approx((1.2, -0.8, 0.5), abs=0.07)
    assert one.offset - other.offset == pytest.approx(1.0, abs=0.05)
    expected = np.array([(one, other)[t](row) for t, row in zip(task, found, strict=True)])
    assert np.abs(expected - true).mean() < 0.01


def test_a_task_of_one_image_is_pulled_to_the_others():
    found, dice = np.zeros((41, 5)), np.array([0.8] * 40 + [0.0])
    many, single = fit_regression(found, dice, np.array([0] * 40 + [1]), 2)
    assert many(found[0]) == pytest.approx(0.8, abs=0.02)
    assert 0.3 < single(found[0]) < 0.8


def test_the_pull_is_that_of_so_many_images() -> None:
    """At the optimum each task's pull, 0.6 times its own offset, balances what its images leave over: 40 (0.8 − p) and 0 − q."""
    many, single = fit_regression(np.zeros((41, 5)), np.array([0.8] * 40 + [0.0]), np.array([0] * 40 + [1]), 2)
    p, q = many(np.zeros(5)), single(np.zeros(5))
    assert 0.6 * (many.offset - single.offset) == pytest.approx(40 * (0.8 - p) + q)


def test_masks_that_are_all_perfect_or_all_wrong_can_be_fitted():
    for value in (0.0, 1.0):
        (only,) = fit_regression(np.zeros((5, 5)), np.full(5, value), np.zeros(5, int), 1)
        assert np.isfinite(only.offset)
        assert only(np.zeros(5)) == pytest.approx(value, abs=0.15)


def test_better_probabilities_are_expected_to_make_a_better_mask():
    sure, unsure = (look(count_logits(torch.tensor([z] * 50 + [-z] * 50)), np.ones((7, 7), bool)) for z in (4.0, 0.3))
    regression = Regression((1.0, 0.0, 0.0, 0.0, 0.0), 0.0)
    assert regression(signs(sure, NONE)) > 0.95 > 0.6 > regression(signs(unsure, NONE))


def test_rank_correlation_is_none_where_there_is_no_order():
    assert spearman([1, 2, 3], [10, 20, 25]) == pytest.approx(1)
    assert spearman([1], [2]) is None
    assert spearman([1, 1], [1, 2]) is None
