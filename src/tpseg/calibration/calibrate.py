"""What `tpseg calibrate` does: fit on train and val, state on test, write the record into the model folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tpseg.calibration.calibration_report import StatedConfidence, state_confidence
from tpseg.calibration.collected_logits import Observed, observe
from tpseg.calibration.confidence import Confidence, fit_confidence
from tpseg.calibration.features import describe_all, describing
from tpseg.calibration.nearest_mean import confusion, expected_calibration_error, fit_recognition
from tpseg.calibration.outliers import fit_outliers
from tpseg.calibration.record import Trust, save_trust
from tpseg.calibration.space import fit_space
from tpseg.checkpoints.model_folder import find_model
from tpseg.core.errors import DataError, UsageError
from tpseg.core.files import write_atomically
from tpseg.core.prefetch import THREADS, ahead
from tpseg.data.manifest import Case, DataSet
from tpseg.imaging.pictures.formats import read_image
from tpseg.inference import Segmenter
from tpseg.inference.augmentation import AugmentedNetwork

Watch = Callable[[Iterable[Case], int, str], Iterable[Case]]
"""Gets cases, their number and what is done with them; gives the cases on."""
IMAGES = 500
"""Training images of each task that are looked at, at most."""


@dataclass(frozen=True)
class Measured:
    """What the recogniser and the outlier score do on a split they were not fitted on (test), or were (val)."""

    split: str
    images: dict[str, int]
    """By task, as all that follows."""
    confusion: list[list[int]]
    """Images of each task (rows) that were taken for each (columns)."""
    ece: float
    """Expected calibration error of the most likely task's probability, 15 bins."""
    false_warnings: dict[str, float]
    """Share of images asked for their own task that are said to look like another."""
    missed: dict[str, float]
    """Share of images of other tasks that, asked for this one, are not warned of."""
    false_alarms: dict[str, float]
    """Share of images that are said to be unlike anything learned."""

    @property
    def accuracy(self) -> float:
        """Share of images whose task is recognised."""
        right = sum(row[position] for position, row in enumerate(self.confusion))
        return right / sum(self.images.values())


@dataclass(frozen=True)
class Calibration:
    """A record and what it does on val and, where there are such images, on test."""

    trust: Trust
    measured: list[Measured]
    observed: dict[str, list[Observed]]
    """By split, what the model's masks are beside the truth."""
    confidence: dict[str, Confidence]
    stated: list[StatedConfidence]
    """What the confidence does on each split, as `measured`."""
    folder: Path
    """Of the model, where the record lies."""


def calibrate(
    model: str,
    data: DataSet,
    out: Path,
    *,
    images: int = IMAGES,
    seed: int = 0,
    augmented: bool = False,
    weights: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    watch: Watch = lambda cases, total, description: cases,
) -> Calibration:
    """Fit what a model knows of its limits and save it in its folder; writes `calibration.json` into `out`.

    Training images give the space, the tasks' means and the bank; val gives temperatures and all that is said of masks; the outliers'
    limit comes from val and from training images that are held out with their groups; test is only reported. augmented: masks are
    averaged over mirror images, as by `tpseg predict --tta`. Raises UsageError for a model that cannot be calibrated (a hub id, an
    exported file, no trunk) or data of other tasks, DataError where a task lacks training images or there are no validation images.
    """
    if not Path(model).exists():
        raise UsageError(f"{model}: the record is written into the model folder; expected one on this machine")
    segmenter = Segmenter(model, device=device, weights=weights)
    describing(segmenter.network)
    folder = find_model(model)
    check_tasks(segmenter, data)
    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it

    def described(cases: Sequence[Case], split: str) -> tuple[Tensor, Tensor]:  # (N, D), (N,)
        with ThreadPoolExecutor(THREADS) as pool:
            watched = watch(cases, len(cases), f"describing {split}")
            pixels = (loaded.pixels for loaded in ahead(pool, lambda case: segmenter.load(read_image(case.image)), watched, 2 * batch_size))
            points = describe_all(segmenter.network, pixels, batch_size)
        return points, torch.tensor([segmenter.tasks.id(case.task) for case in cases])

    train_cases = some_of_each(data.split("train"), images, seed)
    train, train_task = described(train_cases, "train")
    space = fit_space(train, train_task)
    val, val_task = described(data.split("val"), "val")
    recognition = fit_recognition(space(train), train_task, space(val), val_task)
    outliers = fit_outliers(train, train_task, group_numbers(train_cases), space, val, seed=seed)
    trust = Trust(tuple(segmenter.tasks.names), space, recognition, outliers)
    measured = [measure(trust, val, val_task, "val")]
    if any(case.split == "test" for case in data.cases):
        measured.append(measure(trust, *described(data.split("test"), "test"), "test"))
    if augmented:
        segmenter.network = AugmentedNetwork(segmenter.network)
    observed = {
        one.split: observe(segmenter, data.split(one.split), f"segmenting {one.split}", batch_size=batch_size, watch=watch)
        for one in measured
    }
    confidence = fit_confidence(observed["val"], augmented, seed)
    stated = [state_confidence(seen, confidence, split) for split, seen in observed.items()]
    entries = {task: one.to_json() for task, one in confidence.items()}
    trust = replace(trust, confidence=entries, provenance=_provenance(data, len(train_cases), seed, measured, stated))
    save_trust(trust, folder)
    write_atomically(out / "calibration.json", json.dumps(trust.provenance, indent=2) + "\n")
    return Calibration(trust, measured, observed, confidence, stated, folder)


