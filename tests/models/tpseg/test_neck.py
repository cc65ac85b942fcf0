"""The neck keeps sizes and changes widths."""

from __future__ import annotations

import pytest
import torch
from miniature_models import noise

from tpseg.models.tpseg.neck import Neck, ReceptiveFieldBlock


@pytest.mark.parametrize("kind", ["rfb", "linear"])
def test_each_stage_keeps_its_size_and_gets_its_width(kind: str) -> None:
    neck = Neck(kind, (4, 6, 8, 10), (2, 3, 4, 5))
    sizes = [(16, 24), (8, 12), (4, 6), (1, 1)]
    out = neck([noise(2, width, *size) for width, size in zip((4, 6, 8, 10), sizes, strict=True)])
    assert [tuple(one.shape) for one in out] == [(2, width, *size) for width, size in zip((2, 3, 4, 5), sizes, strict=True)]


def test_a_missing_stage_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        Neck("linear", (4, 6), (2, 3))([noise(1, 4, 8, 8)])


def test_the_linear_neck_is_a_1x1_convolution_a_norm_and_a_relu_a_stage() -> None:
    neck = Neck("linear", (4,), (3,))
    convolution = neck.stages[0][0]
    assert [type(part) for part in neck.stages[0]] == [torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.ReLU]
    assert convolution.kernel_size == (1, 1)
    assert sum(parameter.numel() for parameter in neck.parameters()) == 4 * 3 + 2 * 3
    image = noise(1, 4, 8, 8)
    (out,) = neck([image])
    turned = torch.flatten(image, 2)[..., torch.randperm(64)].reshape(image.shape)  # each pixel for itself: their order does not matter
    torch.testing.assert_close(neck([turned])[0].sum((2, 3)), out.sum((2, 3)))


def test_the_four_branches_see_1_9_15_and_21_pixels() -> None:
    """A single pixel reaches as far as its branch is wide: k + 2k pixels for k = 3, 5, 7. Norms would spread it: taken out."""
    block = ReceptiveFieldBlock(1, 1)
    for module in list(block.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
            elif isinstance(child, torch.nn.Conv2d):
                torch.nn.init.ones_(child.weight)
    image = torch.zeros(1, 1, 41, 41)
    image[..., 20, 20] = 1
    reach = [int((branch(image)[0, 0] != 0).any(0).nonzero().flatten().diff().sum()) + 1 for branch in block.branches]
    assert reach == [1, 9, 15, 21]


def test_the_released_models_blocks_have_36_million_weights_less_the_unused_ones() -> None:
    """The release's 36.76 M less 0.43 M of blocks that it never runs (systems.md §2.2)."""
    with torch.device("meta"):
        neck = Neck("rfb", (144, 288, 576, 1152), (64, 128, 256, 512))
    assert sum(parameter.numel() for parameter in neck.parameters()) == pytest.approx(36.33e6, rel=0.005)
