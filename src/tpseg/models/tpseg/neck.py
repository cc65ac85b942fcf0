"""The neck: brings the trunk's four features to the widths that the decoder works in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def conv_norm(width_in: int, width_out: int, kernel: int | tuple[int, int] = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution of unchanged size, GroupNorm with one group, ReLU."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2 * dilation, width // 2 * dilation)
    conv = nn.Conv2d(width_in, width_out, (height, width), padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(1, width_out), nn.ReLU())


class ReceptiveFieldBlock(nn.Module):
    """Four branches that see 1, 9, 15 and 21 pixels far, joined, plus a 1×1 shortcut (RFB, Liu et al. 2018)."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm(width_in, width_out)])
        for size in (3, 5, 7):
            self.branches.append(
                nn.Sequential(
                    conv_norm(width_in, width_out),
                    conv_norm(width_out, width_out, (1, size)),
                    conv_norm(width_out, width_out, (size, 1)),
                    conv_norm(width_out, width_out, 3, dilation=size),
                )
            )
        self.join = conv_norm(4 * width_out, width_out, 3)
        self.shortcut = conv_norm(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, h, w) -> (B, C_out, h, w)
        return self.join(torch.cat([branch(x) for branch in self.branches], 1)) + self.shortcut(x)


class Neck(nn.Module):
    """One block per stage: `rfb` (what the paper's Table 5 counts), or `linear`, a 1×1 convolution with GroupNorm and ReLU.

    The paper's text has no neck: the 1×1 convolutions that bring features to a common width are those of eq. (4). `linear` comes
    nearest to that, for no pixel sees its neighbours in it.
    """

    def __init__(self, kind: str, widths_in: Sequence[int], widths_out: Sequence[int]) -> None:
        super().__init__()
        blocks: dict[str, Callable[[int, int], nn.Module]] = {"rfb": ReceptiveFieldBlock, "linear": conv_norm}
        block = blocks[kind]
        self.stages = nn.ModuleList([block(width_in, width_out) for width_in, width_out in zip(widths_in, widths_out, strict=True)])
        # as the trunk's features are, so that nothing is rearranged in between
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (B, C_s, h_s, w_s) in, four of the neck's widths and the same sizes out."""
        return [stage(feature) for stage, feature in zip(self.stages, features, strict=True)]
