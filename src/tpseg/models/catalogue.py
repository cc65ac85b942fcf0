"""Every model by the name that `model.architecture` takes. A new one is a file under networks/ and a line here."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tpseg.core.config import ModelConfig
from tpseg.core.errors import UsageError, nearest
from tpseg.core.tasks import TaskSet
from tpseg.models.base import LesionModel
from tpseg.models.networks import monai_networks
from tpseg.models.networks.sam2_unet import SAM2UNet
from tpseg.models.networks.transunet import transunet
from tpseg.models.tpseg.network import TPSeg

MODELS: dict[str, Callable[[ModelConfig, TaskSet], LesionModel]] = {
    "tpseg": TPSeg,
    "monai_unet": monai_networks.unet,
    "unetplusplus": monai_networks.unetplusplus,
    "attention_unet": monai_networks.attention_unet,
    "segresnet": monai_networks.segresnet,
    "swin_unetr": monai_networks.swin_unetr,
    "transunet": transunet,
    "sam2_unet": SAM2UNet,
}


def create(config: ModelConfig, tasks: TaskSet) -> LesionModel:
    """A new model with random weights; raises UsageError for an architecture that is not there."""
    check_architecture(config.architecture, "model.architecture")
    return MODELS[config.architecture](config, tasks)


def create_without_memory(config: ModelConfig, tasks: TaskSet) -> LesionModel:
    """The same on the meta device, where only sizes are known; random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return create(config, tasks)
        except RuntimeError:  # a constructor that reads numbers back, such as the drop path rates of MONAI's Swin
            return create(config, tasks).to("meta")


def check_architecture(name: str, key: str) -> None:
    """Raise UsageError that names the key, for an architecture that is not there."""
    if name not in MODELS:
        raise UsageError(f"{key}: found '{name}'{nearest(name, MODELS)} (architectures: {', '.join(MODELS)})")
