"""A model as torch.export can follow it: the tasks asked for, one route a block, batch, height and width unknown.

What the model computes stays; what changes is how it says so. A size is unknown while a program is exported, and what
`x + (-x) % window` is a multiple of cannot be seen then; of `ceil(x / window) * window` it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.core.tasks import TaskSet
from tpseg.models.adapters.tca import TCA, Routing, TaskConditionedAdapter
from tpseg.models.base import LesionModel
from tpseg.models.task_ownership import extract
from tpseg.models.tpseg.network import TPSeg
from tpseg.models.tpseg.pgtd import KERNEL, PGTD, DynamicExperts, mix_kernels
from tpseg.models.typed import Modules


def hardened_part(model: LesionModel, tasks: Sequence[str] | None = None) -> LesionModel:
    """A copy with a hardened gate that knows only these tasks and holds no other's weights; tasks as in `chosen_tasks`."""
    part = extract(model, chosen_tasks(model.tasks, tasks).names).float().cpu().eval().requires_grad_(False)
    if isinstance(part, TPSeg):
        part.harden()
    part.settle()
    return part


def chosen_tasks(tasks: TaskSet, names: Sequence[str] | None) -> TaskSet:
    """Those of these names, in the set's order; all without names. Raises UsageError for a name that is not there."""
    ids = sorted({tasks.id(name) for name in names or tasks.names})
    return TaskSet([tasks[one] for one in ids])


class Traceable(nn.Module):
    """What is exported: image (B, 3, H, W) and, with several tasks, task (B,) to logits and similarity, each (B, 1, H, W).

    H and W may be anything; they are padded inside. A model without prototypes has no similarity.
    """

    def __init__(self, model: LesionModel) -> None:
        """model: of `hardened_part`; it is changed."""
        super().__init__()
        self.model = model
        self.takes_task = len(model.tasks) > 1
        if isinstance(model, TPSeg) and isinstance(model.adapters, TCA):
            drop_idle_routes(model.adapters)
            model.adapters.blocks = Modules([TraceableAdapter(block) for block in model.adapters.blocks])
        if model.trunk is not None:
            model.trunk.hiera.blocks = nn.ModuleList([TraceableBlock(block) for block in model.trunk.hiera.blocks])
        for module in list(model.modules()):  # as they are now, for some are replaced
            for name, child in module.named_children():
                if isinstance(child, nn.GroupNorm) and child.num_groups == 1:
                    setattr(module, name, TraceableNorm(child))
            if isinstance(module, PGTD):
                module.experts = ShiftedExperts(module.experts)  # type: ignore[assignment]

    def forward(self, image: Tensor, task: Tensor | None = None) -> tuple[Tensor, ...]:
        if task is None:
            task = torch.zeros_like(image[:, 0, 0, 0], dtype=torch.int64)  # (B,)
        stride, (height, width) = self.model.stride, image.shape[2:]
        rows, columns = round_up(height, stride), round_up(width, stride)
        logits, steps = self.model.decode(F.pad(image, (0, columns - width, 0, rows - height)), task)
        similarity = next((step.similarity for step in reversed(steps) if step.similarity is not None), None)

        def full_size(one: Tensor) -> Tensor:  # (B, 1, h, w) -> (B, 1, H, W)
            wide = F.interpolate(one, (rows, columns), mode="bilinear", align_corners=False)
            return F.pad(wide, (0, width - columns, 0, height - rows))

        return (full_size(logits),) if similarity is None else (full_size(logits), full_size(similarity))


def round_up(size: int, step: int) -> int:
    """The next multiple."""
    return (size + step - 1) // step * step


def drop_idle_routes(adapters: TCA) -> None:
    """Take out the routes that no task runs, in place: the shared one behind all splits, the tasks' own before them."""
    number = len(adapters.blocks[0].tasks)
    if adapters.gate is None or not number:
        return
    started = adapters.started(range(number))
    for index, block in enumerate(adapters.blocks):
        if all(blocks[index] for blocks in started):
            block.shared = None
        for task in range(number):
            if not started[task][index]:
                block.tasks[task] = nn.Identity()


