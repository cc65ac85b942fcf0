"""The processes of a training run: one for each device, started here, by torchrun or by srun, and ended together."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import torch

from tpseg.core.errors import TPSegError, UsageError
from tpseg.core.log_file import listening, log_path, logging_to

GRACE = 5.0
"""Seconds that processes get to end by themselves before they are killed."""
LOST_PEER = re.compile(r"closed by peer|reset by peer|Broken pipe|Connection refused|NCCL|remote process exited|ime(d )?out|Socket", re.I)
"""What gloo and nccl say when a process that they talk to has ended."""


class ProcessesEnded(TPSegError):
    """Another process of the run ended: this one can only follow."""


@dataclass(frozen=True)
class Crew:
    """The processes that train one model together, and this one's place among them."""

    devices: int
    """Processes on each machine, one for each of its devices."""
    nodes: int
    """Machines."""
    rank: int
    """This process, from 0; the first one alone writes."""
    started_by: Literal["torchrun", "srun"] | None
    """Who started the processes; None: nobody yet, this is the only one."""

    @property
    def size(self) -> int:
        return self.devices * self.nodes

    @property
    def to_be_started(self) -> bool:
        return self.size > 1 and self.started_by is None


def find_crew(devices: str | None = None, nodes: int | None = None) -> Crew:
    """What --devices and --nodes ask for, in the place where this process finds itself.

    devices: a number, 'auto' for all of this machine, or None for one, or for what torchrun or srun has started. Raises
    UsageError for devices that are not there, and for numbers that torchrun or srun contradict.
    """
    if devices is not None and devices != "auto" and not (devices.isdecimal() and int(devices) >= 1):
        raise UsageError(f"--devices: found '{devices}', expected a number of 1 or more, or auto")
    if nodes is not None and nodes < 1:
        raise UsageError(f"--nodes: found {nodes}, expected 1 or more")
    started = _started_by_torchrun() or _started_by_srun()
    if started is not None:
        for option, asked, found in (("--devices", devices, started.devices), ("--nodes", nodes, started.nodes)):
            if asked not in (None, "auto") and int(asked) != found:
                raise UsageError(f"{option}: found {asked}, but {started.started_by} has started {found}; leave the option out")
        return started
    if nodes is not None and nodes > 1:
        raise UsageError(
            f"--nodes {nodes}: a process cannot start others on another machine; start one for each device with torchrun or srun, "
            "as examples/torchrun.sh and examples/slurm.sh do"
        )
    there = torch.cuda.device_count() if torch.cuda.is_available() else None
    count = (there or 1) if devices == "auto" else int(devices or 1)
    if there is not None and count > there:
        raise UsageError(f"--devices: found {count}, but this machine has {there}; give {there} or fewer, or auto")
    return Crew(count, 1, 0, None)


def is_first() -> bool:
    """Whether this process is the one of a run that speaks; the only one is."""
    started = _started_by_torchrun() or _started_by_srun()
    return started is None or started.rank == 0


