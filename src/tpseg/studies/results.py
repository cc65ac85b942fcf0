"""What a study leaves behind: its scores, table and figures, written to OUT/STUDY/ from the finished cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tpseg.checkpoints.model_folder import load_model
from tpseg.core.files import replacing, write_atomically
from tpseg.data.manifest import Case, DataSet
from tpseg.inference import Segmenter
from tpseg.models.base import LesionModel
from tpseg.studies import figures, learned
from tpseg.studies.pictures import visual_comparison
from tpseg.studies.plan import Cell, Study
from tpseg.studies.run_cells import cell_folder, is_finished, read_scores
from tpseg.studies.run_study import Plan
from tpseg.studies.statistics import compare, summarise
from tpseg.studies.table_formats import write_table
from tpseg.studies.tables import Table, study_table
from tpseg.studies.verdict import SETTING


class Results:
    """The finished cells of a study."""

    def __init__(self, study: Study, cells: Sequence[Cell], data: DataSet, out: Path, budget: str, protocol: str = "tpseg") -> None:
        self.study = study
        self.budget = budget
        self.cells = [cell for cell in cells if is_finished(out, cell)]
        self.data = data
        self.out = out
        self.folder = out / study.name
        self.protocol = protocol
        self.titles = {task.name: task.title for task in data.tasks}
        self.names = {row.id: row.name for row in study.rows}
        self.scores = read_scores(study, cells, out)

    def write(self) -> Table | None:
        """Write scores.parquet, the table in four formats and the figures; None if no row is finished."""
        if self.scores.empty:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "scores.parquet") as new:
            self.scores.to_parquet(new, index=False)
        reference = self.study.reference in set(self.scores["row"])
        comparison = compare(self.scores, self.study.reference, self.protocol) if reference else pd.DataFrame()
        table = study_table(self.study, self.summary, comparison, self.titles, self.protocol)
        write_atomically(self.folder / SETTING, json.dumps(self.setting(), indent=2) + "\n")
        write_table(self.folder, table)
        figures.learning_curves(self.folder / "curves", self.histories(), self.names)
        if len(comparison):
            figures.margins(self.folder / "margins", comparison, self.names, self.study.reference)
        for figure in self.study.figures if reference else ():
            FIGURES[figure](self)
        return table

    def setting(self) -> dict[str, Any]:
        """What the models of the reference row had in common; read again by `verdict`."""
        cells = [cell for cell in self.cells if cell.row == self.study.reference] or self.cells
        model = cells[0].config.model
        common = {"budget": self.budget, "image_size": model.image_size, "steps": cells[0].steps(), "trunk": model.trunk}
        return common | {"frozen": model.freeze, "seeds": sorted({cell.seed for cell in self.cells}), "protocol": self.protocol}

    @cached_property
    def summary(self) -> pd.DataFrame:
        return summarise(self.scores, self.protocol)

    def unified(self) -> list[Cell]:
        """Cells of one model for all tasks."""
        return [cell for cell in self.cells if len(cell.tasks) == len(self.data.tasks)]

    def run(self, cell: Cell) -> Path:
        return cell_folder(self.out, cell) / "run"

    def histories(self) -> dict[tuple[str, int], pd.DataFrame]:
        """logs/metrics.csv by row and seed."""
        return {(cell.row, cell.seed): pd.read_csv(self.run(cell) / "logs" / "metrics.csv") for cell in self.unified()}

    def models(self) -> Mapping[tuple[str, int], LesionModel]:
        """The unified models by row and seed, each loaded when it is asked for."""
        return _Models({(cell.row, cell.seed): (self.run(cell), cell.config.model.weights) for cell in self.unified()})

    def of_reference(self, table: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write a table over all rows as NAME.csv; its lines of the reference row, for a figure."""
        write_atomically(self.folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
        return table[table["row"] == self.study.reference]


def write_results(plan: Plan, protocol: str) -> Iterator[tuple[Path, Table]]:
    """Write what each study of a plan has so far; its folder and its table, where a row is finished."""
    for study in plan.studies:
        results = Results(study, plan.cells[study.name], plan.data, plan.out, plan.budget.name, protocol)
        table = results.write()
        if table is not None:
            yield results.folder, table


class _Models(Mapping[tuple[str, int], LesionModel]):
    def __init__(self, runs: Mapping[tuple[str, int], tuple[Path, str | None]]) -> None:
        self.runs = runs

    def __getitem__(self, key: tuple[str, int]) -> LesionModel:
        run, weights = self.runs[key]
        return load_model(run, weights=weights)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


def draw_pictures(results: Results, name: str) -> None:
    """Figs. 5 and 6: predictions of the first seed's models."""
    seed = min(cell.seed for cell in results.cells)
    runs = {cell.row: (results.run(cell), cell.config.model.weights) for cell in results.unified() if cell.seed == seed}
    segmenters = {row: Segmenter(str(run), weights=weights) for row, (run, weights) in runs.items()}

    def segment(row: str, case: Case) -> np.ndarray:
        return segmenters[row](case.image, case.task).mask

    rows = {row: name for row, name in results.names.items() if row in runs}
    reference, note = results.study.reference, f"Models of seed {seed}."
    visual_comparison(results.folder / name, results.data, results.scores, rows, results.titles, segment, reference, note)


def draw_prototypes(results: Results) -> None:
    """Fig. 7, with prototypes.csv."""
    table = results.of_reference(learned.prototype_table(results.models()), "prototypes")
    figures.prototype_cosines(results.folder / "fig7", table, results.titles, results.names[results.study.reference])


def draw_separation(results: Results) -> None:
    """Fig. 8, with separation.csv and correlation.csv."""
    separations = learned.separation_table(results.models())
    results.of_reference(learned.correlation_table(separations, results.scores), "correlation")
    table = results.of_reference(separations, "separation")
    scores = results.scores[results.scores["row"] == results.study.reference]
    figures.separation_scores(results.folder / "fig8", table, scores, results.titles, results.names[results.study.reference])


def draw_gates(results: Results) -> None:
    """The gate's weights and splits, with gates.csv and splits.csv."""
    models = results.models()
    gates, splits = results.of_reference(learned.gate_table(models), "gates"), results.of_reference(learned.split_table(models), "splits")
    if len(gates):
        figures.gate_figure(results.folder / "gates", gates, splits, results.titles, results.names[results.study.reference])


def draw_sharing(results: Results) -> None:
    """Dice against the cost of all tasks on one image, with sharing.csv."""
    sharing = learned.sharing_table(learned.split_table(results.models()))
    results.of_reference(sharing, "sharing")
    if len(sharing):
        figures.sharing_curve(results.folder / "sharing", sharing, results.summary, results.names)


def draw_gradients(results: Results) -> None:
    """Gradient conflict of every unified row, with gradients.csv and its summary."""
    tables = []
    for (row, seed), model in results.models().items():
        tables.append(learned.gradient_conflict(model, results.data, seed=seed).assign(row=row, seed=seed))
    conflicts = pd.concat(tables, ignore_index=True)
    results.of_reference(conflicts, "gradients")
    results.of_reference(learned.conflict_summary(conflicts), "gradient_summary")
    by_row = {name: conflicts[conflicts["row"] == row] for row, name in results.names.items() if row in set(conflicts["row"])}
    figures.gradient_matrices(results.folder / "gradients", by_row, results.titles)


FIGURES: dict[str, Callable[[Results], None]] = {
    "fig5": lambda results: draw_pictures(results, "fig5"),
    "fig6": lambda results: draw_pictures(results, "fig6"),
    "fig7": draw_prototypes,
    "fig8": draw_separation,
    "gates": draw_gates,
    "sharing": draw_sharing,
    "gradients": draw_gradients,
}
"""By the names that a study's `figures` takes."""
