"""What the measurements say: ratios to the reference, shares of the machine's peak, and the JSON."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plan
from benchmarks.rounds import Measured, Results
from benchmarks.systems import settings
from tpseg.checkpoints.inspection import count
from tpseg.core.hardware import bf16_is_native
from tpseg.models.trunks.hiera import Trunk
from tpseg.studies.cost import skeleton

PACKAGES = ("tpseg", "torch", "transformers", "numpy", "onnxruntime")
LARGEST_DIFFERENCE = 1e-4
"""By which the reference's logits may differ from ours."""


def ratios(results: Results, trunk: str) -> dict[str, float]:
    """Median of ours as a share of the reference's, for the headline cases that were measured."""
    reference = {work: results.of(work, "reference", trunk) for work in (plan.ONE, plan.EIGHT, plan.MIXED, plan.TRAIN)}
    plain, recomputing = results.of(plan.TRAIN, "tpseg", trunk), results.of(plan.TRAIN, "tpseg", trunk, "recomputing")
    pairs = {
        "one_image_one_task": (results.of(plan.ONE, "tpseg", trunk), reference[plan.ONE]),
        "one_image_eight_tasks": (results.of(plan.ASKED, "tpseg hardened", trunk, point=str(plan.TASKS)), reference[plan.EIGHT]),
        "mixed_batch": (results.of(plan.MIXED, "tpseg", trunk), reference[plan.MIXED]),
        "train_step": (plain, reference[plan.TRAIN]),
        "train_step_recomputing": (recomputing, reference[plan.TRAIN]),
    }
    found = {name: ours.median / theirs.median for name, (ours, theirs) in pairs.items() if ours is not None and theirs is not None}
    for name, ours in (("train_memory", recomputing), ("train_memory_plain", plain)):
        theirs = reference[plan.TRAIN]
        if ours is not None and theirs is not None and ours.memory and theirs.memory:
            found[name] = median(ours.memory) / median(theirs.memory)
    return found


def peaks(results: Results) -> dict[str, float]:
    """Most GFLOP/s that a matrix product reached, by precision."""
    found: dict[str, float] = {}
    for (case, point), line in results.measured.items():
        if case.work == plan.MATRIX:
            found[case.variant] = max(found.get(case.variant, 0.0), int(point) / min(line.seconds) / 1e9)
    return found


def trunk_rates(results: Results, models: Mapping[str, int]) -> dict[str, dict[str, dict[str, float]]]:
    """By trunk and precision: GFLOP of the trunk alone, GFLOP/s and their share of the matrix peak."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for trunk, size in models.items():
        gflop = trunk_flops(trunk, size) / 1e9
        for precision, peak in peaks(results).items():
            line = results.of(plan.TRUNK, "tpseg", trunk, precision)
            if line is not None:
                rate = gflop / line.median
                found.setdefault(trunk, {})[precision] = {"gflop": gflop, "gflop_per_second": rate, "share_of_peak": rate / peak}
    return found


def trunk_flops(trunk: str, size: int) -> int:
    """Floating-point operations of the trunk alone on one image, two for each multiplication with addition."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        Trunk(trunk)(torch.empty(1, 3, size, size))
    return int(counter.get_total_flops())


def growth(results: Results, trunk: str, size: int) -> dict[str, Any]:
    """Seconds of a mixed batch and parameters by the number of tasks that the model knows; seconds by the number asked for."""
    parameters = {known: count(skeleton(settings("tpseg", trunk, size), known)) for known in plan.TASKS_KNOWN}
    known = {tasks: results.of(plan.KNOWN, "tpseg", trunk, point=str(tasks)) for tasks in plan.TASKS_KNOWN}
    asked = {tasks: results.of(plan.ASKED, "tpseg hardened", trunk, point=str(tasks)) for tasks in plan.TASKS_ASKED}
    found: dict[str, Any] = {
        "seconds_by_tasks_known": {tasks: line.median for tasks, line in known.items() if line is not None},
        "seconds_by_tasks_asked_for": {tasks: line.median for tasks, line in asked.items() if line is not None},
        "parameters_by_tasks_known": parameters,
    }
    least, most = min(plan.TASKS_KNOWN), max(plan.TASKS_KNOWN)
    found["parameters_per_task"] = (parameters[most] - parameters[least]) / (most - least)
    first, last = known[least], known[most]
    if first is not None and last is not None:
        found["seconds_from_fewest_to_most_tasks"] = last.median / first.median - 1
    return found


def to_json(results: Results, models: Mapping[str, int], device: str, load: float | None) -> dict[str, Any]:
    """Everything, ready for JSON. `ratio` is that of the first of `models`."""
    by_trunk = {trunk: ratios(results, trunk) for trunk in models}
    return {
        "ratio": by_trunk[next(iter(models))],
        "ratio_by_trunk": by_trunk,
        "peak": peaks(results),
        "trunk": trunk_rates(results, models),
        "tasks": {trunk: growth(results, trunk, size) for trunk, size in models.items()},
        "equality": {case.trunk: facts for case, facts in results.facts.items() if case.work == plan.EQUALITY},
        "image_size": dict(models),
        "cases": [_line(line) for line in results.measured.values()],
        "failures": [{**asdict(case), "reason": reason} for case, reason in results.failures.items()],
        "rounds": results.rounds,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": plan.SEED,
        "machine": machine(device) | {"threads": results.threads, "load_before": load},
        "versions": {"python": platform.python_version()} | {name: found for name in PACKAGES if (found := _version(name))},
    }


def _line(line: Measured) -> dict[str, Any]:
    case = {name: value for name, value in asdict(line.case).items() if name != "once"}
    return {
        **case,
        "point": line.point,
        "seconds": line.median,
        "fastest": min(line.seconds),
        "slowest": max(line.seconds),
        "images_per_second": line.case.batch / line.median,
        "memory": median(line.memory) if line.memory else None,
        "runs": line.seconds,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine(device: str) -> dict[str, Any]:
    """The machine, without its name."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "system": platform.system(),
        "processor": model,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "bf16": bf16_is_native(torch.device(device)),
    }
