"""Training: the Lightning module with the recipe, and `train`, which runs it into a run folder."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from tpseg.data.sampling import TrainingSampler
from tpseg.errors import DataError, TPSegError, UsageError, few
from tpseg.hardware import bf16_is_native
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


class LesionModule(lightning.LightningModule):
    """One step of training and validation, the optimiser and the schedules."""

    def __init__(self, config: Config, model: LesionModel, total_steps: int) -> None:
        super().__init__()
        self.settings = config.training
        self.model = model
        self.total_steps = total_steps
        self.strict_loading = not config.model.freeze
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self.plateau_state: dict[str, Any] | None = None
        self.val_dice: list[tuple[Tensor, Tensor]] = []  # (Dice, task id) of each batch of the epoch

    def training_step(self, batch: Batch, index: int) -> Tensor:
        progress = self.global_step / max(self.total_steps - 1, 1)
        start, end = self.settings.gate_temperature
        self.model.set_gate_temperature(start + (end - start) * min(progress, 1.0))
        output = self.model(batch.image, batch.task)
        losses = segmentation_loss(output.supervised, batch.mask)  # (B,)
        loss = losses.mean()
        self.files = batch.files
        if not torch.isfinite(loss):
            finite = torch.isfinite(losses).tolist()
            self._report_non_finite("loss", [file for file, good in zip(batch.files, finite, strict=True) if not good])
        self.model.update_prototypes(output, batch.mask, batch.task)
        self.log("train/loss", loss, batch_size=len(batch.image), on_step=True, on_epoch=True)
        return loss

    def _report_non_finite(self, what: str, files: list[str]) -> None:
        raise NonFiniteLoss(
            f"the {what} became NaN or infinite at step {self.global_step}, on: {', '.join(files)}. "
            "Look at these files with 'tpseg data check', or lower training.learning_rate; the last good checkpoint is kept"
        )

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True  # makes Lightning validate before it ends, unlike max_steps

    def validation_step(self, batch: Batch, index: int) -> None:
        output = self.model(batch.image, batch.task)
        loss = segmentation_loss(output.supervised, batch.mask).mean()
        if not torch.isfinite(loss):  # before these weights are saved
            self._report_non_finite("validation loss", batch.files)
        self.log("val/loss", loss, batch_size=len(batch.image))
        self.val_dice.append((hard_dice(output.logits, batch.mask), batch.task))

    def on_validation_epoch_end(self) -> None:
        """Mean Dice per task and over tasks, hard at ½ and at the model's input size."""
        dice = torch.cat([dice for dice, _ in self.val_dice])
        task = torch.cat([task for _, task in self.val_dice])
        self.val_dice.clear()
        means = {name: dice[task == id].mean() for id, name in enumerate(self.model.tasks.names) if (task == id).any()}
        self.log_dict({f"val/dice/{name}": mean for name, mean in means.items()})
        dice_of_all = torch.stack(list(means.values())).mean()
        self.log("val/dice", dice_of_all)
        if self.plateau is not None:  # stepped here, not by Lightning, which does so after it has written the checkpoint
            self.plateau.step(float(dice_of_all))
        self.log_dict({f"split/{name}": float(split) for name, split in self.model.splits().items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        settings = self.settings
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
        optimiser = kind(parameter_groups(self.model, settings), lr=settings.learning_rate, fused=True)
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

        A gradient that is not finite stops the run before it reaches the weights.
        """
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
        if not torch.isfinite(norm):
            self._report_non_finite("gradient", self.files)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A frozen trunk is not stored again; the plateau's state is."""
        if self.model.trunk is not None and self.model.trunk.frozen:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {key: value for key, value in state.items() if not is_trunk(key.removeprefix("model."))}
        if self.plateau is not None:
            checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.plateau_state = checkpoint.get("plateau")


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


def parameter_groups(model: LesionModel, settings: Any) -> list[dict[str, Any]]:
    """Trained parameters by learning rate and decay: trunk, gate and the rest; vectors are not decayed."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.learning_rate
        if name.startswith("trunk.") and settings.trunk_learning_rate is not None:
            rate = settings.trunk_learning_rate
        if name.startswith("adapters.gate.") and settings.gate_learning_rate is not None:
            rate = settings.gate_learning_rate
        decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def loaders(config: Config, data: DataSet) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Training and validation batches; raises DataError for a split that is empty."""
    size, workers = config.model.image_size, config.sampling.workers
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
        DataLoader(
            train, batch_size=config.training.batch_size, sampler=sampler, drop_last=len(sampler) > config.training.batch_size, **common
        ),
        DataLoader(val, batch_size=config.training.batch_size, **common),
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
) -> Path:
    """Train a model; returns the run folder `out` with `model/` (best val Dice), `checkpoints/` and `logs/`.

    steps caps the optimiser steps; tasks names the data set's tasks to learn, by default all. Raises UsageError if `out`
    holds a run and `resume` is not set, DataError for data that cannot be used, NonFiniteLoss if the loss is lost.
    """
    config.check_trainable()
    data = read_dataset(data_path) if tasks is None else read_dataset(data_path).only(tasks)
    train_batches, val_batches = loaders(config, data)
    lightning.seed_everything(config.training.seed, workers=True, verbose=False)
    model = build_model(config, data.tasks)
    if steps is not None and steps < 1:
        raise UsageError(f"--steps: found {steps}, expected 1 or more")
    prepare_run(config, data_path, out, steps, tasks, resume)
    total = math.ceil(len(train_batches) / config.training.accumulate) * config.training.epochs
    module = LesionModule(config, model, min(total, steps or total))
    if resume and steps_done(out) >= module.total_steps:
        raise UsageError(f"{out} is finished, all {module.total_steps} steps are done; choose another --out to train on")
    record = provenance(config.training.seed, data)
    callbacks: list[Callback] = [
        ModelCheckpoint(out / "checkpoints", "best", monitor="val/dice", mode="max", enable_version_counter=False),
        ModelCheckpoint(out / "checkpoints", "last", enable_version_counter=False),  # save_last writes it beside a new best only
        BestModel(out / "model", record),
        History(out / "logs" / "metrics.csv"),
    ]
    if config.training.early_stopping is not None:
        callbacks.append(EarlyStopping("val/dice", mode="max", patience=config.training.early_stopping))
    if bar:
        callbacks.append(TrainingBar(module.total_steps))
    with quiet_lightning():
        trainer = lightning.Trainer(
            max_epochs=config.training.epochs,
            devices=1,
            precision=resolve_precision(config.training.precision),
            accumulate_grad_batches=config.training.accumulate,
            logger=TensorBoardLogger(out, name="", version="logs"),
            callbacks=callbacks,
            plugins=[WholeCheckpoints()],
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
        last = out / "checkpoints" / "last.ckpt"
        if resume and last.exists():  # workers begin to load before Lightning tells the sampler the epoch
            epoch = torch.load(last, weights_only=True, mmap=True)["epoch"] + 1
            train_batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        try:
            trainer.fit(module, train_batches, val_batches, ckpt_path=last if resume and last.exists() else None, weights_only=True)
        except DataError as error:  # from a loading process it comes with that process's stack trace as its text
            raise DataError(str(error).strip().splitlines()[-1].removeprefix("tpseg.errors.DataError: ")) from None
        except SystemExit as stop:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stop
    return out


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
