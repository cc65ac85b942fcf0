"""The run folder: an interrupted run goes on as if nothing had happened, and nothing good is ever overwritten."""

from __future__ import annotations

import errno
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from miniature import assert_same_run, checkpoint, config, stopped, train_miniature
from torch.testing import assert_close

import tpseg.training.module
import tpseg.training.run
from tpseg.checkpoints.model_folder import load_model
from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.dataset import LesionDataset
from tpseg.data.manifest import read_dataset
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import create
from tpseg.training.callbacks import BestModel
from tpseg.training.checkpoints import LAST, newest, write_checkpoint
from tpseg.training.failures import WriteError
from tpseg.training.module import LesionModule
from tpseg.training.run_folder import first_difference, read_settings
from tpseg.training.saving import Saving

pytestmark = pytest.mark.usefixtures("miniature_trunk")

FOUR = {"epochs": 4}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, discs: Path) -> Callable[..., Path]:
    """A function that gives an uninterrupted run of four epochs with the settings asked for, trained once."""
    runs: dict[str, Path] = {}

    def get(**sections: dict[str, Any]) -> Path:
        key = str(sections)
        if key not in runs:
            runs[key] = train_miniature(discs, tmp_path_factory.mktemp("whole") / "run", **sections)
        return runs[key]

    return get


# Repeating and resuming


def test_the_same_seed_gives_the_same_run_bit_for_bit_whatever_the_number_of_workers(whole):
    assert_same_run(whole(training=FOUR), whole(training=FOUR, sampling={"workers": 2}))


def test_another_seed_gives_other_weights(whole, discs, tmp_path):
    other = checkpoint(train_miniature(discs, tmp_path / "run", training=FOUR | {"seed": 7}))["state_dict"]
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
        pytest.param(
            2, 3, {"batch_size": 2, "accumulate": 2, "checkpoint_minutes": 0}, 0, id="inside epoch 3, between two passes of its second step"
        ),
        pytest.param(2, 0, {"schedule": "plateau", "warmup": 0.0, "early_stopping": 3}, 0, id="plateau and early stopping"),
    ],
)
def test_a_stopped_and_resumed_run_is_the_uninterrupted_run(whole, discs, tmp_path, epoch, step, training, workers):
    sections = {"training": FOUR | training, "sampling": {"workers": workers}}
    with stopped(epoch, step):
        train_miniature(discs, tmp_path / "run", **sections)
    train_miniature(discs, tmp_path / "run", resume=True, **sections)
    assert_same_run(whole(training=FOUR | training), tmp_path / "run")


def test_a_plateau_counts_on_where_it_was_stopped(discs):
    """The rate falls to a tenth in the seventh epoch without a better Dice, three of them before the stop."""

    def module(checkpoint: dict[str, Any]) -> LesionModule:
        settings = config(training={"schedule": "plateau", "warmup": 0.0, "learning_rate": 2e-3})
        made = LesionModule(settings, create(settings.model, read_dataset(discs).tasks), 100)
        made.on_load_checkpoint(checkpoint)
        made.optimiser = made.configure_optimizers()["optimizer"]
        return made

    def rates(one: LesionModule, dice: list[float]) -> list[float]:
        return [one.plateau.step(value) or one.optimiser.param_groups[0]["lr"] for value in dice]

    saved: dict[str, Any] = {}
    first = module({})
    assert rates(first, [0.7, 0.6, 0.7, 0.7]) == [2e-3] * 4
    first.on_save_checkpoint(saved)
    assert rates(module(saved), [0.65] * 4) == pytest.approx([2e-3] * 3 + [2e-4])


def test_the_best_model_stays_the_best_when_a_run_goes_on_and_of_equals_the_first(tmp_path, monkeypatch):
    saved: list[int] = []
    monkeypatch.setattr("tpseg.training.callbacks.whole_model", lambda model, wrapped: saved.append(trainer.current_epoch))
    trainer, module = SimpleNamespace(model=None), SimpleNamespace(model=LesionModel(config().model, TaskSet([Task("a")])))
    best = BestModel(tmp_path, {}, "")
    for epoch, dice in enumerate([0.0, 0.5, 0.8, 0.8, 0.7, 0.81]):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/dice": torch.tensor(dice)}
        before, best = best, BestModel(tmp_path, {}, "")
        best.load_state_dict(before.state_dict())
        best.on_validation_end(trainer, module)
        assert best.epoch == saved[-1]
    assert saved == [0, 1, 2, 5]


def test_a_run_may_be_stopped_after_every_epoch(whole, discs, tmp_path):
    with stopped(1):
        train_miniature(discs, tmp_path / "run", training=FOUR)
    for epoch in (2, 3):
        with stopped(epoch):
            train_miniature(discs, tmp_path / "run", training=FOUR, resume=True)
    train_miniature(discs, tmp_path / "run", training=FOUR, resume=True)
    assert_same_run(whole(training=FOUR), tmp_path / "run")


