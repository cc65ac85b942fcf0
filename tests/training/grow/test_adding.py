"""A trained model gains a task, loses one, gets another name for one, and is put together with its sister."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import miniature
import pandas as pd
import pytest
import torch
import yaml
from miniature import assert_same_run, config, history, stopped, train_miniature, write_discs

from tpseg.calibration.record import load_trust
from tpseg.calibration.segmenter import Segmenter
from tpseg.checkpoints.model_folder import load_model, save_model
from tpseg.cli import main
from tpseg.core.config import load_config
from tpseg.core.tasks import Task, TaskSet
from tpseg.core.untrusted import parse_json
from tpseg.data.dataset import LesionDataset, collate
from tpseg.data.hashes import read_record
from tpseg.data.manifest import read_dataset
from tpseg.data.pairs import read_pair
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import create
from tpseg.models.task_ownership import extract, same_bits
from tpseg.models.tpseg.prototypes import region_sums
from tpseg.training.grow import costs, nearest
from tpseg.training.grow.adding import planned_steps
from tpseg.training.grow.lineage import descend
from tpseg.training.grow.nearest import rank_tasks
from tpseg.training.grow.recipe import read_recipe
from tpseg.training.run import train

Run = Callable[..., tuple[int, str, str]]
OLD = ["bright_disc", "dark_disc"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process: exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    return call


pytestmark = pytest.mark.usefixtures("miniature_trunk")


@pytest.fixture(scope="module")
def newcomers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tasks.yaml of two tasks that the trained model has never seen: discs in other colours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(miniature, "TASKS", {"blue_disc": ("endoscopy", (60, 90, 220)), "green_disc": ("OCT", (60, 200, 80))})
        return write_discs(tmp_path_factory.mktemp("newcomers"))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, miniature_trunk_module: None, trained: Path, newcomers: Path) -> Path:
    """The trained model with the blue discs, grown by its own recipe: 8 epochs of a batch and a half."""
    out = tmp_path_factory.mktemp("grown") / "run"
    assert main(["add-task", str(trained), "--data", str(newcomers), "--task", "blue_disc", "--out", str(out)]) == 0
    return out


def logits(model: LesionModel | Path, data: Path, tasks: list[str]) -> list[torch.Tensor]:
    """Of every test image, in batches of mixed tasks, in 32 bit and in bfloat16, with the soft gate and the hardened one."""
    found = []
    cases = read_dataset(data).only(tasks).split("test")
    cases = cases[::2] + cases[1::2]  # mixed
    for hardened in (False, True):
        one = load_model(model) if isinstance(model, Path) else model
        if hardened:
            one.harden()  # type: ignore[operator]
        segmenter = Segmenter(one, device="cpu")
        pixels = torch.stack([segmenter.load(read_pair(case)[0]).pixels for case in cases])
        asked = torch.tensor([one.tasks.id(case.task) for case in cases])
        every = torch.tensor([one.tasks.id(name) for name in tasks] * 2)
        for bf16 in (False, True):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                found += [one(pixels, asked).logits, one(pixels[:2], every, torch.tensor([0] * len(tasks) + [1] * len(tasks))).logits]
    return found


def assert_old_answers(before: Path, after: Path, data: Path, tasks: list[str] = OLD) -> None:
    pairs = list(zip(logits(before, data, tasks), logits(after, data, tasks), strict=True))
    assert len(pairs) == 8
    assert sum(int((one != other).sum()) for one, other in pairs) == 0
    assert all(same_bits(one, other) for one, other in pairs)


# A task more


def test_the_old_tasks_answer_as_before_bit_for_bit(trained, grown, discs):
    assert_old_answers(trained, grown, discs)
    assert load_model(grown).tasks.names == [*OLD, "blue_disc"]


def test_the_new_task_is_learned(grown, newcomers, run, tmp_path):
    assert run("evaluate", grown, "--data", newcomers, "--tasks", "blue_disc", "--out", tmp_path)[0] == 0
    scores = json.loads((tmp_path / "test.json").read_text())["default"]
    assert scores["tasks"]["blue_disc"]["dice"] > 0.6
    course = pd.read_csv(grown / "logs" / "metrics.csv")["val/loss"]  # its Dice is high from the start: discs are alike
    assert course.iloc[-1] < 0.98 * course.iloc[0]
    assert scores["warnings"] == scores["notes"] == []  # its images are in data.csv, and none of the test split was trained on


def test_the_new_task_brings_along_what_its_tasks_yaml_says(grown):
    assert load_model(grown).tasks[2].modality == "endoscopy"


def test_the_run_folder_is_one_like_that_of_train(grown, newcomers, discs, run, tmp_path):
    assert (
        pd.read_csv(grown / "logs" / "metrics.csv")["val/dice/blue_disc"].max()
        == load_model(grown).provenance["training"]["metrics"]["val/dice/blue_disc"]
    )
    assert yaml.safe_load((grown / "settings.yaml").read_text())["run"]["tasks"] == ["blue_disc"]
    copy = shutil.copytree(grown, tmp_path / "copy")
    for command in (
        ["evaluate", copy, "--data", discs],
        ["report", copy],
        ["predict", copy, newcomers.parent / "blue_disc" / "00.png", "--task", "blue_disc", "--out", tmp_path / "masks"],
        ["info", copy],
    ):
        assert run(*command)[0] == 0, command
    assert "blue_disc" in (copy / "report.html").read_text()


def test_provenance_holds_the_parents_and_the_new_task_s_data(trained, grown, newcomers):
    parent, child = load_model(trained), load_model(grown)
    content = child.provenance
    assert content["parents"] == [parent.provenance]
    assert content["change"]["verb"] == "add-task"
    assert content["change"]["tasks"] == ["blue_disc"]
    assert content["data"]["sha256"] == read_dataset(newcomers).only(["blue_disc"]).sha256()
    assert content["data"]["cases"] == parent.provenance["data"]["cases"] | {"blue_disc": {"train": 6, "val": 2, "test": 3}}
    scores = content["training"]["metrics"]
    old = parent.provenance["training"]["metrics"]
    assert scores["val/dice/dark_disc"] == old["val/dice/dark_disc"]
    assert scores["val/dice"] == pytest.approx(sum(scores[f"val/dice/{name}"] for name in child.tasks.names) / 3)
    assert list(content["training"]["splits"]) == child.tasks.names
    card = (grown / "model" / "README.md").read_text()
    assert f"{scores['val/dice/blue_disc']:.3f}" in card
    assert f"{old['val/dice/dark_disc']:.3f}" in card


def test_the_record_of_data_has_the_images_of_all_tasks(trained, grown):
    parent, child = load_model(trained), load_model(grown)
    rows = read_record(child.data_record)
    assert rows[: 2 * 11] == read_record(parent.data_record)
    assert [row.task for row in rows[2 * 11 :]] == ["blue_disc"] * 11
    assert child.provenance["data"]["record_sha256"] == hashlib.sha256(child.data_record.encode()).hexdigest()


def test_a_parent_without_a_record_of_its_data_gives_a_model_without_one(trained, newcomers, tmp_path, run):
    """Half a record would make an evaluation say that the other half's images were never seen."""
    parent = load_model(trained)
    save_model(parent, tmp_path / "bare", record="")
    assert (
        run(
            "add-task",
            tmp_path / "bare",
            "--data",
            newcomers,
            "--task",
            "blue_disc",
            "--out",
            tmp_path / "out",
            "--steps",
            1,
            "--from",
            "none",
            "--config",
            "small",
        )[0]
        == 0
    )
    child = load_model(tmp_path / "out")
    assert child.data_record == ""
    assert "record_sha256" not in child.provenance["data"]


