"""The command line: help that helps, errors without a stack trace, and a user's story from end to end."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from miniature import TASKS, settings_file, write_discs
from PIL import Image
from rich.console import Group
from rich.control import Control
from rich.table import Table

from tpseg.cli import VERBS, main
from tpseg.cli.arguments import Outcome, Verb, build_parser
from tpseg.cli.console import SafeConsole
from tpseg.cli.learn import way_to_trunk
from tpseg.data.manifest import read_dataset
from tpseg.training.module import LesionModule

pytestmark = pytest.mark.usefixtures("miniature_trunk")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process: exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(*words: object) -> tuple[int, str, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:  # --help
            code = int(exit.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    return call


# Help


def test_the_overview_names_every_verb_with_a_sentence_and_a_first_run(run):
    for arguments in ([], ["--help"]):
        code, out, _ = run(*arguments)
        assert code == 0
        for verb in VERBS:
            assert re.search(rf"^  {verb.name} +[A-Z].*\.$", out, re.MULTILINE)
        assert "tpseg train --config small,demo --data phantoms/tasks.yaml --out runs/first" in out


def test_a_group_of_verbs_shows_its_own(run):
    code, out, _ = run("data")
    assert code == 0
    assert "data check" in out
    assert "data split" in out
    assert "predict" not in out


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_option_has_a_text_and_no_type_of_pythons_leaks(run, verb):
    code, out, _ = run(*verb.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: tpseg {verb} ")
    assert not re.search(r"<class|Literal\[|Optional\[|PosixPath|NoneType|: str", out)
    options = [block for block in re.split(r"\n  (?=\S)", out) if block.startswith("--")]
    assert options
    for option in options:
        words = re.sub(r"^--[\w.-]+( \{.*?\}| \[ITEM,...\]| [A-Z_]+)?|\((required|default)[^)]*\)+", "", " ".join(option.split())).split()
        assert words, f"{verb}: no help for {option}"


def test_help_of_train_shows_the_presets_values(run):
    _, default, _ = run("train", "--help")
    _, small, _ = run("train", "--config", "small", "--help")
    assert "default: 512" in default
    assert "default: 256" in small


# What is wrong is named, with the nearest that is right


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "unknown verb 'trian'; did you mean 'train'?"),
        (["data", "chekc"], "unknown verb 'data chekc'; did you mean 'data check'?"),
        (["trian", "--data", "x"], "did you mean 'train'?"),
        (["predict"], "required"),
        (["train", "--out", "x"], "data"),
        (["train", "--data", "x", "--out", "y", "--confg", "small"], "did you mean '--config'?"),
        (["train", "--data", "x", "--out", "y", "--config", "smal"], "no preset or file 'smal'; did you mean 'small'?"),
        (["train", "--data", "x", "--out", "y", "--training.epoch", "3"], "did you mean '--training.epochs'?"),
        (["train", "--data", "x", "--out", "y", "--training.epochs", "many"], "epochs"),
        (["train", "--data", "x", "--out", "y", "--training.epochs", "0"], "training.epochs: found 0, expected more than 0"),
        (["train", "--data", "x", "--out", "y", "--model.trunk", "huge"], "tiny"),
        (["train", "--data", "x", "--out", "y", "--steps", "soon"], "steps"),
        (["evaluate", "m", "--data", "x", "--protocol", "spyder"], "spider"),
        (["evaluate", "--data", "x"], "Give either MODEL or --predictions FOLDER"),
        (["evaluate", "m", "--data", "x", "--split", "tets"], "test"),
        (["info", "smal"], "did you mean 'small'?"),
        (["predict", "nowhere", "x.png"], "nowhere: not a model folder"),
        (["report", "nowhere"], "nowhere"),
        (["phantoms", "x", "--cases", "-3"], "cases"),
    ],
)  # fmt: skip
def test_wrong_usage_is_explained_and_exits_2(run, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    write_discs(tmp_path / "discs")
    code, _, err = run(*[str(tmp_path / "discs" / "tasks.yaml") if word == "x" and "--data" in words else word for word in words])
    assert expected in err
    assert err.startswith("tpseg: ")
    assert code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["discs"]


def test_a_misspelt_key_in_a_settings_file_is_told_the_nearest(run, discs, tmp_path):
    (tmp_path / "mine.yaml").write_text("training: {learning_rat: 1}\n")
    code, _, err = run("train", "--data", discs, "--out", tmp_path / "run", "--config", tmp_path / "mine.yaml")
    assert code == 2
    assert "mine.yaml: unknown key 'training.learning_rat'; did you mean 'learning_rate'?" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data", "check", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["train", "--data", "nowhere.yaml", "--out", "run", "--config", "small"], "nowhere.yaml: cannot be read"),
        (["evaluate", "--predictions", "nowhere", "--data", "DATA"], "nowhere: no such folder"),
    ],
)
def test_bad_data_is_explained_and_exits_1(run, discs, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*[discs if word == "DATA" else word for word in words])
    assert expected in err
    assert code == 1


def test_a_place_that_cannot_be_written_is_explained(run, trained, discs, tmp_path):
    (tmp_path / "file").write_text("")
    image = discs.parent / "dark_disc" / "00.png"
    code, _, err = run("predict", trained, image, "--task", "dark_disc", "--out", tmp_path / "file" / "out")
    assert code == 1
    assert str(tmp_path / "file") in err


def test_a_lost_loss_exits_1_and_names_files(run, discs, tmp_path):
    config = settings_file(tmp_path / "mine.yaml", training={"learning_rate": 1e30, "warmup": 0.0, "clip": 0.0})
    code, _, err = run("train", "--data", discs, "--out", tmp_path / "run", "--config", config)
    assert code == 1
    assert re.search(r"loss became NaN or infinite at step \d+, on: .*disc/\d\d\.png", err)


def test_an_interrupted_training_says_how_to_go_on(run, discs, tmp_path, monkeypatch):
    def interrupt(self: LesionModule, batch: object, index: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LesionModule, "on_train_batch_start", interrupt, raising=False)
    handler = signal.getsignal(signal.SIGINT)
    try:
        code, _, err = run("train", "--data", discs, "--out", tmp_path / "run", "--config", settings_file(tmp_path / "mine.yaml"))
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning turns it off
    assert code == 130
    assert "interrupted" in err


# Model and data


def test_a_task_that_the_model_does_not_know_names_both_lists(run, trained, discs, tmp_path):
    shutil.copytree(discs.parent, tmp_path / "data")
    (tmp_path / "data" / "tasks.yaml").write_text(discs.read_text().replace("  bright_disc:", "  red_disc:"))
    code, _, err = run("evaluate", trained, "--data", tmp_path / "data" / "tasks.yaml", "--out", tmp_path)
    assert code == 2
    assert "does not know task red_disc (its tasks: bright_disc, dark_disc)" in err
    code, out, _ = run("evaluate", trained, "--data", tmp_path / "data" / "tasks.yaml", "--out", tmp_path, "--tasks", "dark_disc")
    assert code == 0
    assert "red_disc" not in out


def test_a_model_may_know_more_tasks_than_the_data_have(run, trained, discs, tmp_path):
    shutil.copytree(discs.parent, tmp_path / "data")
    lines = discs.read_text().splitlines()
    (tmp_path / "data" / "tasks.yaml").write_text("\n".join([lines[0], lines[2]]))  # dark_disc alone: id 0 here, 1 in the model
    code, out, _ = run("evaluate", trained, "--data", tmp_path / "data" / "tasks.yaml", "--out", tmp_path / "one")
    assert code == 0
    assert "bright_disc" not in out
    run("evaluate", trained, "--data", discs, "--out", tmp_path / "both")
    one, both = (json.loads((tmp_path / name / "test.json").read_text())["default"]["tasks"] for name in ("one", "both"))
    assert one["dark_disc"]["dice"] == both["dark_disc"]["dice"]


def test_predicted_masks_score_what_the_model_scores(run, trained, discs, tmp_path):
    """The numbers of the protocol `default`, for every image."""
    for task in TASKS:
        table = pd.read_csv(discs.parent / task / "split.csv")
        files = [discs.parent / task / name for name in table.image[table.split == "test"]]
        assert run("predict", trained, *files, "--task", task, "--out", tmp_path / "masks" / task)[0] == 0
    assert run("evaluate", "--predictions", tmp_path / "masks", "--data", discs, "--out", tmp_path / "by_masks")[0] == 0
    code, out, _ = run("evaluate", trained, "--data", discs, "--out", tmp_path / "by_model")
    assert code == 0
    assert "Protocol: default" in out
    by_masks, by_model = (pd.read_csv(tmp_path / name / "test.csv") for name in ("by_masks", "by_model"))
    columns = ["task", "image", "dice", "iou", "hd95", "assd", "sensitivity", "precision"]
    pd.testing.assert_frame_equal(by_masks[columns], by_model[columns])
    summaries = [json.loads((tmp_path / name / "test.json").read_text())["default"] for name in ("by_masks", "by_model")]
    known = {key: summaries[1].pop(key) for key in ("seen", "warnings", "notes")}  # of masks alone nobody knows what was learned from
    assert summaries[0] == summaries[1]
    assert summaries[0]["average"]["dice"] > 0.8
    assert known == {"seen": {}, "warnings": [], "notes": []}


def test_predict_skips_a_bad_file_names_it_and_exits_1(run, trained, discs, tmp_path):
    shutil.copy(discs.parent / "dark_disc" / "00.png", tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no image")
    code, out, err = run("predict", trained, tmp_path, "--all-tasks", "--out", tmp_path / "out", "--probability")
    assert code == 1
    assert f"skipped: {tmp_path / 'bad.png'}: cannot be decoded" in err
    assert "segmented 1 of 2 images" in out
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert names == [f"{task}/good{ending}.png" for task in TASKS for ending in ("", "_probability")]


def test_info_as_json(run, trained):
    for source in (["small", "--tasks", "3", "--size", "128"], [trained]):
        code, out, _ = run("info", *source, "--json")
        content = json.loads(out)
        assert code == 0
        assert {"total", "trainable", "trunk", "adapter_route", "per_task"} <= set(content["parameters"])
        assert isinstance(content["flops"], int)
        assert len(content["tasks"]) == (3 if source[0] == "small" else 2)


def test_info_for_people(run, trained):
    code, out, _ = run("info", trained)
    assert code == 0
    for word in ("dark_disc", "ultrasound", "GFLOP at 64 px", "one adapter route", "val Dice", "seed"):
        assert word in out


def test_data_split_then_check(run, make_pairs, tmp_path):
    make_pairs(tmp_path / "busi", count=12)
    code, out, _ = run("data", "split", tmp_path / "busi", "--task", "breast_lesion", "--modality", "ultrasound")
    assert code == 0
    assert "train" in out
    code, out, _ = run("data", "check", tmp_path / "tasks.yaml", "--json")
    assert code == 0
    assert list(json.loads(out)["tasks"]) == ["breast_lesion"]
    Image.new("L", (3, 3)).save(tmp_path / "busi" / "masks" / "case00.png")
    code, out, _ = run("data", "check", tmp_path / "tasks.yaml")
    assert code == 1
    assert "case00.png" in out


def test_train_takes_single_settings_and_resumes(run, discs, tmp_path):
    words = [
        "train",
        "--data",
        discs,
        "--out",
        tmp_path / "run",
        "--config",
        settings_file(tmp_path / "mine.yaml"),
        "--training.batch_size",
        6,
    ]
    code, out, err = run(*words, "--steps", 3)
    assert code == 0
    assert f"tpseg evaluate {tmp_path / 'run'} --data {discs}" in " ".join(out.split())
    assert "step 3/3" in err
    assert "batch_size: 6" in (tmp_path / "run" / "settings.yaml").read_text()
    code, _, err = run(*words, "--steps", 3)
    assert code == 2
    assert "continue it with --resume" in err
    code, _, err = run(*words, "--steps", 3, "--resume")
    assert code == 2
    assert "is finished, all 3 steps are done" in err


# For programs: --json and --log


def test_every_verb_can_be_read_by_a_program_and_kept_in_a_file():
    for verb in VERBS:
        options = {option for action in build_parser(verb, [])._actions for option in action.option_strings}
        assert {"--json", "--log"} <= options, verb.name


def test_a_prediction_as_json_names_each_file_what_was_found_and_what_was_written(run, trained, discs, tmp_path):
    shutil.copy(discs.parent / "dark_disc" / "00.png", tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no image")
    code, out, err = run("predict", trained, tmp_path, "--all-tasks", "--out", tmp_path / "out", "--overlay", "--json")
    summary = json.loads(out)  # which fails if anything else stands on stdout
    assert (code, summary["verb"], summary["exit_code"]) == (1, "predict", 1)
    assert "segmented 1 of 2 images" in err
    assert [Path(one["file"]).name for one in summary["failures"]] == ["bad.png"]
    assert "cannot be decoded" in summary["failures"][0]["reason"]
    (image,) = summary["images"]
    assert (Path(image["file"]).name, image["frames"], image["warnings"]) == ("good.png", 1, [])
    assert [one["task"] for one in image["tasks"]] == list(TASKS)
    for one in image["tasks"]:
        mask = np.asarray(Image.open(tmp_path / "out" / one["task"] / "good.png"))
        assert one["pixels"] == np.count_nonzero(mask)
        assert one["share_of_image"] == one["pixels"] / mask.size
        assert (one["area_mm2"], one["volume_mm3"], one["expected_dice"]) == (None, None, None)
    assert sorted(image["outputs"]) == sorted(str(path) for path in (tmp_path / "out").rglob("*.png"))


def test_what_libraries_and_children_print_is_no_part_of_the_json(capfd, monkeypatch):
    def noisy() -> Outcome:
        sys.stdout.write("from Python\n")
        os.write(1, b"from C\n")
        subprocess.run(["echo", "from a child"], check=True)
        return Outcome({"path": Path("a"), "number": np.float32(0.5), "lost": float("nan"), "list": (np.arange(2),)})

    monkeypatch.setattr("tpseg.cli.VERBS", (Verb("info", noisy),))
    assert main(["info", "--json"]) == 0
    said = capfd.readouterr()
    found = {"path": "a", "number": 0.5, "lost": None, "list": [[0, 1]]}
    assert json.loads(said.out) == {"verb": "info", "exit_code": 0, "warnings": [], **found}
    assert all(words in said.err for words in ("from Python", "from C", "from a child"))


@pytest.mark.parametrize(
    ("words", "code", "verb", "expected"),
    [
        (["predict", "nowhere", "x.png", "--json"], 2, "predict", "nowhere: not a model folder"),
        (["data", "check", "nowhere.yaml", "--json"], 1, "data check", "nowhere.yaml: cannot be read"),
        (["info", "small", "--sise", "3", "--json"], 2, "info", "did you mean '--size'?"),
        (["data", "check", "tasks.yaml", "--json", "found.json"], 2, "data check", "--json takes no file"),
        (["trian", "--json"], 2, None, "did you mean 'train'?"),
        (["info", "small", "--json", "--log", "file/log"], 2, None, "--log file/log: there is no folder file"),
        (["info", "small", "--json", "--log", "."], 1, None, "."),
    ],
)  # fmt: skip
def test_an_error_is_json_too(run, tmp_path, monkeypatch, words, code, verb, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    found, out, err = run(*words)
    summary = json.loads(out)
    assert (found, summary["exit_code"], summary["verb"]) == (code, code, verb)
    assert expected in summary["error"]
    assert err.startswith("tpseg: ")


def test_a_log_file_keeps_the_command_the_epochs_the_tables_and_how_it_ended(run, discs, tmp_path):
    log, mine = tmp_path / "all.txt", settings_file(tmp_path / "mine.yaml")
    assert run("train", "--data", discs, "--out", tmp_path / "run", "--config", mine, "--steps", 3, "--log", log)[0] == 0
    assert run("evaluate", tmp_path / "run", "--data", discs, "--log", log, "--device", "cpu")[0] == 0
    assert run("evaluate", tmp_path / "run", "--data", "nowhere.yaml", f"--log={log}")[0] == 1
    lines = log.read_text().splitlines()
    assert [re.sub(r"^[\d:]{8}  [\d-]{10} ", "", line).split()[:2] for line in lines if " tpseg " in line[:29]] == [
        ["tpseg", "train"], ["tpseg", "evaluate"], ["tpseg", "evaluate"],
    ]  # fmt: skip
    text = "\n".join(lines)
    assert re.search(r"^\d\d:\d\d:\d\d  epoch 1/2  step 3/3", text, re.MULTILINE)
    assert "Protocol: default" in text
    assert f"wrote {tmp_path / 'run' / 'evaluation' / 'test'}.json" in text
    assert "nowhere.yaml: cannot be read" in lines[-1]
    assert "\x1b" not in text


def test_evaluate_runs_on_the_device_that_is_named(run, trained, discs, tmp_path):
    code, _, err = run("evaluate", trained, "--data", discs, "--out", tmp_path, "--device", "no_such")
    assert code == 2
    assert "no_such" in err


@pytest.mark.slow
def test_a_newcomers_story(run, tmp_path):
    """Phantoms, check, train, evaluate, predict, report."""
    data, place = tmp_path / "phantoms" / "tasks.yaml", tmp_path / "runs" / "first"
    assert run("phantoms", tmp_path / "phantoms", "--cases", 10, "--size", 64)[0] == 0
    code, out, _ = run("data", "check", data)
    assert code == 0
    assert "wet_amd" in out
    code, out, _ = run("train", "--config", settings_file(tmp_path / "mine.yaml"), "--data", data, "--out", place, "--steps", 6)
    assert code == 0
    code, out, _ = run("evaluate", place, "--data", data, "--protocol", "all")
    assert code == 0
    for protocol in ("default", "tpseg", "spider", "pranet", "nnunet"):
        assert f"Protocol: {protocol}" in out
    summary = json.loads((place / "evaluation" / "test.json").read_text())
    assert set(summary) == {"default", "tpseg", "spider", "pranet", "nnunet"}
    assert len(summary["default"]["tasks"]) == 8
    assert 0 <= summary["default"]["average"]["dice"] <= 1
    rows = pd.read_csv(place / "evaluation" / "test.csv")
    assert len(rows) == sum(entry["images"] for entry in summary["default"]["tasks"].values())
    image = next((tmp_path / "phantoms").rglob("images/*.png"), None) or next((tmp_path / "phantoms").rglob("*.png"))
    assert run("predict", place, image, "--task", "skin_lesion", "--out", tmp_path / "masks", "--overlay")[0] == 0
    with Image.open(tmp_path / "masks" / f"{image.stem}.png") as mask, Image.open(image) as original:
        assert mask.size == original.size
        assert set(np.unique(mask)) <= {0, 255}
    assert run("report", place)[0] == 0
    page = (place / "report.html").read_text(encoding="utf-8")
    assert all(task.title in page for task in read_dataset(data).tasks)
    assert Path(place / "model" / "README.md").is_file()


def test_the_next_command_names_the_trunk_s_file_if_the_model_needs_it(tmp_path: Path) -> None:
    """A model's folder does not hold a frozen trunk, and only the user may say which file is opened for it."""
    (tmp_path / "sam2.pt").touch()
    assert way_to_trunk(str(tmp_path / "sam2.pt")).startswith(f" --weights {tmp_path}/sam2.pt (or TPSEG_WEIGHTS={tmp_path}/sam2.pt ")
    assert way_to_trunk("facebook/sam2-hiera-large") == way_to_trunk(None) == ""


def test_no_table_cuts_a_word_on_a_narrow_screen(monkeypatch):
    """And a study's ids, which --rows takes, stand in one line."""
    text, table = io.StringIO(), Table("task", "number")
    table.add_row("retinal_pigment_epithelium_detachment", "12345678901234567890")
    SafeConsole(file=text, width=30).print(Group(table))
    assert "…" not in text.getvalue()
    cells = [[cell.strip() for cell in line.split("│")[1:3]] for line in text.getvalue().splitlines() if line.startswith("│")]
    assert ["".join(column) for column in zip(*cells, strict=True)] == ["retinal_pigment_epithelium_detachment", "12345678901234567890"]


def test_what_moves_the_cursor_reaches_the_terminal_as_it_is():
    """A progress bar's own control codes; those in a file's name are spelled out (tests/security)."""
    console = SafeConsole(file=io.StringIO())
    segments = list(console.render(Control.home()))
    assert [(segment.text, bool(segment.control)) for segment in segments] == [(Control.home().segment.text, True)]