def test_resuming_a_finished_run_is_refused_and_changes_nothing(whole, discs, tmp_path):
    shutil.copytree(whole(training=FOUR), tmp_path / "run")
    with pytest.raises(UsageError, match="is finished, all 12 steps are done"):
        train_miniature(discs, tmp_path / "run", training=FOUR, resume=True)
    assert_same_run(whole(training=FOUR), tmp_path / "run")


def test_a_run_of_n_steps_resumes_too(discs, tmp_path):
    train_miniature(discs, tmp_path / "whole", steps=8, training=FOUR)
    with stopped(2):
        train_miniature(discs, tmp_path / "run", steps=8, training=FOUR)
    train_miniature(discs, tmp_path / "run", steps=8, training=FOUR, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_was_saved_inside_an_epoch_goes_on_there_and_draws_nothing_twice(whole, discs, tmp_path, monkeypatch):
    every = FOUR | {"checkpoint_minutes": 0}
    with stopped(2, 2):
        train_miniature(discs, tmp_path / "run", training=every)
    read: list[int] = []
    getitem = LesionDataset.__getitem__
    monkeypatch.setattr(LesionDataset, "__getitem__", lambda self, item: (read.append(1), getitem(self, item))[1])
    train_miniature(discs, tmp_path / "run", training=every, resume=True)
    assert len(read) == 4 + 12 + 2 * 4  # a batch of epoch 3, epoch 4, two validations: nothing was decoded that is done
    assert_same_run(whole(training=FOUR), tmp_path / "run")


@pytest.mark.parametrize("sections", [{"sampling": {"workers": 1}}, {"training": FOUR | {"checkpointing": True, "checkpoint_minutes": 0}}])
def test_what_changes_no_weight_may_be_changed_when_a_run_goes_on(whole, discs, tmp_path, sections):
    with stopped(2):
        train_miniature(discs, tmp_path / "run", training=FOUR)
    train_miniature(discs, tmp_path / "run", resume=True, **{"training": FOUR, **sections})
    assert_same_run(whole(training=FOUR), tmp_path / "run")


def test_a_run_that_early_stopping_ended_is_finished(discs, tmp_path, monkeypatch):
    monkeypatch.setattr(tpseg.training.module, "hard_dice", lambda logits, mask: torch.full((len(mask),), 0.5))
    early = FOUR | {"early_stopping": 1}
    train_miniature(discs, tmp_path / "run", training=early)
    with pytest.raises(UsageError, match="is finished, early stopping ended it after step 6 of 12"):
        train_miniature(discs, tmp_path / "run", training=early, resume=True)


def test_a_run_of_an_older_tpseg_goes_on(whole, discs, tmp_path):
    """Its checkpoints have no sums and say nothing of where inside an epoch they are: they were written at the end of one."""
    with stopped(2):
        train_miniature(discs, tmp_path / "run", training=FOUR)
    folder = tmp_path / "run" / "checkpoints"
    content = checkpoint(tmp_path / "run")
    del content["callbacks"]["Saving"], content["epoch_loss"], content["epoch_images"]
    torch.save(content, folder / "last.ckpt")
    for name in ("SHA256SUMS", "previous.ckpt"):
        (folder / name).unlink()
    train_miniature(discs, tmp_path / "run", training=FOUR, resume=True)
    assert_same_run(whole(training=FOUR), tmp_path / "run")


def test_the_checkpoint_before_a_damaged_last_one_is_known_though_it_is_not_the_best(tmp_path):
    for step in (1, 2, 3):
        saved = {"epoch": 0, "batches": step, "finished": False}
        write_checkpoint({"epoch": 0, "global_step": step, "callbacks": {"Saving": saved}}, tmp_path / LAST, best=step == 1)
    (tmp_path / LAST).write_bytes(b"half")
    assert newest(tmp_path)[1].step == 2


def test_a_run_killed_between_two_renames_goes_on_from_the_checkpoint_before(tmp_path):
    """The last one was renamed to previous.ckpt, and the new one was not in its place yet."""
    saved = {"epoch": 1, "batches": 0, "finished": False}
    write_checkpoint({"epoch": 0, "global_step": 3, "callbacks": {"Saving": saved}}, tmp_path / LAST)
    (tmp_path / LAST).rename(tmp_path / "previous.ckpt")
    path, place = newest(tmp_path)
    assert (path, place.step) == (tmp_path / LAST, 3)
    assert path.is_file()


def test_what_a_killed_process_left_half_written_is_cleared_away(whole, discs, tmp_path):
    with stopped(2):
        train_miniature(discs, tmp_path / "run", training=FOUR)
    run = tmp_path / "run"
    (run / "checkpoints" / ".4711.last.ckpt").write_bytes(b"half")
    (run / "model").rename(run / ".4711.model.old")  # killed between the two renames
    (run / ".4711.model.new").mkdir()
    train_miniature(discs, run, training=FOUR, resume=True)
    assert not list(run.rglob(".*"))
    assert_same_run(whole(training=FOUR), run)


# Folders that are refused


def test_a_folder_with_a_run_in_it_is_refused(trained, discs):
    before = (trained / "settings.yaml").read_bytes()
    with pytest.raises(UsageError, match="already holds a run; continue it with --resume"):
        train_miniature(discs, trained)
    assert (trained / "settings.yaml").read_bytes() == before


@pytest.mark.parametrize("place", [{}, {"data": "tasks.yaml"}, {"data": [1], "steps": None}, {"data": "x", "steps": "2"}, [], "x", 1])
def test_settings_whose_place_is_damaged_are_those_of_no_run(place, tmp_path):
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"run": place}))
    with pytest.raises(UsageError, match="not a run folder"):
        read_settings(tmp_path)


