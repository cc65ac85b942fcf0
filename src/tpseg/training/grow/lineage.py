"""What is written with a model that was made of other models: where they came from, what they were trained on, how they scored."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tpseg.calibration.record import Trust
from tpseg.core.errors import DataError
from tpseg.data.hashes import COLUMNS, read_record
from tpseg.models.base import LesionModel
from tpseg.training.provenance import circumstances

DICE = "val/dice"
FAMILY = ("parents", "ancestors")
"""In a provenance: those of the models that a model was made of, and of those that these were made of, each without its own family.

Side by side, not one within the other: a model may be grown a hundred times, and JSON that is nested so deep is not read.
"""


def descend(
    model: LesionModel, parents: Sequence[LesionModel], change: Mapping[str, Any], own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The provenance of a model made of others: this change, then all that is known of its parents and of theirs.

    model: with its tasks and its `data_record`. own: what tpseg.training.provenance and BestModel say of a training that was part of the
    change; without one, seed and course of training are the first parent's. Val Dice and splits are those of all the model's tasks:
    what a task answers is as it was in the model that it came from. Raises DataError for parents whose provenance tpseg did not write.
    """
    try:
        return _descend(model, parents, change, own)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"provenance.json of the model that this one is made of: not written by tpseg ({error!r})") from error


def _descend(
    model: LesionModel, parents: Sequence[LesionModel], change: Mapping[str, Any], own: Mapping[str, Any] | None
) -> dict[str, Any]:
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
    content |= {key: value for key, value in latest.items() if key not in (*content, *FAMILY)}
    return content | family([parent.provenance for parent in parents])


def family(parents: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The entries FAMILY of a model made of parents with these provenances: each model that is in it once, the latest first."""
    ancestors: list[dict[str, Any]] = []
    for one in (one for parent in parents for one in forebears(parent)):
        ancestors += [] if one in ancestors else [one]
    return {"parents": [_alone(parent) for parent in parents]} | ({"ancestors": ancestors} if ancestors else {})


def forebears(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The provenances of all models that a model was made of, each without its family, which it has if an older tpseg wrote it."""
    for one in (*content.get("parents", []), *content.get("ancestors", [])):
        yield _alone(one)
        yield from forebears(one)


def _alone(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in FAMILY}


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
        renamed["data"] = renamed["data"] | {"cases": _rename_key(renamed["data"]["cases"], old, new)}
    if "metrics" in renamed.get("training", {}):
        metrics = _rename_key(renamed["training"]["metrics"], f"{DICE}/{old}", f"{DICE}/{new}")
        renamed["training"] = renamed["training"] | {"metrics": metrics}
    return renamed


def rename_in_trust(trust: Trust, old: str, new: str) -> Trust:
    """The same calibration with another name for a task, also in what it says that was measured; for weights that are the same.

    Raises DataError for one that tpseg did not write.
    """
    said = dict(trust.provenance)
    try:
        for part in ("measured", "confidence"):
            if part in said:
                said[part] = {split: _rename_in_tables(found, old, new) for split, found in said[part].items()}
    except AttributeError as error:
        raise DataError(
            f"trust.json: not written by tpseg ({error}); make it anew with: tpseg calibrate MODEL --data tasks.yaml"
        ) from error
    tasks = tuple(new if name == old else name for name in trust.tasks)
    return replace(trust, tasks=tasks, confidence=_rename_key(trust.confidence, old, new), provenance=said)


def _rename_in_tables(found: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """What was measured on a split, its tables by task with another name for one."""
    return {key: _rename_key(value, old, new) if isinstance(value, dict) else value for key, value in found.items()}


def _rename_key(table: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in table.items()}


def _rows(text: str) -> list[tuple[str, ...]]:
    return [(one.task, one.split, one.image, one.mask) for one in read_record(text)]


def _write(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue()
