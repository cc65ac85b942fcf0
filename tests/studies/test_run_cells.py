"""Cells as processes: skipped when finished, passed over when failed, one study at a time; and a whole study through the CLI."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from miniature import config, write_discs

from tpseg.cli import main
from tpseg.cli.console import out_console
from tpseg.core.errors import UsageError
from tpseg.data.manifest import read_dataset
from tpseg.datasets.phantoms import write_phantoms
from tpseg.studies import run_cells as study_run
from tpseg.studies import run_study as conduct
from tpseg.studies.cell import SCORES
from tpseg.studies.plan import Cell, read_study
from tpseg.studies.run_cells import Failure, cell_folder, resolve_jobs, run_cells


def a_cell(tasks: Path, row: str = "A4") -> Cell:
    data = read_dataset(tasks)
    return Cell(row, 42, tuple(data.tasks.names), config(training={"epochs": 1}, sampling={"epoch_images": 4}), data.sha256())


def run(cells: list[Cell], tasks: Path, out: Path) -> tuple[list[Failure], list[str]]:
    """Failures, and the rows that were heard of."""
    heard: list[str] = []
    return run_cells(cells, tasks, out, 1, lambda cell, failure: heard.append(cell.row)), heard


def test_a_finished_cell_is_not_run_again_whatever_its_row(tmp_path: Path) -> None:
    tasks = write_discs(tmp_path / "data")
    cell = a_cell(tasks)
    folder = cell_folder(tmp_path, cell)
    folder.mkdir(parents=True)
    (folder / SCORES).touch()
    assert run([cell, replace(cell, row="C6")], tasks, tmp_path) == ([], [])
    assert cell_folder(tmp_path, replace(cell, row="C6")) == folder


def test_a_failed_cell_says_why_and_the_next_one_is_tried(tmp_path: Path) -> None:
    tasks = write_discs(tmp_path / "data")
    first, second = (replace(a_cell(tasks, row), tasks=(f"no_{row}",)) for row in ("first", "second"))
    failures, heard = run([first, second], tasks, tmp_path)
    assert heard == ["first", "second"]
    assert [failure.cell for failure in failures] == [first, second]
    assert "unknown task 'no_first'" in str(failures[0])
    assert "unknown task 'no_second'" in failures[1].log.read_text()
    assert "Traceback" not in failures[1].log.read_text()


def test_the_steps_of_a_cell_that_trains_are_seen_while_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells in threads that stand for processes; the first is seen in its midst, the second fails."""
    tasks = write_discs(tmp_path / "data")
    first, second = (replace(a_cell(tasks, row), config=config(training={"epochs": 4}, sampling={"epoch_images": 4})) for row in "AB")
    second = replace(second, tasks=("no_such",))
    seen, halfway = list[int](), threading.Event()

    def train(cell: Cell, data: Path, out: Path, jobs: int, running: Any) -> Failure | None:
        logs = cell_folder(out, cell) / "run" / "logs"
        logs.mkdir(parents=True)
        (logs / "metrics.csv").write_text("epoch,step\n1,1\n2,2\n")
        assert cell.row == "B" or halfway.wait(600)
        return Failure(cell, "it failed", logs) if cell.row == "B" else None

    def moved(steps: int) -> None:
        seen.append(steps)
        if steps == 2:
            halfway.set()

    monkeypatch.setattr(study_run, "_run_process", train)
    monkeypatch.setattr(study_run, "LOOK", 0.01)
    run_cells([first, second], tasks, tmp_path / "out", 1, lambda cell, failure: None, moved)
    assert 2 in seen
    assert (seen, seen[-1]) == (sorted(seen), 8)


def test_what_ends_is_said_with_how_many_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, said = write_discs(tmp_path / "data"), list[str]()
    (tmp_path / "mini.yaml").write_text("config: small\nsteps: 4\nvalidations: 2\nmodel: {image_size: 32}\n")
    plan = conduct.make_plan(["table4"], tasks, tmp_path / "out", str(tmp_path / "mini.yaml"), 1)

    def run_two(cells: list[Cell], data: Path, out: Path, jobs: int, done: Any, moved: Any) -> list[Failure]:
        done(cells[0], None)
        done(cells[1], Failure(cells[1], "it failed", Path("log")))
        return []

    monkeypatch.setattr(conduct, "run_cells", run_two)
    conduct.conduct(plan, 1, lambda steps: None, said.append)
    assert re.fullmatch(r"finished: [\w-]+ seed 42 \(1 of 5 models after 0\.0 h, about 0\.0 h left\)", said[0])
    assert re.fullmatch(r"failed: .*it failed.* \(2 of 5 models after 0\.0 h, about 0\.0 h left\)", said[1])


