"""What `tpseg data check` found: problems, the counts of each task, and how they are shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tpseg.data.manifest import SPLITS

SHOWN = 5
"""So many problems of one kind stand in the table; the others are counted."""


@dataclass(frozen=True)
class Problem:
    """One thing to mend (`error`) or to know (`warning`)."""

    level: str
    kind: str
    """What sort of problem, in two or three words: `missing file`, `duplicate across splits`."""
    task: str
    """'' where it concerns several tasks."""
    file: str
    """Path relative to the `tasks.yaml`; '' where it concerns no single file."""
    message: str


@dataclass(frozen=True)
class TaskCounts:
    """What one task consists of; the sizes and shares are over the files that could be read."""

    train: int
    val: int
    test: int
    empty_masks: int
    median_height: float | None
    median_width: float | None
    mean_lesion_share: float | None
    """Lesion pixels as a share of the image's, averaged over the masks, empty ones included."""


@dataclass(frozen=True)
class CheckReport:
    """All problems, errors first, and the counts of each task; `rich` prints it as two tables."""

    source: str
    tasks: dict[str, TaskCounts]
    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """No errors; there may be warnings."""
        return not any(problem.level == "error" for problem in self.problems)

    def __rich__(self) -> Group:
        levels = Counter(problem.level for problem in self.problems)
        verdict = Text(f"errors: {levels['error']}, warnings: {levels['warning']}", style="green" if self.ok else "red")
        return Group(_task_table(self), *([_problem_table(self.problems)] if self.problems else []), verdict)


def _task_table(report: CheckReport) -> Table:
    table = Table(title=Text(report.source))
    table.add_column("task", no_wrap=True)
    for heading in (*SPLITS, "empty", "median size", "mean lesion"):
        table.add_column(heading, justify="right")
    for name, counts in report.tasks.items():
        size = f"{counts.median_width:g}x{counts.median_height:g}" if counts.median_width else "-"
        share = "-" if counts.mean_lesion_share is None else f"{counts.mean_lesion_share:.1%}"
        table.add_row(name, *(str(getattr(counts, split)) for split in SPLITS), str(counts.empty_masks), size, share)
    return table


def _problem_table(problems: Sequence[Problem]) -> Table:
    """The first few problems of each kind, and how many more there are."""
    table = Table("problem", "task", "what and what to do", show_lines=True)
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.level, problem.kind].append(problem)
    for (level, kind), alike in kinds.items():
        heading = Text(f"{level}: {kind}", style="red" if level == "error" else "yellow")
        for problem in alike[:SHOWN]:
            where = f"{problem.file}: " if problem.file else ""
            table.add_row(heading, problem.task, Text(where + problem.message, overflow="fold"))
        if len(alike) > SHOWN:
            table.add_row(heading, "", f"and {len(alike) - SHOWN} more like these; --json lists them all")
    return table
