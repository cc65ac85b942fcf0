"""A process per case: it starts with the imports done, builds what the case needs, is timed, and frees all memory by ending."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.plan import SEED, Case
from tpseg.models.trunks.hiera import TRUNK_SIZES, TrunkSize
from tpseg.studies.measuring import peak_memory

MOST_RUNS = 10
LIMIT = 900.0
"""Seconds after which a process is taken for stuck."""


@dataclass(frozen=True)
class Found:
    """What one process found."""

    seconds: dict[str, list[float]]
    """By point, one number for each run."""
    memory: int | None
    """Peak in bytes, weights included: allocated by PyTorch on CUDA, risen in the process on a CPU, None elsewhere."""
    facts: dict[str, float]
    threads: int


@dataclass(frozen=True)
class Failure:
    """Why a process found nothing, in one line."""

    reason: str


@dataclass(frozen=True)
class Job:
    """What a process is told."""

    case: Case
    device: str
    seconds: float
    scratch: Path
    trunk_sizes: dict[str, TrunkSize]
    """The parent's TRUNK_SIZES, so that both know the same trunks."""


Measure = Callable[[Case, str, float, Path], Found | Failure]
"""What measures a case: on a device, for so many seconds, with a folder that all cases of a run share."""


def measure_apart(case: Case, device: str, seconds: float, scratch: Path) -> Found | Failure:
    """Measure a case in a process of its own, whose prints go to a file in `scratch`.

    seconds: what is timed is repeated until it took so long, or MOST_RUNS times.
    """
    context = multiprocessing.get_context("forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["benchmarks.works"])  # imports once, and starts no thread: a fork would lose it
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(send, Job(case, device, seconds, scratch, dict(TRUNK_SIZES))), daemon=True)
    process.start()
    send.close()
    try:
        if not receive.poll(LIMIT):
            process.kill()
            return Failure(f"not done after {LIMIT:g} seconds")
        return receive.recv()
    except EOFError:
        process.join()
        return Failure(f"the process was ended (code {process.exitcode}), for want of memory perhaps")
    finally:
        process.join()
        receive.close()


def _work(send: Connection, job: Job) -> None:
    """Runs in the new process."""
    before = peak_memory()
    job.scratch.mkdir(parents=True, exist_ok=True)
    prints = os.open(job.scratch / "prints.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(prints, stream)
    TRUNK_SIZES.update(job.trunk_sizes)
    try:
        send.send(measure(job.case, torch.device(job.device), job.seconds, job.scratch, before))
    except Exception as error:
        send.send(Failure(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def measure(case: Case, device: torch.device, seconds: float, scratch: Path, before: int) -> Found:
    """Measure a case in this process; before: resident memory at its start, in bytes."""
    from benchmarks.works import prepare  # what the forkserver has imported before

    torch.manual_seed(SEED)
    ready = prepare(case, device, scratch)
    if ready.warm_up is not None:
        ready.warm_up()
    else:
        for step in ready.points.values():
            step()
    took: dict[str, list[float]] = {point: [] for point in ready.points}
    end = time.perf_counter() + seconds
    for run in range(MOST_RUNS if ready.points else 0):
        if run >= ready.least and time.perf_counter() > end:
            break
        for point, step in ready.points.items():
            took[point].append(clock(step, device))
    if device.type == "cpu":
        memory = peak_memory() - before
    else:
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Found(took, memory, ready.facts, torch.get_num_threads())


def clock(step: Callable[[], object], device: torch.device) -> float:
    """Seconds that a step takes, until the device is done with it."""
    synchronise(device)
    start = time.perf_counter()
    step()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