class TraceableBlock(nn.Module):
    """A block of Hiera whose windows are counted, not found by division, so that every size stays a product of known names."""

    block: Any  # transformers' Sam2MultiScaleBlock, whose attributes are known at run time only

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h, w, C'), of half the height and width where the block pools."""
        block, pool = self.block, 2 if self.block.query_stride else 1
        batch, height, width, _ = tokens.shape
        x = block.layer_norm1(tokens)
        residual = tokens
        if block.dim != block.dim_out:
            residual = F.max_pool2d(block.proj(x).permute(0, 3, 1, 2), pool, pool).permute(0, 2, 3, 1)
        window = block.window_size
        if window == 0:
            x = block.attn(x)
        else:
            rows, columns = (height + window - 1) // window, (width + window - 1) // window
            x = F.pad(x, (0, 0, 0, columns * window - width, 0, rows * window - height))
            x = x.reshape(batch, rows, window, columns, window, block.dim).permute(0, 1, 3, 2, 4, 5)
            x = block.attn(x.reshape(batch * rows * columns, window, window, block.dim))
            window //= pool
            x = x.reshape(batch, rows, columns, window, window, block.dim_out).permute(0, 1, 3, 2, 4, 5)
            x = x.reshape(batch, rows * window, columns * window, block.dim_out)
            x = F.pad(x, (0, 0, 0, width // pool - columns * window, 0, height // pool - rows * window))  # cuts off
        x = residual + x
        return x + block.mlp(block.layer_norm2(x))


def normalise(x: Tensor, eps: float) -> Tensor:
    """Each sample less its mean and over its deviation, over all but the first axis, which are averaged one after the other.

    A sample has millions of numbers. Runtimes add them up one by one in 32 bit, and lose digits that PyTorch keeps.
    """

    def mean(x: Tensor) -> Tensor:
        for axis in range(x.ndim - 1, 0, -1):
            x = x.mean(axis, keepdim=True)
        return x

    x = x - mean(x)
    return x * torch.rsqrt(mean(x * x) + eps)


class TraceableAdapter(nn.Module):
    """An adapter with `normalise`."""

    adapter: TaskConditionedAdapter

    def __init__(self, adapter: TaskConditionedAdapter) -> None:
        super().__init__()
        self.adapter = adapter

    def one_route(self, routing: Routing, started: Sequence[bool]) -> tuple[Tensor, Tensor]:
        return self.adapter.one_route(routing, started)

    def forward(self, tokens: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """tokens (B, h, w, C), down (B or 1, r, C), up (B or 1, C, r); returns (B, h, w, C)."""
        x = normalise(tokens, 1e-5).flatten(1, 2) * self.adapter.scale + self.adapter.shift  # (B, h * w, C)
        return tokens + (F.gelu(x @ down.transpose(1, 2)) @ up.transpose(1, 2)).reshape(tokens.shape)


class TraceableNorm(nn.Module):
    """A GroupNorm of one group with `normalise`."""

    norm: nn.GroupNorm

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        return normalise(x, self.norm.eps) * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]


class ShiftedExperts(nn.Module):
    """Eq. (10) as a sum of shifted images: a convolution with as many groups as the batch needs has no place in ONNX."""

    def __init__(self, experts: DynamicExperts) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        """features (B, C, h, w), z (B, C); returns (B, C, h, w)."""
        kernels = mix_kernels(self.experts.kernels(z), self.experts.route(z).softmax(-1))  # (B, C, 3, 3)
        height, width = features.shape[2:]
        padded = F.pad(features, (KERNEL // 2,) * 4)
        out = torch.zeros_like(features)
        for i in range(KERNEL):
            for j in range(KERNEL):
                out = out + padded[:, :, i : i + height, j : j + width] * kernels[:, :, i, j, None, None]
        return out
