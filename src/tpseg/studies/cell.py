"""One cell of a study, trained and scored in a process of its own.

FOLDER/cell.json says what; FOLDER/run is the run folder; FOLDER/scores.parquet, written last, says that it is done.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tpseg.core.config import build_config
from tpseg.core.errors import DataError, TPSegError
from tpseg.core.files import replacing, write_atomically
from tpseg.data.manifest import read_dataset
from tpseg.evaluation.evaluate import evaluate_model, read_rows
from tpseg.inference import Segmenter
from tpseg.studies.plan import Cell
from tpseg.training.process_group import leave_with_parent
from tpseg.training.run import is_finished, train

LOG = "log.txt"
RUN = "run"
SCORES = "scores.parquet"
SPLIT = "test"


def write_cell(cell: Cell, data: Path, folder: Path) -> None:
    """Write FOLDER/cell.json."""
    content = {**asdict(cell), "config": cell.config.to_dict(), "data": str(data.resolve()), "key": cell.key}
    write_atomically(folder / "cell.json", json.dumps(content, indent=2) + "\n")


def read_cell(folder: Path) -> tuple[Cell, Path]:
    """A cell and its data set's tasks.yaml."""
    content: dict[str, Any] = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    config = build_config(content["config"], source=f"{folder}/cell.json")
    return Cell(content["row"], content["seed"], tuple(content["tasks"]), config, content["data_sha256"]), Path(content["data"])


def read_cell_scores(folder: Path) -> pd.DataFrame:
    """The scores of a finished cell, a row per image; raises DataError for a damaged file."""
    try:
        return pd.read_parquet(folder / SCORES)
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise DataError(f"{folder / SCORES}: cannot be read as a table of scores; delete it to train this cell again ({error})") from error


def run_cell(folder: Path) -> None:
    """Train, or go on training, and score; then drop the checkpoints, which nothing needs any more."""
    cell, data = read_cell(folder)
    run = folder / RUN
    begun = time.monotonic()
    if not is_finished(run, cell.steps()):
        train(cell.config, data, run, tasks=cell.tasks, resume=(run / "settings.yaml").is_file())
    trained = time.monotonic()
    only = read_dataset(data).only(cell.tasks)
    evaluate_model(Segmenter(str(run), weights=cell.config.model.weights), only, SPLIT, ["all"], run / "evaluation")
    rows = read_rows(run / "evaluation" / f"{SPLIT}.csv")
    times = {"training_seconds": trained - begun, "evaluation_seconds": time.monotonic() - trained}
    write_atomically(folder / "times.json", json.dumps({**times, "threads": torch.get_num_threads()}, indent=2) + "\n")
    with replacing(folder / SCORES) as new:
        rows.to_parquet(new, index=False)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)


def process(folder: Path, threads: int) -> None:
    """What a cell's process does: run the cell, its words in FOLDER/log.txt; exits 1 with the reason as the last line."""
    leave_with_parent()
    with (folder / LOG).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(threads)
    try:
        run_cell(folder)
    except TPSegError as error:
        sys.exit(f"tpseg: {error}")
