"""Task prototypes: what lesion and background of each task look like in feature space, kept as moving averages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_PIXELS = 10
"""Regions smaller than this, in pixels of the image the model sees, do not move a prototype."""
EPSILON = 1e-4
"""Feature vectors shorter than this count as no vector: a constant image must not blow up the gradient."""
EMBEDDING = 64
"""Width of the task embedding that the first prototypes are made from."""


def initial_prototypes(tasks: int, width: int) -> Tensor:
    """[P_fg, P_bg] = normalise(MLP(task embedding)), eq. (5); returns (T, 2, C) of unit length.

    Differs from the release: the MLP gets no gradient there either, so it is drawn once and not kept.
    """
    embedding = torch.randn(tasks, EMBEDDING)
    mlp = nn.Sequential(nn.Linear(EMBEDDING, width), nn.GELU(), nn.Linear(width, 2 * width))
    with torch.no_grad():
        return F.normalize(mlp(embedding).reshape(tasks, 2, width), dim=-1)


def cosine_map(features: Tensor, prototypes: Tensor) -> Tensor:
    """Signed difference D = cos(f, P_fg) − cos(f, P_bg), the argument of eq. (8).

    features (B, C, h, w), prototypes (B, 2, C) of unit length; returns (B, 1, h, w) in [-2, 2].
    """
    direction = prototypes[:, 0] - prototypes[:, 1]  # (B, C)
    return torch.einsum("bchw,bc->bhw", F.normalize(features, dim=1, eps=EPSILON), direction.to(features.dtype))[:, None]


def region_sums(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Σ f⊙M of eq. (13) inside and outside the mask, and the regions' sizes.

    features (B, C, h, w), mask (B, 1, H, W) in {0, 1}, -1 where it is neither; returns sums (B, 2, C) and sizes (B, 2) in
    pixels of the mask, float32. M on the feature map is the share of each cell's area, so that a lesion smaller than a
    cell counts with what it covers.
    """
    inside_outside = torch.cat([mask == 1, mask == 0], 1).float()
    shares = F.interpolate(inside_outside, features.shape[2:], mode="area").flatten(2)  # (B, 2, H, W) -> (B, 2, h * w)
    with torch.autocast(features.device.type, enabled=False):
        return torch.einsum("brn,bcn->brc", shares, features.float().flatten(2)), inside_outside.sum((2, 3))


class PrototypeMemory(nn.Module):
    """The prototypes of one PGTD: a buffer (T, 2, C), foreground first, float32, unit length."""

    prototypes: Tensor

    def __init__(self, tasks: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("prototypes", initial_prototypes(tasks, width))
        self.observed: tuple[Tensor, Tensor] | None = None  # sums (T, 2, C) and counts (T, 2) since the prototypes last moved

    def forward(self, task: Tensor) -> Tensor:
        """task (B,) int64 -> (B, 2, C)."""
        return self.prototypes[task]

    @torch.no_grad()
    def observe(self, features: Tensor, mask: Tensor, task: Tensor) -> None:
        """Add a forward pass to the sums of eq. (13), which the prototypes move by when the optimiser steps.

        features (B, C, h, w), mask (B, 1, H, W), task (B,). Momentum 1 keeps all prototypes, and needs no sums.
        """
        if self.momentum == 1:
            return
        sums, counts = region_sums(features, mask)
        total, pixels = self.observed or (
            self.prototypes.new_zeros(self.prototypes.shape),
            self.prototypes.new_zeros(self.prototypes.shape[:2]),
        )
        self.observed = total.index_add(0, task, sums), pixels.index_add(0, task, counts)  # (T, 2, C), (T, 2)

    @torch.no_grad()
    def move(self) -> None:
        """P ← normalise(m·P + (1 − m)·f̄), eqs. (12) and (13), once for all that was observed since the last time.

        A task that is absent, or whose region is under 10 pixels, keeps its prototype bit for bit. Sums are added up over
        all processes first, each of which has to call this.
        """
        if self.observed is None:
            return
        (total, pixels), self.observed = self.observed, None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            torch.distributed.all_reduce(pixels)
        mean = F.normalize(total, dim=-1)
        moved = F.normalize(self.momentum * self.prototypes + (1 - self.momentum) * mean, dim=-1)
        self.prototypes.copy_(torch.where((pixels >= MIN_PIXELS)[..., None], moved, self.prototypes))
