"""TaskBlind: any segmentation network as a LesionModel; it sees the image and never the task."""

from __future__ import annotations

from torch import Tensor, nn

from tpseg.core.config import ModelConfig
from tpseg.core.tasks import TaskSet
from tpseg.models.base import Decoded, LesionModel


class TaskBlind(LesionModel):
    """A network that takes an image (B, 3, H, W) to logits (B, 1, h, w), or to several such, the prediction first.

    All of its outputs are supervised. H and W are multiples of `stride`, by default 32; h and w are the network's choice.
    """

    def __init__(self, config: ModelConfig, tasks: TaskSet, network: nn.Module, stride: int = LesionModel.stride) -> None:
        super().__init__(config, tasks)
        self.network = network
        self.stride = stride

    def decode(self, image: Tensor, task: Tensor) -> tuple[Tensor, list[Decoded]]:
        outputs = self.network(image)
        steps = [Decoded(logits) for logits in ([outputs] if isinstance(outputs, Tensor) else reversed(outputs))]
        return steps[-1].logits, steps
