"""How often each logit comes up inside and outside a lesion: all that calibration needs to know of an image, in little memory."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor

WIDTH = 1 / 32
"""Of a bin, in units of a logit."""
REACH = 16.0
"""Logits beyond ±REACH fall into the outermost bins: probabilities nearer to 0 or 1 than 1e-7."""
BINS = round(2 * REACH / WIDTH)
CENTRES = (np.arange(BINS) + 0.5) * WIDTH - REACH
"""(BINS,): the logit that stands for all of a bin, so that a probability is off by 1/256 at most."""


def bin_of(logit: float) -> int:
    """The first bin that lies above a logit, such as the cut of a mask; a bin holds the logits in (low, high]."""
    return round(float(np.clip((logit + REACH) / WIDTH, 0, BINS)))


def count_logits(logits: Tensor) -> np.ndarray:
    """Pixels of a map, of any shape, in each bin: (BINS,) int64."""
    positions = torch.ceil((logits + REACH) / WIDTH).sub_(1).clamp_(0, BINS - 1).to(torch.int64)
    return torch.bincount(positions.flatten(), minlength=BINS).numpy()


def count_by_truth(logits: Tensor, truth: Tensor) -> np.ndarray:
    """The same outside and inside the lesion, (2, BINS) int64; logits and truth (bool) of one shape."""
    return np.stack([count_logits(logits[~truth]), count_logits(logits[truth])])


BAND = 0.02
"""Half the width of the band around a lesion's border, as a share of the mean of the image's height and width."""


def border_band(truth: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool near the border of a mask (H, W) bool, on either side; none where the mask has no border."""
    size = 2 * max(1, round(BAND * sum(truth.shape) / 2)) + 1
    return maximum_filter(truth, size, mode="nearest") & ~minimum_filter(truth, size, mode="nearest")
