"""What several of the other systems share: the width of the first level, and U-Net's pair of convolutions."""

from __future__ import annotations

from torch import nn

from tpseg.core.config import ModelConfig, require


def first_width(config: ModelConfig, default: int, multiple: int) -> int:
    """`model.width` or the authors'; raises UsageError for one that is no multiple of what the network needs."""
    width = default if config.width is None else config.width
    require(width % multiple == 0, "model.width", width, f"a multiple of {multiple} for {config.architecture}")
    return width


def double_conv(width_in: int, width_out: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with BatchNorm and ReLU; (B, C_in, h, w) -> (B, C_out, h, w)."""
    return nn.Sequential(
        *(nn.Conv2d(width_in, width_out, 3, padding=1, bias=False), nn.BatchNorm2d(width_out), nn.ReLU()),
        *(nn.Conv2d(width_out, width_out, 3, padding=1, bias=False), nn.BatchNorm2d(width_out), nn.ReLU()),
    )
