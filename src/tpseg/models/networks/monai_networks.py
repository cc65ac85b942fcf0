"""MONAI's networks in two dimensions: U-Net, U-Net++, Attention U-Net, SegResNet and Swin UNETR.

`model.width` sets the channels of the first level, the deeper ones follow; by default they are the authors'. Nothing here
draws random numbers in the forward pass: the authors' dropout is left out, so that a run that was stopped and resumed ends
with the weights of one that was not. MONAI's networks take seconds to import and are imported when one is asked for.
"""

from __future__ import annotations

from torch import Tensor, nn

from tpseg.core.config import ModelConfig
from tpseg.core.tasks import TaskSet
from tpseg.models.networks.parts import first_width
from tpseg.models.networks.task_blind import TaskBlind


def doubling(width: int, levels: int = 5) -> list[int]:
    """Channels of all levels, each twice those of the one above."""
    return [width * 2**level for level in range(levels)]


class Reversed(nn.Module):
    """A network whose list of outputs begins with the prediction instead of ending with it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.network(image)[::-1]


def unet(config: ModelConfig, tasks: TaskSet) -> TaskBlind:
    """U-Net (Ronneberger et al. 2015, 64 to 1024 channels) as MONAI has it: strided, with two residual units a level."""
    from monai.networks.nets import UNet

    widths = doubling(first_width(config, 64, 1))
    return TaskBlind(config, tasks, UNet(2, 3, 1, widths, (2, 2, 2, 2), num_res_units=2))


def unetplusplus(config: ModelConfig, tasks: TaskSet) -> TaskBlind:
    """U-Net++ (Zhou et al. 2018, 32 to 512 channels) with deep supervision: all four heads learn, the deepest predicts."""
    from monai.networks.nets import BasicUNetPlusPlus

    width = first_width(config, 32, 1)
    return TaskBlind(config, tasks, Reversed(BasicUNetPlusPlus(2, 3, 1, (*doubling(width), width), deep_supervision=True)))


def attention_unet(config: ModelConfig, tasks: TaskSet) -> TaskBlind:
    """Attention U-Net (Oktay et al. 2018), with U-Net's 64 to 1024 channels."""
    from monai.networks.nets import AttentionUnet

    widths = doubling(first_width(config, 64, 2))
    return TaskBlind(config, tasks, AttentionUnet(2, 3, 1, widths, (2, 2, 2, 2)))


def segresnet(config: ModelConfig, tasks: TaskSet) -> TaskBlind:
    """SegResNet (Myronenko 2018, 32 to 256 channels) without the variational branch that regularises it there."""
    from monai.networks.nets import SegResNet

    width = first_width(config, 32, 8)
    return TaskBlind(config, tasks, SegResNet(spatial_dims=2, init_filters=width, in_channels=3, out_channels=1))


def swin_unetr(config: ModelConfig, tasks: TaskSet) -> TaskBlind:
    """Swin UNETR (Hatamizadeh et al. 2022, feature size 48), from scratch.

    Padded to multiples of 64, not 32: its InstanceNorm at stride 32 cannot normalise a map of one pixel.
    """
    from monai.networks.nets import SwinUNETR

    return TaskBlind(config, tasks, SwinUNETR(3, 1, feature_size=first_width(config, 48, 12), spatial_dims=2), stride=64)
