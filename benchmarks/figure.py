"""The figure: cost against the number of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import plan
from benchmarks.rounds import Results
from tpseg.core.figures import PALETTE, save_figure

OURS, THEIRS = PALETTE[0], PALETTE[5]


def cost_against_tasks(path: Path, results: Results, content: Mapping[str, Any], trunk: str) -> None:
    """Write PATH.png, PATH.svg and PATH.txt: time by tasks asked for, time by tasks known, and parameters, for one trunk."""
    tasks = content["tasks"][trunk]
    one, eight = results.of(plan.ONE, "reference", trunk), results.of(plan.EIGHT, "reference", trunk)
    mixed = results.of(plan.MIXED, "reference", trunk)

    def draw(figure: Figure) -> None:
        asked, known, size = figure.subplots(1, 3)
        if one is not None and eight is not None:
            line(asked, {1: one.median, plan.TASKS: eight.median}, THEIRS, "reference: a pass per task")
        line(asked, tasks["seconds_by_tasks_asked_for"], OURS, "tpseg, splits in the middle")
        finish(asked, "One image, several tasks", "tasks asked for", "seconds")
        if mixed is not None:
            known.plot([plan.TASKS], [mixed.median], "o", color=THEIRS, label="reference")
        line(known, tasks["seconds_by_tasks_known"], OURS, "tpseg")
        finish(known, "Batch of four images", "tasks the model knows", "seconds")
        line(size, {number: count / 1e6 for number, count in tasks["parameters_by_tasks_known"].items()}, OURS, "tpseg")
        finish(size, "Size of the model", "tasks the model knows", "million parameters")

    pixels = content["image_size"][trunk]
    growth = tasks.get("seconds_from_fewest_to_most_tasks")
    caption = f"Cost against the number of tasks, Hiera-{trunk} at {pixels} px, {content['machine']['device']}. "
    if growth is not None:
        caption += (
            f"A mixed batch of four changes by {100 * growth:+.1f} % from {min(plan.TASKS_KNOWN)} to {max(plan.TASKS_KNOWN)} tasks known. "
        )
    save_figure(path, (9.6, 2.9), draw, caption + f"A task adds {tasks['parameters_per_task'] / 1e6:.2f} million parameters.")


def line(axes: Axes, values: Mapping[int, float], colour: str, label: str) -> None:
    axes.plot(list(values), list(values.values()), "o-", color=colour, label=label)


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Titles, ticks where something was measured, and an axis of costs that begins at nothing."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(0, 1.2 * max(float(cost) for drawn in axes.lines for cost in drawn.get_ydata()))
    axes.set_xticks(sorted({int(number) for drawn in axes.lines for number in drawn.get_xdata()}))
    if len(axes.lines) > 1:
        axes.legend()
