"""Several processes: together they train what one trains, checkpoints fit both, and one that fails ends all with one sentence.

Figures: at AdamW's first steps the size of a gradient hardly counts, so that rounding moves a weight whose gradient is nearly 0 by a
whole learning rate. Two processes are therefore compared at the paper's rate of 3e-5, and under SGD, which is linear in the gradient,
at a rate that moves the weights a thousand times further than they may differ.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed_worker
import pytest
import torch
from miniature import TASKS, Stopped, checkpoint, config, history, settings_file, train_miniature, write_discs
from torch.testing import assert_close

import tpseg.training.run
from tpseg.checkpoints.model_folder import load_model
from tpseg.core.config import Config
from tpseg.core.errors import DataError, TPSegError, UsageError
from tpseg.core.log_file import logging_to
from tpseg.data.manifest import read_dataset
from tpseg.data.sampling import TrainingSampler
from tpseg.training.module import LesionModule, NonFiniteLoss
from tpseg.training.process_group import Crew, find_crew, launch
from tpseg.training.run import Run, train

pytestmark = pytest.mark.usefixtures("miniature_trunk")

SGD = {"learning_rate": 0.05, "warmup": 0.0}
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, 12 training cases, and 5 for validation, which two processes cannot share evenly."""
    data = write_discs(tmp_path_factory.mktemp("uneven"), val=3)
    table = data.parent / "dark_disc" / "split.csv"
    lines = table.read_text().splitlines()
    lines.remove(next(line for line in lines if ",val," in line))
    table.write_text("\n".join([*lines, ""]))
    return data


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place where neither torchrun nor srun has started anything."""
    for name in PLACE:
        monkeypatch.delenv(name, raising=False)


def train_two(work: Callable[[Run], None], settings: Config, data: Path, out: Path, **options: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tpseg.training.run, "train_started", work)
        return train(settings, data, out, bar=False, devices="2", **options)


def train_one_with_sgd(data: Path, out: Path, resume: bool = False, **sections: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", distributed_worker.sgd)
        return train_miniature(data, out, resume=resume, **sections)


def assert_alike(one: Path, other: Path, tolerance: float = 1e-5, rate: float = 1.0) -> None:
    """Weights, gate and prototypes, the optimiser's moments, and every logged number.

    Moments may differ by as much as moves a weight by the tolerance at the learning rate `rate`.
    """
    first, second = checkpoint(one), checkpoint(other)
    for part in ("model.trunk.", "model.adapters.gate.", "prototypes", "model.decoder."):
        assert any(part in key for key in first["state_dict"])
    assert first["global_step"] == second["global_step"]
    assert_close(first["state_dict"], second["state_dict"], rtol=0, atol=tolerance)
    assert_close(first["optimizer_states"], second["optimizer_states"], rtol=1e-2, atol=tolerance / rate)
    assert_close(load_model(one).state_dict(), load_model(other).state_dict(), rtol=0, atol=tolerance)
    left, right = history(one), history(other)
    assert left.columns.tolist() == right.columns.tolist()
    assert_close(torch.tensor(left.values), torch.tensor(right.values), rtol=1e-2, atol=1e-3, equal_nan=True)


def moved(run: Path, settings: Config, data: Path) -> float:
    """How far training moved the weights at most. A thousandth of it is more than rounding makes of it on any processor tried, and
    less than a fault in what is added up would."""
    torch.manual_seed(settings.training.seed)
    fresh = tpseg.training.run.build_model(settings, read_dataset(data).tasks).state_dict()
    trained = checkpoint(run)["state_dict"]
    return max(float((trained[f"model.{key}"] - value).abs().max()) for key, value in fresh.items())


# The same as one process


@pytest.fixture(scope="module")
def one_with_sgd(miniature_trunk_module: None, uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_one_with_sgd(uneven, tmp_path_factory.mktemp("one") / "run", training=SGD)


def test_two_processes_with_half_the_batch_each_train_what_one_trains(uneven, tmp_path):
    """AdamW at the paper's learning rate, two epochs, five steps, two batches of two for a step: a process sees one task at a time."""
    settings = config(training={"learning_rate": 3e-5, "batch_size": 2, "accumulate": 2, "gate_cost": 0.1})
    two = train_two(distributed_worker.miniature, settings, uneven, tmp_path / "two", steps=5)
    assert_alike(train(settings, uneven, tmp_path / "one", steps=5, bar=False), two)
    assert checkpoint(two)["global_step"] == 5


