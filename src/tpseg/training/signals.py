"""Ctrl-C, and SIGTERM as a scheduler sends it: remembered until the run can be saved; the second Ctrl-C ends it at once."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from tpseg.core.errors import TPSegError
from tpseg.core.progress import console


class Stopped(TPSegError):
    """The run was asked to stop, and is saved. Its exit code is that of a process that the signal ended: 130 or 143."""

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Within it, from `listen` on, the signals are requests; after it they are what they were."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take the signals over: when training begins, for Lightning takes SIGTERM when it is set up. In a thread there are none."""
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGINT, signal.SIGTERM):
                self.before.setdefault(one, signal.getsignal(one))
                if signal.getsignal(one) is not signal.SIG_IGN:
                    signal.signal(one, self._asked)
            if hasattr(signal, "SIGCHLD"):
                # PyTorch's handler raises wherever the main thread is when a loading process dies, in the midst of a step too.
                # Without it that is noticed when the next images do not come, a few seconds later, and no step is lost.
                self.before.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_DFL))

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if number == signal.SIGINT:
            console.print("stopping after this step, or after the validation if one runs, to save; Ctrl-C again to stop at once")

    @property
    def exit_code(self) -> int:
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> StopRequest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one, handler in self.before.items():
            signal.signal(one, handler)


def leave_signals_to_parent(worker: int = 0) -> None:
    """For processes that load images or train with others: a terminal and a scheduler signal to all, and one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def how_to_continue() -> str:
    """The command that goes on with this run, as it was given, or what to do in Python."""
    words = sys.argv[1:]
    if not _is_command(Path(sys.argv[0])) or not words:
        return "continue with resume=True"
    if words[0] in ("train", "add-task") and not any(word.startswith("--resume") for word in words):
        words = [*words, "--resume"]
    return f"continue with: {shlex.join(['tpseg', *words])}"


def _is_command(program: Path) -> bool:
    """Whether this is `tpseg` or `python -m tpseg.cli`."""
    return program.stem == "tpseg" or program.parts[-3:] == ("tpseg", "cli", "__main__.py")