def check_tasks(segmenter: Segmenter, data: DataSet) -> None:
    """Raise UsageError or DataError unless the data hold training images of every task of the model and none of others."""
    unknown = [name for name in data.tasks.names if name not in segmenter.tasks.names]
    if unknown:
        raise UsageError(
            f"{data.source}: the model does not know task {', '.join(unknown)} (its tasks: {', '.join(segmenter.tasks.names)}); "
            "take it out of the tasks.yaml"
        )
    images = data.split("train")
    if len(images) < 2:
        raise DataError(f"{data.source}: one training image; calibrating compares images with each other: expected two or more")
    trained = {case.task for case in images}
    missing = [name for name in segmenter.tasks.names if name not in trained]
    if missing:
        raise DataError(
            f"{data.source}: no training images of task {', '.join(missing)}; what the model has learned is told apart by images of every "
            "one of its tasks: calibrate with the data it was trained on"
        )


def some_of_each(cases: Sequence[Case], most: int, seed: int) -> list[Case]:
    """At most so many cases of each task, drawn with the seed, in their order; raises UsageError for fewer than two."""
    if most < 2:
        raise UsageError(f"--images {most}: expected 2 or more training images of each task")
    drawn: set[Case] = set()
    for task in dict.fromkeys(case.task for case in cases):
        of_task = [case for case in cases if case.task == task]
        order = torch.randperm(len(of_task), generator=torch.Generator().manual_seed(seed)).tolist()
        drawn.update(of_task[position] for position in order[:most])
    return [case for case in cases if case in drawn]


def group_numbers(cases: Sequence[Case]) -> Tensor:
    """A number for each group of a task, such as a patient; a case without a group is one for itself. Returns (N,) int64."""
    numbers: dict[tuple[str, str, str], int] = {}
    keys = [(case.task, case.group, "" if case.group else case.name) for case in cases]
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])


def measure(trust: Trust, described: Tensor, task: Tensor, split: str) -> Measured:
    """State what the record does on the images of a split; described (N, D), task (N,)."""
    points = trust.space(described)
    probabilities, scores = trust.recognition.probabilities(points), trust.outliers.scores(points)
    doubted = probabilities < trust.recognition.doubt  # (N, T): what a warning would be given for
    doubted.scatter_(1, probabilities.argmax(1, keepdim=True), False)
    of_task = {name: task == position for position, name in enumerate(trust.tasks) if bool((task == position).any())}
    ids = {name: position for position, name in enumerate(trust.tasks)}

    def share(which: Tensor) -> float:
        return float(which.double().mean())

    return Measured(
        split,
        {name: int(mine.sum()) for name, mine in of_task.items()},
        confusion(probabilities, task).tolist(),
        expected_calibration_error(probabilities, task),
        {name: share(doubted[mine, ids[name]]) for name, mine in of_task.items()},
        {name: share(~doubted[~mine, ids[name]]) for name, mine in of_task.items() if not bool(mine.all())},
        {name: share(scores[mine] > 1) for name, mine in of_task.items()},
    )


def _provenance(data: DataSet, train: int, seed: int, measured: Sequence[Measured], stated: Sequence[StatedConfidence]) -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": seed,
        "data_sha256": data.sha256(),
        "training_images": train,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("tpseg", "torch", "transformers")}},
        "measured": {one.split: {**asdict(one), "accuracy": one.accuracy} for one in measured},
        "confidence": {one.split: asdict(one) for one in stated},
    }
