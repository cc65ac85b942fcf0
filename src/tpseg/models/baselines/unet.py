"""A plain U-shaped decoder with skip connections: the paper's baseline (row A1), blind to tasks and prototypes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.models.neck import conv_norm
from tpseg.models.pgtd import Decoded
from tpseg.models.typed import Modules


class UNetStep(nn.Module):
    """Upsample, join with the skip feature, two 3×3 convolutions, and a 1×1 output for deep supervision."""

    def __init__(self, low: int, high: int, width: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(conv_norm(low + high, width, 3), conv_norm(width, width, 3))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, f_low: Tensor, f_high: Tensor) -> Decoded:
        """f_low (B, C_low, h, w), f_high (B, C_high, h', w')."""
        f_high = F.interpolate(f_high, f_low.shape[2:], mode="bilinear", align_corners=False)
        features = self.convolve(torch.cat([f_low, f_high], 1))
        return Decoded(self.head(features), features, features, None)


class UNetDecoder(nn.Module):
    """Three steps from stride 32 to stride 4; same call as PGTDChain."""

    def __init__(self, neck_widths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        high = [neck_widths[3], *widths[:2]]
        self.steps: Modules[UNetStep] = Modules([UNetStep(*sizes) for sizes in zip(neck_widths[2::-1], high, widths, strict=True)])

    def forward(self, features: Sequence[Tensor], task: Tensor, routing: object) -> tuple[Tensor, list[Decoded]]:
        """Four neck features, fine to coarse; returns the final logits (B, 1, h, w) and the steps, coarse to fine."""
        high = features[3]
        steps: list[Decoded] = []
        for step, low in zip(self.steps, features[2::-1], strict=True):
            steps.append(step(low, high))
            high = steps[-1].refined
        return steps[-1].logits, steps
