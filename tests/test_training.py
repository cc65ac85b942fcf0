"""Training: it learns, repeats itself bit for bit, resumes as if nothing had happened, and loses no good checkpoint."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from miniature import TASKS, config, write_discs
from PIL import Image
from torch.testing import assert_close

import tpseg.training
from tpseg.data.dataset import Batch
from tpseg.data.manifest import read_dataset
from tpseg.errors import DataError, UsageError
from tpseg.losses import segmentation_loss
from tpseg.models.checkpoint import load_model
from tpseg.training import LesionModule, NonFiniteLoss, hard_dice, parameter_groups, rate_factor, train

pytestmark = pytest.mark.usefixtures("miniature_trunk")


class Stopped(Exception):
    """Stands for a kill, a power cut, a time limit."""


@contextmanager
def stopped(epoch: int, step: int = 0) -> Iterator[None]:
    """Training ends, as if killed, in epoch `epoch` (from 0) before its batch `step`."""

    def stop(self: LesionModule, batch: Batch, index: int) -> None:
        if (self.current_epoch, index) == (epoch, step):
            raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(LesionModule, "on_train_batch_start", stop, raising=False)
        yield


def run(data: Path, out: Path, *, steps: int | None = None, resume: bool = False, **sections: dict[str, Any]) -> Path:
    return train(config(**sections), data, out, steps=steps, resume=resume, bar=False)


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=False)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, prototypes, optimiser, schedule and every logged number are equal, bit for bit."""
    first, second = checkpoint(one), checkpoint(other)
    assert any("prototypes" in key for key in first["state_dict"])
    for part in ("lr_schedulers", "epoch", "global_step"):
        assert first[part] == second[part]
    for part in ("state_dict", "optimizer_states"):
        assert_close(first[part], second[part], rtol=0, atol=0, msg=lambda text, part=part: f"{part}: {text}")
    assert (one / "logs" / "metrics.csv").read_text() == (other / "logs" / "metrics.csv").read_text()
    assert_close(load_model(one).state_dict(), load_model(other).state_dict(), rtol=0, atol=0)


