"""LesionModel: what every model here has in common, TP-Seg or another system: its call, its tasks, its folder on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tpseg.core.config import ModelConfig
from tpseg.core.tasks import TaskSet
from tpseg.models.trunks.hiera import Trunk


@dataclass
class Decoded:
    """What one decoder step yields, or, for other systems, one of their outputs."""

    logits: Tensor
    """(B, 1, h, w)."""
    features: Tensor | None = None
    """f of eq. (4), centred or of unit length, (B, C, h, w): what the prototypes are averages of."""
    refined: Tensor | None = None
    """y of eq. (10), (B, C, h, w): what the next finer step takes in."""
    similarity: Tensor | None = None
    """D, (B, 1, h, w); None where the step has no prototypes."""


@dataclass
class Output:
    """What a model returns for a batch."""

    logits: Tensor
    """(B, 1, H, W): the prediction, of the input's size; sigmoid gives the probability of lesion."""
    supervised: list[Tensor]
    """Every output that the loss looks at, the prediction first, each (B, 1, H, W)."""
    similarity: Tensor | None
    """D of the finest PGTD, (B, 1, H, W) in [-2, 2]: like the lesion prototype above 0; None without prototypes."""
    steps: list[Decoded]
    """The decoder's steps, coarse to fine, at their own sizes."""


class LesionModel(nn.Module):
    """A model that segments an image (B, 3, H, W) for a task (B,). Subclasses give `decode`.

    A model without tasks' own parts answers the questions about them with nothing: no prototypes, no splits.
    """

    stride = 32
    """Height and width that `decode` sees are multiples of this."""

    def __init__(self, config: ModelConfig, tasks: TaskSet) -> None:
        super().__init__()
        self.config = config
        self.tasks = tasks
        self.provenance: Mapping[str, Any] = {}
        self.data_record = ""  # the text of data.csv: the training's images and masks as hashes
        self.trunk: Trunk | None = None  # the SAM 2 trunk, where a model has one

    def decode(self, image: Tensor, task: Tensor) -> tuple[Tensor, list[Decoded]]:
        """Padded image (B, 3, H, W) and task (B,) to the logits (B, 1, h, w) of the prediction and all steps, coarse to fine."""
        raise NotImplementedError

    def decode_tasks(self, image: Tensor, task: Tensor, rows: Tensor) -> tuple[Tensor, list[Decoded]]:
        """The same for several tasks on one image: output p is image rows[p] for task[p]; what they share may run once."""
        return self.decode(image.index_select(0, rows), task)

    def forward(self, image: Tensor, task: Tensor, rows: Tensor | None = None) -> Output:
        """image (B, 3, H, W) normalised with ImageNet's mean and std, task (B,) int64 ids of `self.tasks`.

        With rows (P,) int64 and task (P,), output p is image rows[p] segmented for task[p]: several tasks on one image run once
        what they have in common (a hardened model: the blocks before their splits).
        """
        padded = self.pad(image)
        logits, steps = self.decode(padded, task) if rows is None else self.decode_tasks(padded, task, rows)
        height, width = image.shape[2:]

        def full_size(one: Tensor) -> Tensor:  # (B, 1, h, w) -> (B, 1, H, W)
            return F.interpolate(one.float(), padded.shape[2:], mode="bilinear", align_corners=False)[..., :height, :width]

        prediction = full_size(logits)
        sides = [full_size(step.logits) for step in reversed(steps) if step.logits is not logits]
        similarity = next((step.similarity for step in reversed(steps) if step.similarity is not None), None)
        return Output(prediction, [prediction, *sides], None if similarity is None else full_size(similarity), steps)

    def pad(self, image: Tensor, value: float = 0.0) -> Tensor:
        """(B, C, H, W) to the next multiples of the stride, at the right and at the bottom."""
        height, width = image.shape[2:]
        return F.pad(image, (0, -width % self.stride, 0, -height % self.stride), value=value)

    def observe(self, output: Output, mask: Tensor, task: Tensor) -> None:
        """Show the prototypes a forward pass of training, eq. (13); mask (B, 1, H, W) in {0, 1}, task (B,)."""

    def move_prototypes(self) -> None:
        """Move the prototypes towards all that they were shown since the last time, eq. (12): once an optimiser step."""

    def prototypes(self) -> dict[str, Tensor]:
        """Prototypes by PGTD, 'pgtd3' (coarse) to 'pgtd1': each (T, 2, C), foreground first; empty without PGTDs."""
        return {}

    def gate_weights(self) -> Tensor | None:
        """w(τ, b), (T, N): the share of the task route at each block; None without a gate."""
        return None

    def splits(self) -> dict[str, int]:
        """b* of each task: the first block, counted from 0, that runs its own route; empty without a gate."""
        return {}

    def settle(self) -> None:
        """Fix what training would change and an exported program cannot read: the hardened gate. For models that are trained."""

    def split_cost(self, task: Tensor) -> Tensor | None:
        """Mean of w(τ, b) over the blocks, for each sample, (B,), with gradient; task (B,). None without a gate.

        The share of the trunk that runs the task's own route: blocks weigh the same, for a stage of Hiera with half the height
        and width of the one before has twice its channels, and a block of it about as many operations.
        """
        return None

    def set_gate_temperature(self, temperature: float) -> None:
        """Temperature of the split gate, where there is one."""
