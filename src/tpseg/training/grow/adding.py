"""`tpseg add-task`: a new task trained beside a model's others, of which not a bit changes."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tpseg.checkpoints.model_folder import find_model, load_model
from tpseg.core.config import Config
from tpseg.core.errors import DataError, UsageError, nearest
from tpseg.core.files import write_atomically
from tpseg.core.tasks import TaskSet
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.models.base import LesionModel
from tpseg.models.task_ownership import check_growable, extract, join, own_parameters, same_bits, seedling
from tpseg.training.grow.costs import Scores, score
from tpseg.training.grow.lineage import descend, join_records
from tpseg.training.grow.nearest import rank_tasks
from tpseg.training.grow.recipe import JOURNAL, Recipe, read_journal, read_recipe
from tpseg.training.run import is_finished, loaders, steps_done, train
from tpseg.training.run_folder import prepare_run

Split = Literal["first", "kept"]
NEAREST = "nearest"
NOTHING = "none"


@dataclass
class Growth:
    """What a run of add-task starts from and what it saves: the parent with the new task beside its own. A tpseg.training.run.Start."""

    source: str
    """The parent's folder or hub id."""
    weights: str | None
    """Where the parent's frozen trunk lies, as load_model takes it."""
    start: str | None
    """The task whose part the new one starts from; None: random numbers."""
    split: Split
    """Where the new task's own route begins."""

    @cached_property
    def parent(self) -> LesionModel:
        return load_model(self.source, weights=self.weights)

    def build(self, config: Config, tasks: TaskSet) -> LesionModel:
        child = seedling(self.parent, tasks[0], self.start, config.training.seed, own_routes=self.split == "first")
        if child.trunk is not None:
            child.trunk.checkpointing = config.training.checkpointing
        return child

    def saved(self, model: LesionModel, provenance: dict[str, Any], record: str) -> tuple[LesionModel, dict[str, Any], str]:
        grown = join(self.parent, model)
        grown.data_record = join_records(self.parent.data_record, record)
        change = {"verb": "add-task", "tasks": model.tasks.names, "start": self.start, "split": self.split}
        return grown, descend(grown, [self.parent], change, provenance), grown.data_record


@dataclass(frozen=True)
class Cost:
    """What a new task cost, and what it is worth."""

    task: str
    start: str | None
    ranking: list[dict[str, Any]]
    """task, similarity and dice of the model's tasks, nearest first; empty if not asked for."""
    origin: str
    """Where the recipe comes from."""
    added: int
    """Parameters that the new task owns."""
    parameters: int
    """Parameters of the grown model."""
    steps: int
    batch_size: int
    minutes: float | None
    """Of training, since it was last resumed; None if it was stopped after its last step and before this was written."""
    val_dice: float
    scores: Scores | None
    """On the test split, if other models were to be compared with."""


def add_task(
    source: Path | str,
    data: Path,
    task: str,
    out: Path,
    *,
    start: str = NEAREST,
    split: Split = "first",
    config: str | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    resume: bool = False,
    against: str | None = None,
    alone: bool = False,
    weights: str | None = None,
    bar: bool = True,
) -> Cost:
    """Train a task of `data` beside those of a trained model, all else frozen; writes the run folder `out`, its model/ with all tasks.

    start: `nearest` (by prototypes, see tpseg.training.grow.nearest), a task of the model, or `none`. split: `first` gives the new task its
    own route from the first block on, which learns more; `kept` that of its start, which shares more with the others. config, steps,
    learning_rate, seed: changes to the recipe, see tpseg.training.grow.recipe. against: a model that was trained on all tasks jointly, to
    compare with; alone: also train the task alone, by the same recipe. Raises UsageError for a model that cannot grow, names that
    clash and an `out` that holds another run; DataError for data that cannot be used.
    """
    parent = load_model(source, weights=weights)
    dataset = read_dataset(data).only([task])
    check_wanted(parent, source, dataset, start, against, alone)
    recipe = read_recipe(source, parent, config, steps, learning_rate, seed)
    settings = recipe.for_growth(parent)
    settings.check_trainable()
    total = planned_steps(settings, dataset, recipe.steps)
    fingerprint = hashlib.sha256((find_model(source) / "model.safetensors").read_bytes()).hexdigest()
    asked = {"parent_sha256": fingerprint, "from": start, "split": split}
    known = read_journal(out) if resume and (out / JOURNAL).is_file() else None
    if known is not None and [known[key] for key in asked] != list(asked.values()):
        raise UsageError(
            f"{out} was begun from another model, --from or --split than {source}, {start} and {split}; resume with the same, "
            "or choose another --out"
        )
    prepare_run(settings, data, out, recipe.steps, [task], resume)
    journal = known or begin(parent, dataset, start, recipe) | {"parent": str(source), **asked}
    write_journal(out, journal)
    growth = Growth(str(source), weights, journal["start"], split)
    began = time.monotonic()
    if "minutes" not in journal and not is_finished(out, total):
        train(settings, data, out, steps=recipe.steps, tasks=[task], resume=True, bar=bar, start=growth)
        journal["minutes"] = (time.monotonic() - began) / 60
        write_journal(out, journal)
    grown = load_model(out, weights=weights)
    check_unchanged(parent, grown, out)
    rivals: dict[str, str] = {} if against is None else {"joint": against}
    if alone:
        rivals["alone"] = str(train_alone(recipe, data, dataset, out / "alone", weights, bar))
    scores = score({"grown": str(out), **rivals}, dataset, out / "comparison", weights) if rivals else None
    cost = Cost(
        task, journal["start"], journal["ranking"], recipe.origin, sum(one.numel() for one in own_parameters(extract(grown, [task]))),
        sum(one.numel() for one in grown.parameters()), steps_done(out), settings.training.batch_size, journal.get("minutes"),
        grown.provenance["training"]["metrics"][f"val/dice/{task}"], scores,
    )  # fmt: skip
    write_journal(out, journal | {"cost": asdict(cost)})
    return cost


