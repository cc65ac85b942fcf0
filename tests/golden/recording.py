"""The golden record: numbers and hashes of what every part of the package computes, from fixed seeds, in one thread and 32 bit.

Nearly all of it goes through the command line, which a change of the house leaves alone; the rest needs the few names imported below.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fake_releases import MADE, write_release
from miniature import SETTINGS
from miniature_models import MODELS as EVERY_MODEL
from miniature_models import TRUNK
from PIL import Image
from safetensors.numpy import load_file

from tpseg.checkpoints.model_folder import save_model
from tpseg.cli import main
from tpseg.core.config import build_config, merge, preset_names, read_source
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.manifest import read_dataset
from tpseg.data.pairs import read_pair
from tpseg.data.preprocessing import preprocess
from tpseg.export import ExportedNetwork
from tpseg.models.catalogue import MODELS, create_without_memory
from tpseg.models.trunks.hiera import TRUNK_SIZES

Record = dict[str, Any]
"""By name a count, a number, a list of numbers, or `sha256:...` of what has too many."""
STEPS = 20
SYSTEMS: dict[str, dict[str, Any]] = {
    "tpseg": {},
    "tpseg-otherwise": {
        "model": {"gate": "hazard", "output": "fused", "momentum": 0.9},
        "training": {"accumulate": 2, "batch_size": 2, "gate_cost": 0.1, "schedule": "plateau", "warmup": 0.0, "optimiser": "adam"},
    },
    "baseline": {"model": {"adapter": "none", "pgtds": []}},
    "monai_unet": {"model": {"architecture": "monai_unet", "width": 8}},
    "sam2_unet": {"model": {"architecture": "sam2_unet"}},
}
"""Changes to the miniature's settings."""
TASKS = ("skin_lesion", "breast_lesion", "lung_infection")
ADDED = "colon_polyp"


def record(folder: Path) -> Record:
    """Compute all of it, in an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found: Record = {f"parameters/{key}": value for key, value in parameters().items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(TRUNK_SIZES, "tiny", TRUNK)
            run("phantoms", folder / "data", "--cases", 12, "--size", 96, "--seed", 7)
            data = folder / "data" / "tasks.yaml"
            found |= {f"losses/{name}": losses(name, data, folder) for name in SYSTEMS}
            found |= {f"losses/add-task/{key}": value for key, value in added_task(data, folder).items()}
            found |= {f"logits/{key}": value for key, value in logits(data, folder).items()}
            found |= {f"protocols/{key}": value for key, value in protocols(data, folder).items()}
            found |= {f"calibration/{key}": value for key, value in calibration(data, folder).items()}
            found |= {f"prepared/{key}": value for key, value in prepared(folder).items()}
            return found | {f"predicted/{key}": value for key, value in predicted(folder).items()}
    finally:
        torch.set_num_threads(threads)


def run(*words: object) -> None:
    """A verb of the command line; raises RuntimeError if it fails."""
    code = main([str(word) for word in words])
    if code:
        raise RuntimeError(f"exit code {code} of tpseg {' '.join(map(str, words))}")


def parameters() -> Record:
    """Counts of every preset and every architecture, of three tasks: all, and those that are trained."""
    tasks = TaskSet([Task(name) for name in TASKS])
    configs = {f"preset {name}": build_config(read_source(name)).model for name in preset_names() if "model" in read_source(name)}
    configs |= {name: build_config({"model": {"architecture": name}}).model for name in MODELS}
    counts: Record = {}
    for name, config in configs.items():
        weights = list(create_without_memory(config, tasks).parameters())
        counts[name] = [sum(one.numel() for one in weights), sum(one.numel() for one in weights if one.requires_grad)]
    return counts


def losses(name: str, data: Path, folder: Path) -> list[float]:
    """Of each training step of a system, and its validation's numbers after each epoch."""
    settings = folder / f"{name}.yaml"
    settings.write_text(yaml.safe_dump(merge(SETTINGS, {"training": {"epochs": 5}}, SYSTEMS[name])))
    out = folder / name
    with every_step() as seen:
        run("train", "--config", settings, "--data", data, "--out", out, "--tasks", ",".join(TASKS), "--steps", STEPS)
    return seen + epochs(out)


def added_task(data: Path, folder: Path) -> Record:
    """Losses of a task that is added to the trained model, and of its grown model's table."""
    out = folder / "grown"
    with every_step() as seen:
        run("add-task", folder / "tpseg", "--data", data, "--task", ADDED, "--out", out, "--steps", STEPS)
    return {"losses": seen + epochs(out), "weights": sha256(*(load_file(out / "model" / "model.safetensors").values()))}


@contextmanager
def every_step() -> Iterator[list[float]]:
    """The loss of each step that is trained inside, as it is logged."""
    seen: list[float] = []
    log = lightning.LightningModule.log

    def note(self: lightning.LightningModule, name: str, value: Any, *rest: Any, **options: Any) -> None:
        if name == "train/loss_step":
            seen.append(float(value))
        log(self, name, value, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning.LightningModule, "log", note)
        yield seen


def epochs(out: Path) -> list[float]:
    return pd.read_csv(out / "logs" / "metrics.csv").to_numpy(float).ravel().tolist()


