"""From masks and predictions to a table with a row per image, a summary per protocol, and files of both."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tpseg.core.errors import DataError, UsageError
from tpseg.core.files import write_atomically
from tpseg.core.prefetch import THREADS, ahead
from tpseg.core.untrusted import printable
from tpseg.data.hashes import Comparison, compare_with_record, read_record
from tpseg.data.manifest import Case, DataSet
from tpseg.data.pairs import read_pair
from tpseg.evaluation.metrics import PROTOCOLS, Protocol, bootstrap_sums, percentile_interval, resolve_protocols, score_image
from tpseg.evaluation.predictions import read_predictions
from tpseg.imaging.pictures.formats import read_mask
from tpseg.inference import Segmenter
from tpseg.inference.network import TorchNetwork

TEXT_COLUMNS = ("task", "image", "split", "group")
OPTIONAL_TEXT = ("set",)
"""Which tables of an older tpseg have not."""
EXTRAS = ("hd95", "assd", "sensitivity", "precision")
"""What the `default` protocol reports beside Dice and IoU: means over the images where they are defined."""
_HEADINGS = {"hd95": "HD95", "assd": "ASSD", "sensitivity": "Sens.", "precision": "Prec."}


@dataclass(frozen=True)
class Predicted:
    """What is scored of one image."""

    probability: np.ndarray
    """(H, W) in [0, 1], of the mask's size."""
    own: np.ndarray | None = None
    """(S, S), the model's own map at its input size; None where the maps came as files."""


Watch = Callable[[Iterable[Predicted], int, str], Iterable[Predicted]]
"""Passes predictions on and may show how far it is: (predictions, how many, description)."""


def pass_on(predicted: Iterable[Predicted], total: int, description: str) -> Iterable[Predicted]:
    """A Watch that shows nothing."""
    return predicted


def score_cases(cases: Iterable[Case], predicted: Iterable[Predicted], input_size: int) -> pd.DataFrame:
    """One row per image: task, image, split, group, set, height, width, then the scores of `score_image`.

    predicted: one for each case, in the order of the cases. Both are taken one by one, so a generator keeps one map in memory.
    Raises DataError that names the image for a map that does not fit its mask.
    """
    rows = []
    for case, one in zip(cases, predicted, strict=True):
        truth = read_mask(case.mask).mask
        try:
            scores = score_image(one.probability, truth, input_size, one.own)
        except DataError as error:
            raise DataError(f"{case.image}: {error}") from error
        height, width = truth.shape
        head = {"task": case.task, "image": case.name, "split": case.split, "group": case.group, "set": case.part}
        rows.append({**head, "height": height, "width": width, **scores})
    if not rows:
        raise DataError("nothing to evaluate: the list of cases is empty")
    return pd.DataFrame(rows)


def summarise(rows: pd.DataFrame, protocols: Sequence[str]) -> dict[str, Any]:
    """Numbers per protocol, task and average over tasks, ready for JSON: plain floats, None where undefined.

    {protocol: {"tasks": {name: {"dice", "iou", "dice_interval", "iou_interval", "images"}}, "average": {...}}}; `default`
    carries `EXTRAS` too, and per task "empty_share" (of images whose truth is empty) and "undefined_distances" (images left
    out of hd95 and assd). A task of images of several sets has "sets", {name: {"dice", "iou", "images"}}, and "mean_over_sets".
    Intervals are 95 % bootstrap intervals over images, or groups where named; the average's uses the same resamples, the tasks
    drawn independently of each other. A task without a defined number is left out of the average.
    """
    return {name: _summarise_protocol(rows, name) for choice in protocols for name in resolve_protocols(choice)}


def _summarise_protocol(rows: pd.DataFrame, name: str) -> dict[str, Any]:
    protocol = PROTOCOLS[name]
    tasks: dict[str, dict[str, Any]] = {}
    values, resampled = [], []  # per task: (2,), (resamples, 2)
    for position, (task, of_task) in enumerate(rows.groupby("task", sort=False)):
        summands = protocol.summands(of_task)
        values.append(protocol.statistics(summands.sum(axis=0)))
        resampled.append(protocol.statistics(bootstrap_sums(summands, of_task["group"].tolist(), seed=[0, position])))
        tasks[str(task)] = {**_entry(values[-1], resampled[-1]), "images": len(of_task)}
        if of_task["set"].nunique() > 1:
            tasks[str(task)] |= _by_set(of_task, protocol)
        if name == "default":
            tasks[str(task)] |= _extras(of_task)
    average = _average(np.stack(values), np.stack(resampled))
    if name == "default":
        average |= {key: _plain(_mean_defined([entry[key] for entry in tasks.values()])) for key in EXTRAS}
    return {"tasks": tasks, "average": average}


