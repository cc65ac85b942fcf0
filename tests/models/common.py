"""What the model tests share: a miniature model, numbers that are not degenerate, files in Meta's layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tpseg.config import ModelConfig
from tpseg.models.catalogue import create
from tpseg.models.model import Output
from tpseg.models.trunk import TRUNK_SIZES, Trunk, TrunkSize
from tpseg.tasks import Task, TaskSet

TASKS = TaskSet([Task("skin_lesion", "dermoscopy"), Task("breast_lesion", "ultrasound"), Task("polyp", "endoscopy")])

MINIATURE = TrunkSize(16, 1, (1, 1, 3, 1), (3, 4, 4), (8, 4, 14, 7), 7)
"""A Hiera of 6 blocks that runs in milliseconds: it has windows, pooling and global attention like the others."""
TRUNK_SIZES["miniature"] = MINIATURE


def miniature_config(**changes: Any) -> ModelConfig:
    """Small settings; for tests that ask for the fixture `miniature_as_tiny`, for only published names are valid settings."""
    assert TRUNK_SIZES["tiny"] is MINIATURE
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
    return stir(create(miniature_config(**changes), TASKS), seed)


def stir(module: Any, seed: int = 0, size: float = 0.1) -> Any:
    """Add noise to every parameter: position embeddings, `up` of the adapters and much else start at zero.

    Scalars (temperatures, amplifiers) are scaled instead, so that they keep their sign and their order of size.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            change = size * torch.randn(parameter.shape, generator=generator)
            parameter.add_(change if parameter.ndim else parameter * change)
    return module


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
