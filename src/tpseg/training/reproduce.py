"""`tpseg reproduce`: a run repeated from its provenance, and how far the repetition is from it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.table import Table
from torch import Tensor

from tpseg.checkpoints.model_folder import RECORD, find_model, read_data_record, read_provenance
from tpseg.checkpoints.trunk_weights import read_tensors
from tpseg.core.config import build_config
from tpseg.core.errors import DataError, UsageError
from tpseg.data.hashes import write_record
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.training.provenance import circumstances
from tpseg.training.run import resolve_precision, train
from tpseg.training.run_folder import read_settings

MOST_THREADS = 1024
"""That a provenance may ask for."""


@dataclass(frozen=True)
class Reproduction:
    """A run and its repetition, compared."""

    run: Path
    again: Path
    circumstances: dict[str, tuple[Any, Any]]
    """What differed before the repetition began, by name: then and now."""
    tensors: int
    differing: dict[str, float]
    """Largest absolute difference of each tensor that has other bits; infinite for one that is of another shape or missing."""
    metrics: dict[str, float]
    """Largest absolute difference of each column of metrics.csv that differs; empty too if the run has none any more."""

    @property
    def same(self) -> bool:
        return not self.differing and not self.metrics

    def table(self) -> Table:
        """Differences in circumstances, weights and metrics."""
        table = Table("what", "then", "now", title=f"{self.run} and {self.again}")
        for name, (then, now) in self.circumstances.items():
            table.add_row(name, str(then), str(now))
        for name, size in sorted(self.differing.items(), key=lambda one: -one[1])[:5]:
            table.add_row(name, "", f"differs by up to {size:.3g}")
        for name, size in self.metrics.items():
            table.add_row(f"metrics.csv: {name}", "", f"differs by up to {size:.3g}")
        return table

    def verdict(self) -> str:
        """One sentence."""
        if self.same:
            return f"reproduced: all {self.tensors} tensors are the same, bit for bit, and so are the metrics"
        largest = max(self.differing.values(), default=0.0)
        because = f" ({', '.join(self.circumstances)} differed from the start)" if self.circumstances else ""
        return (
            f"not reproduced: {len(self.differing)} of {self.tensors} tensors differ, by up to {largest:.3g}, and {len(self.metrics)} "
            f"columns of metrics.csv{because}"
        )


def reproduce(source: Path, data: Path | None = None, out: Path | None = None, bar: bool = True) -> Reproduction:
    """Train again as `source`, a run or model folder, was trained, into `out`, and compare.

    Raises UsageError for a model that was not trained by one run of an own, or without knowing where its data are; DataError for
    data that are not those of then.
    """
    folder = find_model(source)
    run = folder.parent if folder.name == "model" else folder
    provenance = read_provenance(folder / "provenance.json")
    if "parents" in provenance:
        raise UsageError(
            f"{source}: was made of other models, and only what one training made from nothing is repeated; provenance.json has the "
            "commands, the last one first: give them again in their order"
        )
    try:
        conducted, then_data, seed = provenance["run"], provenance["data"], provenance["seed"]
        settings, devices, nodes = conducted["settings"], int(conducted["devices"]), int(conducted["nodes"])
        tasks, steps, strategy, sha256 = conducted["tasks"], conducted["steps"], conducted["strategy"], then_data["sha256"]
        threads = int(provenance["machine"]["threads"])
        then = {**provenance["versions"], **provenance["machine"], "precision": conducted["precision"]}
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"threads: {threads}")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder}/provenance.json: does not say how the run was conducted ({error}): it was written by an older tpseg, or the "
            "model was made from others; a run that this tpseg trains can be repeated"
        ) from error
    if conducted.get("from_model"):
        raise UsageError(f"{source}: was grown from another model; repeat it with the command in its provenance.json")
    if nodes > 1:
        raise UsageError(f"{source}: was trained on {nodes} machines; repeat it with 'tpseg train' as examples/torchrun.sh does")
    config = build_config(settings, source=f"{folder}/provenance.json")
    if config.training.seed != seed:
        raise DataError(f"{folder}/provenance.json: its seed is {seed}, its settings' {config.training.seed}; the file was changed")
    place = data or _place_of_data(run)
    dataset = read_dataset(place) if tasks is None else read_dataset(place).only(tasks)
    check_data(dataset, sha256, read_data_record(folder / RECORD))
    differences = compare_circumstances(then, resolve_precision(config.training.precision))
    again = out or run.with_name(f"{run.name}-again")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # sums are added in another order by more of them
    try:
        train(
            config, place, again, steps=steps, tasks=tasks, bar=bar, devices=str(devices) if devices > 1 else None,
            strategy=strategy,
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    weights = [read_tensors(one / "model.safetensors") for one in (folder, again / "model")]
    histories = [one / "logs" / "metrics.csv" for one in (run, again)]
    metrics = compare_metrics(*histories) if histories[0].is_file() else {}
    return Reproduction(run, again, differences, len(weights[0]), compare_weights(*weights), metrics)


def _place_of_data(run: Path) -> Path:
    if not (run / "settings.yaml").is_file():
        raise UsageError(f"{run}: a model without its run folder does not say where its data are; give --data tasks.yaml")
    return read_settings(run)[1]


def check_data(dataset: DataSet, wanted: str, record: str) -> None:
    """Raise DataError for data that are not those of then, with how many files differ."""
    if dataset.sha256() == wanted:
        return
    now = write_record(dataset.cases, dataset.hashes())
    rows = [Counter(tuple(row) for row in csv.reader(text.splitlines())) for text in (record, now)]
    gone, new = ((one - other).total() for one, other in (rows, rows[::-1]))
    raise DataError(
        f"{dataset.source}: not the data that the run was trained on: {gone} of its cases are not there as they were, {new} others are; "
        "give the --data that it had"
    )


def compare_circumstances(then: Mapping[str, Any], precision: str) -> dict[str, tuple[Any, Any]]:
    """Versions, machine and precision that are others than `then`: with them bits may differ."""
    here = circumstances()
    now = {**here["versions"], **here["machine"], "threads": then["threads"], "precision": precision}  # as many threads as then
    return {name: (then.get(name), value) for name, value in now.items() if then.get(name) != value}


def compare_weights(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest absolute difference of each tensor of which a bit differs."""
    found = {}
    for name in sorted(one.keys() | other.keys()):
        first, second = one.get(name), other.get(name)
        if first is None or second is None or first.shape != second.shape or first.dtype != second.dtype:
            found[name] = float("inf")
        elif first.numpy().tobytes() != second.numpy().tobytes():
            found[name] = float((first.double() - second.double()).abs().max())
    return found


def compare_metrics(one: Path, other: Path) -> dict[str, float]:
    """Largest absolute difference of each column of two tables of epochs; infinite for another number of rows."""
    first, second = pd.read_csv(one), pd.read_csv(other)
    if list(first) != list(second) or len(first) != len(second):
        return {"epochs": float("inf")}
    return {str(name): float((first[name] - second[name]).abs().max()) for name in first if not first[name].equals(second[name])}
