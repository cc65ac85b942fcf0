"""The systems that are measured, with random weights that leave no part of them without effect."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.plan import SEED
from benchmarks.reference import Reference
from tpseg.core.config import ModelConfig, load_config
from tpseg.models.adapters.gate import KAPPA, STEP_SUM, SplitGate
from tpseg.models.base import LesionModel
from tpseg.models.tpseg.decoder import LogitFuser
from tpseg.models.tpseg.pgtd import PGTD, DynamicExperts, TaskOutput
from tpseg.models.tpseg.prototypes import PrototypeMemory
from tpseg.studies.cost import skeleton
from tpseg.studies.measuring import with_random_weights

SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "tpseg": ("default", {}),
    "tpseg hardened": ("default", {}),
    "reference": ("release", {}),
    "reference, lean attention": ("release", {}),
    "SAM2-UNet": ("default", {"architecture": "sam2_unet", "rank": 32}),
}
"""Preset of each, and what differs from it; SAM2-UNet as in the study. All have a frozen trunk."""


def settings(system: str, trunk: str, size: int) -> ModelConfig:
    """The model's settings, for a trunk and an image size in pixels."""
    preset, changes = SYSTEMS[system]
    return load_config([preset], {"model": {**changes, "trunk": trunk, "image_size": size, "weights": None}}).model


def build(system: str, trunk: str, size: int, tasks: int, device: torch.device) -> LesionModel:
    """A model of `tasks` tasks for prediction; for a reference the model of preset `release` that it is made from."""
    torch.manual_seed(SEED)
    model = make_plausible(with_random_weights(skeleton(settings(system, trunk, size), tasks))).to(device).eval()
    if system == "tpseg hardened":
        model.harden()
        model.settle()
    return model


def build_reference(system: str, trunk: str, size: int, tasks: int, device: torch.device) -> Reference:
    return Reference.of(build(system, trunk, size, tasks, device), lean=system != "reference")


@torch.no_grad()
def make_plausible(model: LesionModel) -> LesionModel:
    """What random weights do not reach: splits in the middle of the trunk, prototypes of unit length, kernels around identity."""
    for module in model.modules():
        if isinstance(module, SplitGate):
            for steps in module.steps:
                steps.fill_(-KAPPA)  # a step of almost nothing, but for the one in the middle
                steps[len(steps) // 2] = STEP_SUM
        elif isinstance(module, PrototypeMemory):
            module.prototypes.copy_(F.normalize(torch.randn_like(module.prototypes), dim=-1))
        elif isinstance(module, DynamicExperts):
            module.share.fill_(0.3)
            module.identity.zero_()[1, 1] = 1
        elif isinstance(module, TaskOutput):
            module.weight.normal_(std=len(module.weight) ** -0.5)
        elif isinstance(module, PGTD):
            module.temperature.fill_(0.1)
        elif isinstance(module, LogitFuser):
            for mix in module.mix:
                mix.normal_()
    return model