def logits(data: Path, folder: Path) -> Record:
    """Of every kind of model with fixed weights on phantoms; of several tasks on one image, hardened, and exported to ONNX."""
    cases = [next(case for case in read_dataset(data).split("test") if case.task == task) for task in TASKS]
    images, tasks = torch.stack([preprocess(read_pair(case)[0], 64) for case in cases]), torch.arange(len(TASKS))
    found: Record = {}
    with torch.inference_mode():
        for name, make in EVERY_MODEL.items():
            found[name] = sha256(make().eval()(images, tasks).logits)
        shared = torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2])
        for name in ("default", "hardened"):
            rows, asked = shared
            found[f"{name}, several tasks"] = sha256(EVERY_MODEL[name]().eval()(images, asked, rows).logits)
    save_model(EVERY_MODEL["default"](), folder / "fixed")
    run("export", folder / "fixed", "--out", folder / "fixed.onnx", "--images", 2)
    found["onnx"] = sha256(ExportedNetwork(folder / "fixed.onnx")(images, tasks, tasks).logits)
    return found


def protocols(data: Path, folder: Path) -> Record:
    """Every protocol's numbers on masks and soft maps that differ from the truth in known ways."""
    cases = [case for case in read_dataset(data).split("test") if case.task in TASKS]
    for number, case in enumerate(cases):
        mask = read_pair(case)[1]
        map = np.roll(mask, number % 5, axis=number % 2) * (0.55 + 0.05 * (number % 9))
        place = folder / "maps" / case.task / f"{case.image.stem}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(map * 65535).astype(np.uint16)).save(place)
    out = folder / "scores"
    run("evaluate", "--predictions", folder / "maps", "--data", data, "--tasks", ",".join(TASKS), "--out", out, "--size", 64)
    run("evaluate", folder / "tpseg", "--data", data, "--tasks", ",".join(TASKS), "--out", folder / "scores-tpseg")
    return {
        f"{name}/{key}": value
        for name in ("scores", "scores-tpseg")
        for key, value in numbers(json.loads((folder / name / "test.json").read_text()))
    }


def calibration(data: Path, folder: Path) -> Record:
    """The table of a calibrated model, and what is fitted."""
    subset = folder / "data" / "three.yaml"
    tasks = yaml.safe_load(data.read_text())["tasks"]
    subset.write_text(yaml.safe_dump({"tasks": {name: tasks[name] for name in TASKS}}, sort_keys=False))
    run("calibrate", folder / "tpseg", "--data", subset, "--out", folder / "calibrated")
    found = json.loads((folder / "calibrated" / "calibration.json").read_text())
    stored = json.loads((folder / "tpseg" / "model" / "trust.json").read_text())
    parts = {
        "measured": found["measured"],
        "stated": found["confidence"],
        **{key: stored[key] for key in ("recognition", "outliers", "confidence")},
    }
    return dict(numbers(parts))


def prepared(folder: Path) -> Record:
    """The split and the pixels that each converter writes."""
    found: Record = {}
    for name in MADE:
        out = folder / "prepared" / name
        run("data", "prepare", name, "--source", write_release(name, folder / "releases" / name), "--out", out, "--max-left-out", 1)
        for table in sorted(out.rglob("split.csv")):
            found[f"{name}/{table.parent.name}/split"] = f"sha256:{hashlib.sha256(table.read_bytes()).hexdigest()}"
        found[f"{name}/pixels"] = pictures(out)
    return found


def predicted(folder: Path) -> Record:
    """What the engines write: masks and probabilities of the local one in its several ways, and of Ray."""
    images = folder / "data" / "skin_lesion" / "images"
    ways: dict[str, tuple[object, ...]] = {
        "plain": ("--task", "skin_lesion", "--probability"),
        "all tasks": ("--all-tasks", "--probability"),
        "tta": ("--task", "skin_lesion", "--probability", "--tta"),
        "tiles": ("--task", "skin_lesion", "--probability", "--tile", 48),
        "calibrated": ("--task", "skin_lesion", "--probability", "--calibrated", "--threshold", "calibrated", "--review"),
    }
    found: Record = {}
    for name, options in ways.items():
        out = folder / "predicted" / name
        run("predict", folder / "tpseg", images, "--out", out, *options)
        found[name] = pictures(out)
    review = pd.read_csv(folder / "predicted" / "calibrated" / "review.csv")
    found["review"] = review.select_dtypes("number").to_numpy(float).ravel().tolist()
    for engine in ("local", "ray"):
        out = folder / "predicted" / engine
        run("predict", folder / "monai_unet", images, "--task", "skin_lesion", "--probability", "--engine", engine, "--out", out)
        found[f"U-Net, {engine}"] = pictures(out)
    return found


def pictures(folder: Path) -> str:
    """Of the pixels of all pictures below a folder, and their names: how PNG packs them differs from processor to processor."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as picture:
            total.update(f"{path.relative_to(folder)} {picture.mode} {picture.size}".encode() + np.asarray(picture).tobytes())
    return f"sha256:{total.hexdigest()}"


def sha256(*tensors: Any) -> str:
    total = hashlib.sha256()
    for one in tensors:
        total.update(np.ascontiguousarray(one).tobytes())
    return f"sha256:{total.hexdigest()}"


def numbers(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers in nested JSON, by their path."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from numbers(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(content, list):
        for position, value in enumerate(content):
            yield from numbers(value, f"{prefix}/{position}")
    elif isinstance(content, (int, float)) and not isinstance(content, bool):
        yield prefix, content
