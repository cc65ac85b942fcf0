"""What models cost, counted without computing anything: parameters and multiply-adds, in all and by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TypeVar

from tpseg.checkpoints.inspection import run_counted
from tpseg.core.config import ModelConfig, require
from tpseg.core.tasks import Task, TaskSet
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import create_without_memory
from tpseg.models.trunks.hiera import is_own

T = TypeVar("T")
FREE = ("weights", "amplifier", "modulation", "reinforcement", "momentum")
"""Settings that no cost depends on."""


def skeleton(config: ModelConfig, tasks: int) -> LesionModel:
    """The model without memory for its weights, on the meta device."""
    require(tasks >= 1, "tasks", tasks, "1 or more")
    return create_without_memory(config, TaskSet([Task(f"task{number}") for number in range(1, tasks + 1)]))


def macs_by_part(model: LesionModel, size: int) -> dict[str, int]:
    """Multiply-adds of one image (1, 3, size, size) of one task, by the model's direct children; they add up to the whole.

    model: on the meta device. Matrix products and convolutions count; norms, activations and resizing do not.
    """
    macs = {name: sum(operations.values()) // 2 for name, operations in run_counted(model, size).get_flop_counts().items()}
    root = type(model).__name__
    parts = {name: _outermost(macs, f"{root}.{name}") for name, _ in model.named_children()}
    if "adapters" in parts:
        parts["trunk"] -= parts["adapters"]  # they run within the trunk, before its blocks
    own = macs.get(root, 0) - sum(parts.values())
    return parts | ({"model": own} if own else {})


def _outermost(macs: Mapping[str, int], part: str) -> int:
    """Sum over the modules called in a part, leaving out those called by one of them; a list of modules is never called."""
    inside = [name for name in macs if f"{name}.".startswith(f"{part}.")]
    return sum(macs[name] for name in inside if not any(name.startswith(f"{other}.") for other in inside))


def training_macs(model: LesionModel, size: int) -> int:
    """Multiply-adds of one image forward and backward: three times the forward pass, less what a frozen trunk saves.

    A backward pass is two products for each of the forward's, one for the weights and one for the input. A frozen trunk
    has the second only, and none if nothing in it or before its blocks learns. model: on the meta device.
    """
    parts = macs_by_part(model, size)
    total = 3 * sum(parts.values())
    if model.trunk is None or not model.trunk.frozen:
        return total
    learns = "adapters" in parts or any(not is_own(name) for name, _ in model.trunk.named_parameters())
    return total - parts["trunk"] * (1 if learns else 2)


def once_for_equals(configs: Mapping[str, ModelConfig], find: Callable[[ModelConfig], T]) -> dict[str, T]:
    """`find` of every configuration, once for those that differ only in numbers that cost nothing, such as λ_p and α."""
    keys = {name: repr({key: value for key, value in asdict(config).items() if key not in FREE}) for name, config in configs.items()}
    found: dict[str, T] = {}
    for name, key in keys.items():
        if key not in found:
            found[key] = find(configs[name])
    return {name: found[key] for name, key in keys.items()}
