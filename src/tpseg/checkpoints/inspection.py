"""What a model consists of: tasks, splits, parameters by part, floating-point operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tpseg.checkpoints.model_folder import find_model, read_model_config, read_provenance
from tpseg.core.config import ModelConfig, load_config, preset_names, require
from tpseg.core.errors import UsageError, nearest
from tpseg.core.tasks import Task, TaskSet
from tpseg.models.adapters.tca import TCA
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import create_without_memory


def describe(source: str, tasks: int = 8, size: int | None = None) -> dict[str, Any]:
    """Facts about a model folder, a hub id or preset names (`small,baseline`), ready for JSON.

    tasks: their number, for presets; size: image size in pixels for the FLOPs, by default the model's own.
    Nothing is computed with real numbers: the model is built without memory, so that the largest takes seconds.
    """
    if is_preset(source):
        config, splits, provenance = load_config(source.split(",")).model, None, None
        task_set = TaskSet([Task(f"task{number}") for number in range(1, tasks + 1)])
    else:
        try:
            folder = find_model(source)
        except UsageError as error:
            raise UsageError(f"{error}, or a preset{nearest(source, preset_names())} (presets: {', '.join(preset_names())})") from error
        config, _ = read_model_config(folder)
        task_set = TaskSet.load(folder / "tasks.json")
        provenance = read_provenance(folder / "provenance.json")
        splits = provenance.get("training", {}).get("splits")
    size = config.image_size if size is None else size
    require(size >= 1, "size", size, "1 or more pixels")
    model = create_without_memory(config, task_set)
    return {
        "model": source,
        "tasks": [{"name": task.name, "modality": task.modality} for task in task_set],
        "splits": splits,
        "image_size": size,
        "parameters": parameters(model, config, task_set),
        "flops": count_flops(model, size),
        "provenance": provenance,
    }


def is_preset(source: str) -> bool:
    """Whether every comma-separated name is a preset or a YAML file."""
    return all(name in preset_names() or Path(name).suffix in (".yaml", ".yml") for name in source.split(","))


def parameters(model: LesionModel, config: ModelConfig, tasks: TaskSet) -> dict[str, int]:
    """Number of parameters: total, trainable, by part, of one adapter route, and what one more task adds."""
    larger = create_without_memory(config, TaskSet([*tasks, Task("one-more-task")]))
    adapters = getattr(model, "adapters", None)
    parts = {name: count(part) for name, part in model.named_children()}
    if isinstance(adapters, TCA):
        routes = [block.tasks[0] if block.shared is None else block.shared for block in adapters.blocks]
        parts["adapter_route"] = sum(count(route) for route in routes)
    return {
        "total": count(model),
        "trainable": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        **parts,
        "per_task": count(larger) - count(model),
    }


def count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def count_flops(model: LesionModel, size: int) -> int:
    """Floating-point operations for one image and one task, two for each multiplication with addition."""
    return int(run_counted(model, size).get_total_flops())


def run_counted(model: LesionModel, size: int) -> FlopCounterMode:
    """PyTorch's counter after one image (1, 3, size, size) of one task; model: on the meta device."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.empty(1, 3, size, size, device="meta"), torch.zeros(1, dtype=torch.int64))
    return counter


def info_table(content: dict[str, Any]) -> Group:
    """The facts for the terminal."""
    sizes = Table(title=str(content["model"]), show_header=False)
    sizes.add_column()
    sizes.add_column(justify="right")
    labels = {"per_task": "added by one more task", "adapter_route": "one adapter route"}
    for key, value in content["parameters"].items():
        sizes.add_row(f"parameters: {labels.get(key, key)}", f"{value:,}")
    sizes.add_row(f"GMAC at {content['image_size']} px", f"{content['flops'] / 2e9:,.1f}")
    sizes.add_row(f"GFLOP at {content['image_size']} px (2 x GMAC)", f"{content['flops'] / 1e9:,.1f}")
    tasks = Table(title="tasks")
    for heading in ("id", "task", "modality", "split b*"):
        tasks.add_column(heading)
    for number, task in enumerate(content["tasks"]):
        tasks.add_row(str(number), task["name"], task["modality"], str((content["splits"] or {}).get(task["name"], "-")))
    return Group(sizes, tasks, *([_training(content["provenance"])] if content["provenance"] else []))


def _training(provenance: dict[str, Any]) -> Table:
    table = Table(title="training", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    place = provenance.get("training", {})
    rows = {
        "date": provenance.get("date"),
        "command": provenance.get("command"),
        "seed": provenance.get("seed"),
        "data SHA-256": provenance.get("data", {}).get("sha256"),
        "best epoch": place.get("epoch"),
        "val Dice": place.get("metrics", {}).get("val/dice"),
    }
    for label, value in rows.items():
        table.add_row(label, f"{value:.4f}" if isinstance(value, float) else str(value))
    return table