def _started_by_torchrun() -> Crew | None:
    """The variables that torchrun sets, and `launch`."""
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= os.environ.keys():
        return None
    each = int(os.environ["LOCAL_WORLD_SIZE"])
    return Crew(each, int(os.environ["WORLD_SIZE"]) // each, int(os.environ["RANK"]), "torchrun")


def _started_by_srun() -> Crew | None:
    """srun's own variables, which sbatch does not set: in a batch script without srun there is one process."""
    if not {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"} <= os.environ.keys():
        return None
    tasks, nodes = int(os.environ["SLURM_STEP_NUM_TASKS"]), int(os.environ["SLURM_STEP_NUM_NODES"])
    if tasks == 1:
        return None
    if tasks % nodes:
        raise UsageError(f"srun: found {tasks} tasks on {nodes} nodes, expected as many on each; use --ntasks-per-node")
    return Crew(tasks // nodes, nodes, int(os.environ["SLURM_PROCID"]), "srun")


def launch(work: Callable[[], object], count: int) -> None:
    """Run `work` in `count` new processes of this machine, with the variables that torchrun sets; returns when all are done.

    work: can be pickled. If one fails, the others are ended and its error is raised here, the cause rather than what
    followed from it. Ctrl-C and SIGTERM here ask all of them to end with a SIGTERM; a second Ctrl-C kills them.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns wherever all tasks happen to be in the first batch
    context = _context()
    port = _free_port()
    processes, reports = [], []
    for rank in range(count):
        receiver, sender = context.Pipe(duplex=False)
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, "MASTER_PORT": port}
        variables = {**os.environ, **{key: str(value) for key, value in place.items()}, "MASTER_ADDR": "127.0.0.1"}
        processes.append(context.Process(target=_process, args=(work, variables, sender, log_path() if rank == 0 else None)))
        reports.append(receiver)
        processes[-1].start()
        sender.close()
    asked = False
    try:
        with _sigterm_as_interrupt():
            while any(one.is_alive() for one in processes):
                wait([one.sentinel for one in processes if one.is_alive()])
                if any(one.exitcode not in (None, 0) for one in processes):
                    time.sleep(0.5)  # the cause may be a moment behind its effect
                    break
    except KeyboardInterrupt:
        asked = True
        _ask_to_stop(processes)
    followed = {rank for rank, one in enumerate(processes) if one.is_alive()}
    _end(processes, signal.SIGTERM)
    errors = {rank: _error(rank, one, report) for rank, (one, report) in enumerate(zip(processes, reports, strict=True))}
    causes = [(_remoteness(error), rank in followed, rank) for rank, error in errors.items() if error is not None]
    if causes:
        cause = errors[min(causes)[-1]]
        assert cause is not None
        if asked and isinstance(cause, TPSegError):
            cause.exit_code = 130  # theirs is that of the SIGTERM which passed the Ctrl-C on
        raise cause
    if asked:
        raise KeyboardInterrupt


def _context() -> Any:
    """Processes from a server that has done the imports; from scratch on a GPU, which forked processes may not touch."""
    if torch.cuda.is_available() or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tpseg.training.run"])
    return context


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _process(work: Callable[[], object], variables: dict[str, str], report: Connection, log: Path | None) -> None:
    """What a started process does: the work, or a report of what went wrong. log: where what it says is kept too."""
    leave_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent says what is to be done
    os.environ.clear()
    os.environ.update(variables)
    try:
        with logging_to(log), listening():
            work()
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        text = traceback.format_exc()[-8000:]  # a pipe that nobody reads yet takes 64 KiB
        try:
            report.send((error, text))
        except Exception:  # an error that cannot be pickled goes as text
            report.send((None, text))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # at once: leaving in order would wait for processes that are gone


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Within it a SIGTERM is a Ctrl-C; in the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ask_to_stop(processes: list[Any]) -> None:
    """Ask all processes to save and end, and wait for them; a second Ctrl-C kills them."""
    for one in processes:
        if one.is_alive():
            os.kill(one.pid, signal.SIGTERM)
    try:
        for one in processes:
            one.join()
    except KeyboardInterrupt:
        for one in processes:
            one.kill()
            one.join()
        raise


def _error(rank: int, process: Any, report: Connection) -> BaseException | None:
    """The error of a process that has ended, or None."""
    if report.poll():
        try:
            error, text = report.recv()
        except EOFError:
            error, text = None, ""
        if isinstance(error, (TPSegError, OSError)):
            return error
        if text:
            return RuntimeError(f"process {rank} failed:\n{text}")
    if process.exitcode == 130:
        return KeyboardInterrupt()
    code = process.exitcode
    if code and code != -signal.SIGTERM:
        how = f"was killed by signal {-code}, for want of memory perhaps" if code < 0 else f"ended with code {code}"
        return TPSegError(f"process {rank} of the run {how}; go on with --resume")
    return None


def _remoteness(error: BaseException) -> int:
    """0 for a cause, more for what may have followed from it."""
    return 2 if isinstance(error, ProcessesEnded) else 1 if isinstance(error, RuntimeError) else 0


def _end(processes: list[Any], kindly: signal.Signals) -> None:
    """Ask the processes that are left to end, and kill those that do not."""
    for one in processes:
        if one.is_alive():
            os.kill(one.pid, kindly)
    deadline = time.monotonic() + GRACE
    for one in processes:
        one.join(max(0.0, deadline - time.monotonic()))
        if one.is_alive():
            one.kill()
            one.join()


def lost_peer(error: RuntimeError, crew: Crew) -> RuntimeError | ProcessesEnded:
    """The error as it is, or, where gloo or nccl say that another process has ended, a sentence."""
    if crew.size == 1 or not LOST_PEER.search(str(error)):
        return error
    return ProcessesEnded(f"process {crew.rank} of {crew.size} lost touch with the others: one has ended, and says why itself")


def leave_with_parent() -> None:
    """End this process when the one that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
