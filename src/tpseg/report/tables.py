"""The report's tables: text in cells, ready for the template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tpseg.core.config import Config
from tpseg.data.manifest import SPLITS
from tpseg.evaluation.metrics import PROTOCOLS
from tpseg.report.content import Content

EXTRAS = {"hd95": "HD95 px", "assd": "ASSD px", "sensitivity": "Sensitivity %", "precision": "Precision %"}
SHOWN_ELSEWHERE = ("data.cases.", "training.metrics.", "training.splits.")
"""Parts of provenance.json that the report's other sections show."""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first `names` columns are words, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] = ()
    """Last row, set apart; empty for none."""
    title: str = ""
    caption: str = ""
    names: int = 1


def percent(value: float | None) -> str:
    """`71.3`, or a dash where there is no number."""
    return "–" if value is None else f"{100 * value:.1f}"


def with_interval(value: float | None, interval: Sequence[float | None]) -> str:
    """`71.3 (68.0–74.2)` in percent; an interval that could not be had is left out."""
    low, high = interval
    return percent(value) if low is None or high is None else f"{percent(value)} ({percent(low)}–{percent(high)})"


def case_counts(content: Content) -> Table | None:
    """Cases per task and split: of the data set, or if it is not at hand those that provenance.json recorded."""
    if content.data is not None:
        keys = [(case.task, case.split) for case in content.data.cases]
        counts = {task.name: {split: keys.count((task.name, split)) for split in SPLITS} for task in content.tasks}
    else:
        counts = content.provenance.get("data", {}).get("cases", {})
    if not counts:
        return None
    modality = {task.name: task.modality for task in content.tasks}
    titles = content.titles()
    numbers = {name: [found.get(split, 0) for split in SPLITS] for name, found in counts.items()}
    rows = [[titles.get(name, name), modality.get(name, "–"), *map(str, found), str(sum(found))] for name, found in numbers.items()]
    sums = np.array(list(numbers.values())).sum(axis=0)
    return Table(["Task", "Modality", *SPLITS, "all"], rows, ["All tasks", "", *map(str, sums), str(sums.sum())], names=2)


def score_table(protocol: str, numbers: Mapping[str, Any], titles: Mapping[str, str]) -> Table:
    """One protocol's numbers per task and on average, its name and definition as the caption."""
    extras = [key for key in EXTRAS if key in numbers["average"]]
    rows = [[titles.get(name, name), str(entry["images"]), *_scores(entry, extras)] for name, entry in numbers["tasks"].items()]
    images = sum(entry["images"] for entry in numbers["tasks"].values())
    total = ["Average over tasks", str(images), *_scores(numbers["average"], extras)]
    definition = PROTOCOLS[protocol].definition if protocol in PROTOCOLS else "a protocol that this tpseg does not know"
    return Table(["Task", "Images", "Dice %", "IoU %", *(EXTRAS[key] for key in extras)], rows, total, protocol, f"{definition}.")


def _scores(entry: Mapping[str, Any], extras: Sequence[str]) -> list[str]:
    pairs = [with_interval(entry[key], entry[f"{key}_interval"]) for key in ("dice", "iou")]
    return pairs + [percent(entry.get(key)) if "%" in EXTRAS[key] else _pixels(entry.get(key)) for key in extras]


def _pixels(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def score_notes(summary: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """Sentences on what the numbers leave out, and on images that the model had seen before, these first."""
    notes = [f"{note[0].upper()}{note[1:]}." for note in _of_the_data(summary)]
    if "default" in summary:
        tasks = summary["default"]["tasks"].items()
        empty = [f"{titles.get(name, name)} {percent(entry['empty_share'])} %" for name, entry in tasks if entry.get("empty_share")]
        undefined = sum(entry.get("undefined_distances", 0) for _, entry in tasks)
        notes.append(f"Images without a lesion: {', '.join(empty) or 'none'}.")
        notes.append(f"HD95 and ASSD are undefined, and left out, on {undefined} images where truth or prediction is empty.")
    entries = [entry for numbers in summary.values() for entry in (numbers["average"], *numbers["tasks"].values())]
    if any(entry["dice_interval"][0] is None for entry in entries):
        notes.append("A task whose images are a single one, or all of one patient, has no interval.")
    return notes


def _of_the_data(summary: Mapping[str, Any]) -> list[str]:
    """What evaluation found out about the images, the same under every protocol; nothing where it was done before it did."""
    numbers: Mapping[str, Any] = next(iter(summary.values()), {})
    return [*numbers.get("warnings", ()), *numbers.get("notes", ())]


def separation_table(separations: Mapping[str, np.ndarray], dice: Mapping[str, float], titles: Mapping[str, str]) -> Table:
    """1 − cos(P_fg, P_bg) of each task at each PGTD, beside its Dice; separations (T,) by PGTD."""
    rows = [
        [title, *(f"{separation[position]:.2f}" for separation in separations.values()), percent(dice.get(name))]
        for position, (name, title) in enumerate(titles.items())
    ]
    return Table(["Task", *(name.upper() for name in separations), "Dice %"], rows)


def setting_tables(config: Config, steps: int | None) -> tuple[Table, Table]:
    """Settings that differ from the defaults, with the defaults beside them, and those that do not."""
    found, defaults = _flatten(config.to_dict()), _flatten(Config().to_dict())
    changed = [[key, _yaml(value), _yaml(defaults[key])] for key, value in found.items() if value != defaults[key]]
    if steps is not None:
        changed.append(["--steps", str(steps), "null"])
    same = [[key, _yaml(value)] for key, value in found.items() if value == defaults[key]]
    return Table(["Setting", "This run", "Default"], changed, names=3), Table(["Setting", "Value"], same, names=2)


def provenance_table(provenance: Mapping[str, Any]) -> Table:
    """Data hash, versions, seed, command and machine; counts, metrics and splits are shown elsewhere."""
    rows = [[key, _yaml(value)] for key, value in _flatten(provenance).items() if not key.startswith(SHOWN_ELSEWHERE)]
    return Table(["What", "Value"], rows, names=2)


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _yaml(value: object) -> str:
    """A value as one would write it in a settings file."""
    return value if isinstance(value, str) else json.dumps(value)
