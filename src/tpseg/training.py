"""Training: the Lightning module with the recipe, and `train`, which runs it into a run folder."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tpseg.callbacks import BestModel, History, TrainingBar, WholeCheckpoints
from tpseg.config import Config
from tpseg.data.dataset import Batch, LesionDataset, collate
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.data.sampling import Share, TrainingSampler, share_of_training, share_of_validation
from tpseg.distributed import FSDP_PREFIX, StrategyName, add_up, choose_strategy, clip_gradients, environment, gather
from tpseg.errors import DataError, TPSegError, UsageError, few
from tpseg.hardware import bf16_is_native
from tpseg.launching import Crew, find_crew, launch, lost_peer
from tpseg.losses import segmentation_loss
from tpseg.models.catalogue import create
from tpseg.models.checkpoint import is_trunk
from tpseg.models.model import LesionModel
from tpseg.models.trunk_weights import load_trunk_weights
from tpseg.provenance import provenance
from tpseg.run_folder import prepare_run
from tpseg.tasks import TaskSet


class NonFiniteLoss(TPSegError):
    """The loss became NaN or infinite: the run stops, the last good checkpoint stays."""


@dataclass
class Watched:
    """What has to be finite in a step, for a look that does not make the host wait for the device."""

    step: int
    files: list[str]
    losses: Tensor
    """Of this process's images, (B,)."""
    loss: Tensor
    """Of the whole batch, the same in every process."""
    norm: Tensor | None = None
    """Of the gradient, where the step had one; the same in every process."""