def check_wanted(parent: LesionModel, source: Path | str, dataset: DataSet, start: str, against: str | None, alone: bool) -> None:
    """Raise UsageError or DataError for what could not work, before anything is computed or written."""
    check_growable(parent)
    task = dataset.tasks[0].name
    if task in parent.tasks.names:
        raise UsageError(
            f"task '{task}': {source} knows a task of this name already (tasks: {', '.join(parent.tasks.names)}); give the new one another "
            f"name in {dataset.source}, or rename the old one with 'tpseg rename-task'"
        )
    if parent.config.hardened:
        raise UsageError(
            f"{source}: its gate is hardened and cannot be trained; add the task to the model it was hardened from, then harden that"
        )
    known = ", ".join(parent.tasks.names)
    if start == NEAREST and not parent.prototypes():
        raise UsageError(f"--from {NEAREST}: {source} has no prototypes to compare with; give --from {NOTHING} or a task ({known})")
    choices = [NEAREST, NOTHING, *parent.tasks.names]
    if start not in choices:
        raise UsageError(f"--from: found '{start}'{nearest(start, choices)}; expected {NEAREST}, {NOTHING} or a task ({known})")
    if against is not None:
        names = TaskSet.load(find_model(against) / "tasks.json").names
        if task not in names:
            raise UsageError(f"--against {against}: that model does not know task '{task}' (its tasks: {', '.join(names)})")
    if against is not None or alone:
        dataset.split("test")


def begin(parent: LesionModel, dataset: DataSet, start: str, recipe: Recipe) -> dict[str, Any]:
    """The journal of a run that begins: how near the model's tasks are and what the new one starts from."""
    ranking = [asdict(one) for one in rank_tasks(parent, dataset.split("train"))] if start == NEAREST else []
    chosen = ranking[0]["task"] if start == NEAREST else None if start == NOTHING else start
    settings = {key: value for key, value in recipe.config.to_dict().items() if key != "model"}
    return {
        "task": dataset.tasks[0].name,
        "start": chosen,
        "ranking": ranking,
        "recipe": settings,
        "recipe_steps": recipe.steps,
        "recipe_rate": recipe.learning_rate,
    }


def planned_steps(config: Config, data: DataSet, steps: int | None) -> int:
    """Optimiser steps of a run; raises DataError for data that it could not use."""
    total = math.ceil(len(loaders(config, data)[0]) / config.training.accumulate) * config.training.epochs
    return min(total, steps or total)


def check_unchanged(parent: LesionModel, grown: LesionModel, out: Path) -> None:
    """Raise DataError unless the grown model, as it lies on disk, holds every tensor of the old tasks and of the shared parts as it was."""
    before, after = parent.state_dict(), extract(grown, parent.tasks.names).state_dict()
    changed = [key for key in before if key not in after or not same_bits(before[key], after[key])]
    if changed or before.keys() != after.keys():
        raise DataError(
            f"{out}/model: {len(changed)} tensors are not those of the parent (first: {changed[0]}); train again with another --out"
        )


def train_alone(recipe: Recipe, data: Path, dataset: DataSet, out: Path, weights: str | None, bar: bool) -> Path:
    """The same network trained for the new task alone, from where training begins without a parent; what is done is not done again."""
    model = recipe.config.model if weights is None else replace(recipe.config.model, weights=weights)
    config = replace(recipe.config, model=model)
    if not is_finished(out, planned_steps(config, dataset, recipe.steps)):
        train(config, data, out, steps=recipe.steps, tasks=dataset.tasks.names, resume=(out / "settings.yaml").is_file(), bar=bar)
    return out


def write_journal(out: Path, content: dict[str, Any]) -> None:
    write_atomically(out / JOURNAL, json.dumps(content, indent=2) + "\n")