def settled(trained: Path, discs: Path, folder: Path) -> Path:
    """The trained model with prototypes that are the means of its training images, where a longer training would bring them.

    At m = 0.99 most of them is still the random start after 36 steps, and which task is nearest is chance.
    """
    model, data = load_model(trained), read_dataset(discs)
    images = LesionDataset(data.split("train"), data.tasks, model.config.image_size)
    batch = collate([images[index] for index in range(len(images))])
    for _, step in model.decoder.pgtds():
        step.memory.momentum = 0.0
    with torch.no_grad():
        model.observe(model(batch.image, batch.task), batch.mask, batch.task)
    model.move_prototypes()
    run = shutil.copytree(trained, folder)
    save_model(model, run / "model")
    return run


def test_the_nearest_task_is_where_it_starts_and_the_table_shows_why(trained, newcomers, discs, tmp_path, run):
    trained = settled(trained, discs, tmp_path / "settled")
    again = tmp_path / "again.yaml"
    again.write_text(f"tasks:\n  same_disc: {{modality: test, data: {discs.parent}/dark_disc/split.csv}}\n")
    code, out, _ = run("add-task", trained, "--data", again, "--task", "same_disc", "--out", tmp_path / "out", "--steps", 1)
    assert code == 0
    assert "dark_disc (start)" in out
    assert f"grown: the best model is {tmp_path / 'out' / 'model'}" in "".join(out.splitlines())
    ranking = rank_tasks(load_model(trained), read_dataset(again).split("train"))
    assert [one.task for one in ranking] == ["dark_disc", "bright_disc"]
    assert ranking[0].similarity > ranking[1].similarity
    assert min(ranking[0].dice, ranking[1].dice) > 0.5  # each finds discs, and the model has learned these


