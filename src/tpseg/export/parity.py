"""Does an exported file say what PyTorch says? Differences in logits and masks, times, and what hardening and int8 cost in Dice."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from tpseg.core.hardware import bf16_is_native
from tpseg.core.tasks import TaskSet
from tpseg.data.manifest import Case
from tpseg.data.pairs import read_pair
from tpseg.data.preprocessing import preprocess, resize_mask
from tpseg.datasets.phantoms import PHANTOM_TASKS, phantom
from tpseg.export.traceable import hardened_part
from tpseg.inference import as_rgb
from tpseg.inference.exported import ExportedNetwork
from tpseg.inference.network import lower_weights
from tpseg.models.base import LesionModel

MAX_DIFFERENCE = 1e-3
"""Of logits, that counts as the same."""
MIN_DICE = 0.999
"""Between masks, that counts as the same."""
Run = Callable[[Tensor, Tensor], Tensor]
"""image (B, 3, H, W) and task (B,) to logits (B, 1, H, W), all on the CPU."""
REPEATS = 3
"""Calls that a time is the median of, after one that is not counted."""


@dataclass(frozen=True)
class Sample:
    """A picture to compare on."""

    image: np.ndarray
    """(H, W, 3) uint8."""
    task: str
    mask: np.ndarray | None = None
    """(H, W) bool; None where the truth is unknown."""


@dataclass(frozen=True)
class Comparison:
    """One size and batch, exported file against PyTorch in 32 bit with the same hardened gate."""

    height: int
    width: int
    batch: int
    difference: float
    """Largest absolute difference of two logits."""
    largest: float
    """Largest absolute logit of PyTorch, to judge it by."""
    dice: float
    """Between the two masks, over the whole batch."""
    seconds: dict[str, float]
    """A call of the exported file, of PyTorch in 32 bit and, where it is native, in bfloat16 (`exported`, `torch`, `torch_bf16`)."""

    @property
    def same(self) -> bool:
        return self.difference <= MAX_DIFFERENCE and self.dice >= MIN_DICE


@dataclass(frozen=True)
class Report:
    """All comparisons of a file."""

    file: str
    precision: str
    inputs: str
    """What the pictures were."""
    comparisons: list[Comparison]
    accuracy: dict[str, float] | None
    """Mean Dice against the truth of the model as trained (`trained`), with its gate hardened (`hardened`) and of the file
    (`exported`); None without truth."""
    images: int
    """Number of pictures behind `accuracy`."""

    @property
    def same(self) -> bool:
        """Whether the file equals PyTorch; asked of 32 bit only."""
        return all(comparison.same for comparison in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        limits = {"max_difference": MAX_DIFFERENCE, "min_dice": MIN_DICE}
        return {**asdict(self), "same": self.same, "limits": limits, "threads": torch.get_num_threads(), "torch": torch.__version__}

    def tables(self) -> list[Table]:
        """For the terminal."""
        return [self._parity_table(), *([] if self.accuracy is None else [self._accuracy_table()])]

    def _parity_table(self) -> Table:
        table = Table(title=f"{self.file} ({self.precision}) against PyTorch on {self.inputs}; seconds of file, fp32 and bf16")
        for heading in ("size", "batch", "difference", "logits", "Dice", "file", "fp32", "bf16"):
            table.add_column(heading, justify="right", no_wrap=True)
        for one in self.comparisons:
            numbers = (f"{one.difference:.1e}", f"{one.largest:.1f}", f"{one.dice:.5f}")
            times = (f"{one.seconds[name]:.3f}" if name in one.seconds else "–" for name in ("exported", "torch", "torch_bf16"))
            table.add_row(f"{one.width} x {one.height}", str(one.batch), *numbers, *times)
        return table

    def _accuracy_table(self) -> Table:
        table = Table(title=f"Dice against the truth, mean of {self.images} images at the model's size")
        accuracy = self.accuracy or {}
        names = {"trained": "as trained", "hardened": "gate hardened", "exported": f"exported, {self.precision}"}
        for heading in ("model", "Dice", "cost"):
            table.add_column(heading, justify="right")
        for name, label in names.items():
            cost = round(accuracy["trained"] - accuracy[name], 4) + 0.0  # no -0.0000
            table.add_row(label, f"{accuracy[name]:.4f}", "" if name == "trained" else f"{cost:+.4f}")
        return table


def parity(
    path: Path,
    model: LesionModel,
    samples: Sequence[Sample] | None = None,
    sizes: Sequence[int] | None = None,
    batches: Sequence[int] = (1, 3),
    watch: Callable[[Iterable[Any], int, str], Iterable[Any]] = lambda items, total, text: items,
) -> Report:
    """Compare an exported file with the model it was made from, on this machine's CPU.

    samples: pictures of the file's tasks; by default phantoms. Where they have masks, the Dice of the model as trained, of
    the hardened one and of the file are in the report. sizes: heights of the squares to compare at, by default the model's.
    """
    network = ExportedNetwork(path, "cpu", trust=True)  # written by us a moment ago
    part = hardened_part(model, network.tasks.names)
    low = copy.deepcopy(part) if bf16_is_native(torch.device("cpu")) else None
    if low is not None:
        lower_weights(low)

    def file(image: Tensor, task: Tensor) -> Tensor:
        return network(image, task, torch.arange(len(image))).logits

    inputs = "phantoms" if samples is None else f"{len(samples)} pictures"
    samples = phantoms(network.tasks) if samples is None else samples
    cases = [(size, batch) for size in sizes or [network.image_size] for batch in batches]
    comparisons = [compare(file, part, low, samples, size, batch) for size, batch in watch(cases, len(cases), "comparing")]
    known = [sample for sample in samples if sample.mask is not None]
    accuracy = None
    if known:
        runs = {
            "trained": (as_function(model), model.tasks),
            "hardened": (as_function(part), part.tasks),
            "exported": (file, network.tasks),
        }
        size = network.image_size
        scores = [{name: dice_of(*run, sample, size) for name, run in runs.items()} for sample in watch(known, len(known), "scoring")]
        accuracy = {name: float(np.mean([score[name] for score in scores])) for name in runs}
    return Report(path.name, network.description.precision, inputs, comparisons, accuracy, len(known))


def phantoms(tasks: TaskSet, number: int = 8) -> list[Sample]:
    """Synthetic pictures for want of real ones, given to the tasks in turn; without truth, for the tasks are not theirs."""
    kinds = [PHANTOM_TASKS[i % len(PHANTOM_TASKS)].name for i in range(number)]
    return [Sample(as_rgb(phantom(kind, seed)[0]), tasks[seed % len(tasks)].name) for seed, kind in enumerate(kinds)]


def read_samples(cases: Sequence[Case], tasks: TaskSet, most: int) -> list[Sample]:
    """At most so many cases of these tasks, spread evenly over all of them."""
    wanted = [case for case in cases if case.task in tasks.names]
    chosen = [wanted[int(place)] for place in np.linspace(0, len(wanted) - 1, min(most, len(wanted)))]
    return [Sample(image, case.task, mask) for case, (image, mask) in zip(chosen, map(read_pair, chosen), strict=True)]


def as_function(model: LesionModel) -> Run:
    """A model as a function, on the device it is on, in 32 bit unless autocast is on."""

    @torch.inference_mode()
    def run(image: Tensor, task: Tensor) -> Tensor:
        device = next(model.parameters()).device
        return model.eval()(image.to(device), task.to(device)).logits.cpu()

    return run


def compare(file: Run, part: LesionModel, low: LesionModel | None, samples: Sequence[Sample], size: int, batch: int) -> Comparison:
    """One size and batch; part: of `hardened_part`, with the file's tasks, and low the same in bfloat16 (`lower_weights`), to be timed."""
    chosen = [samples[i % len(samples)] for i in range(batch)]
    image = torch.stack([preprocess(sample.image, size) for sample in chosen])
    task = torch.tensor([part.tasks.id(sample.task) for sample in chosen])
    whole = as_function(part)
    timed: dict[str, Callable[[], Tensor]] = {"exported": lambda: file(image, task), "torch": lambda: whole(image, task)}
    if low is not None:
        half = as_function(low)

        def in_16_bit() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return half(image, task)

        timed["torch_bf16"] = in_16_bit
    expected, found = whole(image, task), file(image, task)
    return Comparison(
        *(size, size, batch),
        float((expected - found).abs().max()),
        float(expected.abs().max()),
        dice(expected.numpy() > 0, found.numpy() > 0),
        measure(timed),
    )


def measure(runs: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each, called in turn so that a busy machine is busy for all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times[1:])) for name, times in seconds.items()}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """2|A∩B| / (|A| + |B|) of two masks; 1 if both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 1.0 if total == 0 else float(2 * (one & other).sum() / total)


def dice_of(run: Run, tasks: TaskSet, sample: Sample, size: int) -> float:
    """Of a picture's prediction against its mask, in a square of `size` pixels."""
    assert sample.mask is not None
    logits = run(preprocess(sample.image, size)[None], torch.tensor([tasks.id(sample.task)]))
    return dice(logits[0, 0].numpy() > 0, resize_mask(sample.mask, size))
