"""SAM2-UNet (Xiong et al. 2024, arXiv 2408.08870): the SAM 2 trunk with bottleneck adapters, and a U-Net decoder.

Written from the paper's description. Differs from it: input size, loss, optimiser and augmentation are those of every
system here (the paper's: 352 px, weighted BCE + weighted IoU, AdamW 1e-3, flips).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.core.config import ModelConfig
from tpseg.core.tasks import TaskSet
from tpseg.models.adapters.plain import PlainAdapters
from tpseg.models.base import Decoded, LesionModel
from tpseg.models.networks.parts import double_conv, first_width
from tpseg.models.trunks.hiera import Trunk

WIDTH = 64
"""Channels of every stage after its receptive-field block."""


def conv_norm(width_in: int, width_out: int, kernel: tuple[int, int] = (1, 1), dilation: int = 1) -> nn.Sequential:
    """Convolution of unchanged size and BatchNorm."""
    padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
    conv = nn.Conv2d(width_in, width_out, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out))


class ReceptiveField(nn.Module):
    """The branches of TP-Seg's neck (models/neck.py) with BatchNorm for GroupNorm, and one ReLU, at the end."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm(width_in, width)])
        for size in (3, 5, 7):
            cross = (conv_norm(width, width, (1, size)), conv_norm(width, width, (size, 1)))
            self.branches.append(nn.Sequential(conv_norm(width_in, width), *cross, conv_norm(width, width, (3, 3), dilation=size)))
        self.join = conv_norm(4 * width, width, (3, 3))
        self.shortcut = conv_norm(width_in, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, width, h, w)
        return F.relu(self.join(torch.cat([branch(x) for branch in self.branches], 1)) + self.shortcut(x))


class SAM2UNet(LesionModel):
    """Trunk, adapters of `model.rank` (the paper's: 32), four receptive-field blocks, three steps with an output each.

    The task changes nothing. Trunk, weights and freezing are TP-Seg's; `model.width` is the blocks' 64.
    """

    trunk: Trunk

    def __init__(self, config: ModelConfig, tasks: TaskSet) -> None:
        super().__init__(config, tasks)
        width = first_width(config, WIDTH, 1)
        self.trunk = Trunk(config.trunk)
        if config.freeze:
            self.trunk.freeze()
        self.adapters = PlainAdapters(self.trunk, config.rank)
        self.fields = nn.ModuleList([ReceptiveField(stage, width) for stage in self.trunk.widths])
        self.steps = nn.ModuleList([double_conv(2 * width, width) for _ in range(3)])
        self.heads = nn.ModuleList([nn.Conv2d(width, 1, 1) for _ in range(3)])

    def decode(self, image: Tensor, task: Tensor) -> tuple[Tensor, list[Decoded]]:
        stages = self.trunk(image, self.adapters)
        *lows, x = [field(stage) for field, stage in zip(self.fields, stages, strict=True)]
        decoded = []
        for step, head, low in zip(self.steps, self.heads, reversed(lows), strict=True):
            x = F.interpolate(x, low.shape[2:], mode="bilinear", align_corners=False)
            x = step(torch.cat([low, x], 1))
            decoded.append(Decoded(head(x), refined=x))
        return decoded[-1].logits, decoded