def test_what_lies_beside_an_image_is_neither_lesion_nor_background_of_the_new_task(tiny_dataset, monkeypatch):
    """Images of 48 pixels are padded to 64."""
    masks = []
    monkeypatch.setattr(nearest, "region_sums", lambda features, mask: masks.append(mask) or region_sums(features, mask))
    rank_tasks(create(config(model={"image_size": 48}).model, TaskSet([Task("old")])), read_dataset(tiny_dataset).split("train")[:2])
    assert len(masks) == 3  # PGTDs
    for mask in masks:
        assert (mask[..., :48, :48] >= 0).all()
        assert (mask[..., 48:, :] == -1).all()
        assert (mask[..., 48:] == -1).all()


def test_the_images_that_are_looked_at_are_spread_over_the_split(tiny_dataset, monkeypatch):
    """Neighbours in a table are often of one patient."""
    looked_at: list[str] = []
    read = nearest.LesionDataset
    monkeypatch.setattr(nearest, "LesionDataset", lambda cases, *rest: looked_at.extend(case.name for case in cases) or read(cases, *rest))
    monkeypatch.setattr(nearest, "IMAGES", 3)
    cases = [case for case in read_dataset(tiny_dataset).split("train") if case.task == "skin_lesion"]
    rank_tasks(create(config().model, TaskSet([Task("old")])), cases)
    assert looked_at == [cases[number].name for number in (0, 2, 4)]


def test_the_cost_is_told_and_kept(grown, trained):
    cost = json.loads((grown / "growth.json").read_text())["cost"]
    parent, child = load_model(trained), load_model(grown)
    assert cost["added"] == sum(one.numel() for one in child.parameters()) - sum(one.numel() for one in parent.parameters())
    assert cost["parameters"] == sum(one.numel() for one in child.parameters())
    assert cost["steps"] == pd.read_csv(grown / "logs" / "metrics.csv")["step"].max()
    assert cost["val_dice"] == child.provenance["training"]["metrics"]["val/dice/blue_disc"]
    assert 0 < cost["minutes"] < 5
    assert sorted(one["task"] for one in cost["ranking"]) == OLD


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(trained, newcomers, grown, tmp_path, run):
    words = ["add-task", trained, "--data", newcomers, "--task", "blue_disc", "--out", tmp_path / "run"]
    with stopped(epoch=5):
        main([str(word) for word in words])
    assert load_model(tmp_path / "run").tasks.names == [*OLD, "blue_disc"]  # what is best so far is a whole model already
    assert run(*words)[0] == 2  # holds a run
    assert run(*words, "--resume")[0] == 0
    assert_same_run(tmp_path / "run", grown)


def test_a_finished_run_is_not_trained_again_and_another_parent_is_refused(grown, trained, newcomers, tmp_path, run, monkeypatch):
    copy = shutil.copytree(grown, tmp_path / "copy")
    words = ["--data", newcomers, "--task", "blue_disc", "--out", copy, "--resume"]
    monkeypatch.setattr("tpseg.training.grow.adding.train", lambda *args, **options: pytest.fail("trained again"))
    code, out, _ = run("add-task", trained, *words)
    assert code == 0
    assert "What blue_disc cost" in out
    assert run("remove-task", trained, "dark_disc", "--out", tmp_path / "other")[0] == 0
    code, _, said = run("add-task", tmp_path / "other", *words)
    assert code == 2
    assert "was begun from another model" in said


