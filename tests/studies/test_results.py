"""From finished cells to a study's tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from miniature import SETTINGS, write_discs

from tpseg.core.config import merge
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.studies import plan, results
from tpseg.studies.cell import run_cell, write_cell
from tpseg.studies.plan import Budget, Cell, Row, Study, cells
from tpseg.studies.results import Results
from tpseg.studies.run_cells import cell_folder, read_scores

pytestmark = pytest.mark.usefixtures("miniature_trunk_module")

BUDGET = Budget("test", merge(SETTINGS, {"sampling": {"workers": 0}}), steps=4, epochs=None, validations=2)
ROWS = (
    Row("base", "Baseline", settings={"model": {"adapter": "none", "pgtds": []}}, paper={"dice": 78.69, "miou": 78.02}),
    Row("full", "Full"),
    Row("each", "Separate", separate=True),
    Row("again", "The same as full"),
)
STUDY = Study("mine", "A study", "full", ROWS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return read_dataset(write_discs(tmp_path_factory.mktemp("results") / "data", train=8))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: DataSet, miniature_trunk_module: None) -> tuple[Path, list[Cell]]:
    out = tmp_path_factory.mktemp("results") / "out"
    planned = cells(STUDY, BUDGET, data, data.sha256(), [42, 43])
    for cell in {cell.key: cell for cell in planned}.values():
        write_cell(cell, data.source, cell_folder(out, cell))
        run_cell(cell_folder(out, cell))
    return out, planned


def without(planned: Sequence[Cell], row: str) -> list[Cell]:
    """The plan, with a row's cells replaced by ones that nobody has trained."""
    return [Cell(cell.row, cell.seed, cell.tasks, cell.config, "other") if cell.row == row else cell for cell in planned]


def test_every_row_seed_and_image_has_its_line(finished: tuple[Path, list[Cell]]) -> None:
    out, planned = finished
    scores = read_scores(STUDY, planned, out)
    assert scores.groupby(["row", "seed", "task"], sort=False).size().to_dict() == {
        (row, seed, task): 3 for row in ("base", "full", "each", "again") for seed in (42, 43) for task in ("bright_disc", "dark_disc")
    }
    full, again = (scores[scores["row"] == row].drop(columns="row").reset_index(drop=True) for row in ("full", "again"))
    pd.testing.assert_frame_equal(full, again)
    assert len(list((out / "cells").iterdir())) == 2 * (1 + 1 + 2)


def test_a_separate_row_counts_only_when_all_its_tasks_are_done(finished: tuple[Path, list[Cell]]) -> None:
    out, planned = finished
    missing = next(cell for cell in planned if cell.row == "each" and cell.seed == 43)
    cut = [Cell(missing.row, 43, missing.tasks, missing.config, "other") if cell is missing else cell for cell in planned]
    scores = read_scores(STUDY, cut, out)
    assert set(scores[scores["row"] == "each"]["seed"]) == {42}


def test_table_and_figures_are_written(finished: tuple[Path, list[Cell]], data: DataSet) -> None:
    out, planned = finished
    study = replace(STUDY, name="drawn", figures=("fig6", "fig7", "gates", "gradients"))
    table = Results(study, planned, data, out, "tiny").write()
    assert table is not None
    folder = out / "drawn"
    assert {f"drawn.{kind}" for kind in ("md", "tex", "csv", "html")} <= {path.name for path in folder.iterdir()}
    assert {path.stem for path in folder.glob("*.svg")} == {"curves", "margins", "fig6", "fig7", "gates", "gradients"}
    assert {path.stem for path in folder.glob("*.csv")} == {"drawn", "prototypes", "gates", "splits", "gradients", "gradient_summary"}
    assert len(pd.read_parquet(folder / "scores.parquet")) == 48
    markdown = (folder / "drawn.md").read_text()
    assert "Baseline" in markdown
    assert "78.69" in markdown
    assert "±" in markdown


def test_a_row_that_failed_leaves_a_dash_and_the_others_stand(finished: tuple[Path, list[Cell]], data: DataSet) -> None:
    out, planned = finished
    table = Results(STUDY, without(planned, "base"), data, out, "tiny").write()
    assert table is not None
    line = next(line for line in table.to_markdown().splitlines() if "Baseline" in line)
    assert "–" in line
    assert "±" not in line


def test_without_the_reference_there_is_a_table_and_no_test(finished: tuple[Path, list[Cell]], data: DataSet) -> None:
    out, planned = finished
    table = Results(STUDY, without(planned, "full"), data, out, "tiny").write()
    assert table is not None
    assert "Baseline" in table.to_markdown()


def test_nothing_finished_writes_nothing(tmp_path: Path, data: DataSet) -> None:
    assert Results(STUDY, cells(STUDY, BUDGET, data, data.sha256(), [42]), data, tmp_path, "tiny").write() is None
    assert not any(tmp_path.iterdir())


def test_every_figure_that_a_study_may_name_can_be_drawn() -> None:
    assert set(plan.FIGURES) == set(results.FIGURES)
