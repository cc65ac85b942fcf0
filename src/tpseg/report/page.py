"""`write_report`: what a run folder holds, drawn, tabulated and put into one HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tpseg.checkpoints.card import tasks_without_val
from tpseg.core.files import write_atomically
from tpseg.inference import Segmenter
from tpseg.report import figures, prototypes, tables
from tpseg.report.content import Content, read_content
from tpseg.report.figures import legend_height, render, svg_uri
from tpseg.report.pictures import Shown, example_cases, predicted_cases


@dataclass(frozen=True)
class Figure:
    """An inlined picture with its words."""

    uri: str
    alt: str
    title: str = ""
    caption: str = ""


def write_report(run: Path, data: Path | None = None, split: str = "test") -> Path:
    """Write `RUN/report.html` on a run folder, whole or not at all; returns its path.

    data: where the data set's tasks.yaml lies now, if it moved; split: the evaluated split to show. Parts that the run
    does not have are named in a sentence. Raises UsageError if `run` is no run folder, DataError for damaged files in it.
    """
    content = read_content(run, data, split)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    path = run / "report.html"
    write_atomically(path, environment.get_template("template.html").render(page(content)))
    return path


def page(content: Content) -> dict[str, Any]:
    """The template's variables."""
    return {
        "name": content.run.resolve().name,
        "today": datetime.now(timezone.utc).date().isoformat(),
        "split": content.split,
        "tasks": content.tasks,
        "titles": content.titles(),
        "missing": content.missing,
        "unfinished": content.unfinished,
        "headline": headline(content),
        "counts": tables.case_counts(content),
        "examples": examples(content),
        "curves": curves(content),
        "splits_note": splits_note(content),
        "scores": [tables.score_table(name, numbers, content.titles()) for name, numbers in content.summary.items()],
        "scores_notes": tables.score_notes(content.summary, content.titles()),
        **cases(content),
        "gates": gates(content),
        **prototype_part(content),
        "calibration": calibration(content),
        "settings": tables.setting_tables(content.config, content.steps),
        "provenance": tables.provenance_table(content.provenance),
        "unchosen": [content.titles().get(name, name) for name in tasks_without_val(content.provenance)],
        "kept": content.provenance.get("training", {}).get("epoch"),
        "percent": tables.percent,
    }


def headline(content: Content) -> dict[str, str]:
    """The mean Dice, its interval and its protocol; empty without an evaluation."""
    name = content.headline_protocol()
    if name is None:
        return {}
    average = content.summary[name]["average"]
    low, high = average["dice_interval"]
    interval = "" if low is None else f"95 % interval {tables.percent(low)}–{tables.percent(high)}"
    tasks = content.summary[name]["tasks"]
    images = sum(entry["images"] for entry in tasks.values())
    return {
        "dice": tables.percent(average["dice"]),
        "interval": interval,
        "protocol": name,
        "images": str(images),
        "tasks": str(len(tasks)),
    }


def examples(content: Content) -> dict[str, list[Shown]]:
    """Example images by task; empty without the data."""
    if content.data is None:
        return {}
    shown = {task.name: example_cases(content.data, task.name) for task in content.tasks}
    return {name: several for name, several in shown.items() if several}


def curves(content: Content) -> list[Figure]:
    """The learning curves that metrics.csv has columns for."""
    history, titles = content.history, content.titles()
    if history is None:
        return []
    kept = content.provenance.get("training", {}).get("epoch")
    scored = {name: title for name, title in titles.items() if f"val/dice/{name}" in history}
    split = {name: title for name, title in titles.items() if f"split/{name}" in history}
    below = legend_height(list(titles.values()))
    found = [Figure(render(figures.draw_losses, history, kept, height=250), "training and validation loss over epochs", "Loss")]
    if scored:
        found.append(Figure(render(figures.draw_dice, history, kept, height=250), "mean validation Dice over epochs", "Val Dice, %"))
        drawn = render(figures.draw_task_dice, history, scored, kept, height=245 + below)
        found.append(Figure(drawn, "validation Dice of each task over epochs", "Val Dice per task, %"))
    if _moved(history, split):
        drawn = render(figures.draw_splits, history, split, kept, height=245 + below)
        found.append(Figure(drawn, "split block of each task over epochs", "Learned split b*, block"))
    return found