def test_a_run_that_early_stopping_ended_is_finished(trained, newcomers, tmp_path, run, monkeypatch):
    """Killed before it could say what it cost, the new task's training and the one alone; neither is gone on with."""
    changes = tmp_path / "changes.yaml"
    changes.write_text("training: {epochs: 9, early_stopping: 1}\n")
    monkeypatch.setattr("tpseg.training.module.hard_dice", lambda logits, mask: torch.full((len(mask),), 0.5))  # no epoch is better
    words = ["add-task", trained, "--data", newcomers, "--task", "blue_disc", "--out", tmp_path / "run", "--config", changes, "--alone"]

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tpseg.training.grow.adding.score", killed)
        assert run(*words)[0] == 130
    journal = json.loads((tmp_path / "run" / "growth.json").read_text())
    del journal["minutes"]
    (tmp_path / "run" / "growth.json").write_text(json.dumps(journal))
    places = [tmp_path / "run", tmp_path / "run" / "alone"]
    steps = [list(history(place)["step"]) for place in places]
    assert [len(epochs) for epochs in steps] == [2, 2]
    monkeypatch.setattr("tpseg.training.grow.adding.train", lambda *arguments, **options: pytest.fail("trained again"))
    monkeypatch.setattr("tpseg.training.grow.adding.score", lambda *arguments: None)
    code, out, _ = run(*words, "--resume")
    assert (code, "What blue_disc cost" in out) == (0, True)
    assert [list(history(place)["step"]) for place in places] == steps


@pytest.mark.slow
def test_it_is_compared_with_joint_training_and_with_training_alone(trained, newcomers, discs, tmp_path, run):
    all_three = tmp_path / "all.yaml"
    entries = yaml.safe_load(discs.read_text())["tasks"]
    entries = {name: {**entry, "data": str(discs.parent / entry["data"])} for name, entry in entries.items()}
    entries["blue_disc"] = {"modality": "endoscopy", "data": str(newcomers.parent / "blue_disc" / "split.csv")}
    all_three.write_text(yaml.safe_dump({"tasks": entries}, sort_keys=False))
    joint = train_miniature(all_three, tmp_path / "joint", training={"epochs": 8, "learning_rate": 4e-3})
    out = tmp_path / "out"
    words = ["add-task", trained, "--data", newcomers, "--task", "blue_disc", "--out", out, "--against", joint, "--alone"]
    code, said, _ = run(*words)
    assert code == 0
    for name in ("grown", "joint", "alone"):
        assert len(pd.read_csv(out / "comparison" / name / "test.csv")) == 3
        assert f"{name}: " in said
    models = json.loads((out / "growth.json").read_text())["cost"]["scores"]["models"]
    assert models["grown"]["difference"] is None
    assert models["joint"]["difference"] == pytest.approx(models["grown"]["dice"] - models["joint"]["dice"])
    assert load_model(out / "alone").tasks.names == ["blue_disc"]
    settings = yaml.safe_load((out / "alone" / "settings.yaml").read_text())
    assert settings["training"]["gate_temperature"] == [1.0, 0.3]  # it learns its gate as a model does that learns all
    written = (out / "alone" / "logs" / "metrics.csv").stat().st_mtime_ns
    assert run(*words, "--resume")[0] == 0
    assert (out / "alone" / "logs" / "metrics.csv").stat().st_mtime_ns == written


# The recipe


