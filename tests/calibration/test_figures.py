"""The figures of calibration: files with captions that state their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tpseg.calibration.calibration_report import expected_and_true, state_confidence
from tpseg.calibration.collected_logits import Observed
from tpseg.calibration.confidence import Confidence
from tpseg.calibration.expected_dice import Regression, look
from tpseg.calibration.figures import draw_expected_dice, draw_reliability, draw_review
from tpseg.calibration.logit_counts import BINS, bin_of
from tpseg.calibration.temperature import Scaling
from tpseg.calibration.thresholds import Threshold

CONFIDENCE = {"a": Confidence(Scaling(2.0), Threshold(), Regression((1.0, 0, 0, 0, 0), 0.0), 3, 0, False)}
TITLES = {"a": "A $lesion$"}


def seen(lesion: int, background: int, missed: int) -> Observed:
    """So many pixels of lesion and of background called lesion with 0.88, and of lesion called background with 0.12."""
    counts = np.zeros((2, BINS), np.int32)
    counts[:, bin_of(2.0)] = (background, lesion)
    counts[:, bin_of(-2.0)] = (100, missed)
    mask = np.zeros((10, 10), bool)
    mask[:3] = True
    return Observed("a", "image", counts, counts, look(counts.sum(axis=0), mask))


OBSERVED = [seen(90, 10, 5), seen(50, 50, 20), seen(20, 80, 60), seen(95, 5, 0)]
PAIRS = expected_and_true(OBSERVED, CONFIDENCE)
STATED = state_confidence(OBSERVED, CONFIDENCE, "test")


@pytest.mark.parametrize("name", ["reliability", "expected", "review"])
def test_every_figure_is_written_with_its_caption_and_the_same_twice(tmp_path, name):
    def draw(folder):
        path = folder / name
        if name == "reliability":
            draw_reliability(path, OBSERVED, CONFIDENCE, TITLES)
        elif name == "expected":
            draw_expected_dice(path, PAIRS, STATED, TITLES)
        else:
            draw_review(path, PAIRS, STATED)
        return path

    one, other = draw(tmp_path), draw(tmp_path / "again")
    assert one.with_suffix(".png").stat().st_size > 5000
    assert one.with_suffix(".svg").read_bytes() == other.with_suffix(".svg").read_bytes()
    assert len(one.with_suffix(".txt").read_text()) > 100


def test_the_captions_state_what_is_drawn(tmp_path):
    draw_reliability(tmp_path / "one", OBSERVED, CONFIDENCE, TITLES)
    before, after = STATED.tasks["a"].before.all, STATED.tasks["a"].after.all
    assert f"{before:.3f} before, {after:.3f} after" in (tmp_path / "one.txt").read_text()
    assert f"ECE {before:.3f} → {after:.3f}" in (tmp_path / "one.svg").read_text()
    assert "A $lesion$" in (tmp_path / "one.svg").read_text()
    draw_expected_dice(tmp_path / "two", PAIRS, STATED, TITLES)
    assert f"error {STATED.mean_error:.3f}" in (tmp_path / "two.txt").read_text()
    draw_review(tmp_path / "three", PAIRS, STATED)
    caught, oracle = STATED.caught["0.2"]
    assert f"{100 * caught:.1f} % of it; by the true Dice it would be {100 * oracle:.1f} %" in (tmp_path / "three.txt").read_text()


def test_a_task_without_images_in_the_split_is_left_out(tmp_path):
    draw_reliability(tmp_path / "one", OBSERVED, {**CONFIDENCE, "b": CONFIDENCE["a"]}, {**TITLES, "b": "Another"})
    assert "Another" not in (tmp_path / "one.svg").read_text()
