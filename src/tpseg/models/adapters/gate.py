"""The split gate w(τ, b), eq. (3): how much of the task route each block takes, in five readings of a garbled print."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP_SUM = 12.0
"""Sum of all steps of `cumulative_sigmoid` at the start: its argument runs from -KAPPA to STEP_SUM - KAPPA."""
KAPPA = 6.0
OPEN = STEP_SUM
"""A logit that opens a gate: softplus of it is STEP_SUM, sigmoid of it 1 less 6e-6."""


@dataclass(frozen=True)
class Reading:
    """One reading of eq. (3). In all w rises from near 0 at first, and reaches ½ at the middle one of the blocks (`per_block`: after it).

    At the last block it is 1, or less than 0.01 below; with `hazard` it is ¾.
    """

    weights: Callable[[Tensor, Tensor], Tensor]
    """Logits ℓ (..., N) and temperature to w (..., N) in [0, 1]."""
    start: Callable[[int], Tensor]
    """Number N of blocks to the first logits (N,)."""
    open: Callable[[int], Tensor]
    """Number N of blocks to logits (N,) whose w is about 1 from the first block on: of a task that shares no route."""


def _cumulative_sigmoid(logits: Tensor, temperature: Tensor) -> Tensor:
    return torch.sigmoid((F.softplus(logits).cumsum(-1) - KAPPA) / temperature)


def _cumulative_share(logits: Tensor, temperature: Tensor) -> Tensor:
    steps = torch.sigmoid(logits / temperature)
    return steps.cumsum(-1) / steps.sum(-1, keepdim=True)


def _hazard(logits: Tensor, temperature: Tensor) -> Tensor:
    return 1 - torch.exp(F.logsigmoid(-logits / temperature).cumsum(-1))  # the log of 1 - σ(x) is logsigmoid(-x)


def _cumulative_softmax(logits: Tensor, temperature: Tensor) -> Tensor:
    return (logits / temperature).softmax(-1).cumsum(-1)


def _per_block(logits: Tensor, temperature: Tensor) -> Tensor:
    return torch.sigmoid(logits / temperature)


def _at_once(blocks: int) -> Tensor:
    """All of a cumulative reading's sum in its first block."""
    return torch.tensor([OPEN] + [-OPEN] * (blocks - 1))


def _constant(value: float) -> Callable[[int], Tensor]:
    return lambda blocks: torch.full((blocks,), value)


READINGS: dict[str, Reading] = {
    # σ((Σ_{i≤b} softplus(ℓ_i) − κ) / tem), steps of 12/N: softplus(start) = 12 / N
    "cumulative_sigmoid": Reading(
        _cumulative_sigmoid, lambda blocks: torch.full((blocks,), math.log(math.expm1(STEP_SUM / blocks))), _at_once
    ),
    # Σ_{i≤b} σ(ℓ_i / tem) / Σ_{i≤N} σ(ℓ_i / tem)
    "cumulative_share": Reading(_cumulative_share, _constant(0.0), _at_once),
    # 1 − Π_{i≤b} (1 − σ(ℓ_i / tem)); 1 − σ(start) = ½^(2/N), so that half of the blocks leave ½
    "hazard": Reading(_hazard, lambda blocks: torch.full((blocks,), math.log(math.expm1(2 / blocks * math.log(2)))), _at_once),
    # Σ_{i≤b} softmax(ℓ / tem)_i: a distribution over where to split
    "cumulative_softmax": Reading(_cumulative_softmax, _constant(0.0), _at_once),
    # σ(ℓ_b / tem), each block for itself, as in the released code, which never uses it; not monotone
    "per_block": Reading(_per_block, lambda blocks: torch.linspace(-5, 5, blocks), _constant(OPEN)),
}
"""By the names that `model.gate` takes."""


class SplitGate(nn.Module):
    """w(τ, b), the weight of the task route at block b, eq. (3).

    Differs from the paper: its print is garbled; `cumulative_sigmoid` is the reading that keeps its promise of
    monotonicity for any logits, σ((Σ_{i≤b} softplus(ℓ_{τ,i}) − κ) / tem), with steps that start at 12/N and κ = 6.
    """

    temperature: Tensor

    def __init__(self, tasks: int, blocks: int, reading: str = "cumulative_sigmoid") -> None:
        super().__init__()
        self.reading = READINGS[reading]
        self.steps = nn.ParameterList([self.reading.start(blocks) for _ in range(tasks)])
        self.register_buffer("temperature", torch.tensor(1.0))
        self.settled: list[list[bool]] | None = None

    def forward(self, steps: Tensor) -> Tensor:
        """Logits ℓ (..., N) to weights w (..., N)."""
        return self.reading.weights(steps.float(), self.temperature)

    @torch.no_grad()
    def weights(self) -> Tensor:
        """w of every task, (T, N); each computed alone, for the last bit of a vectorised sum depends on what else is in the table."""
        return torch.stack([self(steps) for steps in self.steps])

    @torch.no_grad()
    def splits(self) -> Tensor:
        """b*(τ), (T,) int64: the first block, from 0, with w ≥ ½; N if there is none."""
        hard = self.weights() >= 0.5
        return torch.where(hard.any(-1), hard.int().argmax(-1), hard.shape[-1])

    def table(self) -> list[list[bool]]:
        """The hardened gate, on the host: for each task and block, whether w ≥ ½."""
        return (self.weights() >= 0.5).tolist() if self.settled is None else self.settled

    def settle(self) -> None:
        """Keep the hardened gate as it is now: for prediction, where it does not change, and for exporting, where it cannot be read."""
        self.settled = self.table()