def test_a_new_task_gets_the_share_of_one_old_task_and_the_gate_stays_as_it_is(discs, tmp_path):
    parent = train(
        config(training={"epochs": 1, "seed": 7, "learning_rate": 1e-3}, sampling={"epoch_images": 8}),
        discs,
        tmp_path / "run",
        steps=1,
        bar=False,
    )
    model = load_model(parent)
    recipe = read_recipe(parent, model, None, None, None, None)
    assert recipe.config.sampling.epoch_images == 4
    assert recipe.steps == 1
    assert (recipe.config.training.seed, recipe.config.training.learning_rate) == (7, 1e-3)
    assert recipe.config.model == model.config
    held = float(model.gate.temperature)
    assert recipe.for_growth(model).training.gate_temperature == (held, held)
    assert recipe.for_growth(model).training.learning_rate == 4e-3
    assert recipe.config.training.gate_temperature == (1.0, 0.3)

    changes = tmp_path / "changes.yaml"
    changes.write_text("sampling: {epoch_images: 6}\ntraining: {epochs: 3, learning_rate: 1.0}\nmodel: {rank: 99}\n")
    changed = read_recipe(parent, model, str(changes), 9, 0.5, 3)
    assert (changed.config.sampling.epoch_images, changed.config.training.epochs, changed.steps) == (6, 3, 9)
    assert (changed.for_growth(model).training.learning_rate, changed.config.training.seed) == (0.5, 3)
    assert changed.config.training.learning_rate == 1e-3  # of what is trained alone
    assert read_recipe(parent, model, str(changes), None, None, None).for_growth(model).training.learning_rate == 1.0
    assert changed.config.model == model.config


def test_a_model_that_was_grown_hands_on_its_recipe_unshared(grown, trained):
    first = read_recipe(trained, load_model(trained), None, None, None, None)
    second = read_recipe(grown, load_model(grown), None, None, None, None)
    assert (second.config.sampling, second.config.training, second.steps) == (first.config.sampling, first.config.training, first.steps)
    assert second.for_growth(load_model(grown)) == replace(first.for_growth(load_model(trained)), model=second.config.model)


def test_a_model_in_no_run_folder_is_grown_by_the_default_preset(trained, tmp_path):
    model = load_model(trained)
    save_model(model, tmp_path / "elsewhere")
    recipe = read_recipe(tmp_path / "elsewhere", model, None, None, None, None)
    assert recipe.config.training == load_config(["default"]).training
    assert "preset default" in recipe.origin


# What is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "bleu_disc"], r"unknown task 'bleu_disc'; did you mean 'blue_disc'"),
        (["--task", "blue_disc", "--from", "brightdisc"], r"--from: found 'brightdisc'; did you mean 'bright_disc'"),
        (
            ["--task", "blue_disc", "--against", "PARENT"],
            r"that model does not know task 'blue_disc' \(its tasks: bright_disc, dark_disc\)",
        ),
        (["--task", "blue_disc", "--resume"], "holds no run to resume"),
        (["--task", "blue_disc", "--config", "tiny"], "no preset or file 'tiny'"),
    ],
)
def test_wrong_words_are_refused_and_nothing_is_written(trained, newcomers, tmp_path, run, words, message):
    out = tmp_path / "out"
    code, _, said = run("add-task", trained, "--data", newcomers, "--out", out, *[trained if word == "PARENT" else word for word in words])
    assert code == 2
    assert re.search(message, said)
    assert not out.exists()


def test_a_name_that_the_model_has_is_refused(trained, discs, tmp_path, run):
    code, _, said = run("add-task", trained, "--data", discs, "--task", "dark_disc", "--out", tmp_path / "out")
    assert code == 2
    assert "knows a task of this name already (tasks: bright_disc, dark_disc)" in said
    assert "tpseg rename-task" in said


def test_models_that_cannot_grow_say_which_can(discs, newcomers, trained, tmp_path, run):
    unet = train(
        config(model={"architecture": "monai_unet", "width": 4}, training={"epochs": 1}), discs, tmp_path / "unet", steps=1, bar=False
    )
    code, _, said = run("add-task", unet, "--data", newcomers, "--task", "blue_disc", "--out", tmp_path / "out")
    assert code == 2
    assert "models that grow are those of model.architecture tpseg" in said
    hardened = load_model(trained)
    hardened.harden()
    save_model(hardened, tmp_path / "hardened")
    code, _, said = run("add-task", tmp_path / "hardened", "--data", newcomers, "--task", "blue_disc", "--out", tmp_path / "out")
    assert code == 2
    assert "its gate is hardened" in said


# A task less, another name, two models in one