def history(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "logs" / "metrics.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, discs: Path) -> Iterator[Callable[..., Path]]:
    """A function that gives an uninterrupted run of four epochs with the settings asked for, trained once."""
    runs: dict[str, Path] = {}

    def get(**sections: dict[str, Any]) -> Path:
        key = str(sections)
        if key not in runs:
            runs[key] = run(discs, tmp_path_factory.mktemp("whole") / "run", **sections)
        return runs[key]

    yield get


FOUR = {"epochs": 4}


# Learning


def test_it_learns_two_tasks_within_24_steps(trained):
    table = history(trained)
    assert table["step"].iloc[-1] == 24
    assert table["train/loss"].iloc[-1] < 0.7 * table["train/loss"].iloc[0]
    assert table["val/dice"].max() > 0.8
    assert table[[f"val/dice/{task}" for task in TASKS]].max().min() > 0.8


def test_the_run_folder_holds_model_checkpoints_logs_and_settings(trained):
    assert {path.name for path in (trained / "model").iterdir()} == {
        "config.json", "model.safetensors", "tasks.json", "provenance.json", "README.md",
    }  # fmt: skip
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list((trained / "logs").glob("events.out.tfevents.*"))
    assert not [path for path in trained.rglob(".*")]  # nothing half-written is left
    content = yaml.safe_load((trained / "settings.yaml").read_text())
    assert content["model"]["rank"] == 4
    assert content["run"]["steps"] is None


def test_metrics_csv_has_a_row_per_epoch_with_losses_dice_and_the_split_of_every_task(trained):
    table = history(trained)
    assert table["epoch"].tolist() == list(range(1, 9))
    wanted = {"step", "learning_rate", "train/loss", "val/loss", "val/dice"}
    assert wanted | {f"{part}/{task}" for part in ("val/dice", "split") for task in TASKS} <= set(table.columns)
    assert table["val/dice"].tolist() == pytest.approx(table[[f"val/dice/{task}" for task in TASKS]].mean(axis=1).tolist(), rel=1e-6)


def test_the_model_folder_is_the_epoch_with_the_best_val_dice(trained):
    table = history(trained)
    best = table["val/dice"].idxmax()
    training = json.loads((trained / "model" / "provenance.json").read_text())["training"]
    assert training["epoch"] == table["epoch"][best]
    assert training["metrics"]["val/dice"] == pytest.approx(table["val/dice"][best], abs=1e-7)
    saved = checkpoint(trained, "best")
    assert saved["epoch"] + 1 == training["epoch"]
    model = load_model(trained)
    assert_close({f"model.{key}": value for key, value in model.state_dict().items()}, saved["state_dict"], rtol=0, atol=0)


def test_provenance_names_data_versions_seed_metrics_and_command(trained, discs):
    content = json.loads((trained / "model" / "provenance.json").read_text())
    assert content["seed"] == 42
    assert content["data"]["sha256"] == read_dataset(discs).sha256()
    assert content["data"]["cases"]["dark_disc"] == {"train": 6, "val": 2, "test": 3}
    assert {"tpseg", "torch", "transformers", "lightning", "python"} <= set(content["versions"])
    assert set(content["training"]["splits"]) == set(TASKS)
    assert content["command"]


def test_provenance_names_neither_user_nor_host(discs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr("platform.node", lambda: "wonderland")
    monkeypatch.setattr("sys.argv", ["/home/alice/bin/tpseg", "train", "--data", "/home/alice/discs/tasks.yaml"])
    text = (run(discs, tmp_path / "run", steps=1) / "model" / "provenance.json").read_text()
    assert "tpseg train --data" in text
    assert "alice" not in text
    assert "wonderland" not in text


def test_dice_of_a_batch_by_hand():
    mask = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).view(4, 1, 2, 2)
    logits = torch.tensor([[3.0, -1, 2, -1], [-1, -1, -1, -1], [5, -1, -1, -1], [9, 9, 9, 9]]).view(4, 1, 2, 2)
    assert hard_dice(logits, mask).tolist() == [0.5, 1.0, 0.0, 1.0]  # 2·1/(2+2); both empty; one empty; all


def test_learning_rate_rises_falls_as_a_half_cosine_and_ends_at_zero():
    rates = [rate_factor(step, total=100, warmup=0.1, cosine=True) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[9] == pytest.approx(10 / 11)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert [rate_factor(step, 100, 0.0, False) for step in (0, 50, 99)] == [1.0, 1.0, 1.0]


def test_trunk_and_gate_have_their_own_learning_rates_and_vectors_are_not_decayed(trained):
    model = load_model(trained)
    settings = config(
        training={"learning_rate": 1e-3, "trunk_learning_rate": 1e-4, "gate_learning_rate": 1e-2, "weight_decay": 0.1}
    ).training
    found = {id(one): (group["lr"], group["weight_decay"]) for group in parameter_groups(model, settings) for one in group["params"]}
    expected = {}
    for name, parameter in model.named_parameters():
        rate = 1e-4 if name.startswith("trunk.") else 1e-2 if name.startswith("adapters.gate.") else 1e-3
        expected[id(parameter)] = (rate, 0.1 if parameter.ndim > 1 else 0.0)
    assert found == expected


def test_the_gate_temperature_falls_linearly_from_1_to_0_3(discs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("tpseg.models.tpseg.TPSeg.set_gate_temperature", lambda self, temperature: seen.append(temperature))
    run(discs, tmp_path / "run")
    assert seen == pytest.approx([1.0, 0.86, 0.72, 0.58, 0.44, 0.3])  # 2 epochs of 12 images in batches of 4


# Repeating and resuming


def test_same_seed_same_weights_whatever_the_number_of_workers(whole):
    settings = checkpoint(whole(training=FOUR)), checkpoint(whole(training=FOUR, sampling={"workers": 2}))
    assert_close(settings[0]["state_dict"], settings[1]["state_dict"], rtol=0, atol=0)


def test_the_same_run_twice_is_the_same_bit_for_bit(whole, discs, tmp_path):
    assert_same_run(whole(training=FOUR), run(discs, tmp_path / "run", training=FOUR))


def test_another_seed_gives_other_weights(whole, discs, tmp_path):
    other = checkpoint(run(discs, tmp_path / "run", training=FOUR | {"seed": 7}))["state_dict"]
    state = checkpoint(whole(training=FOUR))["state_dict"]
    assert not torch.equal(state["model.trunk.hiera.pos_embed"], other["model.trunk.hiera.pos_embed"])


@pytest.mark.parametrize(
    ("epoch", "step", "training", "workers"),
    [
        pytest.param(0, 1, {}, 0, id="before the first checkpoint"),
        pytest.param(1, 0, {}, 0, id="after epoch 1"),
        pytest.param(2, 0, {}, 2, id="after epoch 2, two workers"),
        pytest.param(3, 0, {"precision": "bf16"}, 0, id="after epoch 3, bfloat16"),
        pytest.param(2, 0, {"precision": "bf16"}, 2, id="after epoch 2, bfloat16, two workers"),
        pytest.param(2, 1, {}, 0, id="inside epoch 3"),
        pytest.param(2, 1, {"accumulate": 2}, 0, id="inside epoch 3, accumulating"),
        pytest.param(2, 0, {"schedule": "plateau", "warmup": 0.0, "early_stopping": 3}, 0, id="plateau and early stopping"),
    ],
)
def test_a_stopped_and_resumed_run_is_the_uninterrupted_run(whole, discs, tmp_path, epoch, step, training, workers):
    sections = {"training": FOUR | training, "sampling": {"workers": workers}}
    with stopped(epoch, step):
        run(discs, tmp_path / "run", **sections)
    run(discs, tmp_path / "run", resume=True, **sections)
    assert_same_run(whole(**sections), tmp_path / "run")


def test_a_run_may_be_stopped_after_every_epoch(whole, discs, tmp_path):
    with stopped(1):
        run(discs, tmp_path / "run", training=FOUR)
    for epoch in (2, 3):
        with stopped(epoch):
            run(discs, tmp_path / "run", training=FOUR, resume=True)
    run(discs, tmp_path / "run", training=FOUR, resume=True)
    assert_same_run(whole(training=FOUR), tmp_path / "run")


def test_resuming_a_finished_run_changes_nothing(whole, discs, tmp_path):
    shutil.copytree(whole(training=FOUR), tmp_path / "run")
    run(discs, tmp_path / "run", training=FOUR, resume=True)
    assert_same_run(whole(training=FOUR), tmp_path / "run")


def test_a_run_of_n_steps_resumes_too(discs, tmp_path):
    run(discs, tmp_path / "whole", steps=8, training=FOUR)
    with stopped(2):
        run(discs, tmp_path / "run", steps=8, training=FOUR)
    run(discs, tmp_path / "run", steps=8, training=FOUR, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


# How long it trains


@pytest.mark.parametrize(("steps", "accumulate"), [(1, 1), (5, 1), (3, 2), (4, 3)])
def test_steps_counts_optimiser_steps_and_ends_with_a_validation(discs, tmp_path, steps, accumulate):
    out = run(discs, tmp_path / "run", steps=steps, training={"epochs": 8, "accumulate": accumulate})
    assert checkpoint(out)["global_step"] == steps
    last = history(out).iloc[-1]
    assert last["step"] == steps
    assert np.isfinite(last["val/dice"])
    assert (out / "model" / "model.safetensors").is_file()


def test_epochs_end_a_run_that_asks_for_more_steps(discs, tmp_path):
    assert checkpoint(run(discs, tmp_path / "run", steps=100))["global_step"] == 6


def test_early_stopping_ends_a_run_that_no_longer_improves(discs, tmp_path, monkeypatch):
    monkeypatch.setattr(tpseg.training, "hard_dice", lambda logits, mask: torch.full((len(mask),), 0.5))
    out = run(discs, tmp_path / "run", training={"epochs": 8, "early_stopping": 2})
    assert history(out)["epoch"].tolist() == [1, 2, 3]


# What is refused


def test_a_folder_with_a_run_in_it_is_refused(trained, discs):
    before = (trained / "settings.yaml").read_bytes()
    with pytest.raises(UsageError, match="already holds a run; continue it with --resume"):
        run(discs, trained)
    assert (trained / "settings.yaml").read_bytes() == before


def test_a_folder_with_other_things_in_it_is_refused(discs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not an empty folder"):
        run(discs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_place_for_the_run_that_is_a_file_is_refused(discs, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="is not an empty folder"):
        run(discs, tmp_path / "run")


def test_resuming_with_other_settings_names_the_key(discs, tmp_path):
    with stopped(1):
        run(discs, tmp_path / "run")
    with pytest.raises(UsageError, match=r"training\.learning_rate was 0\.002, now 0\.1"):
        run(discs, tmp_path / "run", training={"learning_rate": 0.1}, resume=True)
    with pytest.raises(UsageError, match=r"run\.steps was None, now 3"):
        run(discs, tmp_path / "run", steps=3, resume=True)


def test_there_must_be_a_run_to_resume(discs, tmp_path):
    with pytest.raises(UsageError, match="holds no run to resume"):
        run(discs, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("counts", "message"), [({"train": 0}, "train"), ({"val": 0}, "no case has split 'val'")])
def test_an_empty_split_is_refused_and_leaves_no_run_behind(tmp_path, counts, message):
    data = write_discs(tmp_path / "data", **counts)
    with pytest.raises(DataError, match=message):
        run(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # the same command works once the data are mended


def test_a_task_without_training_cases_is_named(tmp_path):
    data = write_discs(tmp_path / "data")
    table = tmp_path / "data" / "dark_disc" / "split.csv"
    table.write_text(table.read_text().replace("train", "test"))
    with pytest.raises(DataError, match="no training case for task dark_disc"):
        run(data, tmp_path / "run")


def test_a_bad_image_is_named(tmp_path):
    data = write_discs(tmp_path / "data", train=2)
    bad = tmp_path / "data" / "dark_disc" / "01.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(DataError, match=r"dark_disc/01\.png: cannot be decoded"):
        run(data, tmp_path / "run", sampling={"balance": False})


@pytest.mark.parametrize("model", [{"freeze": True}, {"hardened": True}])
def test_settings_that_cannot_be_trained_are_refused(discs, tmp_path, model):
    with pytest.raises(UsageError, match=rf"model\.{next(iter(model))}"):
        run(discs, tmp_path / "run", model=model)


# A lost loss, a full disk


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled: Callable[[bool, int, torch.Tensor], torch.Tensor]) -> None:
    """Make the loss NaN where `spoiled(training, number of the training step, masks)` says so, (B,) bool."""
    steps = 0

    def loss(supervised: list[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        training = supervised[0].requires_grad
        steps += training
        return torch.where(spoiled(training, steps, mask), torch.nan, segmentation_loss(supervised, mask))

    monkeypatch.setattr(tpseg.training, "segmentation_loss", loss)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_file(tmp_path, monkeypatch):
    data = write_discs(tmp_path / "data")
    Image.new("L", (64, 48)).save(tmp_path / "data" / "dark_disc" / "masks" / "03.png")
    spoil(monkeypatch, lambda training, step, mask: (mask.sum((1, 2, 3)) == 0) & (training and step > 3))
    sections = {"sampling": {"balance": False, "augmentation": "none"}}
    with pytest.raises(NonFiniteLoss) as caught:
        run(data, tmp_path / "run", **sections)
    assert caught.value.exit_code == 1
    assert str(tmp_path / "data" / "dark_disc" / "03.png") in str(caught.value)
    assert str(caught.value).count(".png") == 1
    assert checkpoint(tmp_path / "run")["global_step"] == 3  # the epoch before
    load_model(tmp_path / "run")
    monkeypatch.undo()


def test_a_loss_lost_in_validation_does_not_reach_the_checkpoint(discs, tmp_path, monkeypatch):
    """Weights that burst in an epoch's last step are seen in validation, before they are saved as last.ckpt."""
    spoil(monkeypatch, lambda training, step, mask: torch.full((len(mask),), not training and step > 3))
    with pytest.raises(NonFiniteLoss, match=r"disc/0[67]\.png"):
        run(discs, tmp_path / "run")
    assert checkpoint(tmp_path / "run")["global_step"] == 3


def test_a_learning_rate_that_bursts_the_weights_is_reported(discs, tmp_path):
    with pytest.raises(NonFiniteLoss, match="NaN or infinite at step"):
        run(discs, tmp_path / "run", training={"learning_rate": 1e30, "warmup": 0.0, "clip": 0.0, "epochs": 4})


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk on which no file can grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_leaves_the_checkpoints_and_the_model_of_the_epoch_before(whole, discs, tmp_path):
    with stopped(2):
        run(discs, tmp_path / "run", training=FOUR)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".ckpt", ".safetensors", ".json", ".csv")}
    with pytest.raises(OSError, match="File too large"), largest_file(40_000):
        run(discs, tmp_path / "run", training=FOUR, resume=True)
    assert all(path.read_bytes() == content for path, content in before.items() if path.suffix != ".csv")
    run(discs, tmp_path / "run", training=FOUR, resume=True)
    assert_same_run(whole(training=FOUR), tmp_path / "run")


def test_a_model_folder_that_cannot_be_written_leaves_the_old_one(discs, tmp_path, monkeypatch):
    with stopped(1):
        run(discs, tmp_path / "run")
    before = load_model(tmp_path / "run").state_dict()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tpseg.models.checkpoint.save_file", full)
    monkeypatch.setattr(tpseg.training, "hard_dice", lambda logits, mask: torch.ones(len(mask)))  # a new best
    with pytest.raises(OSError, match="No space left"):
        run(discs, tmp_path / "run", resume=True)
    assert_close(load_model(tmp_path / "run").state_dict(), before, rtol=0, atol=0)
    assert not list((tmp_path / "run").glob(".model*"))


def test_checkpoints_are_written_beside_their_place(discs, tmp_path, monkeypatch):
    """From the system's temporary folder they would have to be copied, and a full disk would cut the old one short."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert checkpoint(run(discs, tmp_path / "run"))["global_step"] == 6
