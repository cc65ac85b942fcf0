"""Progress bars on stderr for anything that goes through a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tpseg.foreign import printable
from tpseg.log_file import LoggedConsole

Item = TypeVar("Item")
console = LoggedConsole(stderr=True)


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Pass items on, with a bar on stderr."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        yield from bar.track(items, total=total, description=description)


@contextmanager
def track_calls(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that moves with each call (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        row = bar.add_task(description)
        yield lambda done, total: bar.update(row, completed=done, total=total)


@contextmanager
def track_ends(description: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr that moves with each call, which says in a line what has ended; in a log file the lines alone."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task(description, total=total)

        def ended(line: str) -> None:
            console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            bar.advance(row)

        yield ended
