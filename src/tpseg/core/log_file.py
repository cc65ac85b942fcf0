"""`--log FILE`: what a command says on the screen is kept in a file as well, each line once, with the time."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from rich.console import Console

from tpseg.core.errors import UsageError
from tpseg.core.untrusted import printable

WIDTH = 120
"""Columns of the tables in a log file, whatever the screen has."""


class LogFile:
    """A text file that grows by whole messages; several processes may add to it."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where there is no folder for it, OSError for a file that cannot be written."""
        if not path.parent.is_dir():
            raise UsageError(
                f"--log {path}: there is no folder {path.parent}; make it first, or name a file elsewhere: the folder that a command is to "
                "make cannot hold its log"
            )
        path.open("a").close()  # at once, not after the work
        self.path = path
        self._lock = Lock()

    def keep(self, *objects: Any, sep: str = " ") -> None:
        """Add what a console prints: text, tables."""
        text = io.StringIO()
        Console(file=text, width=WIDTH, markup=False, highlight=False, color_system=None).print(*objects, sep=sep, soft_wrap=True)
        lines = [printable(line).rstrip() for line in text.getvalue().split("\n")]
        if not any(lines):
            return  # what moves a bar on the screen
        time = f"{datetime.now():%H:%M:%S}  "
        lines = [(" " * len(time) if number else time) + line for number, line in enumerate(lines)]
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write("\n".join(line.rstrip() for line in lines).rstrip() + "\n")


_open: list[LogFile] = []
"""The file of this process, or none."""


class LoggedConsole(Console):
    """A console whose messages go to the log file too; of a bar that moves only what stays on the screen."""

    def print(self, *objects: Any, sep: str = " ", **options: Any) -> None:
        super().print(*objects, sep=sep, **options)
        for file in _open:
            file.keep(*objects, sep=sep)


class Warned(logging.Handler):
    """Keeps the library's warnings for the summary, and hands them to the log file and to stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(printable(record.getMessage()))
        for file in _open:
            file.keep(self.messages[-1])
        if logging.lastResort is not None and not logging.getLogger().handlers:  # which Python asks only where nobody else listens
            logging.lastResort.handle(record)


@contextmanager
def listening() -> Iterator[Warned]:
    """Within it, the library's warnings are kept."""
    handler = Warned()
    logging.getLogger("tpseg").addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger("tpseg").removeHandler(handler)


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Within it, what the consoles of this process say is added to a file; raises OSError for one that cannot be written."""
    if path is None:
        yield
        return
    _open.append(LogFile(path))
    try:
        yield
    finally:
        _open.pop()


def log_path() -> Path | None:
    """The log file of this process, for those that it starts."""
    return _open[-1].path.absolute() if _open else None


def log_only(line: str) -> None:
    """Keep a line that the screen has no need of: it shows a bar."""
    for file in _open:
        file.keep(line)
