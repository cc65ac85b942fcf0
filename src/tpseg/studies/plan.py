"""What a study consists of: rows over a budget, read from YAML and unfolded into cells, one training each."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tpseg.core.config import Config, TrainingConfig, build_config, check_keys, merge, read_source
from tpseg.core.errors import UsageError, nearest
from tpseg.core.untrusted import read_yaml, short
from tpseg.data.manifest import DataSet
from tpseg.models.catalogue import check_architecture

HERE = Path(__file__).parent
LAYOUTS = ("tasks", "averages")
FIGURES = ("fig5", "fig6", "fig7", "fig8", "gates", "sharing", "gradients")
SETTINGS = ("model", "sampling", "training")
STUDY_KEYS = ("title", "reference", "rows", "layout", "figures")
ROW_KEYS = ("name", "group", "config", *SETTINGS, "separate", "paper")
LATER = (("training", "gate_cost", 0.0),)
"""Settings that came after the first studies: at the value that says what was done before, keys are made without them."""
BUDGET_KEYS = ("config", "steps", "epochs", "validations", *SETTINGS)


@dataclass(frozen=True)
class Row:
    """A variant of TP-Seg or another system: what differs from the budget's settings."""

    id: str
    name: str
    group: str = ""
    """Heading over consecutive rows."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    separate: bool = False
    """One model for each task."""
    paper: Mapping[str, float | str] = field(default_factory=dict)
    """The paper's averages in percent, `dice` and `miou`, and a `note`."""


@dataclass(frozen=True)
class Study:
    """A table or figure of the paper, or a user's own."""

    name: str
    title: str
    reference: str
    """The row that the others are tested against."""
    rows: tuple[Row, ...]
    layout: str = "tasks"
    figures: tuple[str, ...] = ()

    def only(self, ids: Sequence[str]) -> Study:
        """The same study with some of its rows, in its order; the reference stays."""
        known = [row.id for row in self.rows]
        for one in ids:
            if one not in known:
                raise UsageError(f"study {self.name}: no row '{one}'{nearest(one, known)} (rows: {', '.join(known)})")
        kept = tuple(row for row in self.rows if row.id in ids or row.id == self.reference)
        return replace(self, rows=kept)


@dataclass(frozen=True)
class Budget:
    """How large, how long: what all cells of a study have in common."""

    name: str
    settings: Mapping[str, Any]
    steps: int | None
    """Optimiser steps of a model for all tasks; models for one task share them out."""
    epochs: int | None
    """In the place of steps: passes over the training images."""
    validations: int

    def total_steps(self, images: int, batch: int) -> int:
        return self.steps or math.ceil(images / batch) * (self.epochs or 1)


