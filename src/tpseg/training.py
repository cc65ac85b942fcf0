"""Training: `train` runs the recipe into a run folder, in one process or in several."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from tpseg.callbacks import BestModel, History, TrainingBar, WholeCheckpoints
from tpseg.config import Config
from tpseg.data.dataset import Batch, LesionDataset, collate
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.data.sampling import TrainingSampler, share_of_training, share_of_validation
from tpseg.distributed import StrategyName, choose_strategy, environment
from tpseg.errors import DataError, UsageError, few
from tpseg.hardware import bf16_is_native
from tpseg.launching import Crew, find_crew, launch, lost_peer
from tpseg.models.catalogue import create
from tpseg.models.model import LesionModel
from tpseg.models.trunk_weights import load_trunk_weights
from tpseg.provenance import provenance
from tpseg.recipe import LesionModule
from tpseg.run_folder import prepare_run
from tpseg.tasks import TaskSet


def loaders(config: Config, data: DataSet, rank: int = 0, processes: int = 1) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Training and validation batches of one of the processes; raises DataError for a split that is empty.

    Raises UsageError for a batch that cannot be shared evenly.
    """
    size, workers, batch = config.model.image_size, config.sampling.workers, config.training.batch_size
    if batch % processes:
        raise UsageError(f"training.batch_size: found {batch}, expected a multiple of {processes}, the number of devices that share it")
    train = LesionDataset(data.split("train"), data.tasks, size, config.sampling.augmentation)
    val = LesionDataset(data.split("val"), data.tasks, size)
    missing = [name for id, name in enumerate(data.tasks.names) if id not in train.task_ids]
    absent = [str(path) for case in train.cases + val.cases for path in (case.image, case.mask) if not path.is_file()]
    if absent:
        raise DataError(f"{data.source}: {len(absent)} files do not exist: {few(absent)}; 'tpseg data check' lists all that is wrong")
    if missing:
        raise DataError(f"{data.source}: no training case for task {', '.join(missing)}; add cases with split 'train' or remove the task")
    sampler = TrainingSampler(train.task_ids, config.training.seed, config.sampling.balance, config.sampling.epoch_images)
    common: dict[str, Any] = {"collate_fn": collate, "num_workers": workers, "persistent_workers": workers > 0}
    return (
        DataLoader(train, batch_size=batch // processes, sampler=share_of_training(sampler, batch, rank, processes), **common),
        DataLoader(val, batch_size=batch // processes, sampler=share_of_validation(len(val), rank, processes), **common),
    )


def build_model(config: Config, tasks: TaskSet) -> LesionModel:
    """A new model with the trunk weights that the settings name."""
    model = create(config.model, tasks)
    if model.trunk is not None:
        if config.model.weights is not None:
            load_trunk_weights(model.trunk, config.model.weights)
        model.trunk.checkpointing = config.training.checkpointing
    return model


def train(
    config: Config,
    data_path: Path,
    out: Path,
    *,
    steps: int | None = None,
    tasks: Sequence[str] | None = None,
    resume: bool = False,
    bar: bool = True,
    devices: str | None = None,
    nodes: int | None = None,
    strategy: StrategyName = "auto",
) -> Path:
    """Train a model; returns the run folder `out` with `model/` (best val Dice), `checkpoints/` and `logs/`.

    steps caps the optimiser steps; tasks names the data set's tasks to learn, by default all. devices ('2', 'auto'), nodes and
    strategy: docs/scaling.md; they are no part of a run's settings, so that it may be resumed on others. Raises UsageError if
    `out` holds a run and `resume` is not set, DataError for data that cannot be used, NonFiniteLoss if the loss is lost.
    """
    config.check_trainable()
    if steps is not None and steps < 1:
        raise UsageError(f"--steps: found {steps}, expected 1 or more")
    crew = find_crew(devices, nodes)
    run = Run(config, data_path, out, steps, None if tasks is None else tuple(tasks), resume, bar, strategy)
    if not crew.to_be_started:
        train_in(crew, run)
        return out
    run.check(crew)
    run.prepare()
    launch(partial(train_started, run), crew.size)
    return out


@dataclass(frozen=True)
class Run:
    """What `train` was asked for, as each of its processes is told."""

    config: Config
    data_path: Path
    out: Path
    steps: int | None
    tasks: tuple[str, ...] | None
    resume: bool
    bar: bool
    strategy: StrategyName

    def data(self) -> DataSet:
        data = read_dataset(self.data_path)
        return data if self.tasks is None else data.only(self.tasks)

    def check(self, crew: Crew) -> None:
        """Find what is wrong before processes are started and anything is written; load once from a hub what all will need."""
        data = self.data()
        loaders(self.config, data, 0, crew.size)
        choose_strategy(self.strategy, crew, build_model(self.config, data.tasks))

    def prepare(self) -> None:
        prepare_run(self.config, self.data_path, self.out, self.steps, self.tasks, self.resume)


def train_started(run: Run) -> None:
    """What each process that `train` has started does: the run folder is prepared."""
    train_in(find_crew(), run, prepared=True)


def train_in(crew: Crew, run: Run, prepared: bool = False) -> None:
    """Train in this process, which is one of `crew`; its first one writes the run folder."""
    config, out = run.config, run.out
    data = run.data()
    train_batches, val_batches = loaders(config, data, crew.rank, crew.size)
    lightning.seed_everything(config.training.seed, workers=True, verbose=False)
    model = build_model(config, data.tasks)
    if crew.rank == 0 and not prepared:
        run.prepare()
    total = math.ceil(len(train_batches) / config.training.accumulate) * config.training.epochs
    module = LesionModule(config, model, min(total, run.steps or total))
    if run.resume and steps_done(out) >= module.total_steps:
        raise UsageError(f"{out} is finished, all {module.total_steps} steps are done; choose another --out to train on")
    record = provenance(config.training.seed, data) if crew.rank == 0 else {}
    callbacks: list[Callback] = [
        ModelCheckpoint(out / "checkpoints", "best", monitor="val/dice", mode="max", enable_version_counter=False),
        ModelCheckpoint(out / "checkpoints", "last", enable_version_counter=False),  # save_last writes it beside a new best only
        BestModel(out / "model", record),
        History(out / "logs" / "metrics.csv"),
    ]
    if config.training.early_stopping is not None:
        callbacks.append(EarlyStopping("val/dice", mode="max", patience=config.training.early_stopping))
    if run.bar and crew.rank == 0:
        callbacks.append(TrainingBar(module.total_steps))
    with quiet_lightning():
        trainer = lightning.Trainer(
            max_epochs=config.training.epochs,
            devices=crew.devices,
            num_nodes=crew.nodes,
            strategy=choose_strategy(run.strategy, crew, model),
            use_distributed_sampler=False,
            precision=resolve_precision(config.training.precision),
            accumulate_grad_batches=config.training.accumulate,
            logger=TensorBoardLogger(out, name="", version="logs"),
            callbacks=callbacks,
            plugins=[WholeCheckpoints(), environment(crew)],
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
        last = out / "checkpoints" / "last.ckpt"
        if run.resume and last.exists():  # workers begin to load before Lightning tells the sampler the epoch
            epoch = torch.load(last, weights_only=True, mmap=True)["epoch"] + 1
            train_batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        try:
            trainer.fit(module, train_batches, val_batches, ckpt_path=last if run.resume and last.exists() else None, weights_only=True)
        except DataError as error:  # from a loading process it comes with that process's stack trace as its text
            raise DataError(str(error).strip().splitlines()[-1].removeprefix("tpseg.errors.DataError: ")) from None
        except SystemExit as stop:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stop
        except RuntimeError as error:
            raise lost_peer(error, crew) from error


def steps_done(run: Path) -> int:
    """Optimiser steps that a run folder's table of epochs shows."""
    table = run / "logs" / "metrics.csv"
    return int(pd.read_csv(table)["step"].max()) if table.is_file() else 0


def resolve_precision(precision: str) -> Any:
    """Lightning's name for the precision asked for."""
    if precision == "auto":
        precision = "bf16" if bf16_is_native() else "32"
    return {"32": "32-true", "bf16": "bf16-mixed"}[precision]


class quiet_lightning:
    """Lightning's hints on workers, versions and plugins are for its developers, not for ours."""

    def __enter__(self) -> None:
        self.catch = warnings.catch_warnings()
        self.catch.__enter__()
        warnings.filterwarnings("ignore", module=r"lightning\.")
        self.loggers = [
            logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
        ]
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
        self.catch.__exit__(*error)  # type: ignore[arg-type]
