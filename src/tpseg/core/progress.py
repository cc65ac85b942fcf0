"""Progress bars on stderr for anything that goes through a list, whole on a narrow terminal too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tpseg.core.log_file import LoggedConsole
from tpseg.core.untrusted import printable

Item = TypeVar("Item")
console = LoggedConsole(stderr=True)
UNKNOWN = "–"
"""Stands where a number is not known yet."""
BAR = (8, 40)
"""Least and most columns of a bar."""


def known(value: float, form: str = ".3f") -> str:
    """A number, or a dash for NaN."""
    return UNKNOWN if math.isnan(value) else f"{value:{form}}"


class StepsColumn(ProgressColumn):
    """`12/480`, or `12/–` while nobody knows how many there are."""

    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{UNKNOWN if task.total is None else int(task.total)}", style="progress.download")


class LeftColumn(ProgressColumn):
    """`left 0:12:30`, or a dash."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        seconds = 0 if task.finished else task.time_remaining
        return Text(f"left {UNKNOWN if seconds is None else timedelta(seconds=int(seconds))}", style="progress.remaining")


class FittingProgress(Progress):
    """Bars that never cut a number: where the terminal is too narrow, whole columns are left out, the least needed first."""

    def __init__(self, *columns: ProgressColumn, needed: Sequence[ProgressColumn], disable: bool = False) -> None:
        """columns: as they are shown; needed: the same, the most needed first."""
        self.needed = needed
        super().__init__(*columns, console=console, disable=disable)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        shown = [task for task in tasks if task.visible]
        chosen = self._fitting(shown)
        table = Table.grid(*(column.get_table_column().copy() for column in chosen), padding=(0, 1))
        for task in shown:
            table.add_row(*(column(task) for column in chosen))
        return table

    def _fitting(self, tasks: Sequence[Task]) -> list[ProgressColumn]:
        room, chosen = console.width, set[ProgressColumn]()
        for column in self.needed:
            least = BAR[0] if isinstance(column, BarColumn) else max((self._width(column, task) for task in tasks), default=0)
            if least > room:
                break
            chosen.add(column)
            room -= least + 1  # and a space
        for column in chosen:
            if isinstance(column, BarColumn):
                column.bar_width = min(BAR[1], BAR[0] + max(0, room))
        return [column for column in self.columns if column in chosen]

    def _width(self, column: ProgressColumn, task: Task) -> int:
        return Measurement.get(console, console.options, column(task)).maximum


def bar_over_a_list(disable: bool = False) -> FittingProgress:
    """Description, bar, how many, time taken, time left."""
    words, bar, steps, elapsed, left = TextColumn("{task.description}"), BarColumn(), StepsColumn(), TimeElapsedColumn(), LeftColumn()
    return FittingProgress(words, bar, steps, elapsed, left, needed=(steps, words, left, bar, elapsed), disable=disable)


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Pass items on, with a bar on stderr."""
    with bar_over_a_list() as bar:
        yield from bar.track(items, total=total, description=description)


@contextmanager
def track_calls(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that moves with each call (done, total)."""
    with bar_over_a_list() as bar:
        row = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)


@contextmanager
def track_ends(description: str, total: int) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """A bar on stderr, and what moves it (to so many of `total`) and says a line above it; in a log file the lines alone."""
    with bar_over_a_list(disable=not console.is_terminal) as bar:
        row = bar.add_task(description, total=total)

        def say(line: str) -> None:
            console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

        yield lambda done: bar.update(row, completed=done), say
