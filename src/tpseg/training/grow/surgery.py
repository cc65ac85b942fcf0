"""Models made of trained models without training: a task taken out, a task with another name, two models put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tpseg.calibration.record import load_trust, save_trust
from tpseg.checkpoints.model_folder import find_model, load_model, refresh_card, save_model
from tpseg.core.errors import UsageError
from tpseg.core.tasks import TaskSet
from tpseg.models.base import LesionModel
from tpseg.models.task_ownership import check_same_shared, extract, join, own_state, same_bits
from tpseg.training.grow.lineage import descend, family, join_records, rename_in_provenance, rename_in_record, rename_in_trust


def remove_tasks(source: Path | str, names: Sequence[str], out: Path, weights: str | None = None) -> Path:
    """Write OUT/model without some of a model's tasks and without the tensors that were theirs; returns OUT/model.

    What all tasks share was trained on the images of those tasks too and stays, and so does their row in data.csv: this makes a
    model smaller, it does not make it forget. Raises UsageError for a name that is not there and if no task would be left.
    """
    check_place(out)
    parent = load_model(source, weights=weights)
    gone = {parent.tasks[parent.tasks.id(name)].name for name in names}
    kept = [name for name in parent.tasks.names if name not in gone]
    if not kept:
        raise UsageError(f"{source}: no task would be left (tasks: {', '.join(parent.tasks.names)}); name fewer")
    part = extract(parent, kept)
    return write(part, [parent], {"verb": "remove-task", "tasks": sorted(gone)}, out)


def rename_task(source: Path | str, old: str, new: str, out: Path, weights: str | None = None) -> Path:
    """Write OUT/model with another name for a task; returns OUT/model. A calibration goes along: the weights are the same.

    Raises UsageError for a name that is not there or taken, DataError for a calibration that is damaged or another model's.
    """
    check_place(out)
    model = load_model(source, weights=weights)
    trust = load_trust(find_model(source))
    position = model.tasks.id(old)
    if new in model.tasks.names:
        raise UsageError(f"task '{new}': the model has a task of this name already (tasks: {', '.join(model.tasks.names)})")
    entries = [replace(task, name=new) if id == position else task for id, task in enumerate(model.tasks)]
    model.tasks = TaskSet(entries)
    known = model.provenance
    model.provenance = rename_in_provenance(known, old, new)
    model.data_record = rename_in_record(model.data_record, old, new)
    content = descend(model, [model], {"verb": "rename-task", "old": old, "new": new})
    save_model(model, out / "model", content | family([known]))
    if trust is not None:
        save_trust(rename_in_trust(trust, old, new), out / "model")
        refresh_card(out / "model")
    return out / "model"


def merge(first: Path | str, second: Path | str, out: Path, weights: str | None = None) -> tuple[Path, list[str]]:
    """Write OUT/model: the first model with the tasks that only the second has; returns OUT/model and their names.

    Both must have been grown from one parent: what tasks share must be equal, bit for bit. Raises UsageError if it is not, if
    a name stands for different weights in the two, and if the second has nothing that the first has not.
    """
    check_place(out)
    one, other = (load_model(source, weights=weights) for source in (first, second))
    check_same_shared(one, other)
    for name in one.tasks.names:
        if name in other.tasks.names and not same_part(one, other, name):
            raise UsageError(
                f"task '{name}' is in {first} and in {second}, with different weights; give one of them another name first: "
                f"tpseg rename-task {second} {name} {name}_2 --out RENAMED"
            )
    added = [name for name in other.tasks.names if name not in one.tasks.names]
    if not added:
        raise UsageError(f"{second}: has no task that {first} has not (tasks: {', '.join(other.tasks.names)}); there is nothing to merge")
    merged = join(one, extract(other, added))
    merged.data_record = join_records(one.data_record, other.data_record)
    return write(merged, [one, other], {"verb": "merge", "tasks": added}, out), added


def same_part(one: LesionModel, other: LesionModel, name: str) -> bool:
    """Whether a task's own tensors are the same, bit for bit, in two models."""
    first, second = (own_state(extract(model, [name])) for model in (one, other))
    return first.keys() == second.keys() and all(same_bits(first[key], second[key]) for key in first)


def write(model: LesionModel, parents: Sequence[LesionModel], change: dict[str, object], out: Path) -> Path:
    """Write OUT/model with what is known of its parents."""
    save_model(model, out / "model", descend(model, parents, change), model.data_record)
    return out / "model"


def check_place(out: Path) -> None:
    """Raise UsageError unless `out` is a folder to be made, or an empty one."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; choose another --out")
