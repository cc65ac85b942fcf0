"""What is written with a model that was made of other models: where they came from, what they were trained on, how they scored."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tpseg.data.hashes import COLUMNS, read_record
from tpseg.models.model import LesionModel
from tpseg.provenance import circumstances

DICE = "val/dice"


def descend(
    model: LesionModel, parents: Sequence[LesionModel], change: Mapping[str, Any], own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The provenance of a model made of others: this change, then all that is known of the parents, each with its own parents.

    model: with its tasks and its `data_record`. own: what tpseg.provenance and BestModel say of a training that was part of the
    change; without one, seed and course of training are the first parent's. Val Dice and splits are those of all the model's tasks:
    what a task answers is as it was in the model that it came from.
    """
    sources = [parent.provenance for parent in parents] + ([] if own is None else [own])
    latest = parents[0].provenance if own is None else own
    here = circumstances() if own is None else own
    content = {key: here[key] for key in ("date", "command")} | {"seed": latest.get("seed"), "change": dict(change)}
    data: dict[str, Any] = dict(latest.get("data", {}))
    data.pop("record_sha256", None)
    if model.data_record:
        data["record_sha256"] = hashlib.sha256(model.data_record.encode()).hexdigest()
    data["cases"] = {name: counts for one in sources for name, counts in one.get("data", {}).get("cases", {}).items()}
    content |= {"data": data, "versions": here["versions"], "machine": here["machine"]}
    content["training"] = {**latest.get("training", {}), "metrics": _dice(model, sources), "splits": model.splits()}
    return content | {key: value for key, value in latest.items() if key not in (*content, "parents")} | {
        "parents": [dict(parent.provenance) for parent in parents]
    }  # fmt: skip


def _dice(model: LesionModel, sources: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Val Dice of the model's tasks as far as it is known, and its mean if it is known of all."""
    known = {key: value for one in sources for key, value in one.get("training", {}).get("metrics", {}).items()}
    found = {key: known[key] for key in (f"{DICE}/{name}" for name in model.tasks.names) if key in known}
    return found | ({DICE: sum(found.values()) / len(found)} if len(found) == len(model.tasks) else {})


def join_records(first: str, second: str) -> str:
    """The text of `data.csv` of a model made of two: the rows of both, each once; none if one of them has no record.

    Half a record would make an evaluation say that the images of the other half were never seen.
    """
    if not first or not second:
        return ""
    rows = list(dict.fromkeys([*_rows(first), *_rows(second)]))
    return _write(rows)


def rename_in_record(text: str, old: str, new: str) -> str:
    """The same record with another name for a task; none stays none."""
    return text and _write([(new if task == old else task, *rest) for task, *rest in _rows(text)])


def rename_in_provenance(content: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """The same provenance with another name for a task in its counts and its val Dice; its parents keep theirs."""
    renamed = dict(content)
    if "cases" in renamed.get("data", {}):
        renamed["data"] = renamed["data"] | {"cases": {new if name == old else name: n for name, n in renamed["data"]["cases"].items()}}
    if "metrics" in renamed.get("training", {}):
        metrics = {f"{DICE}/{new}" if key == f"{DICE}/{old}" else key: value for key, value in renamed["training"]["metrics"].items()}
        renamed["training"] = renamed["training"] | {"metrics": metrics}
    return renamed


def _rows(text: str) -> list[tuple[str, ...]]:
    return [(one.task, one.split, one.image, one.mask) for one in read_record(text)]


def _write(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue()
