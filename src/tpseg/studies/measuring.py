"""What models cost on this machine, measured with random weights: seconds an image and peak memory.

`python -m tpseg.studies.measuring` is the process that `Measuring` starts, so that what ran before does not count. It
builds the model once and forks for each measurement, so that each has a peak of its own.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tpseg.core.config import ModelConfig, build_config
from tpseg.core.hardware import bf16_is_native, pick_device
from tpseg.models.base import LesionModel
from tpseg.models.heads.losses import segmentation_loss
from tpseg.studies.cost import macs_by_part, once_for_equals, skeleton, training_macs

WORK = {"prediction": 1, "training step": 2, "training step, recomputing": 2}
"""What is measured, and its share of the time. Recomputing is training.checkpointing: activations are not kept."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measurement:
    """One image of one task on this machine."""

    work: str
    """A key of WORK; a training step is forward, loss, backward, prototypes and AdamW, and holds AdamW's moments."""
    precision: str
    """`float32`, or `bfloat16` (mixed)."""
    size: int
    """Height and width in pixels: the model's, or a half or a quarter of it where the time did not last."""
    seconds: float
    """Median over the runs; the first run at a size warms it up and counts only if there was no time for another."""
    full_seconds: float
    """The same at the model's size, by multiply-adds where a smaller one was measured."""
    runs: int
    memory: int | None
    """Peak in bytes, weights included: allocated by PyTorch on CUDA, risen in the process on a CPU, None elsewhere."""
    device: str
    threads: int | None
    """On a CPU."""
    load: float | None
    """On a CPU: processes that wanted one when the measurements began, mean of the last minute."""