def test_remove_task_keeps_the_other_answers_and_the_record_of_what_was_seen(grown, newcomers, discs, tmp_path, run):
    code, said, _ = run("remove-task", grown, "dark_disc", "bright_disc", "--out", tmp_path / "less")
    assert code == 0
    less, before = load_model(tmp_path / "less"), load_model(grown)
    assert less.tasks.names == ["blue_disc"]
    assert_old_answers(grown, tmp_path / "less", newcomers, ["blue_disc"])
    assert less.data_record == before.data_record
    assert less.provenance["parents"] == [alone(before.provenance)]
    assert less.provenance["ancestors"] == before.provenance["parents"]
    assert set(less.provenance["training"]["metrics"]) == {"val/dice/blue_disc", "val/dice"}
    assert less.provenance["data"]["record_sha256"] == before.provenance["data"]["record_sha256"]
    code, _, said = run("remove-task", tmp_path / "less", "blue_disc", "--out", tmp_path / "none")
    assert (code, "no task would be left" in said) == (2, True)
    code, _, said = run("remove-task", grown, "dark_disk", "--out", tmp_path / "none")
    assert (code, "did you mean 'dark_disc'?" in said) == (2, True)


def test_rename_task_changes_the_name_everywhere_and_no_tensor(grown, discs, tmp_path, run):
    code, said, _ = run("rename-task", grown, "dark_disc", "night_disc", "--out", tmp_path / "renamed")
    assert (code, "calibrate" in said) == (0, False)
    before, after = load_model(grown), load_model(tmp_path / "renamed")
    assert after.tasks.names == ["bright_disc", "night_disc", "blue_disc"]
    assert after.tasks[1].modality == "ultrasound"
    assert all(same_bits(value, after.state_dict()[key]) for key, value in before.state_dict().items())
    assert {row.task for row in read_record(after.data_record)} == {"bright_disc", "night_disc", "blue_disc"}
    assert after.provenance["data"]["record_sha256"] == hashlib.sha256(after.data_record.encode()).hexdigest()
    scores = [one.provenance["training"]["metrics"] for one in (before, after)]
    assert scores[1]["val/dice/night_disc"] == scores[0]["val/dice/dark_disc"]
    assert "val/dice/dark_disc" not in scores[1]
    assert after.provenance["data"]["cases"]["night_disc"] == before.provenance["data"]["cases"]["dark_disc"]
    assert after.provenance["parents"] == [alone(before.provenance)]
    assert after.provenance["ancestors"] == before.provenance["parents"]
    code, _, said = run("rename-task", grown, "dark_disc", "blue_disc", "--out", tmp_path / "no")
    assert (code, "has a task of this name already" in said) == (2, True)
    code, _, said = run("rename-task", grown, "dark_disc", "blue disc", "--out", tmp_path / "no")
    assert (code, "expected letters, digits" in said) == (2, True)
    code, _, said = run("rename-task", grown, "dark_disc", "night", "--out", tmp_path / "renamed")
    assert (code, "is not an empty folder" in said) == (2, True)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, miniature_trunk_module: None, trained: Path, discs: Path) -> Path:
    copy = shutil.copytree(trained, tmp_path_factory.mktemp("calibrated") / "run")
    assert main(["calibrate", str(copy), "--data", str(discs)]) == 0
    return copy


def test_a_calibrated_parent_s_child_with_other_tasks_is_not_calibrated_and_that_is_said(calibrated, tmp_path, run):
    code, said, _ = run("remove-task", calibrated, "dark_disc", "--out", tmp_path / "less")
    assert (code, f"tpseg calibrate {tmp_path / 'less'}" in said) == (0, True)
    assert not (tmp_path / "less" / "model" / "trust.json").exists()


