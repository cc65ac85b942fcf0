"""What happens beside a training step: keeping the best model, the table of epochs, whole checkpoints, the bar."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

from tpseg.checkpoints.model_folder import save_model
from tpseg.core.files import write_atomically
from tpseg.core.log_file import log_only
from tpseg.core.progress import FittingProgress, LeftColumn, StepsColumn, console, known
from tpseg.models.base import LesionModel
from tpseg.training.checkpoints import write_checkpoint
from tpseg.training.distributed import whole_model
from tpseg.training.failures import check_still_there

Saved = Callable[[LesionModel, dict[str, Any], str], tuple[LesionModel, dict[str, Any], str]]
"""A model, its provenance and its record of data, as trained, to the same as they are to be written."""
REDRAWN = 0.5
"""Seconds between two looks at the loss for the bar."""


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints as tpseg.training.checkpoints writes them, into a run folder that is still there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        check_still_there(Path(path).parents[1])
        write_checkpoint(checkpoint, Path(path), best=checkpoint["callbacks"]["Saving"]["best"])


class BestModel(Callback):
    """Writes the model folder whenever the mean val Dice is the best so far."""

    def __init__(self, folder: Path, provenance: dict[str, Any], record: str, saved: Saved | None = None) -> None:
        """record: the text of `data.csv`, see tpseg.data.hashes; saved: turns what was trained into what is written."""
        self.folder = folder
        self.provenance = provenance
        self.record = record
        self.saved = saved
        self.best = -1.0
        self.epoch = -1

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        dice = float(trainer.callback_metrics["val/dice"])
        if dice <= self.best:
            return
        self.best, self.epoch = dice, trainer.current_epoch
        assert isinstance(module.model, LesionModel)
        model = whole_model(module.model, trainer.model)
        if model is None:
            return
        scores = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        place = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "metrics": scores, "splits": model.splits()}
        origin, record = {**self.provenance, "training": place}, self.record
        if self.saved is not None:
            model, origin, record = self.saved(model, origin, record)
        check_still_there(self.folder.parent)
        save_model(model, self.folder, origin, record)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.epoch = state_dict.get("epoch", -1)  # an older tpseg had none


class History(Callback):
    """`metrics.csv`: a row per epoch with losses, Dice per task, learning rate and the split b* of every task."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row["learning_rate"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        row |= {key: float(value) for key, value in trainer.callback_metrics.items() if key != "train/loss_step"}
        row["train/loss"] = row.pop("train/loss_epoch", row.get("train/loss", float("nan")))
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        check_still_there(self.path.parents[1])
        write_atomically(self.path, pd.DataFrame(self.rows).to_csv(index=False), durable=True)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class TrainingBar(Callback):
    """One bar over all steps: epoch, loss, mean val Dice so far and its best, time left.

    Where stderr is no terminal (a log file, CI) it writes one line per epoch instead.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self.running: torch.Tensor | None = None
        self.shown = 0.0
        self.loss = float("nan")
        self.dice = float("nan")
        self.best = float("nan")

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        spinner, bar, steps, elapsed, left = SpinnerColumn(), BarColumn(), StepsColumn(), TimeElapsedColumn(), LeftColumn()
        epoch, loss = TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"), TextColumn("loss {task.fields[loss]}")
        dice, best = TextColumn("val Dice {task.fields[dice]}"), TextColumn("best {task.fields[best]}")
        self.bar = FittingProgress(
            *(spinner, epoch, bar, steps, loss, dice, best, elapsed, left),
            needed=(steps, loss, left, dice, epoch, best, bar, elapsed, spinner),
            disable=not console.is_terminal,
        )
        self.row = self.bar.add_task("train", total=self.total_steps, completed=trainer.global_step, **self._fields(trainer))
        self.bar.start()

    def _fields(self, trainer: lightning.Trainer) -> dict[str, Any]:
        scores = {"loss": known(self.loss), "dice": known(self.dice), "best": known(self.best)}
        return {"epoch": trainer.current_epoch + 1, "epochs": trainer.max_epochs, **scores}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        loss = outputs["loss"].detach()
        self.running = loss if self.running is None else 0.9 * self.running + 0.1 * loss
        if time.monotonic() - self.shown > REDRAWN:  # to read the loss is to wait for the device
            self._read_loss()
        self.bar.update(self.row, completed=trainer.global_step, **self._fields(trainer))

    def _read_loss(self) -> None:
        self.shown = time.monotonic()
        if self.running is not None:
            self.loss = float(self.running)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._read_loss()
        self.dice = float(trainer.callback_metrics["val/dice"])
        self.best = self.dice if self.best != self.best else max(self.best, self.dice)
        line = (
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}/{self.total_steps}  "
            f"loss {known(self.loss)}  val Dice {known(self.dice)} (best {known(self.best)})"
        )
        if console.is_terminal:
            log_only(line)
        else:
            console.print(line)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()
