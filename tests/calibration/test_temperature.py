"""Calibration errors worked out by hand, and scalings found again that were put in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from tpseg.calibration.logit_counts import BINS, CENTRES, count_by_truth
from tpseg.calibration.temperature import (
    NONE,
    Scaling,
    calibration_error,
    confidence_error,
    fit_scaling,
    pool,
    reliability,
    surprise,
)


def counted(*pixels: tuple[float, int, int]) -> np.ndarray:
    """(2, B) from (logit, pixels of background, pixels of lesion)."""
    counts = np.zeros((2, BINS))
    for logit, background, lesion in pixels:
        counts[:, int(np.abs(CENTRES - logit).argmin())] += (background, lesion)
    return counts


def test_expected_calibration_error_by_hand():
    # 6 pixels at 0.88 of which 3 are lesion, 4 at 0.12 of which 1 is: (6 · 0.38 + 4 · 0.13) / 10
    high, low = (float(expit(CENTRES[np.abs(CENTRES - z).argmin()])) for z in (2.0, -2.0))
    found = calibration_error(counted((2.0, 3, 3), (-2.0, 3, 1)))
    assert found == pytest.approx((6 * (high - 0.5) + 4 * (0.25 - low)) / 10)
    assert found == pytest.approx(0.28, abs=0.01)


def test_pixels_of_one_bin_are_compared_together():
    # 0.50 and 0.525 share the bin 7/15 to 8/15; one is lesion and one is not, so the bin is off by its mean only
    bins = reliability(counted((0.0, 1, 0), (0.1, 0, 1)))
    assert np.count_nonzero(bins.share) == 1
    assert bins.found[7] == 0.5
    assert bins.error == pytest.approx(bins.predicted[7] - 0.5)
    assert np.isnan(bins.predicted[0])


def test_the_error_of_the_likelier_side_by_hand():
    # both are called with 0.88: of the first 3 of 6 are right, of the second 3 of 4
    sure = float(expit(CENTRES[np.abs(CENTRES - 2.0).argmin()]))
    found = confidence_error(counted((2.0, 3, 3), (-2.0, 3, 1)))
    assert found == pytest.approx(sure - 6 / 10, abs=2e-3)


def test_perfect_probabilities_have_no_error():
    counts = np.stack([1 - expit(CENTRES), expit(CENTRES)])
    assert calibration_error(counts) == pytest.approx(0, abs=1e-12)
    assert confidence_error(counts) == pytest.approx(0, abs=1e-12)
    assert calibration_error(np.zeros((2, BINS))) is None


@pytest.mark.parametrize(("temperature", "bias"), [(2.5, 0.0), (0.6, 0.0), (1.5, -1.2), (1.0, 0.0)])
def test_the_scaling_of_made_up_logits_is_found_again(temperature, bias):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(400, 2000, generator=generator) * 2 * temperature - temperature * bias
    truth = torch.rand(logits.shape, generator=generator) < torch.sigmoid(logits / temperature + bias)
    counts = np.stack([count_by_truth(*pair) for pair in zip(logits, truth, strict=True)])
    found = fit_scaling(counts)
    assert found.temperature == pytest.approx(temperature, rel=0.02)
    assert found.bias == pytest.approx(bias, abs=0.02)
    pooled = pool(counts)
    assert calibration_error(pooled, found) < 0.003
    if (temperature, bias) != (1.0, 0.0):
        assert calibration_error(pooled) > 0.03
        assert surprise(pooled, found) < surprise(pooled, NONE)


def test_few_images_move_the_scaling_less():
    one = counted((1.0, 9, 1), (-3.0, 90, 0), (3.0, 1, 3))
    few, many = fit_scaling(np.stack([one] * 2)), fit_scaling(np.stack([one] * 200))
    assert abs(few.bias) < abs(many.bias)


def test_images_weigh_the_same_whatever_their_size():
    small, large = counted((1.0, 1, 0)), counted((1.0, 0, 1000))
    pooled = pool(np.stack([small, large]))
    assert pooled.sum(axis=1).tolist() == pytest.approx([1, 1])


def test_without_lesions_nothing_is_scaled():
    assert fit_scaling(np.stack([counted((2.0, 5, 0))])) == NONE


def test_a_temperature_alone_moves_no_mask():
    logits = np.linspace(-5, 5, 101)
    assert ((Scaling(3.0).probability(logits) > 0.5) == (logits > 0)).all()
    assert ((Scaling(1.0, -1.0).probability(logits) > 0.5) != (logits > 0)).any()  # a bias would, so masks do not use it
