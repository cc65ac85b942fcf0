"""Training the cells of a study, several at once, each in its own process; finished ones are skipped, failed ones passed over."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout

from tpseg.core.config import require
from tpseg.core.errors import UsageError
from tpseg.studies.cell import LOG, RUN, SCORES, process, read_cell_scores, write_cell
from tpseg.studies.plan import Cell, Study
from tpseg.training.run import steps_done

LOOK = 2.0
"""Seconds between two looks at how far the cells have come."""


@dataclass(frozen=True)
class Failure:
    """A cell that ended without scores."""

    cell: Cell
    reason: str
    log: Path

    def __str__(self) -> str:
        return f"failed: {self.cell.label}: {self.reason} (see {self.log})"


def cell_folder(out: Path, cell: Cell) -> Path:
    """Where a cell lives: found by its key if any study has begun it, else named after its row."""
    for folder in (out / "cells").glob(f"*-{cell.key}"):
        return folder
    task = f"-{cell.tasks[0]}" if len(cell.tasks) == 1 else ""
    return out / "cells" / f"{cell.row}{task}-seed{cell.seed}-{cell.key}"


def is_finished(out: Path, cell: Cell) -> bool:
    return (cell_folder(out, cell) / SCORES).is_file()


def resolve_jobs(jobs: int | None) -> int:
    """Cells at a time; by default one on a GPU, on a CPU two, which small models use better than two threads."""
    if jobs is None:
        return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)
    require(jobs >= 1, "--jobs", jobs, "1 or more")
    return jobs


def run_cells(
    cells: Sequence[Cell],
    data: Path,
    out: Path,
    jobs: int,
    done: Callable[[Cell, Failure | None], None],
    moved: Callable[[int], None] = lambda steps: None,
) -> list[Failure]:
    """Train and score what is not finished; `done` hears of each cell as it ends. Returns the failures.

    cells: all different. Raises UsageError if another study is at work in `out`; stopped by Ctrl-C or a kill, the cells
    stop too, and the next call goes on with each from its last checkpoint. moved: hears every few seconds how many steps the cells that
    were not finished have made, by the epochs that have ended; those of a cell that failed count, for none of them is to come.
    """
    out.mkdir(parents=True, exist_ok=True)
    waiting = [cell for cell in cells if not is_finished(out, cell)]
    failures: list[Failure] = []
    try:
        with FileLock(out / ".lock", timeout=0), ThreadPoolExecutor(jobs) as pool:
            running: dict[str, BaseProcess] = {}
            futures = {pool.submit(_run_process, cell, data, out, jobs, running): cell for cell in waiting}
            try:
                ended, left = 0, set(futures)
                while left:
                    ready, left = wait(left, timeout=LOOK, return_when=FIRST_COMPLETED)
                    for future in ready:
                        failure, cell = future.result(), futures[future]
                        failures += [failure] if failure else []
                        ended += cell.steps()
                        done(cell, failure)
                    moved(ended + sum(min(steps_done(cell_folder(out, futures[one]) / RUN), futures[one].steps()) for one in left))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in list(running.values()):
                    child.kill()
                raise
    except Timeout as error:
        raise UsageError(f"{out}: another tpseg study is at work in this folder; wait for it or choose another --out") from error
    return failures


def _run_process(cell: Cell, data: Path, out: Path, jobs: int, running: dict[str, BaseProcess]) -> Failure | None:
    folder = cell_folder(out, cell)
    folder.mkdir(parents=True, exist_ok=True)
    write_cell(cell, data, folder)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    child = _new_process(folder, threads)
    child.start()
    running[cell.key] = child
    child.join()
    del running[cell.key]
    if child.exitcode == 0 and is_finished(out, cell):
        return None
    return Failure(cell, _reason(folder / LOG, child.exitcode or 0), folder / LOG)


def _new_process(folder: Path, threads: int) -> BaseProcess:
    """From a server that has done the imports, which take longer than a small cell; from scratch where there is none."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload(["tpseg.studies.cell"])
    return context.Process(target=process, args=(folder, threads))


def _reason(log: Path, code: int) -> str:
    """The last words of a cell's log."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    ended = f"killed by signal {-code}, for want of memory perhaps" if code < 0 else f"ended with code {code}"
    return f"{lines[-1].removeprefix('tpseg: ')}" if lines and code > 0 else ended


def read_scores(study: Study, cells: Sequence[Cell], out: Path) -> pd.DataFrame:
    """Scores of all finished cells, a row per study row, seed and image. A separate row counts for a seed once all tasks are done."""
    tables = []
    for row in study.rows:
        for seed in dict.fromkeys(cell.seed for cell in cells):
            mine = [cell for cell in cells if (cell.row, cell.seed) == (row.id, seed)]
            if all(is_finished(out, cell) for cell in mine):
                tables += [read_cell_scores(cell_folder(out, cell)).assign(row=row.id, seed=seed) for cell in mine]
    if not tables:
        return pd.DataFrame(columns=["row", "seed", "task", "image"])
    scores = pd.concat(tables, ignore_index=True)
    return scores[["row", "seed", *[column for column in scores if column not in ("row", "seed")]]]
