"""A study's table in the paper's layout: what its cells, headings and notes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tpseg.evaluation.metrics import PROTOCOLS
from tpseg.studies.plan import Row, Study
from tpseg.studies.statistics import AVERAGE, RESAMPLES
from tpseg.studies.table_formats import DASH, Cell, Heading, Line, Table

METRICS = ("dice", "iou")
BY_ROW = "tasks"
"""The layout with a line per row; in the other one, "averages", rows stand side by side."""
Lines = Mapping[tuple[str, str], Mapping[Any, Any]]
"""(row, task) to a line of the summary or the comparison."""


def study_table(study: Study, summary: pd.DataFrame, comparison: pd.DataFrame, titles: Mapping[str, str], protocol: str = "tpseg") -> Table:
    """The table of a study from `statistics.summarise` and `statistics.compare` of its scores, both with this protocol.

    titles: task to its short heading, in the order of the columns; a task without one stands last, under its name. Either frame may be
    empty: what has not been scored is a dash, and a note names it.
    """
    scores = {(str(line["row"]), str(line["task"])): line for line in summary.to_dict("records")}
    tests = {(str(line["row"]), str(line["task"])): line for line in comparison.to_dict("records")}
    titles = {**titles, **{task: task for _, task in scores if task not in titles and task != AVERAGE}}
    iou = "mIoU" if protocol == "tpseg" else "IoU"
    by_task = {} if study.layout != BY_ROW else titles
    columns = [
        (Heading(heading, text), _score_cells(study.rows, scores, task, metric))
        for task, heading in {**by_task, AVERAGE: "Average"}.items()
        for metric, text in zip(METRICS, ("Dice", iou), strict=True)
    ]
    columns += _test_columns(study, scores, tests)
    if any(row.paper for row in study.rows):
        columns += [
            (Heading("Paper", text), [_paper_cell(row, key) for row in study.rows]) for key, text in (("dice", "Dice"), ("miou", "mIoU"))
        ]
    notes = [*_method_notes(study, summary, protocol, iou), *_row_notes(study, scores)]
    tidy = _tidy(study.rows, scores, tests, [*titles, AVERAGE])
    headings, cells = [heading for heading, _ in columns], [list(of_column) for _, of_column in columns]
    if study.layout == BY_ROW:
        lines = [Line(row.group, (row.id, row.name), of_row) for row, *of_row in zip(study.rows, *cells, strict=True)]
        return Table(study.name, study.title, ("ID", "Setting"), headings, lines, notes, tidy)
    lines = [Line("", (str(heading),), of_column) for heading, of_column in columns]
    return Table(study.name, study.title, ("",), [Heading(row.group, row.name) for row in study.rows], lines, notes, tidy)


def _reference(study: Study) -> str:
    """What the table calls the reference: its line is headed with its id, its column with its name."""
    return next(row.id if study.layout == BY_ROW else row.name for row in study.rows if row.id == study.reference)


def _score_cells(rows: Sequence[Row], scores: Lines, task: str, metric: str) -> list[Cell]:
    """One column; the best number and the second best are marked, with all that look the same, if there are two rows or more."""
    found = [scores.get((row.id, task), {}) for row in rows]
    values = [_percent(line.get(metric)) for line in found]
    ranked = sorted({float(value) for value in values if value != DASH}, reverse=True)
    compared = sum(value != DASH for value in values) > 1
    marks = {f"{value:.2f}": mark for value, mark in zip(ranked, ("best", "second"), strict=False)} if compared else {}
    spreads = ["" if _missing(line.get(f"{metric}_spread")) else _percent(line[f"{metric}_spread"]) for line in found]
    return [Cell(value, spread, marks.get(value, "")) for value, spread in zip(values, spreads, strict=True)]


def _test_columns(study: Study, scores: Lines, tests: Lines) -> list[tuple[Heading, list[Cell]]]:
    """Interval of the average Dice, difference to the reference with its own, and the corrected p."""
    intervals, differences, p = [], [], []
    for row in study.rows:
        score, test = scores.get((row.id, AVERAGE), {}), tests.get((row.id, AVERAGE), {})
        intervals.append(Cell(_interval(_percent(score.get("dice_low")), _percent(score.get("dice_high")))))
        ends = _interval(_signed(test.get("low")), _signed(test.get("high")))
        difference = _signed(test.get("difference"))
        differences.append(Cell(difference if ends == DASH else f"{difference} ({ends})"))
        p.append(Cell(_p_value(test.get("p_corrected"))))
    over = "Average Dice"
    tested = [(Heading(over, f"less {_reference(study)}"), differences), (Heading(over, "corrected p"), p)]
    return [(Heading(over, "95 % interval"), intervals), *(tested if len(study.rows) > 1 else [])]


def _paper_cell(row: Row, key: str) -> Cell:
    value = row.paper.get(key, DASH)
    return Cell(value if isinstance(value, str) else f"{value:.2f}")


def _method_notes(study: Study, summary: pd.DataFrame, protocol: str, iou: str) -> list[str]:
    """Sentences that say what the numbers are and how they were made."""
    seeds = int(summary["seeds"].max()) if len(summary) else 0
    spread = "± is the standard deviation over seeds" if seeds > 1 else "there is no spread over seeds"
    notes = [
        f"Dice and {iou} in percent, protocol {protocol}: {PROTOCOLS[protocol].definition}. {seeds} seed{'s' * (seeds != 1)}; {spread}."
    ]
    notes.append("Best in bold, second best underlined, with all that look the same at two decimals.")
    drawn = "seeds and test images (groups, such as patients, where named) at once" if seeds > 1 else "test images (groups where named)"
    notes.append(f"95 % interval: percentile bootstrap, {RESAMPLES} resamples, that draws {drawn}.")
    if len(study.rows) > 1:
        called = _reference(study)
        notes.append(
            f"Less {called}: difference in average Dice to {called} in percentage points, on the same seeds and images, interval as above. "
            "p: two-sided paired sign-flip permutation test on differences per image (or group) averaged over seeds, corrected for the "
            "number of rows by Holm's method; it speaks of other images, the interval of other seeds as well."
        )
    if any(row.paper for row in study.rows):
        notes.append("Paper: what the TP-Seg paper prints, from other data, splits and weights; not to be compared with our numbers.")
    return notes


def _row_notes(study: Study, scores: Lines) -> list[str]:
    """Sentences on rows that lack scores or seeds, and what a definition says of the paper's numbers."""
    seeds = {row.id: int(scores.get((row.id, AVERAGE), {}).get("seeds", 0)) for row in study.rows}
    most = max([int(line["seeds"]) for line in scores.values()], default=0)
    names = {row.id: f"{row.id} ({row.name})" if row.id != row.name else row.id for row in study.rows}
    scored = {row for row, _ in scores}
    missing = [name for row, name in names.items() if row not in scored]
    fewer = [f"{name} {seeds[row]}" for row, name in names.items() if row in scored and seeds[row] < most]
    notes = [f"No scores (failed, or not run yet): {', '.join(missing)}."] if missing else []
    notes += [f"Fewer than {most} seeds with all tasks: {', '.join(fewer)}."] if fewer else []
    return notes + [f"Paper, {names[row.id]}: {str(row.paper['note']).rstrip('.')}." for row in study.rows if row.paper.get("note")]


