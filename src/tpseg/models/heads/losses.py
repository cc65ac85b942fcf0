"""The segmentation loss. The paper states none; this is the form of its released code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_AT_512 = 31
BOUNDARY_WEIGHT = 2.0
SMOOTH = 1.0


def boundary_weights(mask: Tensor) -> Tensor:
    """1 + 2·|avgpool(mask) − mask|: 1 far from an edge, nearly 2 beside a straight one, nearly 3 at a lone pixel; mask (B, 1, H, W).

    The window is 31 pixels at 512, scaled with the image's longer side and odd. Pixels outside the image do not
    count, so the border of the image is no edge.
    """
    window = round(WINDOW_AT_512 * max(mask.shape[2:]) / 512) | 1
    mean = mask
    for height, width in ((window, 1), (1, window)):  # the mean over a square, in two passes of 31 pixels instead of one of 961
        mean = F.avg_pool2d(mean, (height, width), stride=1, padding=(height // 2, width // 2), count_include_pad=False)
    return 1 + BOUNDARY_WEIGHT * (mean - mask).abs()


def weighted_bce(logits: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy, weighted mean over each image's pixels; (B, 1, H, W) thrice in, (B,) out."""
    loss = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    return (weights * loss).sum((1, 2, 3)) / weights.sum((1, 2, 3))


def soft_dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """1 − (2·Σpg + 1) / (Σp + Σg + 1) of each image; (B, 1, H, W) twice in, (B,) out."""
    probability = logits.sigmoid()
    overlap = (probability * mask).sum((1, 2, 3))
    return 1 - (2 * overlap + SMOOTH) / (probability.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + SMOOTH)


def segmentation_loss(supervised: Sequence[Tensor], mask: Tensor) -> Tensor:
    """½·Dice + ½·boundary-weighted BCE per sample, summed over all supervised outputs with equal weight.

    supervised: logits (B, 1, H, W) each; mask (B, 1, H, W) float in {0, 1}; returns (B,).
    """
    weights = boundary_weights(mask)
    losses = [0.5 * soft_dice_loss(logits, mask) + 0.5 * weighted_bce(logits, mask, weights) for logits in supervised]
    return torch.stack(losses).sum(0)
