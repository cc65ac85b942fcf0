"""What the model tests share: a miniature model, numbers that are not degenerate, files in Meta's layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from miniature import TRUNK
from torch import Tensor, nn

from tpseg.core.config import ModelConfig
from tpseg.core.tasks import Task, TaskSet
from tpseg.models.base import LesionModel, Output
from tpseg.models.catalogue import create
from tpseg.models.trunks.hiera import TRUNK_SIZES, Trunk

TASKS = TaskSet([Task("skin_lesion", "dermoscopy"), Task("breast_lesion", "ultrasound"), Task("polyp", "endoscopy")])

TRUNK_SIZES["miniature"] = TRUNK


def miniature_config(**changes: Any) -> ModelConfig:
    """Small settings; for tests that ask for the fixture `miniature_trunk`, for only published names are valid settings."""
    assert TRUNK_SIZES["tiny"] is TRUNK
    settings: dict[str, Any] = {
        "trunk": "tiny",
        "weights": None,
        "freeze": False,
        "image_size": 64,
        "rank": 4,
        "neck_widths": (8, 8, 16, 16),
        "decoder_widths": (16, 8, 8),
    }
    return ModelConfig(**(settings | changes))


def miniature_model(seed: int = 0, **changes: Any) -> Any:
    """A miniature model in training mode whose every parameter matters; the keywords are those of ModelConfig."""
    torch.manual_seed(seed)
    return perturb(create(miniature_config(**changes), TASKS), seed)


def perturb(module: Any, seed: int = 0, size: float = 0.1) -> Any:
    """Add noise to every parameter: position embeddings, `up` of the adapters and much else start at zero.

    Scalars (temperatures, amplifiers) are scaled instead, so that they keep their sign and their order of size.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            change = size * torch.randn(parameter.shape, generator=generator)
            parameter.add_(change if parameter.ndim else parameter * change)
    return module


MODELS: dict[str, Callable[..., LesionModel]] = {
    "default": miniature_model,
    "hardened": partial(miniature_model, hardened=True),
    "gate none": partial(miniature_model, gate="none"),
    "gate shared_only": partial(miniature_model, gate="shared_only"),
    "no adapters": partial(miniature_model, adapter="none"),
    "linear neck": partial(miniature_model, neck="linear"),
    "fused": partial(miniature_model, output="fused"),
    "release": partial(miniature_model, gate="none", output="fused"),
    "cumulative_share": partial(miniature_model, gate="cumulative_share"),
    "hazard": partial(miniature_model, gate="hazard"),
    "cumulative_softmax": partial(miniature_model, gate="cumulative_softmax"),
    "per_block": partial(miniature_model, gate="per_block"),
    "plain adapters": partial(miniature_model, adapter="plain"),
    "lora": partial(miniature_model, adapter="lora"),
    "no PGTD": partial(miniature_model, pgtds=()),
    "no PGTD1": partial(miniature_model, pgtds=(3, 2)),
    "no PGTD2, fused": partial(miniature_model, pgtds=(3, 1), output="fused"),
    "no PGTD3": partial(miniature_model, pgtds=(2, 1)),
    "reinforced with S": partial(miniature_model, reinforce_with="similarity"),
    "frozen prototypes": partial(miniature_model, momentum=1.0),
    "baseline": partial(miniature_model, adapter="none", pgtds=()),
    "monai_unet": partial(miniature_model, architecture="monai_unet", width=8),
    "unetplusplus": partial(miniature_model, architecture="unetplusplus", width=8),
    "attention_unet": partial(miniature_model, architecture="attention_unet", width=8),
    "segresnet": partial(miniature_model, architecture="segresnet", width=8),
    "swin_unetr": partial(miniature_model, architecture="swin_unetr", width=12),
    "transunet": partial(miniature_model, architecture="transunet", width=8),
    "sam2_unet": partial(miniature_model, architecture="sam2_unet", width=8),
}
"""Name to a function from a seed to a model; `model(image, task)` returns an Output."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def predict(model: nn.Module, image: Tensor, task: list[int]) -> Output:
    model.eval()
    with torch.no_grad():
        return model(image, torch.tensor(task))


def to_meta_name(key: str) -> str:
    """transformers' name of a trunk tensor to the one in Meta's files."""
    key = re.sub(r"^patch_embed\.projection\.", "patch_embed.proj.", key)
    key = re.sub(r"\.layer_norm([12])\.", r".norm\1.", key)
    return key.replace(".mlp.proj_in.", ".mlp.layers.0.").replace(".mlp.proj_out.", ".mlp.layers.1.")


def save_meta_file(trunk: Trunk, path: Path) -> Path:
    """Write a trunk as Meta publishes it: inside a whole SAM 2 checkpoint, under Meta's names."""
    state = {f"image_encoder.trunk.{to_meta_name(key)}": value for key, value in trunk.hiera.state_dict().items()}
    others = {"image_encoder.neck.convs.0.conv.weight": torch.ones(2, 2), "sam_mask_decoder.iou_token.weight": torch.ones(1, 2)}
    torch.save({"model": state | others}, path)
    return path