class Measuring:
    """Measurements of one image: prediction in float32 and, where it is native, bfloat16, and a training step.

    Starts the process, which imports and builds; `finish` lets it measure. Meanwhile other work may be done here.
    """

    def __init__(
        self, config: ModelConfig, *, tasks: int = 8, runs: int = 10, checkpointing: bool | None = None, device: str | None = None
    ) -> None:
        """runs: most runs, of which the median is taken; checkpointing: also a training step that recomputes activations, by
        default on a GPU only."""
        place = pick_device(device)
        native = bf16_is_native(place)
        self.jobs = [("prediction", False), ("training step", native), *([("prediction", True)] if native else [])]
        if place.type != "cpu" if checkpointing is None else checkpointing:
            self.jobs.append(("training step, recomputing", native))
        if not hasattr(os, "fork"):
            self.process = None
            return
        request = {
            "config": asdict(config), "tasks": tasks, "device": str(place), "runs": runs, "jobs": self.jobs,
            "threads": idle_threads(), "load": os.getloadavg()[0],
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tpseg.studies.measuring", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that the process and its forks can be ended together
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # a thread that spins while others wait for its core costs all of them
        )

    def finish(self, seconds: float) -> list[Measurement]:
        """What could be measured within `seconds`; the rest (no time, no memory; everything on Windows) is left out and logged.

        Where the time does not last for the model's image size, a half or a quarter of it is measured, and `size` says so.
        """
        if self.process is None:
            log.warning("memory and time are not measured on this system: it cannot fork")
            return []
        try:
            output, errors = self.process.communicate(f"{time.monotonic() + seconds}\n", timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            output, errors = self.process.communicate()
            errors += f"\n{seconds:g} seconds did not last"
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        if len(lines) < len(self.jobs):
            reason = (errors.strip().splitlines() or ["it ended without a word, for want of memory perhaps"])[-1]
            log.warning("%d of %d measurements are missing (%s)", len(self.jobs) - len(lines), len(self.jobs), reason)
        return [Measurement(**line) for line in lines]


def idle_threads() -> int:
    """As many threads as processors are idle, at least one, at most those PyTorch would take.

    Threads that share a processor wait for each other at every step: on two busy cores, two threads took ten times as
    long as one.
    """
    return max(1, min(torch.get_num_threads(), processors() - round(os.getloadavg()[0])))


def processors() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Pace:
    """How long training takes for each image, and what that was measured on."""

    per_image: dict[str, float]
    """Estimated seconds, by configuration."""
    seconds: float
    """Of the step that was timed."""
    batch: int
    size: int
    runs: int
    device: str
    threads: int
    load: float | None
    """Of a CPU, before the step was timed; None on a GPU or where the system does not say."""

    def basis(self) -> str:
        """A sentence on the measurement, and a warning where the processor had other work."""
        processor = self.device if self.load is None else f"{self.device} with {self.threads} thread{'s' if self.threads > 1 else ''}"
        found = f"{self.seconds:.3g} s a step of {self.batch} images of {self.size} px on {processor}"
        found += f", {'one step' if self.runs == 1 else f'median of {self.runs} steps'}"
        if self.load is None:
            return f"{found}."
        busy = f"the processor ({processors()} cores) was busy, on an idle one it is less" if self.load > 0.5 * processors() else "idle"
        return f"{found}, measured at load {self.load:.1f}: {busy}."


def training_seconds(
    configs: Mapping[str, ModelConfig], reference: str, *, tasks: int = 8, batch: int = 2, threads: int = 1, device: str | None = None
) -> Pace:
    """Estimated seconds of training per image for each of `configs`: one is timed, the others follow by their multiply-adds.

    reference: the one timed, forward and backward on `batch` images of its size with random weights, in the precision that
    training takes. Systems that use the processor less well than the reference take longer than that; loading images
    comes on top. threads: on a CPU; a study runs its cells on one each where there are two cores.
    """
    place = pick_device(device)
    config = configs[reference]
    before = torch.get_num_threads()
    load = os.getloadavg()[0] if place.type == "cpu" and hasattr(os, "getloadavg") else None
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            model = with_random_weights(skeleton(config, tasks)).to(place)
            step = training_step(model, batch, bf16_is_native(place))
            size, seconds, runs = time_runs(step, [(config.image_size, 1)], seconds=3, runs=3)
    finally:
        torch.set_num_threads(before)
    macs = once_for_equals(configs, lambda one: training_macs(skeleton(one, tasks), one.image_size))
    per_image = {name: seconds / batch * macs[name] / macs[reference] for name in configs}
    return Pace(per_image, seconds, batch, size, runs, place.type, threads, load)


@torch.no_grad()
def with_random_weights(model: LesionModel) -> LesionModel:
    """A skeleton filled with numbers that keep signals at their size; much faster than the layers' own initialisation."""
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        bound = (3 * len(parameter) / parameter.numel()) ** 0.5 if parameter.ndim >= 2 else 0.0
        parameter.uniform_(-bound, bound) if bound else parameter.fill_(1)
    for buffer in model.buffers():
        buffer.fill_(1)
    return model


Step = Callable[[int], None]
"""What is timed: takes the image size."""


def prediction(model: LesionModel, bf16: bool) -> Step:
    model.eval()

    def step(size: int) -> None:
        image, task, _ = random_batch(model, 1, size)
        with torch.inference_mode(), autocast(image, bf16):
            model(image, task)

    return step


def training_step(model: LesionModel, batch: int, bf16: bool) -> Step:
    """Forward, loss, backward, prototypes and AdamW."""
    model.train()
    optimiser = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], fused=True)

    def step(size: int) -> None:
        image, task, mask = random_batch(model, batch, size)
        with autocast(image, bf16):
            output = model(image, task)
        segmentation_loss(output.supervised, mask).mean().backward()
        model.observe(output, mask, task)
        model.move_prototypes()
        optimiser.step()
        optimiser.zero_grad()

    return step