def test_checkpoints_of_two_processes_are_those_of_one(uneven, one_with_sgd, tmp_path):
    """Begun on two and ended on one, and the other way round; 6 steps of 4 images."""
    settings = config(training=SGD)
    far = moved(one_with_sgd, settings, uneven)
    assert far > 1e-2
    with pytest.raises(RuntimeError, match="Stopped"):
        train_two(distributed_worker.killed_in_epoch_2, settings, uneven, tmp_path / "two_one")
    train_one_with_sgd(uneven, tmp_path / "two_one", resume=True, training=SGD)
    assert_alike(one_with_sgd, tmp_path / "two_one", far / 1000, SGD["learning_rate"])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(torch.optim, "AdamW", distributed_worker.sgd)
        patch.setattr(LesionModule, "on_train_batch_start", stop_in_epoch_2, raising=False)
        train_miniature(uneven, tmp_path / "one_two", training=SGD)
    train_two(distributed_worker.with_sgd, settings, uneven, tmp_path / "one_two", resume=True)
    assert_alike(one_with_sgd, tmp_path / "one_two", far / 1000, SGD["learning_rate"])


def stop_in_epoch_2(self: Any, batch: Any, index: int) -> None:
    if self.current_epoch == 1:
        raise Stopped


@pytest.mark.slow
def test_a_sharded_trunk_trains_what_a_whole_one_trains_and_its_checkpoints_fit(uneven, one_with_sgd, tmp_path):
    """FSDP on CPUs, with PyTorch's refusal taken out: its arithmetic and its checkpoints, not its memory."""
    settings = config(training=SGD)
    with pytest.raises(RuntimeError, match="Stopped"):
        train_two(distributed_worker.sharded_killed_in_epoch_2, settings, uneven, tmp_path / "sgd")
    train_two(distributed_worker.sharded_with_sgd, settings, uneven, tmp_path / "sgd", resume=True)
    assert_alike(one_with_sgd, tmp_path / "sgd", moved(one_with_sgd, settings, uneven) / 1000, SGD["learning_rate"])


def test_a_task_that_no_process_has_in_its_batch_keeps_its_weights_and_moments_bit_for_bit(uneven, tmp_path):
    """Epochs of one step of two images: in the first a task each, in the second one task in both processes."""
    tasks = [read_dataset(uneven).tasks.id(case.task) for case in read_dataset(uneven).split("train")]
    seed = next(seed for seed in range(100) if [drawn(tasks, seed, epoch) for epoch in (0, 1)] == [{0, 1}, {0}])
    settings = config(sampling={"epoch_images": 2}, training={"batch_size": 2, "seed": seed, "weight_decay": 0.1, "warmup": 0.0})
    out = train_two(distributed_worker.every_epoch_kept, settings, uneven, tmp_path / "run")
    before, after = (torch.load(out / f"epoch{number}.ckpt", weights_only=False) for number in (0, 1))
    absent = [key for key in after["state_dict"] if any(part in key for part in (".tasks.1.", ".outputs.1.", ".gate.steps.1"))]
    assert len(absent) > 10
    for key in absent:
        assert torch.equal(before["state_dict"][key], after["state_dict"][key]), key
        present = key.replace(".1.", ".0.").replace("steps.1", "steps.0")
        assert not torch.equal(before["state_dict"][present], after["state_dict"][present]), present
    for key in (key for key in after["state_dict"] if key.endswith("prototypes")):
        assert torch.equal(before["state_dict"][key][1], after["state_dict"][key][1])
        assert not torch.equal(before["state_dict"][key][0], after["state_dict"][key][0])
    steps = [float(entry["step"]) for entry in after["optimizer_states"][0]["state"].values()]
    assert steps.count(1.0) == len(absent)  # the others have taken two steps
    assert steps.count(2.0) == len(steps) - len(absent)


def drawn(tasks: list[int], seed: int, epoch: int) -> set[int]:
    sampler = TrainingSampler(tasks, seed, True, draws=2)
    sampler.set_epoch(epoch)
    return {tasks[draw.index] for draw in sampler}


# What goes wrong in one of them


def test_a_loss_lost_in_one_process_ends_both_and_names_its_file(uneven, tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"the loss became NaN or infinite at step 3, on: \S+_disc/0\d\.png, \S+_disc/0\d\.png\. Look"):
        train_two(distributed_worker.lost_in_process_1, config(), uneven, tmp_path / "run")
    assert checkpoint(tmp_path / "run")["global_step"] == 3
    load_model(tmp_path / "run")


