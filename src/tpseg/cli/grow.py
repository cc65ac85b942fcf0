"""Verbs for models that gain and lose tasks: add-task, remove-task, rename-task, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tpseg.cli.arguments import Outcome
from tpseg.cli.console import out_console


def say_uncalibrated(model: str, made: Path) -> None:
    """Tell a person whose model was calibrated that the new one, which knows other tasks, is not."""
    from tpseg.calibration.record import JSON
    from tpseg.checkpoints.model_folder import find_model

    if (find_model(model) / JSON).is_file():
        out_console.print(f"{model} is calibrated; this model is another and is not: tpseg calibrate {made} --data tasks.yaml")


def add_task(
    model: str,
    data: Path,
    task: str,
    out: Path,
    from_: str = "nearest",
    split: Literal["first", "kept"] = "first",
    config: str | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    resume: bool = False,
    against: str | None = None,
    alone: bool = False,
    weights: str | None = None,
) -> Outcome:
    """Add a task to a trained model: the old tasks' outputs stay identical, bit for bit.

    Trains the new task's route, gate row, heads and prototypes with all else frozen, by the recipe of the run that MODEL lies in:
    the new task is shown as many images as each old one was.

    Args:
        model: Model folder, run folder or hub id.
        data: A tasks.yaml that holds the new task.
        task: Its name there; the model must have none of that name.
        out: Run folder to write: model/ with all tasks, growth.json (what it cost), checkpoints/, logs/.
        from_: What the new task's part starts from: nearest, the task whose prototypes fit best, the name of a task, or none, random
            numbers.
        split: Where the new task's own route begins: first, at the first block, which learns more; kept, where that of its start does,
            so that several tasks on one image share more of a hardened model.
        config: Preset names or YAML files, comma-separated, laid over the recipe; their sampling and training count.
        steps: Stop after this many optimiser steps.
        learning_rate: Of the new task; by default four times the recipe's.
        seed: In the place of the recipe's.
        resume: Continue the run that `out` holds, with the same settings.
        against: A model trained on all tasks jointly: score both on the new task's test split.
        alone: Also train the same network for the new task alone, by the same recipe, and score it.
        weights: File of the frozen trunk, where neither its folder nor the hub nor TPSEG_WEIGHTS has it.
    """
    from tpseg.training.grow import add_task as run
    from tpseg.training.grow.costs import tables

    cost = run(
        model, data, task, out, start=from_, split=split, config=config, steps=steps, learning_rate=learning_rate, seed=seed, resume=resume,
        against=against, alone=alone, weights=weights,
    )  # fmt: skip
    out_console.print(tables(cost))
    out_console.print(f"grown: the best model is {out / 'model'}; the old tasks' tensors in it are the old model's, bit for bit")
    say_uncalibrated(model, out)
    return Outcome({"run": out, "model": out / "model", "cost": cost})


def remove_task(model: str, names: list[str], out: Path, weights: str | None = None) -> Outcome:
    """Take tasks out of a model; what the others answer stays identical. The shared parts do not forget what they have seen.

    Args:
        model: Model folder, run folder or hub id.
        names: The tasks to take out.
        out: Folder to write model/ into.
        weights: File of the frozen trunk, where neither its folder nor the hub nor TPSEG_WEIGHTS has it.
    """
    from tpseg.training.grow import remove_tasks

    place = remove_tasks(model, names, out, weights)
    out_console.print(f"wrote {place}")
    say_uncalibrated(model, out)
    return Outcome({"model": place, "removed": names})


def rename_task(model: str, old: str, new: str, out: Path, weights: str | None = None) -> Outcome:
    """Give a task of a model another name; what 'tpseg calibrate' found goes along.

    Args:
        model: Model folder, run folder or hub id.
        old: The task's name.
        new: Its new name: letters, digits, '_' and '-'.
        out: Folder to write model/ into.
        weights: File of the frozen trunk, where neither its folder nor the hub nor TPSEG_WEIGHTS has it.
    """
    from tpseg.training.grow import rename_task as run

    place = run(model, old, new, out, weights)
    out_console.print(f"wrote {place}")
    return Outcome({"model": place, "old": old, "new": new})


def merge(first: str, second: str, out: Path, weights: str | None = None) -> Outcome:
    """Put two models together that were grown from one parent: the first with the tasks that only the second has.

    Args:
        first: Model folder, run folder or hub id.
        second: The other one.
        out: Folder to write model/ into.
        weights: File of the frozen trunk, if it is not where the models' config.json say.
    """
    from tpseg.training.grow import merge as run

    place, added = run(first, second, out, weights)
    out_console.print(f"wrote {place}: {first} with {', '.join(added)}")
    say_uncalibrated(first, out)
    say_uncalibrated(second, out)
    return Outcome({"model": place, "added": added})
