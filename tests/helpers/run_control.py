"""Runs that may be killed: commands in processes of their own, and whether two runs are the same, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tpseg.checkpoints.model_folder import load_model
from tpseg.training.checkpoints import newest

Command = Callable[..., list[str]]
HERE = Path(__file__).parent


class CommandServer:
    """Gives orders to command_server.py, one at a time."""

    def __init__(self, folder: Path) -> None:
        paths = [str(HERE), *sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "command_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.answer() == "ready"
        self.log = folder / "log.txt"

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, words: list[str], hooks: tuple[str, ...] = ()) -> int:
        """Start a command; returns its process number."""
        self.log.unlink(missing_ok=True)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"words": words, "log": str(self.log), "hooks": hooks}) + "\n")
        self.process.stdin.flush()
        return int(self.answer())

    def end(self) -> int:
        """Wait for it; returns its exit code, negative for a signal."""
        return int(self.answer())

    def said(self) -> str:
        return self.log.read_text()

    def run(self, words: list[str], *hooks: str) -> int:
        self.begin(words, hooks)
        return self.end()

    def kill_after(self, seconds: float, words: list[str]) -> int:
        """Run a command and send it SIGKILL after so many seconds, or find it finished."""
        pid = self.begin(words)
        time.sleep(seconds)
        return self.kill(pid)

    def kill(self, pid: int) -> int:
        with suppress(ProcessLookupError):  # it was faster
            os.kill(pid, signal.SIGKILL)
        return self.end()


def differing(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two nested contents differ, tensors by their bits."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
        return [] if same else [where]
    if isinstance(one, dict) and isinstance(other, dict):
        missing = [f"{where}/{key}" for key in one.keys() ^ other.keys()]
        return missing + [found for key in one.keys() & other.keys() for found in differing(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return [found for number in range(len(one)) for found in differing(one[number], other[number], f"{where}/{number}")]
    return [] if repr(one) == repr(other) else [where]  # repr: NaN is NaN


def content(run: Path) -> dict[str, Any]:
    """All that a run has come to, without times and places: checkpoints, model, metrics.csv and TensorBoard's curves."""
    found: dict[str, Any] = {}
    for name in ("last", "best", "previous"):
        saved = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        saved["callbacks"] = {key.split("{")[0]: value for key, value in saved["callbacks"].items()}
        found[name] = saved
    found["model"] = load_model(run / "model").state_dict()
    found["metrics.csv"] = (run / "logs" / "metrics.csv").read_text()
    events = EventAccumulator(str(run / "logs"), size_guidance={"scalars": 0}).Reload()
    found["events"] = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return found


reference = lru_cache(maxsize=2)(content)


def assert_same(one: Path, other: Path) -> None:
    """Every bit of two runs is the same, and nothing half-written lies about."""
    differences = differing(reference(one), content(other))
    assert not differences, differences[:10]
    assert not list(other.rglob(".*"))


def saved_step(run: Path) -> int:
    """The step that a run would go on from."""
    found = newest(run / "checkpoints")
    return found[1].step if found else 0
