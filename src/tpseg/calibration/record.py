"""`Trust`: what calibration found about a model, kept in its folder as trust.json and trust.safetensors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tpseg.calibration.nearest_mean import Recognition
from tpseg.calibration.outliers import Outliers
from tpseg.calibration.space import Space
from tpseg.checkpoints.model_folder import read_model_config
from tpseg.core.errors import DataError
from tpseg.core.files import read_json_object, replacing
from tpseg.core.tasks import TaskSet
from tpseg.data.hashes import hash_files

FORMAT = 2
JSON, TENSORS = "trust.json", "trust.safetensors"
MOST_BYTES = 256 * 1024 * 1024
"""Of trust.safetensors: eight tasks take one megabyte."""
NUMBERS = {"temperature": (0.0, math.inf), "doubt": (0.0, 1.0), "limit": (0.0, math.inf), "false_alarms": (0.0, 1.0)}
"""What trust.json holds of recognition and outliers, and its range."""


@dataclass(frozen=True)
class Trust:
    """What a model knows of its own limits."""

    tasks: tuple[str, ...]
    """Names in the order of the model's ids, which are those of the tensors."""
    space: Space
    recognition: Recognition
    outliers: Outliers
    confidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By task, what tpseg.calibration.confidence fitted, as plain JSON."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Date, data hash, number of images, versions and seed of the calibration, and what it found on test."""

    def tensors(self) -> dict[str, Tensor]:
        return {
            "origin": self.space.origin,
            "axes": self.space.axes,
            "centres": self.recognition.centres,
            "bank": self.outliers.bank,
            "bank_task": self.outliers.task,
            "reach": self.outliers.reach,
        }


def model_sha256(folder: Path) -> str:
    """Hash of all weights of a model folder: of model.safetensors, and of the frozen trunk that config.json names."""
    path = folder / "model.safetensors"
    found = hash_files([path])[path]
    if not found:
        raise DataError(f"{path}: no such file; expected the weights of a model folder")
    return hashlib.sha256(f"{found} {read_model_config(folder)[1]}".encode()).hexdigest()


def save_trust(trust: Trust, folder: Path) -> None:
    """Write the record into a model folder, whole or not at all.

    At any moment there is the old record, none or the new one: trust.json, without which there is no record, is taken away
    before the tensors are replaced.
    """
    content = save({name: value.detach().cpu().contiguous() for name, value in trust.tensors().items()})
    numbers = {
        "format": FORMAT,
        "weights_sha256": model_sha256(folder),
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "tasks": list(trust.tasks),
        "recognition": {"temperature": trust.recognition.temperature, "doubt": trust.recognition.doubt},
        "outliers": {"limit": trust.outliers.limit, "false_alarms": trust.outliers.false_alarms},
        "confidence": {task: dict(found) for task, found in trust.confidence.items()},
        "provenance": dict(trust.provenance),
    }
    with replacing(folder / JSON) as new_json, replacing(folder / TENSORS) as new_tensors:
        new_json.write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        new_tensors.write_bytes(content)
        (folder / JSON).unlink(missing_ok=True)


def load_trust(folder: Path) -> Trust | None:
    """The record of a model folder, None if it has none.

    Raises DataError if it is damaged, or was made for other weights or tasks than the folder holds.
    """
    path = folder / JSON
    if not path.is_file():
        return None
    again = "make it anew with: tpseg calibrate MODEL --data tasks.yaml"
    content = read_json_object(path, "not a record of a calibration written by tpseg")
    if content.get("format") != FORMAT:
        raise DataError(f"{path}: format {content.get('format')!r}; this tpseg reads format {FORMAT}; {again}")
    tasks = TaskSet.load(folder / "tasks.json").names
    if content.get("tasks") != tasks:
        raise DataError(
            f"{path}: was made when the model's tasks were {_names(content.get('tasks'))}; they are now {', '.join(tasks)}; {again}"
        )
    if content.get("weights_sha256") != model_sha256(folder):
        raise DataError(f"{path}: was made for other weights than {folder}/model.safetensors holds now; {again}")
    try:
        return _restore(content, _read_tensors(folder / TENSORS, content), tuple(tasks))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: damaged ({error}); {again}") from error


def _names(found: object) -> str:
    return ", ".join(map(str, found))[:200] if isinstance(found, list) else repr(found)[:200]


def _read_tensors(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path.name} has more than {MOST_BYTES // 1024**2} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != content["tensors_sha256"]:
        raise ValueError(f"{path.name} is not the file that was written with it")
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _restore(content: Mapping[str, Any], tensors: Mapping[str, Tensor], tasks: tuple[str, ...]) -> Trust:
    """Put a record together; raises KeyError, TypeError or ValueError for one that does not fit together."""
    described, size = tensors["axes"].shape
    kept = len(tensors["reach"])
    shapes = {
        "origin": (described,), "axes": (described, size), "centres": (len(tasks), size), "bank": (kept, size), "bank_task": (kept,),
        "reach": (kept,),
    }  # fmt: skip
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"'{name}' has shape {tuple(tensors[name].shape)}; expected {shape}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise ValueError(f"'{name}' holds numbers that are not finite")
    if sorted(set(tensors["bank_task"].tolist())) != list(range(len(tasks))):
        raise ValueError("'bank_task' does not name every task")
    if float(tensors["reach"].min()) <= 0:
        raise ValueError("'reach' holds numbers that are not positive")
    numbers = {key: float(value) for part in ("recognition", "outliers") for key, value in dict(content[part]).items()}
    for key, (low, high) in NUMBERS.items():
        if not low <= numbers[key] <= high or numbers[key] == math.inf or (numbers[key] == 0 and high == math.inf):
            raise ValueError(f"'{key}' is {numbers[key]}")
    confidence, provenance = content["confidence"], content["provenance"]
    if not isinstance(provenance, dict) or not isinstance(confidence, dict) or not set(confidence) <= set(tasks):
        raise ValueError("'confidence' and 'provenance' are objects, the first with the model's tasks for keys")
    recognition = Recognition(tensors["centres"], numbers["temperature"], numbers["doubt"])
    outliers = Outliers(tensors["bank"], tensors["bank_task"], tensors["reach"], numbers["limit"], numbers["false_alarms"])
    return Trust(tasks, Space(tensors["origin"], tensors["axes"]), recognition, outliers, confidence, provenance)
