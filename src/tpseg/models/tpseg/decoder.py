"""The decoder: three steps from stride 32 to stride 4, each a PGTD or, in its place, a plain step without tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.models.adapters.tca import Routing
from tpseg.models.base import Decoded
from tpseg.models.tpseg.neck import conv_norm
from tpseg.models.tpseg.pgtd import PGTD, TaskHead

NUMBERS = (3, 2, 1)
"""The steps as the paper numbers them, coarse to fine."""


class PlainStep(nn.Module):
    """A step of a U-shaped decoder: upsample, join with the skip feature, two 3×3 convolutions, and a 1×1 output."""

    def __init__(self, low: int, high: int, width: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(conv_norm(low + high, width, 3), conv_norm(width, width, 3))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, f_low: Tensor, f_high: Tensor, task: Tensor, routing: Routing) -> Decoded:
        """f_low (B, C_low, h, w), f_high (B, C_high, h', w'); the task changes nothing."""
        f_high = F.interpolate(f_high, f_low.shape[2:], mode="bilinear", align_corners=False)
        refined = self.convolve(torch.cat([f_low, f_high], 1))
        return Decoded(self.head(refined), refined=refined)


class Decoder(nn.Module):
    """Step 3 (stage 3, stage 4) → step 2 (stage 2, y3) → step 1 (stage 1, y2).

    pgtds names the steps that are PGTDs; all three are in TP-Seg, none in the paper's baseline, and one less in its Table 4.
    """

    def __init__(
        self,
        neck_widths: Sequence[int],
        widths: Sequence[int],
        pgtds: Sequence[int],
        make_pgtd: Callable[[int, int, int], PGTD],
        fuser: LogitFuser | None,
    ) -> None:
        super().__init__()
        sizes = zip(neck_widths[2::-1], [neck_widths[3], *widths[:2]], widths, strict=True)  # low, high, width of each step
        self.steps = nn.ModuleList([(make_pgtd if n in pgtds else PlainStep)(*size) for n, size in zip(NUMBERS, sizes, strict=True)])
        self.fuser = fuser

    def forward(self, features: Sequence[Tensor], task: Tensor, routing: Routing) -> tuple[Tensor, list[Decoded]]:
        """Four neck features, fine to coarse; returns the final logits (B, 1, h, w) and the steps, coarse to fine."""
        steps: list[Decoded] = []
        for step, low in zip(self.steps, features[2::-1], strict=True):
            steps.append(step(low, steps[-1].refined if steps else features[3], task, routing))
        if self.fuser is None:
            return steps[-1].logits, steps
        return self.fuser([step.logits for step in reversed(steps)], features[3], routing), steps

    def pgtds(self) -> Iterator[tuple[str, PGTD]]:
        """The steps that are PGTDs by name, 'pgtd3' first."""
        for number, step in zip(NUMBERS, self.steps, strict=True):
            if isinstance(step, PGTD):
                yield f"pgtd{number}", step

    def observe(self, steps: Sequence[Decoded], mask: Tensor, task: Tensor) -> None:
        """Show the prototypes of every PGTD a forward pass, eq. (13); mask (B, 1, H, W)."""
        for step, decoded in zip(self.steps, steps, strict=True):
            if isinstance(step, PGTD) and decoded.features is not None:
                step.memory.observe(decoded.features.detach(), mask, task)

    def move_prototypes(self) -> None:
        for _, step in self.pgtds():
            step.memory.move()


class LogitFuser(nn.Module):
    """The release's final output: a softmax mix, learned per task, of PGTD1, 2, 3 and a head on stage 4."""

    def __init__(self, width: int, tasks: int) -> None:
        super().__init__()
        self.head = TaskHead(width, tasks)
        self.mix = nn.ParameterList([torch.tensor([2.0, 0.0, 0.0, 0.0]) for _ in range(tasks)])

    def forward(self, logits: Sequence[Tensor], stage4: Tensor, routing: Routing) -> Tensor:
        """logits of PGTD1, 2, 3, each (B, 1, h, w) of its own size; returns (B, 1, h, w) of PGTD1's size."""
        maps = [*logits, self.head(stage4, routing)]
        size = logits[0].shape[2:]
        stacked = torch.cat([F.interpolate(one, size, mode="bilinear", align_corners=False) for one in maps], 1)  # (B, 4, h, w)
        share = routing.gather(list(self.mix)).softmax(-1)[:, :, None, None]
        return (stacked * share).sum(1, keepdim=True)