def test_a_calibration_goes_along_with_a_new_name(calibrated, discs, tmp_path, run):
    code, said, _ = run("rename-task", calibrated, "dark_disc", "night_disc", "--out", tmp_path / "renamed")
    assert (code, "calibrate" in said) == (0, False)
    before, after = load_trust(calibrated / "model"), load_trust(tmp_path / "renamed" / "model")
    assert after.tasks == ("bright_disc", "night_disc")
    assert after.confidence == {"bright_disc": before.confidence["bright_disc"], "night_disc": before.confidence["dark_disc"]}
    assert all(same_bits(value, after.tensors()[key]) for key, value in before.tensors().items())
    assert "dark_disc" not in (tmp_path / "renamed" / "model" / "trust.json").read_text()
    said_then, said_now = ({**one.provenance["measured"]["test"]} for one in (before, after))
    assert said_now["false_alarms"]["night_disc"] == said_then["false_alarms"]["dark_disc"]
    assert "Probabilities are calibrated for: bright_disc, night_disc." in (tmp_path / "renamed" / "model" / "README.md").read_text()
    image = discs.parent / "dark_disc" / "08.png"
    one, other = (Segmenter(folder, device="cpu") for folder in (calibrated, tmp_path / "renamed"))
    assert one(image, "auto").advice.tasks == ("dark_disc",)
    assert other(image, "auto").advice.tasks == ("night_disc",)
    (calibrated / "model" / "trust.safetensors").rename(tmp_path / "away")
    code, _, said = run("rename-task", calibrated, "dark_disc", "night_disc", "--out", tmp_path / "again")
    (tmp_path / "away").rename(calibrated / "model" / "trust.safetensors")
    assert (code, "make it anew with: tpseg calibrate" in said, (tmp_path / "again").exists()) == (1, True, False)


# What is said of models that were made of others


def alone(provenance: dict) -> dict:
    return {key: value for key, value in provenance.items() if key not in ("parents", "ancestors")}


def steps_of(card: str) -> list[str]:
    """The lines of a card that say how its model was made, the last one first."""
    return [line for line in card.split("## Where it comes from")[1].splitlines() if line.startswith("- ")]


def assert_not_reproduced(model: Path, run: Run) -> None:
    code, _, said = run("reproduce", model)
    assert (code, "was made of other models" in said, "give them again in their order" in said) == (2, True, True)


def test_the_card_of_a_model_that_was_made_of_others_says_how(trained, grown, discs, newcomers, tmp_path, run):
    assert run("remove-task", grown, "bright_disc", "--out", tmp_path / "less")[0] == 0
    assert run("rename-task", tmp_path / "less", "dark_disc", "night_disc", "--out", tmp_path / "renamed")[0] == 0
    first = load_model(trained).provenance
    data = {"old": first["data"]["sha256"], "new": read_dataset(newcomers).only(["blue_disc"]).sha256()}
    card = (tmp_path / "renamed" / "model" / "README.md").read_text()
    assert "33 images of all steps below" in card
    assert "those of tasks that were taken out: bright_disc." in card
    assert "| `night_disc` | ultrasound | night_disc | 6 / 2 / 3 |" in card
    steps = steps_of(card)
    assert [line.split(", ", 1)[0].split(": ")[-1] for line in steps] == [
        "rename-task", "remove-task bright_disc", "add-task blue_disc", f"- Trained {first['date']}",
    ]  # fmt: skip
    assert "dark_disc to night_disc" in steps[0]
    assert ["data `" in line for line in steps] == [False, False, True, True]
    assert steps[2].endswith(f"data `{data['new']}`")
    best = first["training"]
    assert f"seed 42, epoch {best['epoch']}, step {best['step']}, with" in steps[3]
    assert steps[3].endswith(f"data `{data['old']}`")
    assert "`tpseg reproduce` repeats the run" not in card
    for folder in (grown, tmp_path / "less", tmp_path / "renamed"):
        assert_not_reproduced(folder, run)


def test_a_model_that_was_renamed_thirty_times_can_be_read(trained):
    model = load_model(trained)
    first = model.provenance
    for number in range(30):
        model.provenance = descend(model, [model], {"verb": "rename-task", "old": str(number), "new": str(number + 1)})
    assert model.provenance["ancestors"][-1] == first
    assert len(model.provenance["ancestors"]) == 29
    parse_json(json.dumps(model.provenance))


