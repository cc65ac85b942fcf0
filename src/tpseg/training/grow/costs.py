"""What a new task cost and what it is worth, beside training it jointly with all others and alone: numbers and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from tpseg.checkpoints.model_folder import find_model, read_model_config
from tpseg.core.progress import track
from tpseg.data.manifest import DataSet
from tpseg.evaluation.compare import compare_evaluations
from tpseg.evaluation.evaluate import evaluate_model
from tpseg.inference import Segmenter

if TYPE_CHECKING:
    from tpseg.training.grow.adding import Cost

SPLIT = "test"
LABELS = {
    "grown": "grown: the task added, all else frozen",
    "joint": "joint: trained with all tasks",
    "alone": "alone: trained without the others",
}


@dataclass(frozen=True)
class Score:
    """Dice of one model on the new task's test images, protocol default."""

    dice: float
    interval: tuple[float, float]
    """95 % bootstrap, over images or groups."""
    difference: float | None
    """Grown less this one, image by image; None for the grown one itself."""
    difference_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Scores:
    """The grown model and those it is compared with, on the same images."""

    images: int
    models: dict[str, Score]
    """By `grown`, `joint`, `alone`."""


def score(models: Mapping[str, str], data: DataSet, place: Path, weights: str | None) -> Scores:
    """Score models on the test images of a data set of one task; writes place/NAME/test.csv and test.json for each."""
    found = {}
    (task,) = data.tasks.names
    for name, source in models.items():
        frozen = read_model_config(find_model(source))[1] is not None
        segmenter = Segmenter(source, weights=weights if frozen else None)
        numbers = evaluate_model(segmenter, data, SPLIT, ["all"], place / name, watch=track)["default"]["tasks"][task]
        found[name] = _score(numbers, place, name)
    return Scores(int(numbers["images"]), found)


def _score(numbers: Mapping, place: Path, name: str) -> Score:
    own = (numbers["dice"], tuple(numbers["dice_interval"]))
    if name == "grown":
        return Score(*own, None, None)
    row = compare_evaluations(place / "grown" / f"{SPLIT}.csv", place / name / f"{SPLIT}.csv").iloc[0]
    return Score(*own, float(row["difference"]), (float(row["low"]), float(row["high"])))


def ranking_table(cost: Cost) -> Table:
    """The model's tasks by how near they are to the new one."""
    caption = (
        "similarity: does lesion differ from background as it does for this task, by its prototypes, -1 to 1; Dice: of its own answers"
    )
    table = Table(title=f"Which task is nearest to {cost.task}", caption=caption)
    for heading in ("Task", "Similarity", "Dice % as it is"):
        table.add_column(heading, justify="left" if heading == "Task" else "right")
    for one in cost.ranking:
        chosen = " (start)" if one["task"] == cost.start else ""
        table.add_row(one["task"] + chosen, f"{one['similarity']:.3f}", f"{100 * one['dice']:.1f}")
    return table


def cost_table(cost: Cost) -> Table:
    """What the task cost."""
    table = Table(title=f"What {cost.task} cost", show_header=False)
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    table.add_row("parameters added", f"{cost.added:,}")
    table.add_row("share of the grown model", f"{100 * cost.added / cost.parameters:.2f} %")
    table.add_row("steps of training", f"{cost.steps} of {cost.batch_size} images")
    table.add_row("minutes of training", "not measured" if cost.minutes is None else f"{cost.minutes:.1f}")
    table.add_row("started from", cost.start or "random numbers")
    table.add_row("recipe", cost.origin)
    table.add_row("best val Dice %", f"{100 * cost.val_dice:.1f}")
    return table


def score_table(scores: Scores) -> Table:
    """The grown model beside the others."""
    caption = f"{scores.images} {SPLIT} images; protocol default; in brackets 95 % bootstrap intervals, of the difference over pairs"
    table = Table(title="Dice %", caption=caption)
    for heading in ("Model", "Dice %", "grown less this"):
        table.add_column(heading, justify="left" if heading == "Model" else "right")
    for name, one in scores.models.items():
        low, high = one.interval
        difference = ""
        if one.difference is not None and one.difference_interval is not None:
            ends = one.difference_interval
            difference = f"{100 * one.difference:+.1f} ({100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})"
        table.add_row(LABELS[name], f"{100 * one.dice:.1f} ({100 * low:.1f}–{100 * high:.1f})", difference)
    return table


def tables(cost: Cost) -> Group:
    """All of it for the terminal."""
    parts = [ranking_table(cost)] if cost.ranking else []
    parts.append(cost_table(cost))
    return Group(*parts, *([score_table(cost.scores)] if cost.scores else []))
