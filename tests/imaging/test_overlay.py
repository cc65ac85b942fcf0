"""An overlay that leaves the program says of itself what made it, of which task, and that it is for research."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageFont

from tpseg.imaging.overlay import RESEARCH, STRIP, broken, strip, with_caption


@pytest.mark.parametrize(("height", "width"), [(48, 64), (300, 400), (2000, 3000), (5, 1)])
def test_the_caption_is_below_and_the_picture_as_it_was(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    drawn = with_caption(image, "polyp", "tpseg 0.1.0, model 1a2b3c4d")
    assert np.array_equal(drawn[:height], image)
    below = drawn[height:]
    assert below.shape[1:] == (width, 3)
    assert (below == STRIP).all(axis=2).mean() > 0.5
    if width > 1:
        assert below.max() > 150
        assert (below[:, -1] == STRIP).all()  # no letter is cut


def test_task_model_and_purpose_are_all_said() -> None:
    """A picture of other words is another picture."""
    image = np.zeros((40, 200, 3), np.uint8)
    shown = [with_caption(image, task, model).tobytes() for task, model in (("a", "m"), ("b", "m"), ("a", "n"))]
    assert len(set(shown)) == 3
    assert np.array_equal(with_caption(image, "a", "m")[40:], strip(200, f"a · m · {RESEARCH}"))


def test_lines_break_at_spaces_and_inside_a_word_only_where_it_is_longer_than_a_line() -> None:
    font = ImageFont.load_default(10)
    words = "retinal_fluid · model 1a2b3c4d · research only"
    lines = broken(words, font, 80)
    assert " ".join(lines) == words
    assert all(font.getlength(line) <= 80 for line in lines)
    assert "".join(broken(words, font, 20)).replace(" ", "") == words.replace(" ", "")