def _tidy(rows: Sequence[Row], scores: Lines, tests: Lines, tasks: Sequence[str]) -> pd.DataFrame:
    """A line per row, task and metric, numbers in percent. Differences and p are those of Dice; the paper's numbers of averages."""
    lines = []
    for row, task, metric in [(row, task, metric) for row in rows for task in tasks for metric in METRICS]:
        score, test = scores.get((row.id, task), {}), tests.get((row.id, task), {}) if metric == "dice" else {}
        line: dict[str, Any] = {"row": row.id, "name": row.name, "group": row.group, "task": task, "metric": metric}
        line |= {key: score.get(key) for key in ("seeds", "images")}
        line["mean"] = _hundredfold(score.get(metric))
        line |= {key: _hundredfold(score.get(f"{metric}_{key}")) for key in ("spread", "low", "high")}
        line["difference"] = _hundredfold(test.get("difference"))
        line |= {f"difference_{key}": _hundredfold(test.get(key)) for key in ("low", "high")}
        line |= {key: test.get(key) for key in ("p", "p_corrected", "seeds_ahead")}
        lines.append({**line, "paper": row.paper.get("miou" if metric == "iou" else metric) if task == AVERAGE else None})
    return pd.DataFrame(lines).astype({"seeds": "Int64", "images": "Int64"})


def _missing(value: float | None) -> bool:
    return value is None or not np.isfinite(value)


def _hundredfold(value: float | None) -> float | None:
    return None if value is None or _missing(value) else round(100 * value, 6)


def _percent(value: float | None) -> str:
    return DASH if value is None or _missing(value) else f"{100 * value:.2f}"


def _signed(value: float | None) -> str:
    """In percentage points, with a sign, but no sign on what is shown as zero."""
    if value is None or _missing(value):
        return DASH
    text = f"{100 * value:+.2f}".replace("-", "−")
    return text[1:] if text[1:] == "0.00" else text


def _interval(low: str, high: str) -> str:
    return DASH if DASH in (low, high) else f"{low} to {high}"


def _p_value(p: float | None) -> str:
    return DASH if p is None or _missing(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