class LesionModule(lightning.LightningModule):
    """One step of training and validation, the optimiser and the schedules.

    With W processes a batch is shared by them: sums over images, and what is decided on them, are those of the whole batch.
    """

    def __init__(self, config: Config, model: LesionModel, total_steps: int) -> None:
        super().__init__()
        self.settings = config.training
        self.model = model
        self.total_steps = total_steps
        self.matrices = matrices(model)
        self.strict_loading = not config.model.freeze
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self.plateau_state: dict[str, Any] | None = None
        self.watched: Watched | None = None
        self.validated: list[tuple[Tensor, Tensor, Tensor, list[str]]] = []  # Dice, loss and task id of each image, and its file

    def training_step(self, batch: Batch, index: int) -> Tensor:
        self.check_finite()
        progress = self.global_step / max(self.total_steps - 1, 1)
        start, end = self.settings.gate_temperature
        self.model.set_gate_temperature(start + (end - start) * min(progress, 1.0))
        cost = self.model.split_cost(batch.task) if self.settings.gate_cost else None  # before the model, which keeps a GPU busy
        output = self.model(batch.image, batch.task)
        losses = segmentation_loss(output.supervised, batch.mask)  # (B,)
        if cost is not None:
            losses = losses + self.settings.gate_cost * cost
        images = self.batch_images()
        loss = losses.sum() / (images / self.trainer.world_size)  # the mean of all processes' is the batch's mean
        mean = add_up(losses.detach().sum()) / images
        self.watched = Watched(self.global_step, batch.files, losses.detach(), mean)
        self.model.update_prototypes(output, batch.mask, batch.task)
        self.log("train/loss", mean, batch_size=images, on_step=True, on_epoch=True)
        return loss

    def batch_images(self) -> int:
        """Images of a training batch, over all processes."""
        share = self.trainer.train_dataloader.sampler  # type: ignore[union-attr]
        assert isinstance(share, Share)
        return min(self.settings.batch_size, share.total)

    def check_finite(self) -> None:
        """Raise NonFiniteLoss if the step before lost its loss or its gradient.

        A step later, because to read a number at once is to wait for the device: here the next step begins, which reads its
        task ids and waits anyway. Before a validation, after which the weights are saved, it is called too.
        """
        watched, self.watched = self.watched, None
        if watched is None:
            return
        if not torch.isfinite(watched.loss):
            lost = [file for file, good in zip(watched.files, torch.isfinite(watched.losses).tolist(), strict=True) if not good]
            report_non_finite("loss", watched.step, lost)
        if watched.norm is not None and not torch.isfinite(watched.norm):
            report_non_finite("gradient", watched.step, watched.files)

    def on_validation_start(self) -> None:
        self.check_finite()

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True  # makes Lightning validate before it ends, unlike max_steps

    def validation_step(self, batch: Batch, index: int) -> None:
        output = self.model(batch.image, batch.task)
        losses = segmentation_loss(output.supervised, batch.mask)
        self.validated.append((hard_dice(output.logits, batch.mask), losses, batch.task, batch.files))

    def on_validation_epoch_end(self) -> None:
        """Mean Dice per task and over tasks, hard at ½ and at the model's input size; every image counts once."""
        share = self.trainer.val_dataloaders.sampler  # type: ignore[union-attr]
        own = share.own  # what comes after is an image repeated
        dice, losses, task = (torch.cat([entry[part] for entry in self.validated])[:own] for part in range(3))  # type: ignore[misc]
        files = [file for entry in self.validated for file in entry[3]][:own]
        self.validated.clear()
        tasks = len(self.model.tasks)
        sums = torch.zeros(tasks + 1, 2, device=dice.device)  # a row for each task and one for the loss; sum and number
        sums.index_add_(0, task, torch.stack([dice, torch.ones_like(dice)], 1))
        sums[tasks] = torch.stack([losses.sum(), losses.new_tensor(len(losses))])
        means = [total / number if number else None for total, number in add_up(sums).tolist()]
        loss = means.pop()
        assert loss is not None
        if not math.isfinite(loss):  # before these weights are saved
            lost = [file for file, good in zip(files, torch.isfinite(losses).tolist(), strict=True) if not good]
            report_non_finite("validation loss", self.global_step, lost)
        found = {name: mean for name, mean in zip(self.model.tasks.names, means, strict=True) if mean is not None}
        dice_of_all = sum(found.values()) / len(found)
        self.log_dict({"val/loss": loss, **{f"val/dice/{name}": mean for name, mean in found.items()}, "val/dice": dice_of_all})
        if self.plateau is not None:  # stepped here, not by Lightning, which does so after it has written the checkpoint
            self.plateau.step(dice_of_all)
        self.log_dict({f"split/{name}": float(split) for name, split in self.model.splits().items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        settings = self.settings
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
        optimiser = kind(parameter_groups(self.model, settings, self.matrices), lr=settings.learning_rate, fused=True)
        if settings.schedule == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.1, patience=6, min_lr=1e-7)
            if self.plateau_state is not None:
                self.plateau.load_state_dict(self.plateau_state)
            return {"optimizer": optimiser}
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: rate_factor(step, self.total_steps, settings.warmup, settings.schedule == "cosine")
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        """Clip here: Lightning refuses to for fused optimisers, though without a gradient scaler it is right.

        The gradient is the average over all processes already.
        """
        assert self.trainer.model is not None
        assert self.watched is not None
        norm = clip_gradients(self.trainer.model, self.settings.clip or math.inf)
        self.watched.norm = norm

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A frozen trunk is not stored again; the plateau's state is."""
        if self.model.trunk is not None and self.model.trunk.frozen:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {key: value for key, value in state.items() if not is_trunk(key.removeprefix("model."))}
        if self.plateau is not None:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.plateau_state = checkpoint.get("plateau")


def report_non_finite(what: str, step: int, files: list[str]) -> NoReturn:
    """Raise NonFiniteLoss with the files of all processes; all of them call this, for all saw the same numbers."""
    raise NonFiniteLoss(
        f"the {what} became NaN or infinite at step {step}, on: {', '.join(gather(files))}. "
        "Look at these files with 'tpseg data check', or lower training.learning_rate; the last good checkpoint is kept"
    )


def hard_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Dice of each image, cut at ½, both empty 1; (B, 1, H, W) twice in, (B,) out."""
    found, true = (logits > 0).flatten(1), mask.flatten(1) > 0.5
    total = found.sum(1) + true.sum(1)
    return torch.where(total > 0, 2 * (found & true).sum(1) / total.clamp_min(1), 1.0)


def rate_factor(step: int, total: int, warmup: float, cosine: bool) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a half cosine to 0, or constant."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min((step - rise) / max(total - rise, 1), 1.0))) if cosine else 1.0


def matrices(model: LesionModel) -> set[str]:
    """Names of the parameters of two and more dimensions: to be asked before FSDP cuts them to vectors."""
    return {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}


def parameter_groups(model: LesionModel, settings: Any, decayed: Collection[str]) -> list[dict[str, Any]]:
    """Trained parameters by learning rate and decay: trunk, gate and the rest."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.learning_rate
        if name.startswith("trunk.") and settings.trunk_learning_rate is not None:
            rate = settings.trunk_learning_rate
        if name.startswith("adapters.gate.") and settings.gate_learning_rate is not None:
            rate = settings.gate_learning_rate
        decay = settings.weight_decay if name.replace(FSDP_PREFIX, "") in decayed else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


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
