"""One cell: trained, scored, repeated with the same scores, gone on with after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from miniature import config, history, stopped, write_discs
from pyarrow.parquet import read_schema

from tpseg.core.errors import DataError
from tpseg.data.manifest import read_dataset
from tpseg.evaluation.evaluate import read_rows
from tpseg.studies.cell import read_cell, read_cell_scores, run_cell, write_cell
from tpseg.studies.plan import Cell

pytestmark = pytest.mark.usefixtures("miniature_trunk")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("cell") / "data")


def cell(tasks: Path, names: tuple[str, ...] = ("bright_disc", "dark_disc"), seed: int = 42) -> Cell:
    settings = config(training={"epochs": 2, "seed": seed}, sampling={"epoch_images": 8})
    return Cell("A4", seed, names, settings, read_dataset(tasks).sha256())


def run(folder: Path, tasks: Path, **changes: object) -> pd.DataFrame:
    write_cell(cell(tasks, **changes), tasks, folder)  # type: ignore[arg-type]
    run_cell(folder)
    return read_cell_scores(folder)


def test_a_cell_on_disk_is_the_cell_that_was_written(tmp_path: Path, tasks: Path) -> None:
    write_cell(cell(tasks), tasks, tmp_path)
    again, data = read_cell(tmp_path)
    assert again == cell(tasks)
    assert again.key == cell(tasks).key
    assert data == tasks.resolve()


def test_two_runs_of_a_cell_give_the_same_scores_and_another_seed_others(tmp_path: Path, tasks: Path) -> None:
    first = run(tmp_path / "first", tasks)
    assert len(first) == 6  # 3 test images of each task
    pd.testing.assert_frame_equal(first, run(tmp_path / "second", tasks), check_exact=True)
    other = run(tmp_path / "other", tasks, seed=43)
    assert not first["pranet_dice"].equals(other["pranet_dice"])


def test_the_scores_are_the_evaluations_and_the_checkpoints_are_gone(tmp_path: Path, tasks: Path) -> None:
    scores = run(tmp_path, tasks)
    pd.testing.assert_frame_equal(scores, read_rows(tmp_path / "run" / "evaluation" / "test.csv"))
    assert set(scores["split"]) == {"test"}
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_a_cell_of_one_task_learns_and_scores_that_task(tmp_path: Path, tasks: Path) -> None:
    scores = run(tmp_path, tasks, names=("dark_disc",))
    assert set(scores["task"]) == {"dark_disc"}
    assert read_schema(tmp_path / "scores.parquet").names == [*scores.columns]  # what other programs than pandas see
    assert "dark_disc" in (tmp_path / "run" / "model" / "tasks.json").read_text()
    assert "bright_disc" not in (tmp_path / "run" / "model" / "tasks.json").read_text()


def test_a_stopped_cell_goes_on_and_ends_where_it_would_have(tmp_path: Path, tasks: Path) -> None:
    write_cell(cell(tasks), tasks, tmp_path / "stopped")
    with stopped(epoch=1):
        run_cell(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "scores.parquet").exists()
    run_cell(tmp_path / "stopped")
    pd.testing.assert_frame_equal(read_cell_scores(tmp_path / "stopped"), run(tmp_path / "whole", tasks), check_exact=True)


def test_a_cell_that_was_stopped_while_scoring_is_not_trained_again(tmp_path: Path, tasks: Path) -> None:
    scores = run(tmp_path, tasks)
    (tmp_path / "scores.parquet").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tpseg.training.run.train", lambda *arguments, **options: pytest.fail("trained again"))
        run_cell(tmp_path)
    pd.testing.assert_frame_equal(read_cell_scores(tmp_path), scores)


def test_a_cell_that_early_stopping_ended_is_scored_not_trained_again(tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpseg.training.module.hard_dice", lambda logits, mask: torch.full((len(mask),), 0.5))  # no epoch is better
    settings = config(training={"epochs": 6, "early_stopping": 1}, sampling={"epoch_images": 8})
    write_cell(replace(cell(tasks), config=settings), tasks, tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tpseg.studies.cell.evaluate_model", interrupted)
        run_cell(tmp_path)
    assert list(history(tmp_path / "run")["step"]) == [2, 4]
    run_cell(tmp_path)
    assert len(read_cell_scores(tmp_path)) == 6
    assert list(history(tmp_path / "run")["step"]) == [2, 4]


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_the_key_tells_cells_apart(tasks: Path) -> None:
    one = cell(tasks)
    others = [replace(one, tasks=("dark_disc",)), replace(one, data_sha256="0"), cell(tasks, seed=43)]
    assert len({one.key, *(other.key for other in others)}) == 4
    assert replace(one, row="C6").key == one.key


def test_damaged_scores_are_named(tmp_path: Path) -> None:
    (tmp_path / "scores.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match=r"scores\.parquet: cannot be read .* delete it"):
        read_cell_scores(tmp_path)
