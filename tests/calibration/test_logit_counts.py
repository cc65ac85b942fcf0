"""Pixels by logit, and the band around a border."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from tpseg.calibration.logit_counts import BINS, CENTRES, REACH, WIDTH, bin_of, border_band, count_by_truth, count_logits


def test_a_mask_at_one_half_is_the_upper_bins_to_the_pixel():
    logits = torch.tensor([[-0.001, 0.0, 0.001], [-20.0, 20.0, 3.0]])
    counts = count_logits(logits)
    assert counts.sum() == 6
    assert counts[bin_of(0.0) :].sum() == int((logits > 0).sum()) == 3  # 0 itself is not over ½
    assert (counts[0], counts[-1]) == (1, 1)


def test_every_cut_on_a_bins_edge_counts_exactly_what_is_above_it():
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 4
    counts = count_logits(logits)
    for cut in (-3.0, -0.25, 0.0, 1.125):
        assert counts[bin_of(cut) :].sum() == int((logits > cut).sum())


def test_a_bins_centre_stands_for_its_probabilities():
    low, high = CENTRES - WIDTH / 2, CENTRES + WIDTH / 2
    assert np.abs(expit(high) - expit(CENTRES)).max() < 1 / 256
    assert (low[0], high[-1]) == (-REACH, REACH)
    assert len(CENTRES) == BINS


def test_pixels_are_told_apart_by_truth():
    logits, truth = torch.tensor([-1.0, 1.0, 1.0, 2.0]), torch.tensor([False, False, True, True])
    counts = count_by_truth(logits, truth)
    assert counts.shape == (2, BINS)
    assert counts.sum(axis=1).tolist() == [2, 2]
    assert counts[1, bin_of(1.0) :].sum() == 1  # 2.0; of (…, 1.0] the upper end belongs to the bin below
    assert counts[0, : bin_of(0.0)].sum() == 1


def test_the_band_lies_on_both_sides_of_the_border_and_nowhere_else():
    truth = np.zeros((100, 100), bool)
    truth[:, 50:] = True
    band = border_band(truth)  # 2 % of 100: two pixels on either side
    assert np.flatnonzero(band.any(axis=0)).tolist() == [48, 49, 50, 51]
    assert band[:, 48:52].all()


@pytest.mark.parametrize("value", [False, True])
def test_a_mask_without_a_border_has_no_band(value):
    assert not border_band(np.full((30, 40), value)).any()
