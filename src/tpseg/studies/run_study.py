"""`conduct`: a study from its name to its tables and figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.console import Group
from rich.table import Table

from tpseg.core.config import require
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.studies.measuring import training_seconds
from tpseg.studies.plan import Budget, Cell, Study, cells, definition_names, read_budget, read_study
from tpseg.studies.run_cells import Failure, is_finished, run_cells

FIRST_SEED = 42


@dataclass(frozen=True)
class Plan:
    """Everything that a command line asks for, unfolded."""

    studies: tuple[Study, ...]
    budget: Budget
    data: DataSet
    cells: dict[str, list[Cell]]
    """By study; equal cells of several studies are trained once."""
    out: Path

    def all_cells(self) -> list[Cell]:
        """Every model once, seed by seed, so that an interrupted study holds whole seeds."""
        distinct: dict[str, Cell] = {}
        for cell in chain.from_iterable(self.cells.values()):
            distinct.setdefault(cell.key, cell)  # named after the first row that it is of
        return sorted(distinct.values(), key=lambda cell: cell.seed)

    def unfinished(self) -> list[Cell]:
        return [cell for cell in self.all_cells() if not is_finished(self.out, cell)]


def make_plan(
    names: Sequence[str], data: Path, out: Path, budget: str, seeds: int, rows: Sequence[str] | None = None, steps: int | None = None
) -> Plan:
    """Read studies, budget and data; raises UsageError or DataError for anything that would fail later."""
    require(seeds >= 1, "--seeds", seeds, "1 or more")
    studies = [read_study(name) for name in names]
    if rows is not None:
        studies = [study.only(rows) for study in studies]
    dataset, read = read_dataset(data), read_budget(budget)
    dataset.split("val"), dataset.split("test")  # raises where there is none
    numbers = range(FIRST_SEED, FIRST_SEED + seeds)
    sha256 = dataset.sha256()
    return Plan(tuple(studies), read, dataset, {study.name: cells(study, read, dataset, sha256, numbers, steps) for study in studies}, out)


def conduct(plan: Plan, jobs: int, moved: Callable[[int], None], say: Callable[[str], None]) -> list[Failure]:
    """Train and score every cell of a plan that is not finished. Returns the failures.

    moved: hears how many of the plan's steps to make are made; say: a line as each cell ends, with how many are left and for how long.
    """
    waiting = plan.unfinished()
    begun, ended, steps = time.monotonic(), 0, sum(cell.steps() for cell in waiting)
    made = 0

    def done(cell: Cell, failure: Failure | None) -> None:
        nonlocal ended, made
        ended, made = ended + 1, made + cell.steps()
        hours = (time.monotonic() - begun) / 3600
        left = "" if ended == len(waiting) else f", about {hours * (steps - made) / made:.1f} h left"
        said = f"finished: {cell.label}" if failure is None else str(failure)
        say(f"{said} ({ended} of {len(waiting)} models after {hours:.1f} h{left})")

    return run_cells(plan.all_cells(), plan.data.source, plan.out, jobs, done, moved)


def study_names(choice: str) -> list[str]:
    """The studies that a choice means: names or files, comma-separated, or `all`; table5, which trains nothing, among them."""
    if choice == "all":
        return ["table5", *definition_names()]
    return [name for name in choice.split(",") if name]


def plan_table(plan: Plan, jobs: int) -> Group:
    """The plan for the terminal: rows with their cells and a rough time, from one timed training step on this machine."""
    waiting = {cell.key: cell for cell in plan.unfinished()}
    configs = {cell.key: cell.config.model for cell in plan.all_cells()}
    reference = next((key for key, config in configs.items() if config.architecture == "tpseg"), next(iter(configs)))
    pace = training_seconds(configs, reference, tasks=len(plan.data.tasks)) if waiting else None
    per_image = {} if pace is None else pace.per_image
    tables, counted = [], set[str]()
    for study in plan.studies:
        table = Table(title=f"{study.name}: {study.title}", title_justify="left")
        for heading in ("row", "setting", "models", "finished", "steps each", "hours"):
            table.add_column(heading, justify="left" if heading in ("row", "setting") else "right", no_wrap=heading == "row")
        for row in study.rows:
            mine = [cell for cell in plan.cells[study.name] if cell.row == row.id]
            finished = sum(cell.key not in waiting for cell in mine)
            new = [cell for cell in mine if cell.key in waiting and cell.key not in counted]
            counted |= {cell.key for cell in new}
            table.add_row(row.id, row.name, str(len(mine)), str(finished), str(mine[0].steps()), f"{_hours(new, per_image):.2f}")
        tables.append(table)
    hours = _hours(list(waiting.values()), per_image)
    models = f"{len(plan.all_cells())} models, {len(waiting)} to train"
    hours_text = f"about {hours:.1f} h one at a time, {hours / jobs:.1f} h with --jobs {jobs}, scoring included"
    basis = [] if pace is None else [f"Basis of the time: {pace.basis()}"]
    shared = "A model that several rows or studies share is trained once."
    return Group(*tables, f"budget {plan.budget.name}; {models}: {hours_text}. {shared}", *basis)


def _hours(cells: Sequence[Cell], per_image: Mapping[str, float]) -> float:
    """Training, and a tenth for validation and scoring."""
    return 1.1 * sum(cell.steps() * cell.config.training.batch_size * per_image[cell.key] for cell in cells) / 3600
