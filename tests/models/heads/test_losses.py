"""The loss: ½·Dice + ½·boundary-weighted BCE per output, by hand on small masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tpseg.models.heads.losses import boundary_weights, segmentation_loss, soft_dice_loss, weighted_bce


def image_of(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None, None]


def half_plane(size: int) -> Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., : size // 2] = 1
    return mask


DIAGONAL = image_of([1, 0], [0, 1])


# boundary weights


def test_weights_at_a_straight_edge_by_hand() -> None:
    """At 64 px the window is 5. Two pixels from the edge nothing; next to it 2/5 of the window are of the other kind: 1 + 2·0.4."""
    row = boundary_weights(half_plane(64))[0, 0, 32]
    torch.testing.assert_close(row[28:36], torch.tensor([1.0, 1.0, 1.4, 1.8, 1.8, 1.4, 1.0, 1.0]))


@pytest.mark.parametrize(("size", "window"), [(512, 31), (256, 17), (64, 5), (128, 9)])
def test_the_window_is_31_at_512_scaled_and_odd(size: int, window: int) -> None:
    """A half plane's edge lifts the weights of (window − 1) / 2 pixels on each side."""
    row = boundary_weights(half_plane(size))[0, 0, size // 2]
    assert (row > 1).sum() == window - 1
    assert torch.allclose(row, row.flip(0))


def test_weights_are_nearly_2_beside_a_straight_edge_and_nearly_3_at_a_lone_pixel() -> None:
    """At 512 px the window is 31 wide: 15 of 31 columns are of the other kind, or 960 of 961 pixels."""
    assert boundary_weights(half_plane(512)).max().item() == pytest.approx(1 + 2 * 15 / 31)
    lone = torch.zeros(1, 1, 512, 512)
    lone[..., 256, 256] = 1
    assert boundary_weights(lone).max().item() == pytest.approx(1 + 2 * 960 / 961)


def test_the_longer_side_sets_the_window() -> None:
    mask = torch.zeros(1, 1, 20, 128)
    mask[..., :64] = 1
    assert (boundary_weights(mask)[0, 0, 10] > 1).sum() == 8
    torch.testing.assert_close(boundary_weights(mask.transpose(2, 3)), boundary_weights(mask).transpose(2, 3))


def test_one_pixel_lesion_by_hand() -> None:
    """Window 5: the pixel itself 1 + 2·(1 − 1/25) = 2.92, the 24 around it 1 + 2/25 = 1.08."""
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 30, 40] = 1
    weights = boundary_weights(mask)
    assert weights[0, 0, 30, 40].item() == pytest.approx(2.92)
    torch.testing.assert_close(weights[0, 0, 28:33, 38:43].sum(), torch.tensor(2.92 + 24 * 1.08))
    assert weights.sum().item() == pytest.approx(64 * 64 + 1.92 + 24 * 0.08, rel=1e-6)


def test_the_border_of_the_image_is_no_edge() -> None:
    assert torch.equal(boundary_weights(torch.ones(1, 1, 64, 64)), torch.ones(1, 1, 64, 64))


def test_lesion_and_background_are_weighed_alike() -> None:
    mask = (torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    torch.testing.assert_close(boundary_weights(mask), boundary_weights(1 - mask))


# binary cross-entropy


def test_bce_by_hand() -> None:
    """Logits ln 3 give p = ¾: −ln ¾ on the two lesion pixels, −ln ¼ on the others; weights 1, 2, 3, 4."""
    logits, weights = torch.full((1, 1, 2, 2), math.log(3)), image_of([1, 2], [3, 4])
    right, wrong = -math.log(0.75), -math.log(0.25)
    assert weighted_bce(logits, DIAGONAL, weights).item() == pytest.approx((1 * right + 2 * wrong + 3 * wrong + 4 * right) / 10)
    assert weighted_bce(logits, DIAGONAL, torch.ones(1, 1, 2, 2)).item() == pytest.approx((right + wrong) / 2)


def test_weights_are_normalised() -> None:
    logits, weights = image_of([0.3, -2], [1, 4]), image_of([1, 2], [3, 4])
    torch.testing.assert_close(weighted_bce(logits, DIAGONAL, weights), weighted_bce(logits, DIAGONAL, 10 * weights))


# Dice


def test_dice_by_hand() -> None:
    """p = ½ everywhere: overlap 1, sums 2 and 2: 1 − (2 + 1) / (4 + 1) = 0.4."""
    assert soft_dice_loss(torch.zeros(1, 1, 2, 2), DIAGONAL).item() == pytest.approx(0.4)


def test_dice_of_everything_where_nothing_is_and_the_reverse() -> None:
    """4 × 4: p = 1 on an empty mask: 1 − 1/17; p = 0 on a full one: the same; nothing on nothing: 0."""
    high, empty = torch.full((1, 1, 4, 4), 40.0), torch.zeros(1, 1, 4, 4)
    assert soft_dice_loss(high, empty).item() == pytest.approx(16 / 17)
    assert soft_dice_loss(-high, 1 - empty).item() == pytest.approx(16 / 17)
    assert soft_dice_loss(-high, empty).item() == pytest.approx(0)


# both together


def test_the_whole_loss_by_hand_on_4_by_4() -> None:
    """At 4 px the window is one pixel, all weights 1. Zero logits: BCE ln 2; Dice, 4 of 16 lesion: 1 − (4 + 1) / (8 + 4 + 1)."""
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    expected = 0.5 * math.log(2) + 0.5 * (1 - 5 / 13)
    assert segmentation_loss([torch.zeros(1, 1, 4, 4)], mask).item() == pytest.approx(expected)


def test_every_output_counts_the_same() -> None:
    mask = half_plane(32)
    one, two = torch.full_like(mask, 0.4), torch.full_like(mask, -1.5)
    total = segmentation_loss([one, two, one], mask)
    torch.testing.assert_close(total, 2 * segmentation_loss([one], mask) + segmentation_loss([two], mask))


def test_the_loss_is_per_sample() -> None:
    masks = torch.cat([half_plane(32), torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)])
    logits = torch.linspace(-3, 3, masks.numel()).reshape(masks.shape)
    together = segmentation_loss([logits], masks)
    assert together.shape == (3,)
    torch.testing.assert_close(together, torch.cat([segmentation_loss([logits[i : i + 1]], masks[i : i + 1]) for i in range(3)]))


def test_a_perfect_prediction_costs_nearly_nothing_and_its_reverse_a_lot() -> None:
    for mask in (half_plane(64), torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)):
        assert segmentation_loss([40 * (2 * mask - 1)], mask).item() < 1e-3
        assert segmentation_loss([-40 * (2 * mask - 1)], mask).item() > 10


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("logit", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("size", [(1, 1), (50, 70)])
def test_the_loss_and_its_gradient_are_finite_for_empty_and_full_masks(fill: float, logit: float, size: tuple[int, int]) -> None:
    logits = torch.full((2, 1, *size), logit, requires_grad=True)
    loss = segmentation_loss([logits], torch.full((2, 1, *size), fill))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_gradient_pulls_every_pixel_to_its_side() -> None:
    mask = half_plane(32)
    logits = torch.zeros_like(mask, requires_grad=True)
    segmentation_loss([logits], mask).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[mask == 1] < 0).all()
    assert (logits.grad[mask == 0] > 0).all()