@dataclass(frozen=True)
class Cell:
    """One model to train and score: a row, a seed and, for separate rows, a task."""

    row: str
    seed: int
    tasks: tuple[str, ...]
    config: Config
    data_sha256: str

    @cached_property
    def key(self) -> str:
        """The same for cells that are the same model, whatever study or row they are in, and whatever version trained it."""
        settings = self.config.to_dict()
        del settings["sampling"]["cache"]  # the batches are the same, bit for bit
        del settings["training"]["checkpoint_minutes"]  # a resumed run is the same, bit for bit
        for group, key, default in LATER:
            if settings[group][key] == default:
                del settings[group][key]
        content = {"config": settings, "tasks": self.tasks, "data": self.data_sha256}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def label(self) -> str:
        task = f" {self.tasks[0]}" if len(self.tasks) == 1 else ""
        return f"{self.row} seed {self.seed}{task}"

    def steps(self) -> int:
        """Optimiser steps."""
        settings = self.config.training
        images = self.config.sampling.epoch_images or 0
        return settings.epochs * (images // settings.batch_size)


def definition_names() -> list[str]:
    return sorted(path.stem for path in (HERE / "definitions").glob("*.yaml"))


def budget_names() -> list[str]:
    return sorted(path.stem for path in (HERE / "budgets").glob("*.yaml"))


def read_study(name: str) -> Study:
    """A study by its name, or from a user's YAML file; raises UsageError that names the key at fault."""
    path, content = _read(name, "definitions", "study", [*definition_names(), "table5", "all"])
    _check(content, STUDY_KEYS, path, "")
    rows = content.get("rows")
    if not isinstance(rows, Mapping) or not rows:
        raise UsageError(f"{path}: expected 'rows:' with an entry for each variant, e.g. A2: {{name: w/o TCA, model: {{adapter: none}}}}")
    reference = str(content.get("reference", next(iter(rows))))
    if reference not in map(str, rows):
        raise UsageError(f"{path}: reference: no row '{reference}'{nearest(reference, map(str, rows))}")
    layout = content.get("layout", "tasks")
    if layout not in LAYOUTS:
        raise UsageError(f"{path}: layout: found '{layout}', expected {' or '.join(LAYOUTS)}")
    figures = content.get("figures", [])
    if not isinstance(figures, list):
        raise UsageError(f"{path}: figures: found {short(figures)}, expected a list (figures: {', '.join(FIGURES)})")
    for figure in figures:
        if figure not in FIGURES:
            raise UsageError(f"{path}: figures: unknown '{figure}'{nearest(str(figure), FIGURES)} (figures: {', '.join(FIGURES)})")
    title = str(content.get("title", path.stem))
    return Study(path.stem, title, reference, tuple(_row(str(key), entry, path) for key, entry in rows.items()), layout, tuple(figures))


def _row(id: str, entry: Any, path: Path) -> Row:
    entry = entry or {}
    _check(entry, ROW_KEYS, path, f"rows.{id}.")
    settings = merge(*[read_source(name) for name in str(entry["config"]).split(",")] if "config" in entry else [{}], _settings(entry))
    check_keys(settings, Config, str(path), f"rows.{id}.")
    check_architecture(settings.get("model", {}).get("architecture", "tpseg"), f"{path}: rows.{id}.model.architecture")
    return Row(
        id, str(entry.get("name", id)), str(entry.get("group", "")), settings, bool(entry.get("separate", False)), entry.get("paper", {})
    )


def read_budget(name: str) -> Budget:
    """A budget by its name, or from a user's YAML file."""
    path, content = _read(name, "budgets", "budget", budget_names())
    _check(content, BUDGET_KEYS, path, "")
    if ("steps" in content) == ("epochs" in content):
        raise UsageError(f"{path}: expected either 'steps' or 'epochs', found {'both' if 'steps' in content else 'neither'}")
    for key in ("steps", "epochs", "validations"):
        if key in content and not (isinstance(content[key], int) and content[key] >= 1):
            raise UsageError(f"{path}: {key}: found {content[key]!r}, expected a whole number of 1 or more")
    settings = merge(*[read_source(one) for one in str(content.get("config", "default")).split(",")], _settings(content))
    check_keys(settings, Config, str(path))
    return Budget(path.stem, settings, content.get("steps"), content.get("epochs"), content.get("validations", 5))


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: content[key] for key in SETTINGS if key in content}


def _read(name: str, folder: str, kind: str, known: Sequence[str]) -> tuple[Path, Any]:
    path = HERE / folder / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise UsageError(f"no {kind} or file '{name}'{nearest(name, known)} ({kind}: {', '.join(known)}; or the path of a YAML file)")
    try:
        return path, read_yaml(path)
    except ValueError as error:
        raise UsageError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def _check(content: Any, keys: Sequence[str], path: Path, prefix: str) -> None:
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: {prefix.rstrip('.') or 'the file'} should hold keys and values, found {short(content)}")
    for key in content:
        if key not in keys:
            raise UsageError(f"{path}: unknown key '{prefix}{key}'{nearest(str(key), keys)} (keys: {', '.join(keys)})")


def cells(study: Study, budget: Budget, data: DataSet, sha256: str, seeds: Sequence[int], steps: int | None = None) -> list[Cell]:
    """Every model that a study trains, row by row; rows that are the same model give equal keys.

    sha256: the data's hash, which takes reading every image. steps replaces the budget's. Models for one task get an equal
    share of the steps, so that a separate row sees as many images of each task as a row with one model for all.
    """
    images = len(data.split("train"))
    found = []
    for row in study.rows:
        groups = [(task,) for task in data.tasks.names] if row.separate else [tuple(data.tasks.names)]
        settings = merge(budget.settings, row.settings)
        batch = settings.get("training", {}).get("batch_size", TrainingConfig.batch_size)
        total = (steps or budget.total_steps(images, batch)) / len(groups)
        each = max(1, round(total / budget.validations))  # steps between validations
        course = {"sampling": {"epoch_images": each * batch, "balance": True}, "training": {"epochs": budget.validations}}
        config = build_config(merge(settings, course), source=f"study {study.name}, row {row.id}")
        config.check_trainable()
        for seed in seeds:
            seeded = replace(config, training=replace(config.training, seed=seed))
            found += [Cell(row.id, seed, tasks, seeded, sha256) for tasks in groups]
    return found