def test_two_studies_do_not_work_in_one_folder(tmp_path: Path) -> None:
    tasks = write_discs(tmp_path / "data")
    with FileLock(tmp_path / ".lock"), pytest.raises(UsageError, match="another tpseg study is at work"):
        run([a_cell(tasks)], tasks, tmp_path)


def test_a_dry_run_prints_the_plan_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = write_discs(tmp_path / "data")
    budget = tmp_path / "mini.yaml"
    budget.write_text("config: small\nsteps: 4\nvalidations: 2\nmodel: {image_size: 32}\n")
    arguments = [
        "study",
        "table4",
        "--data",
        str(tasks),
        "--out",
        str(tmp_path / "out"),
        "--budget",
        str(budget),
        "--seeds",
        "2",
        "--dry-run",
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "w/o PGTD1" in printed
    assert "10 models, 10 to train" in printed
    rows = re.findall(r"^│ (\S+) +│.*│ +(\d+) │ +(\d+) │ +\d+ │ [ \d.]+│$", printed, re.MULTILINE)  # id, models, finished
    assert rows == [(row.id, "2", "0") for row in read_study("table4").rows]
    monkeypatch.setattr(out_console, "_width", 40)
    assert main(arguments) == 0
    narrow = capsys.readouterr().out
    assert all(re.search(rf"^│ {row.id} +│", narrow, re.MULTILINE) for row in read_study("table4").rows)  # which --rows takes
    assert re.search(r"Basis of the time: [\d.]+ s a step of 2 images of 32 px on \w+", printed)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel3", "--data", "x"], "did you mean 'table3'"),
        (["table3"], "--data: which data set?"),
        (["table3", "--data", "DATA", "--rows", "A1,Z9"], "no row 'Z9'"),
        (["table3", "--data", "DATA", "--budget", "huge"], "no budget or file 'huge'"),
        (["table3", "--data", "DATA", "--seeds", "0"], "--seeds: found 0"),
        (["table3", "--data", "DATA", "--jobs", "0"], "--jobs: found 0"),
    ],
)
def test_bad_usage_is_one_sentence(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = write_discs(tmp_path / "data")
    assert main(["study", *[str(tasks) if word == "DATA" else word for word in arguments], "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def small_study(folder: Path) -> list[str]:
    """A study of a user's own, whose four models train in seconds, and a budget for it."""
    unet = {"architecture": "monai_unet", "width": 8}
    rows = {"one": {"model": unet}, "other": {"model": {**unet, "width": 12}}, "each": {"model": unet, "separate": True}}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"rows": rows, "reference": "one"}))
    (folder / "short.yaml").write_text("config: small\nsteps: 4\nvalidations: 2\nmodel: {image_size: 32}\nsampling: {workers: 0}\n")
    return [str(folder / "mine.yaml"), "--budget", str(folder / "short.yaml")]


@pytest.mark.parametrize(
    ("study", "cells", "again"),
    [
        pytest.param("mine", 4, "other", marks=pytest.mark.slow),
        pytest.param("table3", 15, "A1,A2,B1", marks=pytest.mark.long),  # 13 distinct unified models and 2 separate ones
    ],
)
def test_a_study_is_killed_and_goes_on(study: str, cells: int, again: str, tmp_path: Path) -> None:
    """No finished cell runs twice, and the table is the one of an undisturbed run."""
    tasks = write_phantoms(tmp_path / "data", cases=10, size=64)
    two = dict(list(yaml.safe_load(tasks.read_text())["tasks"].items())[:2])
    tasks.write_text(yaml.safe_dump({"tasks": two}))
    command = [sys.executable, "-m", "tpseg.cli", "study", *(small_study(tmp_path) if study == "mine" else ["table3", "--budget", "tiny"])]
    command += ["--data", str(tasks), "--seeds", "1", "--jobs", "1"]
    silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], **silent)
    while len(finished := list((tmp_path / "killed").glob(f"cells/*/{SCORES}"))) < 2:
        assert killed.poll() is None
        time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {path: path.stat().st_mtime_ns for path in finished}
    subprocess.run([*command, "--out", str(tmp_path / "killed")], **silent, check=True)
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    assert len(list((tmp_path / "killed").glob(f"cells/*/{SCORES}"))) == cells
    for place in ("whole", "killed"):
        subprocess.run([*command, "--out", str(tmp_path / place), "--rows", again], **silent, check=True)
    one, other = ((tmp_path / place / study / f"{study}.csv").read_text() for place in ("killed", "whole"))
    assert one == other


def test_one_cell_at_a_time_is_a_number_of_jobs():
    assert resolve_jobs(1) == 1
