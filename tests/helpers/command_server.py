"""A process that forks others, each with one `tpseg` command to run, and that may be killed: PyTorch is imported once for all.

Reads orders as lines of JSON, {"words": [...], "log": PATH, "hooks": [...]}; answers with the process's number and, when it has
ended, its exit code. `tests/faults/conftest.py` gives the orders.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from miniature import TRUNK
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn

import tpseg.cli
import tpseg.data.dataset
import tpseg.training.checkpoints
import tpseg.training.run
from tpseg.data.dataset import LesionDataset
from tpseg.models.tpseg.network import TPSeg
from tpseg.models.trunks.hiera import TRUNK_SIZES
from tpseg.training.module import LesionModule


def slow_writes(run: Path) -> None:
    """Every write of a checkpoint takes its time; RUN.writing says how many checkpoints were begun."""
    write, begin = tpseg.training.checkpoints.Hashed.write, tpseg.training.checkpoints.write_checkpoint
    begun, written = 0, 0

    def slowly(self: Any, data: Any) -> int:
        nonlocal written
        written += 1
        if written % 20 == 0:
            time.sleep(0.001)
        return write(self, data)

    def beginning(content: dict[str, Any], path: Path, best: bool) -> None:
        nonlocal begun
        begun += 1
        Path(f"{run}.writing").write_text(str(begun))
        begin(content, path, best)

    tpseg.training.checkpoints.Hashed.write = slowly  # type: ignore[method-assign]
    tpseg.training.callbacks.write_checkpoint = beginning  # type: ignore[assignment]


def at_step(action: Any, step: int = 4) -> None:
    """Call `action` once, when step number `step` begins."""
    begin = LesionModule.training_step
    done: list[int] = []

    def training_step(self: LesionModule, batch: Any, index: int) -> Any:
        if self.global_step == step and not done:
            done.append(1)
            action()
        return begin(self, batch, index)

    LesionModule.training_step = training_step  # type: ignore[method-assign]


def interrupt(run: Path) -> None:
    """Ctrl-C in step 4."""
    at_step(lambda: os.kill(os.getpid(), signal.SIGINT))


def terminate(run: Path) -> None:
    """What a scheduler sends, in step 4, to this process and to those that load images."""

    def all_of_the_group() -> None:
        os.killpg(os.getpgrp(), signal.SIGTERM)

    at_step(all_of_the_group)


def interrupt_and_terminate(run: Path) -> None:
    """What a terminal and a scheduler send, to all processes of the run, with its first batch."""

    def all_of_the_group() -> None:
        os.killpg(os.getpgrp(), signal.SIGINT)
        os.killpg(os.getpgrp(), signal.SIGTERM)

    at_step(all_of_the_group, step=0)


def interrupt_twice(run: Path) -> None:
    """Ctrl-C, and again before the step ends."""

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(twice)


def interrupt_validation(run: Path) -> None:
    """Ctrl-C while the first validation runs."""
    step = LesionModule.validation_step
    done: list[int] = []

    def validation_step(self: LesionModule, batch: Any, index: int) -> None:
        if not done:
            done.append(1)
            os.kill(os.getpid(), signal.SIGINT)
        step(self, batch, index)

    LesionModule.validation_step = validation_step  # type: ignore[method-assign]


def killed_after_epoch(run: Path) -> None:
    """The process is killed as soon as the first epoch's checkpoint is whole; TensorBoard's file has what was flushed until then.

    Its writer is made as slow as one that writes to a share: nothing of its queue is in the file before somebody waits for it.
    """
    write, flush, checkpoint = RecordWriter.write, RecordWriter.flush, tpseg.training.callbacks.write_checkpoint
    waiting: list[bytes] = []

    def wait(self: RecordWriter, data: bytes) -> None:
        waiting.append(data)

    def write_all(self: RecordWriter) -> None:
        while waiting:
            write(self, waiting.pop(0))
        flush(self)

    def write_and_die(content: dict[str, Any], path: Path, best: bool) -> None:
        checkpoint(content, path, best)
        if content["global_step"] == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    RecordWriter.write, RecordWriter.flush = wait, write_all
    tpseg.training.callbacks.write_checkpoint = write_and_die  # type: ignore[assignment]


def dead_worker(run: Path) -> None:
    """A loading process is killed when it is to read the twentieth image, in the fourth batch."""
    read = LesionDataset.__getitem__
    seen: list[int] = []

    def getitem(self: LesionDataset, item: Any) -> Any:
        seen.append(1)
        if len(seen) == 20 and self.augmentation != "none":
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, item)

    LesionDataset.__getitem__ = getitem  # type: ignore[method-assign]


def vanish(run: Path) -> None:
    """The run folder is moved away in step 4, as a share that is unmounted."""
    at_step(lambda: os.rename(run, f"{run}.away"))


def small_files(run: Path) -> None:
    """From step 4 on no file may grow beyond 40 kB: a full disk for those who are not root."""
    at_step(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY)))


def no_memory(run: Path) -> None:
    """More than 5 images in a forward pass of the training do not fit, as PyTorch says it on a CPU."""
    forward = TPSeg.forward

    def limited(self: TPSeg, image: torch.Tensor, task: torch.Tensor) -> Any:
        if self.training and len(image) > 5 and not (self.trunk is not None and self.trunk.checkpointing and len(image) <= 6):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to")
        return forward(self, image, task)

    TPSeg.forward = limited  # type: ignore[method-assign]


def address_space(run: Path) -> None:
    """This process gets 5 GB more of address space than it has, and a forward pass takes 1 GB of it an image: a real lack of memory.

    The one large request is what fails: libraries that are refused a small one may crash.
    """
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 5_000_000_000, resource.RLIM_INFINITY))
    forward = TPSeg.forward

    def greedy(self: TPSeg, image: torch.Tensor, task: torch.Tensor) -> Any:
        held = torch.empty(len(image), 1_000_000_000, dtype=torch.uint8)  # asked for, never written: takes no memory
        output = forward(self, image, task)
        del held
        return output

    TPSeg.forward = greedy  # type: ignore[method-assign]


def run(order: dict[str, Any]) -> int:
    """One command in this process, as if it had been given in a terminal."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    TRUNK_SIZES["tiny"] = TRUNK
    words = order["words"]
    for name in order["hooks"]:
        globals()[name](Path(words[words.index("--out") + 1]))
    sys.argv = ["tpseg", *words]
    return tpseg.cli.main(words)


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    torch.set_num_threads(1)
    nn.Linear(1, 1)  # what PyTorch imports late
    say("ready")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = run(json.loads(line))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        say(pid)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