def test_a_folder_with_other_things_in_it_is_refused(discs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not an empty folder"):
        train_miniature(discs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_place_for_the_run_that_is_a_file_is_refused(discs, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="is not an empty folder"):
        train_miniature(discs, tmp_path / "run")


def test_a_key_that_the_settings_before_lack_is_a_difference():
    assert first_difference({"model": {"rank": 4}}, {"model": {"rank": 4, "gate": "none"}}) == "model.gate was None, now none"
    assert first_difference({}, {"model": {"rank": 4}}) == "model.rank was None, now 4"


def test_resuming_with_other_settings_names_the_key(discs, tmp_path):
    with stopped(1):
        train_miniature(discs, tmp_path / "run")
    with pytest.raises(UsageError, match=r"training\.learning_rate was 0\.002, now 0\.1"):
        train_miniature(discs, tmp_path / "run", training={"learning_rate": 0.1}, resume=True)
    with pytest.raises(UsageError, match=r"run\.steps was None, now 3"):
        train_miniature(discs, tmp_path / "run", steps=3, resume=True)


def test_there_must_be_a_run_to_resume(discs, tmp_path):
    with pytest.raises(UsageError, match="holds no run to resume"):
        train_miniature(discs, tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


# A full disk


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
        train_miniature(discs, tmp_path / "run", training=FOUR)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".ckpt", ".safetensors", ".json", ".csv")}
    with pytest.raises(WriteError, match="may not grow so large here"), largest_file(40_000):
        train_miniature(discs, tmp_path / "run", training=FOUR, resume=True)
    assert all(path.read_bytes() == content for path, content in before.items() if path.suffix != ".csv")
    train_miniature(discs, tmp_path / "run", training=FOUR, resume=True)
    assert_same_run(whole(training=FOUR), tmp_path / "run")


def test_a_model_folder_that_cannot_be_written_leaves_the_old_one(discs, tmp_path, monkeypatch):
    with stopped(1):
        train_miniature(discs, tmp_path / "run")
    before = load_model(tmp_path / "run").state_dict()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tpseg.checkpoints.model_folder.save_file", full)
    monkeypatch.setattr(tpseg.training.module, "hard_dice", lambda logits, mask: torch.ones(len(mask)))  # a new best
    with pytest.raises(WriteError, match="the disk is full"):
        train_miniature(discs, tmp_path / "run", resume=True)
    assert_close(load_model(tmp_path / "run").state_dict(), before, rtol=0, atol=0)
    assert not list((tmp_path / "run").glob(".model*"))


def test_checkpoints_are_written_beside_their_place(discs, tmp_path, monkeypatch):
    """From the system's temporary folder they would have to be copied, and a full disk would cut the old one short."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert checkpoint(train_miniature(discs, tmp_path / "run"))["global_step"] == 6


def test_a_run_is_saved_between_steps_and_not_before_a_validation_that_is_due(discs):
    settings = config()
    module = LesionModule(settings, create(settings.model, read_dataset(discs).tasks), total_steps=10)

    def may_be_saved(done: int, step: int, accumulate: int = 1) -> bool:
        trainer = SimpleNamespace(num_training_batches=4, accumulate_grad_batches=accumulate, global_step=step)
        return Saving.between_steps(trainer, module, done)

    assert [may_be_saved(done, step=4 + done) for done in (1, 2, 3, 4)] == [True, True, True, False]
    assert [may_be_saved(done, step=4 + done // 2, accumulate=2) for done in (1, 2, 3, 4)] == [False, True, False, False]
    assert not may_be_saved(2, step=10)  # the last of all


def test_only_the_end_of_the_best_epoch_is_the_best_checkpoint(discs, tmp_path):
    """The next epoch's checkpoints, saved before its end, hold other weights than the model that was kept."""
    settings = config()
    module = LesionModule(settings, create(settings.model, read_dataset(discs).tasks), total_steps=10)
    trainer = SimpleNamespace(global_step=4, save_checkpoint=lambda path: None)
    saving = Saving(tmp_path, SimpleNamespace(epoch=0), None, SimpleNamespace())

    def is_best(epoch: int, batches: int) -> bool:
        saving.save(trainer, module, epoch, batches)
        return saving.place["best"]

    assert [is_best(1, 0), is_best(1, 2), is_best(2, 0)] == [True, False, False]