def splits_note(content: Content) -> str:
    """A sentence where there is no figure of the learned splits, or ''."""
    if content.history is None:
        return ""
    split = [name for name in content.titles() if f"split/{name}" in content.history]
    if not split:
        return "This run has no split gate, so no split b* was learned."
    return "" if _moved(content.history, split) else "No task's split b* moved from one epoch to the next."


def _moved(history: pd.DataFrame, tasks: Iterable[str]) -> bool:
    """Whether the split of any of the tasks changed from one epoch to another."""
    return any(history[f"split/{name}"].nunique() > 1 for name in tasks)


def cases(content: Content) -> dict[str, Any]:
    """Best, median and worst cases with the colour bar of their similarity maps, or the sentence that says why not."""
    if content.rows is None:
        return {"cases": {}, "cases_missing": "Cases are picked by their Dice: evaluate the run to see them.", "colour_bar": ""}
    if content.model is None or content.data is None:
        absent = [content.missing[part] for part in ("model", "data") if part in content.missing]
        return {"cases": {}, "cases_missing": " ".join(absent), "colour_bar": ""}
    shown, limit = predicted_cases(Segmenter(content.model), content.data, content.rows, content.split)
    if limit is None:
        return {"cases": shown, "cases_missing": "", "colour_bar": ""}
    return {"cases": shown, "cases_missing": "", "colour_bar": colour_bar(limit, "− background · lesion +")}


def colour_bar(limit: float, label: str) -> str:
    return render(figures.draw_colour_bar, limit, label, width=164, height=50)


def gates(content: Content) -> list[Figure]:
    """Each task's gate over the blocks; empty for a model without a gate."""
    weights = None if content.model is None else content.model.gate_weights()
    if content.model is None or weights is None:
        return []
    values, splits = weights.cpu().numpy(), content.model.splits()
    draw = partial(render, figures.draw_gate, values, width=270, height=165)
    return [
        Figure(draw(position, splits[task.name]), f"gate of {task.title} over the blocks", task.title)
        for position, task in enumerate(content.model.tasks)
    ]


def calibration(content: Content) -> dict[str, Any]:
    """The figures that `tpseg calibrate` drew, and its verdict; empty for a run that was not calibrated."""
    titles = {
        "reliability": "Probabilities of pixels",
        "expected_dice": "Expected and true Dice",
        "review": "What a review finds",
        "confusion": "Which task an image is taken for",
    }
    figures = [
        Figure(svg_uri(svg), titles[name], titles[name], caption) for name, (svg, caption) in content.calibration.get("figures", {}).items()
    ]
    return {**content.calibration, "figures": figures} if figures else {}


def prototype_part(content: Content) -> dict[str, Any]:
    """Cosine matrices and foreground-background separation of every PGTD; empty for a model without prototypes."""
    found = {} if content.model is None else {name: tensor.cpu().numpy() for name, tensor in content.model.prototypes().items()}
    titles, dice = content.titles(), content.dice()
    apart = {name: prototypes.separation(values) for name, values in found.items()}
    scored = [position for position, task in enumerate(content.tasks) if task.name in dice]
    scores = np.array([dice[content.tasks[position].name] for position in scored])
    names = [content.tasks[position].title for position in scored]
    below = legend_height(names)
    return {
        "matrices": [
            Figure(
                render(figures.draw_cosines, prototypes.foreground_cosines(values), list(titles.values()), height=figures.WIDTH),
                f"cosines between the foreground prototypes at {name}",
                name.upper(),
            )
            for name, values in found.items()
        ],
        "cosine_bar": colour_bar(1.0, "cosine similarity") if found else "",
        "separation": tables.separation_table(apart, dice, titles) if found else None,
        "scatters": [
            Figure(
                render(figures.draw_separation, values[scored], scores, names, height=245 + below),
                f"separation of foreground and background at {name} against Dice",
                name.upper(),
                prototypes.correlation_sentence(values[scored], scores),
            )
            for name, values in apart.items()
            if scored
        ],
    }
