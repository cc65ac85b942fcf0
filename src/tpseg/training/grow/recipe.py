"""How a new task is trained: as the model's other tasks were, for its share of the images and steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tpseg.checkpoints.model_folder import find_model
from tpseg.core.config import Config, build_config, load_config, merge, read_source
from tpseg.core.errors import DataError
from tpseg.core.untrusted import read_json
from tpseg.models.base import LesionModel
from tpseg.models.tpseg.network import TPSeg
from tpseg.training.run_folder import read_settings

FASTER = 4
"""Learning rate of a new task as a multiple of the recipe's: its own parts are few and begin near their goal (docs/growing.md)."""
JOURNAL = "growth.json"
"""In a run folder of add-task: what it was grown from and how, and in the end what it cost."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the training of one new task."""

    config: Config
    """With the parent's network, and learning rate and gate temperature as for a run that trains everything."""
    steps: int | None
    learning_rate: float | None
    """That was asked for in so many words."""
    origin: str
    """Where the settings come from, for people."""

    def for_growth(self, parent: LesionModel) -> Config:
        """`FASTER` than the recipe, and with the gate's temperature held where the parent's training left it: all tasks share it."""
        training = self.config.training
        training = replace(training, learning_rate=self.learning_rate or FASTER * training.learning_rate)
        gate = parent.gate if isinstance(parent, TPSeg) else None
        if gate is not None:
            held = float(gate.temperature)
            training = replace(training, gate_temperature=(held, held))
        return replace(self.config, training=training)


def read_recipe(
    source: Path | str, parent: LesionModel, changes: str | None, steps: int | None, learning_rate: float | None, seed: int | None
) -> Recipe:
    """The recipe of the run that a model lies in, or, where it lies in none, of the preset `default`; then what is asked for.

    The images of an epoch and the steps of that run were for all its tasks: one task gets its share of them. changes: presets or
    YAML files, comma-separated, of which `sampling` and `training` count. Raises UsageError for an unknown key or a wrong value.
    """
    run = find_model(source).parent
    if (run / JOURNAL).is_file():  # grown itself: its numbers are of one task already
        journal = read_journal(run)
        settings, given, rate, origin = journal["recipe"], journal["recipe_steps"], journal["recipe_rate"], f"as {run} was grown"
    elif (run / "settings.yaml").is_file():
        config, _, given = read_settings(run)
        settings, tasks, rate, origin = config.to_dict(), len(parent.tasks), None, f"as {run} was trained"
        if settings["sampling"]["epoch_images"] is not None:
            settings["sampling"]["epoch_images"] = max(1, round(settings["sampling"]["epoch_images"] / tasks))
        given = None if given is None else max(1, round(given / tasks))
    else:
        settings, given, rate, origin = (
            load_config(["default"]).to_dict(),
            None,
            None,
            "preset default, for the model lies in no run folder",
        )
    layer = merge(*[read_source(name) for name in (changes.split(",") if changes else [])])
    in_files = layer.get("training", {}).pop("learning_rate", None)
    learning_rate = learning_rate or in_files or rate
    content = merge(settings, layer, {} if seed is None else {"training": {"seed": seed}})
    if changes:
        origin += f", changed by {changes}"
    config = build_config({key: content[key] for key in ("sampling", "training")}, source="--config")
    return Recipe(replace(config, model=parent.config), steps or given, learning_rate, origin)


def read_journal(run: Path) -> dict[str, Any]:
    """growth.json of a run folder of add-task; raises DataError for one that is damaged."""
    path = run / JOURNAL
    try:
        content = read_json(path)
        if not {"parent_sha256", "task", "from", "split", "start", "ranking", "recipe", "recipe_steps", "recipe_rate"} <= content.keys():
            raise ValueError("keys are missing")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not written by 'tpseg add-task' ({error}); start anew with another --out") from error
    return content
