"""Task-conditioned adapters (TCA) before every block of the trunk: a shared and a task route, mixed by the split gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.models.adapters.gate import READINGS, SplitGate
from tpseg.models.trunks.hiera import Adapt
from tpseg.models.typed import Modules


@dataclass(frozen=True)
class Routing:
    """Which tasks a batch holds.

    Weights are gathered for the tasks present only, so that a task that is absent gets no gradient at all
    (not a gradient of zero, which an optimiser with momentum or decay would act on).
    """

    present: list[int]
    """Task ids in the batch, ascending."""
    row: Tensor
    """(B,) int64: each sample's position in `present`."""

    @classmethod
    def of(cls, task: Tensor, tasks: int) -> Routing:
        """task (B,) int64, of a model with `tasks` tasks. Raises IndexError for an id below 0.

        Reads the ids on the host: once per batch, not per layer. An exported program, whose tasks are an input, takes all
        tasks as present.
        """
        if torch.compiler.is_exporting():
            return cls(list(range(tasks)), task)
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

    def forward(self, tokens: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """h' = h + Up(GELU(Down(GN(h)))); tokens (B, h, w, C), down (B or 1, r, C), up (B or 1, C, r).

        GN has one group: each sample over all of (h, w, C). Its scale and shift go into Down, whose weights are fewer than the tokens.
        """
        x = F.group_norm(tokens.permute(0, 3, 1, 2), 1).permute(0, 2, 3, 1).flatten(1, 2)  # (B, h, w, C) -> (B, h * w, C)
        shift = down @ self.shift  # (B or 1, r)
        if down.shape[0] == 1:  # len(down) would be a constant once exported
            hidden = F.linear(x, (down * self.scale)[0], shift[0])  # (B, h * w, r)
            delta = F.linear(F.gelu(hidden), up[0])
        else:
            hidden = torch.baddbmm(shift[:, None], x, (down * self.scale).transpose(1, 2))
            delta = F.gelu(hidden) @ up.transpose(1, 2)  # (B, h * w, r) -> (B, h * w, C)
        return tokens + delta.reshape(tokens.shape)

    def both_routes(self, routing: Routing, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`down` and `up` that give (1 − w)·Δh_s + w·Δh_τ as one batched product of rank 2r; weight w(τ, b) (B,)."""
        assert self.shared is not None
        w = weight[:, None, None]
        down = torch.cat([self.shared.down.expand(len(w), -1, -1), routing.gather([route.down for route in self.tasks])], 1)
        up = torch.cat([self.shared.up * (1 - w), routing.gather([route.up for route in self.tasks]) * w], 2)
        return down, up

    def one_route(self, routing: Routing, started: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """`down` and `up` of each sample's only route: its task's if that has started, else the shared one.

        started: for each task in `routing.present`. Where all run the same route, they share one product.
        """
        routes = [self.tasks[task] if begun else self.shared for task, begun in zip(routing.present, started, strict=True)]
        if not any(started):
            routes = [self.shared]
        down = torch.stack([route.down for route in routes if route is not None])
        up = torch.stack([route.up for route in routes if route is not None])
        if len(routes) == 1:
            return down, up
        return down.index_select(0, routing.row), up.index_select(0, routing.row)


class TCA(nn.Module):
    """The adapters of all blocks with their gate."""

    def __init__(self, block_widths: Sequence[int], tasks: int, rank: int, gate: str, hardened: bool = False) -> None:
        super().__init__()
        self.hardened = hardened
        self.gate = SplitGate(tasks, len(block_widths), gate) if gate in READINGS else None
        self.task_routes = gate != "shared_only"
        self.blocks: Modules[TaskConditionedAdapter] = Modules(
            [TaskConditionedAdapter(width, rank, tasks, shared=gate != "none", task_routes=self.task_routes) for width in block_widths]
        )

    @property
    def one_route_a_block(self) -> bool:
        return self.gate is None or self.hardened

    def bind(self, routing: Routing) -> Adapt:
        """The hook that the trunk calls before each block, for one batch."""
        if self.gate is None or self.hardened:
            started = self.started(routing.present)
            return lambda index, tokens: self.adapt_hard(index, tokens, routing, [blocks[index] for blocks in started])
        steps = torch.stack([self.gate.steps[task] for task in routing.present])
        weights = self.gate(steps).index_select(0, routing.row)  # (B, N)
        return lambda index, tokens: self.blocks[index](tokens, *self.blocks[index].both_routes(routing, weights[:, index]))

    def adapt_hard(self, index: int, tokens: Tensor, routing: Routing, started: Sequence[bool]) -> Tensor:
        """Before block `index`, each sample runs one route; started: for each task present, whether its own has."""
        block = self.blocks[index]
        return block(tokens, *block.one_route(routing, started))

    def started(self, tasks: Sequence[int]) -> list[list[bool]]:
        """For each of `tasks` and each block, whether a model with one route per block runs the task's own there."""
        if self.gate is not None:
            table = self.gate.table()
            return [table[task] for task in tasks]
        return [[self.task_routes] * len(self.blocks) for _ in tasks]