def test_a_bad_image_that_one_process_meets_ends_both_with_its_sentence(tmp_path):
    data = write_discs(tmp_path / "data")
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"_disc/0\d\.png: image and mask differ in size"):
        train_two(distributed_worker.bad_image_in_process_1, config(), data, tmp_path / "run")
    assert time.monotonic() - begun < 1200  # gloo alone would wait for half an hour


def test_what_the_first_process_says_is_kept_in_the_log_file(tmp_path):
    with logging_to(tmp_path / "log.txt"):
        launch(distributed_worker.speak, 2)
    said = [line.split(maxsplit=1)[1] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert said == ["process 0 speaks", "process 0 warns"]


def test_a_killed_process_ends_the_other(uneven, tmp_path):
    with pytest.raises(TPSegError, match="process 1 of the run was killed by signal 9"):
        train_two(distributed_worker.process_1_is_killed, config(), uneven, tmp_path / "run")


# What is asked for


def test_one_process_is_the_default_and_a_number_is_taken_as_it_is(alone, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_crew() == find_crew("auto") == Crew(1, 1, 0, None)
    assert not find_crew().to_be_started
    assert find_crew("3", 1) == Crew(3, 1, 0, None)
    assert find_crew("3").to_be_started


def test_gpus_are_counted(alone, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert find_crew("auto").size == 4
    assert find_crew().size == 1
    with pytest.raises(UsageError, match="--devices: found 5, but this machine has 4"):
        find_crew("5")


def test_torchruns_processes_are_found(alone, monkeypatch):
    for name, value in {"RANK": 5, "LOCAL_RANK": 1, "WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    assert find_crew() == find_crew("4", 2) == find_crew("auto") == Crew(4, 2, 5, "torchrun")
    assert not find_crew().to_be_started
    with pytest.raises(UsageError, match="--devices: found 2, but torchrun has started 4"):
        find_crew("2")


def test_sruns_processes_are_found_and_a_batch_script_without_srun_is_one(alone, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert find_crew() == Crew(1, 1, 0, None)
    for name, value in {"SLURM_PROCID": 6, "SLURM_STEP_NUM_TASKS": 8, "SLURM_STEP_NUM_NODES": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert find_crew() == Crew(4, 2, 6, "srun")
    with pytest.raises(UsageError, match="--nodes: found 3, but srun has started 2"):
        find_crew(None, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": "two"}, "--devices: found 'two', expected a number of 1 or more, or auto"),
        ({"devices": "0"}, "--devices: found '0'"),
        ({"nodes": 0}, "--nodes: found 0"),
        ({"nodes": 2}, "--nodes 2: .* start one for each device with torchrun or srun"),
        ({"devices": "3"}, r"training\.batch_size: found 4, expected a multiple of 3"),
        ({"devices": "2", "strategy": "fsdp"}, "--strategy: found fsdp, which needs GPUs"),
    ],
)
def test_devices_that_cannot_be_are_refused_before_anything_is_written(alone, uneven, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=message):
        train(config(), uneven, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


# The command line


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """tpseg with the miniature trunk, as a script."""
    script = tmp_path / "small_tpseg.py"
    script.write_text(
        "import sys\nfrom miniature import TRUNK\nfrom tpseg.models.trunks.hiera import TRUNK_SIZES\nTRUNK_SIZES['tiny'] = TRUNK\n"
        "from tpseg.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    return [str(script)]


@pytest.fixture
def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in PLACE}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[1] / "helpers"), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@pytest.mark.slow
def test_torchrun_starts_the_processes_too_and_the_first_one_speaks(command, environment, uneven, tmp_path):
    words = ["train", "--data", str(uneven), "--out", str(tmp_path / "run"), "--config", settings_file(tmp_path / "mine.yaml")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, *command, *words, "--steps", "2"], env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: the best model is") == 1
    assert done.stderr.count("step 2/2") == 1
    assert set(load_model(tmp_path / "run").tasks.names) == set(TASKS)


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c_heeded")
def test_ctrl_c_ends_all_processes_and_the_run_goes_on_with_resume(command, environment, uneven, tmp_path):
    settings = settings_file(tmp_path / "mine.yaml", training={"epochs": 500})
    words = ["train", "--data", str(uneven), "--out", str(tmp_path / "run"), "--config", settings, "--devices", "2"]
    begin = [sys.executable, *command, *words]
    process = subprocess.Popen(begin, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 1200
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    _, said = process.communicate(timeout=600)  # until the last process that could still say something is gone
    assert process.returncode == 130
    assert "tpseg: stopped after step" in said
    assert "which is saved in" in said
    assert "Traceback" not in said
