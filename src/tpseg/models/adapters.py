"""Task-conditioned adapters (TCA) before every block of the trunk: a shared and a task route, mixed by the split gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.models.gate import READINGS, SplitGate
from tpseg.models.typed import Modules


@dataclass(frozen=True)
class Routing:
    """Which tasks a batch holds.

    Weights are gathered for the tasks present only, so that a task that is absent gets no gradient at all
    (not a gradient of zero, which an optimiser with momentum or decay would act on).
    """

    present: list[int]
    """Task ids in the batch, ascending, P of them."""
    row: Tensor
    """(B,) int64: each sample's position in `present`."""

    @classmethod
    def of(cls, task: Tensor) -> Routing:
        """task (B,) int64. Reads the ids on the host: once per batch, not per layer. Raises IndexError for an id below 0."""
        ids = task.tolist()
        present = sorted(set(ids))
        if present[0] < 0:
            raise IndexError(f"task id {present[0]}; ids count from 0")
        return cls(present, torch.tensor([present.index(one) for one in ids], device=task.device))

    def gather(self, per_task: Sequence[Tensor]) -> Tensor:
        """One tensor per task of the model, each (...), to one per sample, (B, ...).

        index_select, not indexing: with several threads the latter adds up gradients in an order that changes from run to run.
        """
        return torch.stack([per_task[task] for task in self.present]).index_select(0, self.row)


class Route(nn.Module):
    """One bottleneck C -> r -> C of a TCA; `up` starts at zero, so a new route changes nothing."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, width))
        self.up = nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))


class TaskConditionedAdapter(nn.Module):
    """The adapter before one block, eqs. (1) and (2)."""

    def __init__(self, width: int, rank: int, tasks: int, shared: bool, task_routes: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.shared = Route(width, rank) if shared else None
        self.tasks: Modules[Route] = Modules([Route(width, rank) for _ in range(tasks if task_routes else 0)])

    def normalise(self, tokens: Tensor) -> Tensor:
        """GroupNorm with one group, shared by both routes: each sample over all of (h, w, C)."""
        return F.layer_norm(tokens, tokens.shape[1:]) * self.scale + self.shift

    def forward(self, tokens: Tensor, routing: Routing, weight: Tensor | None, hardened: bool) -> Tensor:
        """h' = h + (1 − w)·Δh_s + w·Δh_τ.

        tokens (B, h, w, C); weight (B,) is w(τ, b) of each sample, None if there is one route only.
        Both routes run as one batched product; hardened, each sample runs only the route that its w selects.
        """
        batch, height, width, channels = tokens.shape
        x = self.normalise(tokens).flatten(1, 2)  # (B, h, w, C) -> (B, h * w, C)
        if self.shared is None or not self.tasks:
            down, up = self._one_route(routing)
        elif hardened:
            assert weight is not None
            chosen = torch.where(weight >= 0.5, routing.row + 1, 0)  # 0: the shared route
            routes = [self.shared, *(self.tasks[task] for task in routing.present)]
            down = torch.stack([route.down for route in routes]).index_select(0, chosen)
            up = torch.stack([route.up for route in routes]).index_select(0, chosen)
        else:
            assert weight is not None
            w = weight.to(tokens.dtype)[:, None, None]
            down = torch.cat([self.shared.down.expand(batch, -1, -1), routing.gather([route.down for route in self.tasks])], 1)
            up = torch.cat([self.shared.up * (1 - w), routing.gather([route.up for route in self.tasks]) * w], 2)
        delta = F.gelu(x @ down.transpose(1, 2)) @ up.transpose(1, 2)  # (B, h * w, C) -> (B, h * w, r) -> (B, h * w, C)
        return tokens + delta.reshape(batch, height, width, channels)

    def _one_route(self, routing: Routing) -> tuple[Tensor, Tensor]:
        """Weights (B or 1, r, C) and (B or 1, C, r) of the only route there is."""
        if self.shared is not None:
            return self.shared.down[None], self.shared.up[None]
        return routing.gather([route.down for route in self.tasks]), routing.gather([route.up for route in self.tasks])


class TCA(nn.Module):
    """The adapters of all blocks with their gate."""

    def __init__(self, block_widths: Sequence[int], tasks: int, rank: int, gate: str, hardened: bool = False) -> None:
        super().__init__()
        self.hardened = hardened
        self.gate = SplitGate(tasks, len(block_widths), gate) if gate in READINGS else None
        self.blocks: Modules[TaskConditionedAdapter] = Modules(
            [TaskConditionedAdapter(width, rank, tasks, shared=gate != "none", task_routes=gate != "shared_only") for width in block_widths]
        )

    def bind(self, routing: Routing) -> _Bound:
        """The hook that the trunk calls before each block, for one batch."""
        if self.gate is None:
            return _Bound(self, routing, None)
        return _Bound(
            self, routing, self.gate(torch.stack([self.gate.steps[task] for task in routing.present])).index_select(0, routing.row)
        )


@dataclass(frozen=True)
class _Bound:
    adapters: TCA
    routing: Routing
    weights: Tensor | None  # (B, N)

    def __call__(self, index: int, tokens: Tensor) -> Tensor:
        weight = None if self.weights is None else self.weights[:, index]
        return self.adapters.blocks[index](tokens, self.routing, weight, self.adapters.hardened)