def random_batch(model: nn.Module, batch: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, size, size), tasks (B,), all 0, and masks (B, 1, size, size), where the model is."""
    device = next(model.parameters()).device
    image = torch.randn(batch, 3, size, size, device=device)
    return image, torch.zeros(batch, dtype=torch.int64, device=device), (image[:, :1] > 0).float()


def autocast(image: Tensor, bf16: bool) -> AbstractContextManager[object]:
    return torch.autocast(image.device.type, torch.bfloat16) if bf16 else nullcontext()


def time_runs(step: Step, macs: Sequence[tuple[int, int]], seconds: float, runs: int) -> tuple[int, float, int]:
    """The largest size that the time lasts for, the median seconds of a run at it, and the number of runs.

    macs: (size, multiply-adds), ascending. The first run at a size warms it up; it counts only if there is no time for another.
    """
    deadline = time.perf_counter() + seconds
    for (size, work), larger in zip(macs, [*macs[1:], None], strict=True):
        took = [clock(step, size)]
        if larger is None or time.perf_counter() + took[0] * larger[1] / work > deadline:
            break
    while len(took) <= runs and time.perf_counter() + took[-1] < deadline:
        took.append(clock(step, size))
    took = took[1:] or took
    return size, statistics.median(took), len(took)


def clock(step: Step, size: int) -> float:
    start = time.perf_counter()
    step(size)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def size_ladder(size: int, stride: int) -> list[int]:
    """A quarter of the size, a half, and the size itself; the smaller ones multiples of the stride."""
    smaller = {max(stride, round(size / part / stride) * stride) for part in (4, 2)}
    return [*sorted(one for one in smaller if one < size), size]


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_fork(work: Callable[[], Any]) -> Any:
    """Result of `work` (ready for JSON) in a copy of this process, whose peak memory starts anew; None if it fails."""
    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.write(send, json.dumps(work()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as answer:
        text = answer.read()
    os.waitpid(process, 0)
    return json.loads(text) if text else None


def measure_one(
    model: LesionModel, request: Mapping[str, Any], macs: Sequence[tuple[int, int]], work: str, bf16: bool, seconds: float, before: int
) -> dict[str, Any]:
    """One measurement; macs: (size, multiply-adds), ascending; before: resident memory without the model."""
    place = torch.device(request["device"])
    torch.set_num_threads(request["threads"])
    model.to(place)
    if model.trunk is not None:
        model.trunk.checkpointing = work == "training step, recomputing"
    step = prediction(model, bf16) if work == "prediction" else training_step(model, 1, bf16)
    size, median, runs = time_runs(step, macs, seconds, request["runs"])
    full = median * (macs[-1][1] / dict(macs)[size])
    precision = "bfloat16" if bf16 else "float32"
    if place.type == "cpu":
        memory = peak_memory() - before
        found = Measurement(work, precision, size, median, full, runs, memory, "cpu", request["threads"], request["load"])
    else:
        cuda = place.type == "cuda"
        device, peak = (torch.cuda.get_device_name(place), torch.cuda.max_memory_allocated(place)) if cuda else (place.type, None)
        found = Measurement(work, precision, size, median, full, runs, peak, device, None, None)
    return asdict(found)


def main(request: Mapping[str, Any]) -> None:
    """Build, wait for a line with the time to end, write a line for each measurement."""
    torch.set_num_threads(1)  # a process with threads cannot be forked
    config = build_config(request["config"], ModelConfig, "measure")
    before = in_fork(peak_memory)
    model = skeleton(config, request["tasks"])
    macs = [(size, sum(macs_by_part(model, size).values())) for size in size_ladder(config.image_size, model.stride)]
    with_random_weights(model)
    end = float(sys.stdin.readline())
    shares = [WORK[work] for work, _ in request["jobs"]]
    for position, (work, bf16) in enumerate(request["jobs"]):
        seconds = (end - time.monotonic()) * shares[position] / sum(shares[position:])

        def job(work: str = work, bf16: bool = bf16, seconds: float = seconds) -> dict[str, Any]:
            return measure_one(model, request, macs, work, bf16, seconds, before)

        found = in_fork(job)
        if found is not None:
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
