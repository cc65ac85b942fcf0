"""What a run folder holds, read for the report; for what is not there, a sentence that says why."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tpseg.checkpoints.model_folder import load_model
from tpseg.core.config import Config
from tpseg.core.errors import DataError, TPSegError, UsageError, nearest
from tpseg.core.files import read_json_object
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.manifest import SPLITS, DataSet, read_dataset
from tpseg.evaluation.evaluate import read_rows
from tpseg.models.base import LesionModel
from tpseg.training.run_folder import read_settings

CALIBRATION = ("reliability", "expected_dice", "review", "confusion")
"""The figures that `tpseg calibrate` draws of a split."""


@dataclass(frozen=True)
class Content:
    """All that the report tells of; a part is None or empty if the run does not have it, and `missing` says why."""

    run: Path
    split: str
    config: Config
    steps: int | None
    tasks: tuple[Task, ...]
    model: LesionModel | None
    data: DataSet | None
    history: pd.DataFrame | None
    """A row per epoch, as logs/metrics.csv has it."""
    summary: dict[str, Any]
    """{protocol: {"tasks": {name: numbers}, "average": numbers}}, as evaluation/SPLIT.json has it."""
    rows: pd.DataFrame | None
    """A row per image, as evaluation/SPLIT.csv has it."""
    provenance: dict[str, Any]
    missing: dict[str, str]
    """Sentences by part: model, data, history, evaluation, calibration."""
    calibration: dict[str, Any]
    """What `tpseg calibrate` left in trust/: split, verdict (lines), figures (name to SVG and caption); empty without."""
    unfinished: str
    """A sentence on a run that has not come to its end, or ''."""

    def titles(self) -> dict[str, str]:
        """What people call a task, by its name."""
        return {task.name: task.title for task in self.tasks}

    def headline_protocol(self) -> str | None:
        """The protocol whose numbers stand for the run: `default`, or the first there is."""
        return "default" if "default" in self.summary else next(iter(self.summary), None)

    def dice(self) -> dict[str, float]:
        """Dice per task under the headline's protocol; a task without a number is left out."""
        protocol = self.headline_protocol()
        tasks = self.summary[protocol]["tasks"] if protocol else {}
        return {name: numbers["dice"] for name, numbers in tasks.items() if numbers["dice"] is not None}


def read_content(run: Path, data: Path | None, split: str) -> Content:
    """Read a run folder; data is where its tasks.yaml lies now, if it moved.

    Raises UsageError if `run` is no run folder, DataError for a `data` that cannot be read and for damaged logs or scores.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}{nearest(split, SPLITS)} (splits: {', '.join(SPLITS)})")
    config, trained_on, steps = read_settings(run)
    missing: dict[str, str] = {}
    model = _read_model(run, missing)
    dataset = read_dataset(data) if data is not None else _read_recorded_data(trained_on, missing)
    summary, rows = _read_evaluation(run, data or trained_on, split, missing)
    history = _read_history(run, missing)
    return Content(
        run, split, config, steps, _tasks(run, model, dataset), model, dataset, history, summary, rows,
        _read_json(run / "model" / "provenance.json"), missing, _read_calibration(run, split, missing), unfinished(config, steps, history),
    )  # fmt: skip


def unfinished(config: Config, steps: int | None, history: pd.DataFrame | None) -> str:
    """How far a run has come that is not at its end, by its table of epochs; '' for one that has ended, early stopping included."""
    epochs, patience = config.training.epochs, config.training.early_stopping
    if history is None or history.empty:
        far = "no epoch has ended yet"
    else:
        done, step = int(history["epoch"].iloc[-1]), int(history["step"].iloc[-1]) if "step" in history else 0
        if done >= epochs or (steps is not None and step >= steps):
            return ""
        if patience is not None and "val/dice" in history and len(history) - 1 - int(history["val/dice"].argmax()) >= patience:
            return ""
        far = f"epoch {done} of {epochs} is done, step {step}{'' if steps is None else f' of {steps}'}"
    return (
        f"This run has not come to its end: {far}. It may still be training, or have been interrupted; what follows is how far it had come "
        "when this page was written. The command that it was started with goes on with it, with --resume added."
    )


def _read_model(run: Path, missing: dict[str, str]) -> LesionModel | None:
    if not (run / "model").is_dir():
        missing["model"] = "This run has no model yet: the first is saved when the first epoch has been validated."
        return None
    try:
        return load_model(run)
    except TPSegError as error:
        missing["model"] = f"The model could not be loaded: {error}."
        return None


def _read_recorded_data(path: Path, missing: dict[str, str]) -> DataSet | None:
    try:
        return read_dataset(path)
    except DataError as error:
        missing["data"] = f"The data set is not where it was in training; say where it is with --data. ({error})"
        return None


def _tasks(run: Path, model: LesionModel | None, data: DataSet | None) -> tuple[Task, ...]:
    """The model's tasks; without a model those of its file, or else of the data."""
    if model is not None:
        return tuple(model.tasks)
    file = run / "model" / "tasks.json"
    return tuple(TaskSet.load(file)) if file.is_file() else tuple(data.tasks if data is not None else ())


def _read_history(run: Path, missing: dict[str, str]) -> pd.DataFrame | None:
    path = run / "logs" / "metrics.csv"
    if not path.is_file():
        missing["history"] = "No epoch of this run has ended yet, so there are no curves."
        return None
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path}: cannot be read as a table of epochs ({error})") from error
    if "epoch" not in history or not all(pd.api.types.is_numeric_dtype(kind) for kind in history.dtypes):
        raise DataError(f"{path}: expected a table written by 'tpseg train' with an 'epoch' column and numbers only")
    return history


def _read_evaluation(run: Path, data: Path, split: str, missing: dict[str, str]) -> tuple[dict[str, Any], pd.DataFrame | None]:
    numbers, table = (run / "evaluation" / f"{split}.{kind}" for kind in ("json", "csv"))
    if not numbers.is_file() or not table.is_file():
        command = f"tpseg evaluate {shlex.quote(str(run))} --data {shlex.quote(str(data))} --split {split}"
        missing["evaluation"] = f"This run has not been evaluated on its {split} split yet. Do so with: {command}"
        return {}, None
    summary = _read_json(numbers)
    try:
        entries = [entry for protocol in summary.values() for entry in (protocol["average"], *protocol["tasks"].values())]
        complete = bool(entries) and all({"dice", "iou", "dice_interval", "iou_interval"} <= entry.keys() for entry in entries)
    except (KeyError, TypeError, AttributeError):
        complete = False
    if not complete:
        raise DataError(f"{numbers}: not a summary written by 'tpseg evaluate' (Dice and IoU with intervals, per protocol); run it again")
    return summary, read_rows(table)


def _read_calibration(run: Path, split: str, missing: dict[str, str]) -> dict[str, Any]:
    """Of the split, or of val where calibration found no images of it."""
    place = run / "trust"
    for shown in dict.fromkeys((split, "val")):
        found = {name: place / f"{name}_{shown}" for name in CALIBRATION if (place / f"{name}_{shown}.svg").is_file()}
        if found:
            figures = {name: (path.with_suffix(".svg").read_bytes(), _caption(path.with_suffix(".txt"))) for name, path in found.items()}
            return {"split": shown, "verdict": _caption(place / f"verdict_{shown}.txt").splitlines(), "figures": figures}
    missing["calibration"] = f"This run has not been calibrated. Do so with: tpseg calibrate {shlex.quote(str(run))} --data tasks.yaml"
    return {}


def _caption(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one if there is no such file."""
    return read_json_object(path, "cannot be read as JSON") if path.is_file() else {}
