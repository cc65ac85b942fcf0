"""A model's masks beside their truth, counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tpseg.calibration.collected_logits import look_at, observe
from tpseg.calibration.logit_counts import border_band
from tpseg.calibration.thresholds import HALF, dice_at
from tpseg.data.manifest import read_dataset
from tpseg.data.pairs import read_pair
from tpseg.evaluation.metrics import score_image
from tpseg.inference import Answer, Segmenter

pytestmark = pytest.mark.usefixtures("miniature_trunk")


def test_counts_are_of_the_images_own_size_and_give_its_dice(trained: Path, discs: Path):
    segment = Segmenter(trained)
    cases = read_dataset(discs).split("test")
    found = observe(segment, cases, "segmenting test", batch_size=1)
    assert [(one.task, one.name) for one in found] == [(case.task, case.name) for case in cases]
    for one, case in zip(found, cases, strict=True):
        image, truth = read_pair(case)
        assert one.counts.sum() == truth.size
        assert one.counts[1].sum() == truth.sum()
        assert one.band.sum() == border_band(truth).sum()
        dice = score_image(segment(image, task=case.task).probability, truth, 64)["dice"]
        assert dice_at(one.counts[None], HALF)[0] == pytest.approx(dice, abs=1e-6)


def test_a_shifted_answer_is_looked_at_by_its_raw_logits():
    logits = torch.full((1, 6, 6), -2.0)
    logits[:, :3] = 0.5
    raw, moved = look_at(Answer(logits, None, (6, 6), "a")), look_at(Answer(logits - 1, None, (6, 6), "a"), cut=1.0)
    assert np.array_equal(raw.counts, moved.counts)
    assert (raw.size, moved.size) == (18, 0)
