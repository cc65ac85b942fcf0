"""Training: `train` runs the recipe into a run folder, in one process or in several."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import lightning
import pandas as pd
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from tpseg.checkpoints.trunk_weights import find_weights, load_trunk_weights
from tpseg.core.config import Config
from tpseg.core.errors import DataError, TPSegError, UsageError, few
from tpseg.core.files import tidy
from tpseg.core.hardware import bf16_is_native
from tpseg.core.memory import OutOfMemory, is_out_of_memory
from tpseg.core.progress import track_calls
from tpseg.core.tasks import TaskSet
from tpseg.data.cache import DecodedCache
from tpseg.data.dataset import Batch, LesionDataset, collate
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.data.sampling import TrainingSampler, share_of_training, share_of_validation
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import create, create_without_memory
from tpseg.training.callbacks import BestModel, History, TrainingBar, WholeCheckpoints
from tpseg.training.checkpoints import LAST, Place, newest
from tpseg.training.distributed import StrategyName, choose_strategy, environment
from tpseg.training.failures import dead_worker, system_error, unwritten
from tpseg.training.memory_probe import advice
from tpseg.training.module import LesionModule
from tpseg.training.process_group import Crew, find_crew, launch, lost_peer
from tpseg.training.provenance import provenance
from tpseg.training.run_folder import prepare_run
from tpseg.training.saving import Saving
from tpseg.training.signals import StopRequest, leave_signals_to_parent

logger = logging.getLogger(__name__)


def loaders(
    config: Config, data: DataSet, rank: int = 0, processes: int = 1, cache: DecodedCache | None = None
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Training and validation batches of one of the processes; raises DataError for a split that is empty.

    cache: filled before the first batch is asked for. Raises UsageError for a batch that cannot be shared evenly.
    """
    size, workers, batch = config.model.image_size, config.sampling.workers, config.training.batch_size
    if batch % processes:
        raise UsageError(f"training.batch_size: found {batch}, expected a multiple of {processes}, the number of devices that share it")
    train = LesionDataset(data.split("train"), data.tasks, size, config.sampling.augmentation, cache)
    val = LesionDataset(data.split("val"), data.tasks, size, cache=cache)
    missing = [name for id, name in enumerate(data.tasks.names) if id not in train.task_ids]
    absent = [str(path) for case in train.cases + val.cases for path in (case.image, case.mask) if not path.is_file()]
    if absent:
        raise DataError(f"{data.source}: {len(absent)} files do not exist: {few(absent)}; 'tpseg data check' lists all that is wrong")
    if missing:
        raise DataError(f"{data.source}: no training case for task {', '.join(missing)}; add cases with split 'train' or remove the task")
    sampler = TrainingSampler(train.task_ids, config.training.seed, config.sampling.balance, config.sampling.epoch_images)
    share = share_of_training(sampler, batch, config.training.accumulate, rank, processes)
    common: dict[str, Any] = {"collate_fn": collate, "num_workers": workers, "persistent_workers": workers > 0}
    common["worker_init_fn"] = leave_signals_to_parent
    return (
        DataLoader(train, batch_size=batch // processes, sampler=share, **common),
        DataLoader(val, batch_size=batch // processes, sampler=share_of_validation(len(val), rank, processes), **common),
    )


class Start(Protocol):
    """What a run starts from, if not from a new model, and what is saved of it: tpseg.training.grow has one. Each process gets a copy."""

    def build(self, config: Config, tasks: TaskSet) -> LesionModel:
        """The model that is trained."""
        ...

    def saved(self, model: LesionModel, provenance: dict[str, Any], record: str) -> tuple[LesionModel, dict[str, Any], str]:
        """What model/ is to hold: a model, its provenance and its record of data; given are those of the model that is trained."""
        ...


def build_model(config: Config, tasks: TaskSet) -> LesionModel:
    """A new model with the trunk weights that the settings name; raises DataError before one is made if these cannot be had."""
    named = config.model.weights if create_without_memory(config.model, tasks).trunk is not None else None
    weights = None if named is None else find_weights(named)
    model = create(config.model, tasks)
    if model.trunk is not None:
        if weights is not None:
            load_trunk_weights(model.trunk, str(weights))
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
    start: Start | None = None,
) -> Path:
    """Train a model; returns the run folder `out` with `model/` (best val Dice), `checkpoints/` and `logs/`.

    steps caps the optimiser steps; tasks names the data set's tasks to learn, by default all. devices ('2', 'auto'), nodes and
    strategy: docs/scaling.md; they are no part of a run's settings, so that it may be resumed on others. start: by default a new
    model. Raises UsageError if
    `out` holds a run and `resume` is not set, DataError for data that cannot be used, NonFiniteLoss if the loss is lost.
    """
    config.check_trainable()
    if steps is not None and steps < 1:
        raise UsageError(f"--steps: found {steps}, expected 1 or more")
    crew = find_crew(devices, nodes)
    run = Run(config, data_path, out, steps, None if tasks is None else tuple(tasks), resume, bar, strategy, start)
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
    start: Start | None = None

    def model(self, tasks: TaskSet) -> LesionModel:
        return (self.start.build if self.start else build_model)(self.config, tasks)

    def data(self) -> DataSet:
        data = read_dataset(self.data_path)
        return data if self.tasks is None else data.only(self.tasks)

    def check(self, crew: Crew) -> None:
        """Find what is wrong before processes are started and anything is written; load once from a hub what all will need."""
        data = self.data()
        loaders(self.config, data, 0, crew.size)
        choose_strategy(self.strategy, crew, self.model(data.tasks))

    def prepare(self) -> None:
        prepare_run(self.config, self.data_path, self.out, self.steps, self.tasks, self.resume)


def train_started(run: Run) -> None:
    """What each process that `train` has started does: the run folder is prepared."""
    train_in(find_crew(), run, prepared=True)


def train_in(crew: Crew, run: Run, prepared: bool = False) -> None:
    """Train in this process, which is one of `crew`; its first one writes the run folder."""
    config, out = run.config, run.out
    data = run.data()
    decoded = config.sampling.cache
    cache = None if decoded is None else DecodedCache(Path(decoded), data, config.model.image_size)
    train_batches, val_batches = loaders(config, data, crew.rank, crew.size, cache)
    lightning.seed_everything(config.training.seed, workers=True, verbose=False)
    model = run.model(data.tasks)
    if crew.rank == 0:
        if not prepared:
            run.prepare()
        warn_of_unseen(data)
    total = math.ceil(len(train_batches) / config.training.accumulate) * config.training.epochs
    module = LesionModule(config, model, min(total, run.steps or total))
    place = going_on(out, module.total_steps, crew) if run.resume else None
    if place is not None:  # before Lightning tells the sampler the epoch: loading processes begin at once
        train_batches.sampler.resume_at(place.epoch, place.batches * config.training.batch_size)  # type: ignore[attr-defined]
    if cache is not None:
        cache.fill(track_calls if run.bar else None)
    origin, record = provenance(config.training.seed, data) if crew.rank == 0 else ({}, "")
    origin["run"] = conduct(run, crew)
    best = BestModel(out / "model", origin, record, run.start.saved if run.start else None)
    stop = StopRequest()
    saving = Saving(out, best, config.training.checkpoint_minutes, stop)
    callbacks: list[Callback] = [best, History(out / "logs" / "metrics.csv"), saving]
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
            logger=TensorBoardLogger(out, name="", version="logs", purge_step=(place.step if place else 0) if run.resume else None),
            callbacks=callbacks,
            plugins=[WholeCheckpoints(), environment(crew)],
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
    last = None if place is None else out / "checkpoints" / LAST
    failed = False
    with quiet_lightning(), stop:
        try:
            trainer.fit(module, train_batches, val_batches, ckpt_path=last, weights_only=True)
        except SystemExit as interrupt:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from interrupt
        except Exception as error:
            if not is_out_of_memory(error):
                raise explained(error, run, crew, saving.step) from error
            failed = True
    if failed:  # outside of the error, which holds the tensors of the step that did not fit
        logger.warning("out of memory; trying what would fit")
        images = min(config.training.batch_size, train_batches.sampler.total)  # type: ignore[attr-defined]
        change = advice(module, trainer, config, images, crew.size)
        raise OutOfMemory(f"out of memory at training.batch_size {config.training.batch_size}: {change}; {saved_so_far(saving.step)}")


def warn_of_unseen(data: DataSet) -> None:
    """Log the tasks that have no say in which epoch is kept."""
    seen = {case.task for case in data.cases if case.split == "val"}
    unseen = [name for name in data.tasks.names if name not in seen]
    if unseen:
        logger.warning(
            "no val images of task %s: the best epoch is chosen by the other tasks alone; draw some with 'tpseg data split'",
            ", ".join(unseen),
        )


def conduct(run: Run, crew: Crew) -> dict[str, Any]:
    """What provenance.json says of how a run was conducted: with the data's hash, versions and machine enough to repeat it."""
    settings = run.config.to_dict()
    del settings["sampling"]["cache"]  # a folder of this machine; it changes no batch
    return {
        "settings": settings,
        "steps": run.steps,
        "tasks": None if run.tasks is None else list(run.tasks),
        "devices": crew.devices,
        "nodes": crew.nodes,
        "strategy": run.strategy,
        "precision": resolve_precision(run.config.training.precision),
        "from_model": run.start is not None,
    }


def going_on(out: Path, total_steps: int, crew: Crew) -> Place | None:
    """Where a run that was interrupted goes on, its folder tidied; None: from the start. Raises UsageError for one that is finished."""
    if crew.rank == 0:
        for folder in (out, out / "checkpoints", out / "logs"):
            if folder.is_dir():
                tidy(folder)
    place = newest_place(out)
    if has_ended(place, out, total_steps):
        how = f"all {total_steps} steps are done"
        if place is not None and place.step < total_steps:
            how = f"early stopping ended it after step {place.step} of {total_steps}"
        raise UsageError(f"{out} is finished, {how}; choose another --out to train on")
    return place


def newest_place(out: Path) -> Place | None:
    """Where a run goes on; None if it has no checkpoint. Raises DataError if its checkpoints are damaged."""
    found = newest(out / "checkpoints")
    return None if found is None else found[1]


def has_ended(place: Place | None, out: Path, total_steps: int) -> bool:
    """Whether a run whose newest checkpoint is of `place` has come to its end: its epochs, its steps, or early stopping.

    Without a checkpoint its table of epochs is asked: a study takes the checkpoints of finished runs away.
    """
    return steps_done(out) >= total_steps if place is None else place.finished or place.step >= total_steps


def is_finished(out: Path, total_steps: int) -> bool:
    """The same of a run folder, or of none; raises DataError if its checkpoints are damaged."""
    return has_ended(newest_place(out), out, total_steps)


def explained(error: Exception, run: Run, crew: Crew, step: int | None) -> Exception:
    """An error of the run as a sentence for the person who started it; as it is, if nothing is known of it."""
    said = str(error).strip().splitlines()
    if isinstance(error, DataError):  # from a loading process it comes with that process's stack trace as its text
        return DataError(said[-1].removeprefix("tpseg.core.errors.DataError: "))
    if isinstance(error, TPSegError):
        return error
    saved = saved_so_far(step)
    died = dead_worker(error, run.config.sampling.workers, saved)
    if died is not None:
        return died
    system = system_error(error)
    if system is not None and not isinstance(system, ConnectionError):
        return unwritten(system, run.out, saved)
    return lost_peer(error, crew) if isinstance(error, RuntimeError) else error


def saved_so_far(step: int | None) -> str:
    return "nothing is saved yet" if step is None else f"the run is saved up to step {step}"


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
