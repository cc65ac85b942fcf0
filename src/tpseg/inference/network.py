"""What a Segmenter runs: a PyTorch model made ready for prediction, or an exported one; both are called the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tpseg.core.hardware import autocast, bf16_is_native, pick_device
from tpseg.core.tasks import TaskSet
from tpseg.models.base import LesionModel

EXPORTED = (".onnx", ".xml", ".pt2")
"""What the files of exported networks end in."""


@dataclass(frozen=True)
class Maps:
    """What a network says of P pairs of image and task, on the CPU."""

    logits: Tensor
    """(P, 1, S, S) float32."""
    similarity: Tensor | None
    """(P, 1, S, S) float32 in [-2, 2]; None for networks without prototypes."""


class Network(Protocol):
    """A trained network with what it takes to call it."""

    tasks: TaskSet
    image_size: int

    def __call__(self, image: Tensor, task: Tensor, rows: Tensor) -> Maps:
        """image (B, 3, S, S) float32 normalised; output p is image rows[p] segmented for task[p], both (P,) int64; all on the CPU."""
        ...


class TorchNetwork:
    """A PyTorch model on its device, in bfloat16 where the processor has it."""

    def __init__(self, model: LesionModel, device: str | None = None) -> None:
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.tasks = model.tasks
        self.image_size = model.config.image_size

    @torch.inference_mode()
    def __call__(self, image: Tensor, task: Tensor, rows: Tensor) -> Maps:
        one_each = len(rows) == len(image) and bool((rows == torch.arange(len(image))).all())
        with autocast(self.device):
            output = self.model(image.to(self.device, non_blocking=True), task.to(self.device), None if one_each else rows.to(self.device))
        return Maps(output.logits.float().cpu(), None if output.similarity is None else output.similarity.float().cpu())


def for_prediction(model: LesionModel, device: str | None = None) -> TorchNetwork:
    """The network of a model that is not trained on: its gate settled and its large weights in bfloat16, in place."""
    model.settle()
    network = TorchNetwork(model, device)
    if bf16_is_native(network.device):
        lower_weights(model)
    return network


def lower_weights(model: LesionModel) -> None:
    """Keep in bfloat16, in place, what autocast would turn into it at every call: the same numbers, half the memory, no casts.

    The adapters' routes stay: a soft gate mixes them before they are cast.
    """
    for module in model.modules():
        if type(module) in (nn.Linear, nn.Conv2d, nn.MultiheadAttention):  # not their subclasses, which may compute with weights
            module.to(torch.bfloat16)
