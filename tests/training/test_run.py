"""Training: it learns, stops when told, and says what went wrong without losing what is good."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from miniature import TASKS, checkpoint, config, history, train_miniature, write_discs
from PIL import Image
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import tpseg.training.module
import tpseg.training.run
from tpseg.checkpoints.model_folder import load_model
from tpseg.core.config import load_config
from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.hashes import write_record
from tpseg.data.manifest import read_dataset
from tpseg.models.catalogue import create
from tpseg.models.heads.losses import segmentation_loss
from tpseg.models.tpseg.network import TPSeg
from tpseg.training.module import LesionModule, NonFiniteLoss, hard_dice, matrices, parameter_groups, rate_factor

pytestmark = pytest.mark.usefixtures("miniature_trunk")


# Learning


def test_it_learns_two_tasks_within_36_steps(trained):
    table = history(trained)
    assert table["step"].iloc[-1] == 36
    assert table["train/loss"].iloc[-1] < 0.9 * table["train/loss"].iloc[0]
    assert table["val/dice"].max() > 0.8
    assert table[[f"val/dice/{task}" for task in TASKS]].max().min() > 0.8


def test_the_run_folder_holds_model_checkpoints_logs_and_settings(trained):
    assert {path.name for path in (trained / "model").iterdir()} == {
        "config.json", "model.safetensors", "tasks.json", "provenance.json", "data.csv", "README.md",
    }  # fmt: skip
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt", "SHA256SUMS"}
    assert list((trained / "logs").glob("events.out.tfevents.*"))
    assert not list(trained.rglob(".*"))  # nothing half-written is left
    content = yaml.safe_load((trained / "settings.yaml").read_text())
    assert content["model"]["rank"] == 4
    assert content["run"]["steps"] is None


def test_metrics_csv_has_a_row_per_epoch_with_losses_dice_and_the_split_of_every_task(trained):
    table = history(trained)
    assert table["epoch"].tolist() == list(range(1, 13))
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
    data = read_dataset(discs)
    record = (trained / "model" / "data.csv").read_text()
    assert content["data"]["sha256"] == data.sha256()
    assert content["data"]["record_sha256"] == hashlib.sha256(record.encode()).hexdigest()
    assert record == write_record(data.cases, data.hashes())
    assert content["data"]["cases"]["dark_disc"] == {"train": 6, "val": 2, "test": 3}
    assert {"tpseg", "torch", "transformers", "lightning", "python"} <= set(content["versions"])
    assert set(content["training"]["splits"]) == set(TASKS)
    assert content["command"]


def test_provenance_names_neither_user_nor_host(discs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setattr("platform.node", lambda: "wonderland")
    monkeypatch.setattr(
        "sys.argv", ["/home/alice/bin/tpseg", "train", "--data", "/home/alice/discs/tasks.yaml", "--config=/home/alice/s.yaml"]
    )
    model = train_miniature(discs, tmp_path / "run", steps=1) / "model"
    text = (model / "provenance.json").read_text() + (model / "data.csv").read_text()
    assert "tpseg train --data tasks.yaml --config=s.yaml" in text
    assert "alice" not in text
    assert "wonderland" not in text


def test_dice_of_a_batch_by_hand():
    mask = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).view(4, 1, 2, 2)
    logits = torch.tensor([[3.0, -1, 2, -1], [-1, -1, -1, -1], [5, -1, -1, -1], [9, 9, 9, 9]]).view(4, 1, 2, 2)
    assert hard_dice(logits, mask).tolist() == [0.5, 1.0, 0.0, 1.0]  # 2·1/(2+2); both empty; one empty; all
    assert hard_dice(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).tolist() == [1.0]  # ½ itself is no lesion


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
    found = {
        id(one): (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, settings, matrices(model))
        for one in group["params"]
    }
    expected = {}
    for name, parameter in model.named_parameters():
        rate = 1e-4 if name.startswith("trunk.") else 1e-2 if name.startswith("adapters.gate.") else 1e-3
        expected[id(parameter)] = (rate, 0.1 if parameter.ndim > 1 else 0.0)
    assert found == expected


def test_the_gate_temperature_falls_linearly_from_1_to_0_3(discs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("tpseg.models.tpseg.network.TPSeg.set_gate_temperature", lambda self, temperature: seen.append(temperature))
    train_miniature(discs, tmp_path / "run")
    assert seen == pytest.approx([1.0, 0.86, 0.72, 0.58, 0.44, 0.3])  # 2 epochs of 12 images in batches of 4


def test_two_passes_of_four_images_move_the_prototypes_as_one_of_eight(discs, tmp_path):
    """Weights that stay where they are, so that only the prototypes' own rule is compared; 12 images are one step of 8 an epoch."""
    still = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 2}
    one, two = (
        checkpoint(train_miniature(discs, tmp_path / str(batch), training=still | {"batch_size": batch, "accumulate": 8 // batch}))
        for batch in (8, 4)
    )
    assert one["global_step"] == two["global_step"] == 2
    moved = {key: value for key, value in one["state_dict"].items() if key.endswith("prototypes")}
    assert len(moved) == 3
    for key, value in moved.items():
        assert_close(two["state_dict"][key], value, rtol=0, atol=1e-5)


# How long it trains


@pytest.mark.parametrize(("steps", "accumulate"), [(1, 1), (5, 1), (3, 2), (4, 3)])
def test_steps_counts_optimiser_steps_and_ends_with_a_validation(discs, tmp_path, steps, accumulate):
    out = train_miniature(discs, tmp_path / "run", steps=steps, training={"epochs": 8, "accumulate": accumulate})
    assert checkpoint(out)["global_step"] == steps
    last = history(out).iloc[-1]
    assert last["step"] == steps
    assert np.isfinite(last["val/dice"])
    assert (out / "model" / "model.safetensors").is_file()


def test_epochs_end_a_run_that_asks_for_more_steps(discs, tmp_path):
    assert checkpoint(train_miniature(discs, tmp_path / "run", steps=100))["global_step"] == 6


def test_early_stopping_ends_a_run_that_no_longer_improves(discs, tmp_path, monkeypatch):
    monkeypatch.setattr(tpseg.training.module, "hard_dice", lambda logits, mask: torch.full((len(mask),), 0.5))
    out = train_miniature(discs, tmp_path / "run", training={"epochs": 8, "early_stopping": 2})
    assert history(out)["epoch"].tolist() == [1, 2, 3]


# What is refused


@pytest.mark.parametrize(("counts", "message"), [({"train": 0}, "train"), ({"val": 0}, "no case has split 'val'")])
def test_an_empty_split_is_refused_and_leaves_no_run_behind(tmp_path, counts, message):
    data = write_discs(tmp_path / "data", **counts)
    with pytest.raises(DataError, match=message):
        train_miniature(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # the same command works once the data are mended


def test_a_task_without_training_cases_is_named(tmp_path):
    data = write_discs(tmp_path / "data")
    table = tmp_path / "data" / "dark_disc" / "split.csv"
    table.write_text(table.read_text().replace("train", "test"))
    with pytest.raises(DataError, match="no training case for task dark_disc"):
        train_miniature(data, tmp_path / "run")


def test_a_task_without_val_images_is_named_before_training_and_has_no_say_in_the_epoch(tmp_path, caplog):
    data = write_discs(tmp_path / "data")
    table = tmp_path / "data" / "dark_disc" / "split.csv"
    table.write_text(table.read_text().replace("val", "test"))
    run = train_miniature(data, tmp_path / "run", training={"epochs": 1})
    assert [record.getMessage() for record in caplog.records if "no val images" in record.getMessage()] == [
        "no val images of task dark_disc: the best epoch is chosen by the other tasks alone; draw some with 'tpseg data split'"
    ]
    assert history(run)["val/dice"].tolist() == history(run)["val/dice/bright_disc"].tolist()
    assert "No val images of dark_disc: the epoch was picked by the other tasks alone." in (run / "model" / "README.md").read_text()


def test_a_bad_image_is_named(tmp_path):
    data = write_discs(tmp_path / "data", train=2)
    bad = tmp_path / "data" / "dark_disc" / "01.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(DataError, match=r"dark_disc/01\.png: cannot be decoded"):
        train_miniature(data, tmp_path / "run", sampling={"balance": False})


def test_a_bad_image_is_named_in_one_line_from_a_loading_process_too(tmp_path):
    data = write_discs(tmp_path / "data", train=2)
    bad = tmp_path / "data" / "dark_disc" / "01.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(DataError, match=r"dark_disc/01\.png: cannot be decoded") as error:
        train_miniature(data, tmp_path / "run", sampling={"balance": False, "workers": 1})
    assert "\n" not in str(error.value)


def test_files_that_do_not_exist_are_named_before_training_begins(tmp_path):
    data = write_discs(tmp_path / "data")
    (tmp_path / "data" / "dark_disc" / "01.png").unlink()
    with pytest.raises(DataError, match=r"1 files do not exist: .*dark_disc/01\.png"):
        train_miniature(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_lost_gradient_does_not_reach_the_weights(discs, tmp_path, monkeypatch):
    """A finite loss with a gradient that is none, as √x has at 0."""

    def loss(supervised, mask):
        values = segmentation_loss(supervised, mask)
        return values + (values - values.detach()).abs().sqrt()

    with monkeypatch.context() as patch:
        patch.setattr(tpseg.training.module, "segmentation_loss", loss)
        with pytest.raises(NonFiniteLoss, match=r"the gradient became NaN or infinite at step \d+, on: .*_disc"):
            train_miniature(discs, tmp_path / "run")


@pytest.mark.parametrize("model", [{"freeze": True}, {"hardened": True}])
def test_settings_that_cannot_be_trained_are_refused(discs, tmp_path, model):
    with pytest.raises(UsageError, match=rf"model\.{next(iter(model))}"):
        train_miniature(discs, tmp_path / "run", model=model)


# A lost loss


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled: Callable[[bool, int, torch.Tensor], torch.Tensor]) -> None:
    """Make the loss NaN where `spoiled(training, number of the training step, masks)` says so, (B,) bool."""
    steps = 0

    def loss(supervised: list[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        training = supervised[0].requires_grad
        steps += training
        return torch.where(spoiled(training, steps, mask), torch.nan, segmentation_loss(supervised, mask))

    monkeypatch.setattr(tpseg.training.module, "segmentation_loss", loss)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_file(tmp_path, monkeypatch):
    data = write_discs(tmp_path / "data")
    Image.new("L", (64, 48)).save(tmp_path / "data" / "dark_disc" / "masks" / "03.png")
    spoil(monkeypatch, lambda training, step, mask: (mask.sum((1, 2, 3)) == 0) & (training and step > 3))
    sections = {"sampling": {"balance": False, "augmentation": "none"}}
    with pytest.raises(NonFiniteLoss) as caught:
        train_miniature(data, tmp_path / "run", **sections)
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
        train_miniature(discs, tmp_path / "run")
    assert checkpoint(tmp_path / "run")["global_step"] == 3


def test_a_learning_rate_that_bursts_the_weights_is_reported(discs, tmp_path):
    with pytest.raises(NonFiniteLoss, match="NaN or infinite at step"):
        train_miniature(discs, tmp_path / "run", training={"learning_rate": 1e30, "warmup": 0.0, "clip": 0.0, "epochs": 4})


# The gate's cost


def new_model(discs: Any, **model: Any) -> Any:
    return create(config(model=model).model, read_dataset(discs).tasks)


def test_the_splits_cost_is_the_mean_weight_of_the_task_routes_and_its_gradient_is_the_gates_alone(discs):
    model = new_model(discs)
    cost = model.split_cost(torch.tensor([1, 1]))
    assert_close(cost, model.gate_weights()[1].mean().expand(2))
    cost.sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == ["adapters.gate.steps.1"]
    assert (model.gate.steps[1].grad > 0).all()  # a step down makes every w smaller


def test_without_a_gate_cost_nothing_is_added_to_the_loss(discs, tmp_path, monkeypatch):
    monkeypatch.setattr(TPSeg, "split_cost", lambda self, task: pytest.fail("the cost was asked for"))
    train_miniature(discs, tmp_path / "run", steps=1)


def test_the_gate_cost_pulls_splits_later(discs, tmp_path):
    recipe = {"epochs": 3, "gate_learning_rate": 0.2}
    runs = {cost: train_miniature(discs, tmp_path / str(cost), training=recipe | {"gate_cost": cost}) for cost in (0.0, 1.0)}
    free, costly = (checkpoint(runs[cost])["state_dict"] for cost in (0.0, 1.0))
    last = {cost: history(run).iloc[-1] for cost, run in runs.items()}
    for number, task in enumerate(TASKS):
        key = f"model.adapters.gate.steps.{number}"
        assert (costly[key] < free[key]).all()
        assert last[1.0][f"split/{task}"] > last[0.0][f"split/{task}"]


@pytest.mark.parametrize("model", [{"gate": "none"}, {"gate": "shared_only"}, {"adapter": "plain"}, {"architecture": "monai_unet"}])
def test_a_gate_cost_without_a_split_is_refused(discs, tmp_path, model):
    with pytest.raises(UsageError, match=r"training\.gate_cost: found 0\.1, expected 0: .* no split that it could move"):
        train_miniature(discs, tmp_path / "run", model=model, training={"gate_cost": 0.1})
    assert not (tmp_path / "run").exists()


def test_a_run_begun_before_there_was_a_gate_cost_goes_on(discs, tmp_path):
    train_miniature(discs, tmp_path / "run", steps=3)
    settings = tmp_path / "run" / "settings.yaml"
    content = yaml.safe_load(settings.read_text())
    del content["training"]["gate_cost"]
    settings.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="is finished, all 3 steps are done"):
        train_miniature(discs, tmp_path / "run", steps=3, resume=True)
    with pytest.raises(UsageError, match=r"training\.gate_cost was 0\.0, now 0\.5"):
        train_miniature(discs, tmp_path / "run", steps=3, resume=True, training={"gate_cost": 0.5})


# What a step costs


class Reads(TorchDispatchMode):
    """Counts the numbers that the host reads from tensors: on a GPU each read waits for all that has been asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def test_a_step_reads_the_tasks_and_otherwise_only_what_the_step_before_left(discs, tmp_path, monkeypatch):
    """Reads at the start of a step wait for what its task ids wait for anyway; none comes after the forward pass has begun."""
    reads: dict[str, list[int]] = {"check_finite": [], "training_step": [], "configure_gradient_clipping": []}
    lists: list[torch.Tensor] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(LesionModule, name)

        def call(*arguments: Any, **options: Any) -> Any:
            with Reads() as mode:
                result = original(*arguments, **options)
            reads[name].append(mode.count)
            return result

        return call

    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: lists.append(self) or tolist(self))
    for name in ("check_finite", "configure_gradient_clipping", "training_step"):
        monkeypatch.setattr(LesionModule, name, counted(name))
    monkeypatch.setattr(LesionModule, "validation_step", lambda *_: None)
    monkeypatch.setattr(LesionModule, "on_validation_epoch_end", lambda self: self.log("val/dice", 0.5))
    train_miniature(discs, tmp_path / "run", steps=3)
    assert reads["check_finite"] == [0, 2, 2, 2, 0]  # loss and gradient, once a step, the last before the validation; then all is read
    assert reads["training_step"] == reads["check_finite"][:3]  # of all that a step reads
    assert reads["configure_gradient_clipping"] == [0, 0, 0]
    assert len([one for one in lists if len(one) == 4]) == 3  # the task ids of 3 batches; the others are the sampler's


def test_weights_that_cannot_be_had_are_missed_before_a_model_is_made(monkeypatch, tmp_path):
    """Hiera-L takes seconds to make, and its numbers would be thrown away."""
    monkeypatch.setattr(tpseg.training.run, "create", lambda *_: pytest.fail("a model was made"))
    wanted = load_config(["default"], {"model": {"weights": str(tmp_path / "sam2_hiera_large.pt")}})
    with pytest.raises(DataError, match=r"sam2_hiera_large\.pt: no such file"):
        tpseg.training.run.build_model(wanted, TaskSet([Task("polyp")]))


def test_a_frozen_trunk_gets_no_gradient_but_passes_it_on(discs):
    model = new_model(discs, freeze=True)
    model(torch.randn(2, 3, 64, 64), torch.tensor([0, 1])).logits.sum().backward()
    assert all(parameter.grad is None for parameter in model.trunk.parameters())
    first = model.adapters.blocks[0]
    assert all(route.up.grad is not None for route in first.tasks)


@contextmanager
def kept_for_backward(shapes: list[tuple[int, ...]]) -> Iterator[None]:
    """Write down the shape of every tensor that the forward pass keeps."""
    with saved_tensors_hooks(lambda tensor: shapes.append(tuple(tensor.shape)) or tensor, lambda tensor: tensor):
        yield


def test_checkpointing_does_not_keep_the_adapters_activations(discs):
    """96 px enter the blocks as 576, 144 and 36 tokens; both routes of rank 5 side by side are 10 wide."""
    model = new_model(discs, rank=5)
    image, task = torch.randn(2, 3, 96, 96), torch.tensor([0, 1])
    inside = {(2, tokens, 10) for tokens in (576, 144, 36)}
    kept: dict[bool, list[tuple[int, ...]]] = {False: [], True: []}
    gradients = {}
    for again, shapes in kept.items():
        model.trunk.checkpointing = again
        model.zero_grad()
        with kept_for_backward(shapes):
            loss = model(image, task).logits.mean()
        loss.backward()
        gradients[again] = [route.up.grad.clone() for block in model.adapters.blocks for route in block.tasks]
    assert inside <= set(kept[False])
    assert not inside & set(kept[True])
    assert_close(gradients[True], gradients[False], rtol=0, atol=0)