def _entry(values: np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    """values (2,) and resampled (resamples, 2): Dice, IoU."""
    entry: dict[str, Any] = {"dice": _plain(values[0]), "iou": _plain(values[1])}
    for column, key in enumerate(("dice_interval", "iou_interval")):
        entry[key] = [_plain(end) for end in percentile_interval(resampled[:, column])]
    return entry


def _average(values: np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    """Mean over the tasks that are defined: values (T, 2), resampled (T, resamples, 2)."""
    defined = np.isfinite(values).all(axis=1)
    if not defined.any():
        return _entry(np.full(2, np.nan), np.full((1, 2), np.nan))
    return _entry(values[defined].mean(axis=0), resampled[defined].mean(axis=0))


def _by_set(rows: pd.DataFrame, protocol: Protocol) -> dict[str, Any]:
    """Dice and IoU of each set that a task is made of, and their mean, in which a small set weighs as much as a large one."""
    values = {str(part): protocol.statistics(protocol.summands(of_part).sum(axis=0)) for part, of_part in rows.groupby("set", sort=False)}
    images = rows["set"].value_counts()
    sets = {part: {"dice": _plain(found[0]), "iou": _plain(found[1]), "images": int(images[part])} for part, found in values.items()}
    mean = np.mean(list(values.values()), axis=0)
    return {"sets": sets, "mean_over_sets": {"dice": _plain(mean[0]), "iou": _plain(mean[1])}}


def _extras(rows: pd.DataFrame) -> dict[str, Any]:
    means = {key: _plain(rows[key].mean()) for key in EXTRAS}
    empty = float((rows["tp"] + rows["fn"] == 0).mean())
    return {**means, "empty_share": empty, "undefined_distances": int(rows["hd95"].isna().sum())}


def _mean_defined(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else math.nan


def _plain(value: float) -> float | None:
    """A float that JSON can hold."""
    return float(value) if math.isfinite(value) else None


def write_evaluation(rows: pd.DataFrame, summary: dict[str, Any], out: Path, split: str) -> None:
    """Write `<split>.csv` (the rows) and `<split>.json` (the summary) into the folder `out`, each whole or not at all."""
    write_atomically(out / f"{split}.csv", rows.to_csv(index=False, lineterminator="\n"))
    write_atomically(out / f"{split}.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")


def read_rows(path: Path) -> pd.DataFrame:
    """Read a table that `write_evaluation` wrote, its numbers as floats to the last bit; raises DataError if it is none."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)  # a group may be called NA
        if not {*TEXT_COLUMNS, "dice", "iou"} <= set(rows.columns):
            found = printable(", ".join(rows.columns[:8]))
            raise DataError(f"{path}: expected a table written by 'tpseg evaluate', found columns {found}")
        for column in rows.columns.difference([*TEXT_COLUMNS, *OPTIONAL_TEXT]):
            rows[column] = [float(value or "nan") for value in rows[column]]
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path}: cannot be read as a table of scores ({' '.join(str(error).split())})") from error
    return rows


def summary_table(summary: dict[str, Any], protocol: str) -> Table:
    """A table for the terminal: per task and on average Dice and IoU in percent with their intervals, and the definition."""
    numbers = summary[protocol]
    extras = EXTRAS if protocol == "default" else ()
    caption = PROTOCOLS[protocol].definition + "; in brackets 95 % bootstrap intervals"
    if extras:
        tasks = numbers["tasks"].items()
        empty = [f"{task} {100 * entry['empty_share']:.1f} %" for task, entry in tasks if entry["empty_share"]]
        undefined = sum(entry["undefined_distances"] for _, entry in tasks)
        caption += f". Empty masks: {', '.join(empty) or 'none'}. Sensitivity and precision in percent; HD95 and ASSD in pixels"
        caption += f", undefined and left out on {undefined} images"
    for note in numbers.get("notes", ()):
        caption += f". {note[0].upper()}{note[1:]}"
    table = Table(title=f"Protocol: {protocol}", caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Task", overflow="fold")
    table.add_column("Images", justify="right")
    for heading in ("Dice %", "IoU %"):
        table.add_column(heading, justify="right", min_width=len("(10.0–90.0)"))  # a narrow terminal breaks before the interval
    for key in extras:
        table.add_column(_HEADINGS[key], justify="right", no_wrap=True)
    for task, entry in numbers["tasks"].items():
        table.add_row(task, str(entry["images"]), *_cells(entry, extras))
        for part, of_part in entry.get("sets", {}).items():
            table.add_row(f"  {part}", str(of_part["images"]), *(_number(of_part[key], 100) for key in ("dice", "iou")))
        if "sets" in entry:
            table.add_row("  mean over sets", "", *(_number(entry["mean_over_sets"][key], 100) for key in ("dice", "iou")))
    table.add_section()
    images = sum(entry["images"] for entry in numbers["tasks"].values())
    table.add_row("average", str(images), *_cells(numbers["average"], extras))
    return table


def _cells(entry: dict[str, Any], extras: Sequence[str]) -> list[str]:
    cells = []
    for key in ("dice", "iou"):
        low, high = entry[f"{key}_interval"]
        interval = "" if low is None else f" ({_number(low, 100)}–{_number(high, 100)})"
        cells.append(_number(entry[key], 100) + interval)
    return cells + [_number(entry[key], 100 if key in ("sensitivity", "precision") else 1) for key in extras]


def _number(value: float | None, scale: float) -> str:
    return "–" if value is None else f"{scale * value:.1f}"


def evaluate_predictions(
    folder: Path, data: DataSet, split: str, protocols: Sequence[str], out: Path, input_size: int = 512, *, watch: Watch = pass_on
) -> dict[str, Any]:
    """Score a folder of masks or probability maps against a split, write `<split>.csv` and `.json` into `out`, give the summary.

    input_size: side in pixels at which the `tpseg` protocol compares, the input of the model that made the predictions.
    """
    names = [name for choice in protocols for name in resolve_protocols(choice)]  # a wrong name should not cost a full run
    cases = data.split(split)
    predicted = (Predicted(probability) for probability in read_predictions(folder, cases))
    return _evaluate(cases, predicted, split, names, out, input_size, watch)


def evaluate_model(
    segmenter: Segmenter, data: DataSet, split: str, protocols: Sequence[str], out: Path, *, batch_size: int = 8, watch: Watch = pass_on
) -> dict[str, Any]:
    """Score a model on a split; otherwise as `evaluate_predictions`. The `tpseg` protocol looks at the model's own maps.

    Each protocol of the summary has besides what the hashes that training stored with the model tell of the images: `seen`,
    `warnings` and `notes`, see tpseg.data.hashes.Comparison. Raises UsageError if the data hold a task that the model does not know;
    tasks that only the model knows are left alone.
    """
    names = [name for choice in protocols for name in resolve_protocols(choice)]
    unknown = [name for name in data.tasks.names if name not in segmenter.tasks.names]
    if unknown:
        raise UsageError(
            f"{data.source}: the model does not know task {', '.join(unknown)} (its tasks: {', '.join(segmenter.tasks.names)}); "
            "take it out of the tasks.yaml or name the tasks to score with --tasks"
        )
    cases = data.split(split)
    known = what_is_known(segmenter, cases, split)
    with ThreadPoolExecutor(THREADS) as pool:
        images = ahead(pool, lambda case: segmenter.load(read_pair(case)[0]), cases, 2 * batch_size)
        answers = segmenter.answers(images, ([case.task] for case in cases), batch_size)
        predicted = (Predicted(answer.probability(), answer.own_probability()) for answer in answers)
        return _evaluate(cases, predicted, split, names, out, segmenter.image_size, watch, known)


def what_is_known(segmenter: Segmenter, cases: Sequence[Case], split: str) -> Comparison:
    """What a model's record of its training data says of the cases of a split; without a record, a note that says so."""
    model = segmenter.network.model if isinstance(segmenter.network, TorchNetwork) else None
    if model is None or not model.data_record:
        which = "an exported file names no" if model is None else "this model has no data.csv with the"
        return Comparison(notes=[f"{which} images it was trained on: none of these could be looked for among them"])
    recorded = model.provenance.get("data", {}).get("record_sha256")
    if recorded != hashlib.sha256(model.data_record.encode()).hexdigest():
        return Comparison(notes=["the model's data.csv is not the one its provenance.json names: what it was trained on is not known"])
    return compare_with_record(cases, split, read_record(model.data_record))


def _evaluate(
    cases: Sequence[Case],
    predicted: Iterable[Predicted],
    split: str,
    names: Sequence[str],
    out: Path,
    input_size: int,
    watch: Watch,
    known: Comparison | None = None,
) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    rows = score_cases(cases, watch(predicted, len(cases), "evaluating"), input_size)
    summary = summarise(rows, names)
    if known is not None:
        summary = {name: {**numbers, **asdict(known)} for name, numbers in summary.items()}
    write_evaluation(rows, summary, out, split)
    return summary


def place_of_evaluation(model: str) -> Path:
    """`evaluation/` of a run folder, whether it or its model/ is named; beside any other model folder; here for a hub id."""
    folder = Path(model)
    if not folder.exists():
        return Path("evaluation")
    return (folder.resolve().parent if (folder / "config.json").is_file() else folder) / "evaluation"
