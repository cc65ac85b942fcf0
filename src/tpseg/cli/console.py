"""What all verbs share: where they print, and the choices of their options."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any, Literal

from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from tpseg.core.log_file import LoggedConsole
from tpseg.core.untrusted import printable

Protocol = Literal["default", "tpseg", "spider", "pranet", "nnunet", "all"]
Split = Literal["train", "val", "test"]


class SafeConsole(LoggedConsole):
    """A console to which no file name and no file's text can send control characters: they are spelled out.

    Its tables cut no word on a narrow screen: what has no room goes on in the next line.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, Table):
            for column in renderable.columns:
                column.overflow = "fold"
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(printable, text.split("\n"))), segment.style)

    def sentence(self, text: str, **options: Any) -> None:
        """Print a message in one line, whatever the names in it hold."""
        self.print(printable(text), **options)


class SafeFormatter(logging.Formatter):
    """Log messages in one line each, control characters spelled out."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def guard_log() -> None:
    """For warnings of the library, which go to stderr where nobody has set up logging."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(SafeFormatter())


out_console = SafeConsole(markup=False, highlight=False, soft_wrap=True)
error_console = SafeConsole(stderr=True, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Within it, whatever is printed goes to stderr: by us, by libraries in any language, by the processes that are started."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def plain(value: Any) -> Any:
    """What JSON can hold: paths as text, dataclasses as objects, numpy's numbers as Python's, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):  # an array or a number of numpy
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, PurePath) else value
