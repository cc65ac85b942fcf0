"""What `tpseg export` does: write the file, on request its int8 version, and a report beside each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tpseg.checkpoints.model_folder import load_model
from tpseg.core.errors import DataError, UsageError
from tpseg.core.files import write_atomically
from tpseg.core.progress import track
from tpseg.data.manifest import DataSet
from tpseg.data.preprocessing import preprocess
from tpseg.export.formats import ENDINGS, OPSET, check_target, export_model
from tpseg.export.parity import Report, parity, read_samples
from tpseg.export.quantise import quantise
from tpseg.export.traceable import chosen_tasks
from tpseg.inference.exported import ExportedNetwork

Format = Literal["onnx", "openvino", "torch"]


def export(
    model: str,
    format: Format = "onnx",
    tasks: Sequence[str] | None = None,
    out: Path | None = None,
    *,
    opset: int = OPSET,
    data: DataSet | None = None,
    split: str = "val",
    images: int = 64,
    sizes: Sequence[int] | None = None,
    batches: Sequence[int] = (1, 3),
    int8: bool = False,
    calibration: int = 32,
    weights: str | None = None,
) -> Iterator[tuple[Path, Report]]:
    """Write the file, then its int8 version if asked for, and yield each with its report when it is done.

    The report is FILE.json, the int8 version FILE.int8.onnx. Raises UsageError for settings that do not go together.
    """
    out = out or Path(f"model{ENDINGS[format]}")
    check_target(out, format)
    counts = {"--check-sizes": sizes or [32], "--check-batches": batches, "--images": [images], "--calibration": [calibration]}
    for name, values in counts.items():
        if not values or min(values) < 1:
            raise UsageError(f"{name}: found {', '.join(map(str, values)) or 'nothing'}; expected numbers of 1 or more")
    if int8 and format != "onnx":
        raise UsageError(f"--int8 is made from an ONNX file; found --format {format}")
    if int8 and data is None:
        raise UsageError("--int8 takes its ranges from training images: give --data tasks.yaml")
    loaded = load_model(model, weights=weights)
    chosen = chosen_tasks(loaded.tasks, tasks)
    samples = None
    if data is not None:
        samples = read_samples(data.split(split), chosen, images)
        if not samples:
            raise DataError(f"{data.source}: no case of split '{split}' has a task of the file ({', '.join(chosen.names)})")
    export_model(loaded, out, format, tasks, opset=opset)
    yield out, write_report(out, parity(out, loaded, samples, sizes, batches, track))
    if int8 and data is not None:
        small = out.with_suffix(".int8.onnx")
        quantise_from(out, small, data, calibration)
        yield small, write_report(small, parity(small, loaded, samples, sizes, batches, track))


def quantise_from(path: Path, out: Path, data: DataSet, number: int) -> None:
    """The int8 version of an ONNX file, with ranges from so many training images, spread evenly over its tasks' cases."""
    network = ExportedNetwork(path, "cpu", trust=True)  # written by us a moment ago
    samples = read_samples(data.split("train"), network.tasks, number)
    if not samples:
        raise DataError(f"{data.source}: no case of split 'train' has a task of the file ({', '.join(network.tasks.names)})")
    images = [preprocess(sample.image, network.image_size) for sample in samples]
    quantise(path, out, images, [network.tasks.id(sample.task) for sample in samples])


def write_report(path: Path, report: Report) -> Report:
    """The report as JSON beside the file: FILE.json."""
    write_atomically(path.with_suffix(".json"), json.dumps(report.to_dict(), indent=2) + "\n")
    return report