@pytest.mark.slow
def test_two_models_grown_from_one_parent_merge(trained, grown, newcomers, discs, tmp_path, run):
    sister = tmp_path / "sister"
    assert (
        run("add-task", trained, "--data", newcomers, "--task", "green_disc", "--out", sister, "--from", "bright_disc", "--steps", 2)[0]
        == 0
    )
    (sister / "model" / "trust.json").write_text("{}")
    code, said, _ = run("merge", grown, sister, "--out", tmp_path / "merged")
    assert code == 0
    assert f"{sister} is calibrated; this model is another and is not" in " ".join(said.split())
    (sister / "model" / "trust.json").unlink()
    assert "with green_disc" in said
    merged = load_model(tmp_path / "merged")
    assert merged.tasks.names == [*OLD, "blue_disc", "green_disc"]
    assert_old_answers(trained, tmp_path / "merged", discs)
    for source, task in ((grown, "blue_disc"), (sister, "green_disc")):
        part, whole = (extract(model, [task]).state_dict() for model in (load_model(source), merged))
        assert part.keys() == whole.keys()
        assert all(same_bits(part[key], whole[key]) for key in part)
    rows = read_record(merged.data_record)
    assert len(rows) == len(set(rows)) == 4 * 11
    assert merged.provenance["parents"] == [alone(load_model(source).provenance) for source in (grown, sister)]
    assert merged.provenance["ancestors"] == [load_model(trained).provenance]  # once
    card = (tmp_path / "merged" / "model" / "README.md").read_text()
    assert "44 images of all steps below" in card
    assert [line.split(", ")[0].split(": ")[-1] for line in steps_of(card)] == [
        "merge green_disc", "add-task blue_disc", "add-task green_disc", f"- Trained {load_model(trained).provenance['date']}",
    ]  # fmt: skip
    assert_not_reproduced(tmp_path / "merged", run)
    assert set(merged.provenance["data"]["cases"]) == set(merged.tasks.names)
    assert set(merged.provenance["training"]["metrics"]) == {"val/dice", *(f"val/dice/{name}" for name in merged.tasks.names)}

    code, _, said = run("merge", grown, trained, "--out", tmp_path / "no")
    assert (code, "there is nothing to merge" in said) == (2, True)
    assert run("rename-task", sister, "green_disc", "blue_disc", "--out", tmp_path / "clash")[0] == 0
    code, _, said = run("merge", grown, tmp_path / "clash", "--out", tmp_path / "no")
    assert code == 2
    assert "'blue_disc' is in" in said
    assert "with different weights" in said
    assert "tpseg rename-task" in said


def test_models_of_different_parents_do_not_merge(trained, discs, tmp_path, run):
    stranger = load_model(trained)
    with torch.no_grad():
        next(stranger.neck.parameters()).view(-1)[0].add_(1e-3)
    save_model(extract(stranger, ["dark_disc"]), tmp_path / "stranger")
    code, _, said = run("merge", trained, tmp_path / "stranger", "--out", tmp_path / "no")
    assert code == 2
    assert "differ in 1 tensors that all tasks share" in said
    assert "grown from one parent" in said
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("trunk", "given"), [("0" * 64, "here.pt"), (None, None)])
def test_the_trunk_s_file_is_given_to_the_models_that_do_not_hold_it(trunk, given, monkeypatch, discs, tmp_path):
    """A model that was trained whole, such as a rival from scratch, refuses weights for a trunk that it holds itself."""
    seen = []
    monkeypatch.setattr(costs, "find_model", lambda source: source)
    monkeypatch.setattr(costs, "read_model_config", lambda folder: (None, trunk))
    monkeypatch.setattr(costs, "Segmenter", lambda source, weights: seen.append((source, weights)))
    entry = {"images": 3, "dice": 0.5, "dice_interval": [0.4, 0.6]}
    monkeypatch.setattr(costs, "evaluate_model", lambda *rest, **options: {"default": {"tasks": {"bright_disc": entry}}})
    monkeypatch.setattr(costs, "_score", lambda numbers, place, name: numbers["dice"])
    found = costs.score({"grown": "a", "alone": "b"}, read_dataset(discs).only(["bright_disc"]), tmp_path, "here.pt")
    assert seen == [("a", given), ("b", given)]
    assert found.images == 3


def test_batches_that_share_a_step_are_counted_once(discs):
    """Two batches of 2 share a step: of 6 images 4 are drawn, other ones each epoch."""
    data = read_dataset(discs).only(["bright_disc"])
    recipe = config(training={"batch_size": 2, "accumulate": 2, "epochs": 3})
    assert planned_steps(recipe, data, None) == 3
    assert planned_steps(recipe, data, 2) == 2
