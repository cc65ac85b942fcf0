"""Masks at another probability than ½: the network's logits less the logit of the threshold, so that all else stays as it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tpseg.calibration.thresholds import Threshold
from tpseg.inference.network import Maps, Network


class ShiftedNetwork:
    """A network whose answers are over 0 where those of the one it wraps are over the task's cut; called like it.

    Resizing and blending tiles commute with the shift: the mask is that of the threshold to the pixel.
    """

    def __init__(self, network: Network, thresholds: Mapping[str, Threshold]) -> None:
        """thresholds: by task; ½ for tasks that have none."""
        self.network = network
        self.tasks = network.tasks
        self.image_size = network.image_size
        self.cut = torch.tensor([thresholds.get(name, Threshold()).cut for name in network.tasks.names])

    def __call__(self, image: Tensor, task: Tensor, rows: Tensor) -> Maps:
        """As Network.__call__."""
        found = self.network(image, task, rows)
        return Maps(found.logits - self.cut[task][:, None, None, None], found.similarity)
