"""Dice at every threshold, false alarms on lesion-free images, and the choice between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tpseg.calibration.logit_counts import BINS, CENTRES, WIDTH, bin_of, count_by_truth
from tpseg.calibration.thresholds import HALF, HIGHEST, LOWEST, Threshold, choose_threshold, dice_at, false_alarms, lesion_free
from tpseg.evaluation.metrics import confusion

GENERATOR = torch.Generator().manual_seed(0)


def image(lesion: float, inside: float, outside: float, noise: float = 0.3, side: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits around one value inside a lesion of so large a share and around another outside; and the truth."""
    truth = torch.zeros(side, side, dtype=torch.bool)
    truth[: round(side * lesion)] = True
    return torch.where(truth, inside, outside) + noise * torch.randn(side, side, generator=GENERATOR), truth


def counted(*images: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    return np.stack([count_by_truth(logits, truth) for logits, truth in images])


def test_dice_is_that_of_the_mask_above_the_cut():
    logits, truth = image(0.3, 0.5, -0.5, noise=1.0)
    for cut in (-0.5, 0.0, 0.75):
        tp, fp, fn, _ = confusion((logits > cut).numpy(), truth.numpy())
        assert dice_at(counted((logits, truth)), bin_of(cut))[0] == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_both_empty_is_1_and_one_empty_0():
    both, missed, alarm = image(0, 1, -3), image(0.2, -3, -3), image(0, 1, -3)
    alarm[0][0, 0] = 5
    assert dice_at(counted(both, missed, alarm), HALF).tolist() == [1, 0, 0]


def test_masks_below_the_smallest_area_are_emptied():
    alarm = image(0, 1, -3)
    alarm[0][0, :3] = 5  # 3 of 1600 pixels
    counts = counted(alarm, image(0.2, 3, -3))
    assert dice_at(counts, HALF, 0.001).tolist() == [0, 1]
    assert dice_at(counts, HALF, 0.002).tolist() == [1, 1]


def test_false_alarms_are_counted_on_lesion_free_images_only():
    quiet, alarm, lesion = image(0, 1, -3), image(0, 1, 0.5), image(0.3, 2, 0.5)
    counts = counted(quiet, alarm, alarm, quiet, lesion)
    assert lesion_free(counts).tolist() == [True, True, True, True, False]
    assert false_alarms(counts, Threshold()) == 0.5
    assert false_alarms(counts, Threshold(cut=2.5)) == 0
    assert false_alarms(counted(lesion), Threshold()) is None


def test_the_threshold_goes_where_dice_is_best():
    counts = counted(*[image(0.3, -0.75, -2.5) for _ in range(20)])  # timid: at ½ almost nothing is found
    found = choose_threshold(counts)
    assert -2.0 < found.cut < -1.0
    assert found.area == 0
    assert dice_at(counts, bin_of(found.cut)).mean() > 0.98 > 0.2 > dice_at(counts, HALF).mean()


def test_lesion_free_images_raise_it_or_ask_for_an_area():
    lesions = [image(0.3, 3, -3) for _ in range(10)]
    speckled = []
    for _ in range(10):
        logits, truth = image(0, 1, -3)
        logits[0, :2] = 10  # sure and wrong, but small: 2 of 1600 pixels
        speckled.append((logits, truth))
    counts = counted(*lesions, *speckled)
    found = choose_threshold(counts)
    assert found.area >= 2 / 1600
    assert false_alarms(counts, Threshold()) == 1
    assert false_alarms(counts, found) == 0
    assert dice_at(counts, bin_of(found.cut), found.area).mean() > 0.99


def test_one_half_stays_where_the_gain_could_be_chance():
    counts = counted(*[image(0.3, 2, -2) for _ in range(20)])
    assert choose_threshold(counts) == Threshold()
    # one image of five gains much, the others lose a little: a resample in three is without it
    one = counted(image(0.3, -1, -3, noise=0), *[image(0.9, 2, -0.9, noise=0) for _ in range(4)])
    assert dice_at(one, bin_of(-1.125)).mean() > dice_at(one, HALF).mean() + 0.1
    assert choose_threshold(one) == Threshold()
    assert choose_threshold(one[:1]) == Threshold()  # one image is no reason at all


def test_the_best_of_many_thresholds_is_not_believed_on_the_images_it_was_chosen_on():
    """Each image has a best cut of its own, so that what is best for some tells nothing of the next."""
    generator = np.random.default_rng(0)
    kept = 0
    for _ in range(20):
        images = [image(0.3, float(cut) + 0.4, float(cut) - 0.4, noise=0.1) for cut in generator.uniform(-1, 1, 6)]
        kept += choose_threshold(counted(*images)) == Threshold()
    assert kept >= 17


@pytest.mark.parametrize("end", [LOWEST, HIGHEST])
def test_the_first_and_the_last_threshold_are_tried_too(end):
    """Every other cut that is tried takes half of the background with it, or loses half of the lesion."""
    side = 1 if end == HIGHEST else -1
    counts = np.zeros((20, 2, BINS), np.int64)
    counts[:, 0, end - 1 if side > 0 else 0] = 100  # background just below the highest cut, or far below the lowest
    counts[:, 1, BINS - 1 if side > 0 else end] = 100  # lesion far above the highest, or just above the lowest
    assert choose_threshold(counts).cut == pytest.approx(CENTRES[end] - WIDTH / 2)
