"""What all verbs share: where they print, and the choices of their options."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tpseg.foreign import printable

Protocol = Literal["default", "tpseg", "spider", "pranet", "nnunet", "all"]
Split = Literal["train", "val", "test"]


class SafeConsole(Console):
    """A console to which no file name and no file's text can send control characters: they are spelled out."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
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
