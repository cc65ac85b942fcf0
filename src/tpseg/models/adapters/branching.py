"""Several tasks on one image: the blocks before the tasks' splits run once for all of them, then the trunk forks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tpseg.models.adapters.tca import TCA, Routing


@dataclass(frozen=True)
class Branches:
    """What the trunk computes at a block. Outputs share a branch while they have an image in common and no route of their own."""

    parents: Tensor | None
    """(branches,) int64: the branch of the block before that each comes from, at block 0 the image; None if nothing changes."""
    row: Tensor
    """(branches,) int64: position in `Routing.present` of the task whose route each takes, once that has started."""
    of: Tensor
    """(P,) int64: each output's branch."""


class Fork:
    """The hook before each block that gives each output a branch of its own where its task's own route starts.

    The trunk sees the branches as its batch. For adapters that run one route per block. No output's numbers change.
    """

    def __init__(self, adapters: TCA, routing: Routing, rows: Tensor, images: int) -> None:
        """rows (P,) int64: the image of each output, out of `images`; routing: the outputs' tasks."""
        self.adapters = adapters
        self.present = routing.present
        self.started = adapters.started(routing.present)
        self.blocks = self._plan(routing.row.tolist(), rows.tolist(), images, rows.device)

    def _plan(self, position: Sequence[int], rows: Sequence[int], images: int, device: torch.device) -> list[Branches]:
        plan: list[Branches] = []
        before, count = list(rows), images
        for index in range(len(self.adapters.blocks)):
            own = [self.started[place][index] for place in position]  # back on the shared route, a branch of its own is still alone
            keys = [("output", p) if alone else ("branch", branch) for p, (alone, branch) in enumerate(zip(own, before, strict=True))]
            branches = list(dict.fromkeys(keys))
            first = [keys.index(branch) for branch in branches]  # an output of each branch
            parents = [before[output] for output in first]
            if plan and parents == list(range(count)):
                plan.append(Branches(None, plan[-1].row, plan[-1].of))
                continue
            before, count = [branches.index(key) for key in keys], len(branches)
            row = [position[output] for output in first]
            plan.append(Branches(*(torch.tensor(values, device=device) for values in (parents, row, before))))
        return plan

    def __call__(self, index: int, tokens: Tensor) -> Tensor:
        """tokens (branches, h, w, C) of the block before, at block 0 of the images; returns those of block `index`, adapted."""
        branches = self.blocks[index]
        if branches.parents is not None:
            tokens = tokens.index_select(0, branches.parents)
        started = [blocks[index] for blocks in self.started]
        return self.adapters.adapt_hard(index, tokens, Routing(self.present, branches.row), started)

    def spread(self, features: Tensor, index: int) -> Tensor:
        """From one map a branch of block `index` to one an output, (branches, C, h, w) -> (P, C, h, w)."""
        return features.index_select(0, self.blocks[index].of)
