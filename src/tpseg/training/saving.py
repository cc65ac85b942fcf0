"""When a run is saved: at the end of each epoch, every few minutes, when it is to stop, and when the next images do not come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint

from tpseg.core.errors import DataError
from tpseg.training.callbacks import BestModel
from tpseg.training.checkpoints import LAST
from tpseg.training.distributed import add_up
from tpseg.training.module import LesionModule
from tpseg.training.signals import Stopped, StopRequest, how_to_continue


class Saving(Checkpoint):
    """Writes last.ckpt, from which a run goes on as if it had not been interrupted, and best.ckpt, the same of its best epoch.

    Only between optimiser steps, where gradients are none, and not before a validation that is due: the epoch's checkpoint follows.
    """

    def __init__(self, run: Path, best: BestModel, minutes: float | None, stop: StopRequest) -> None:
        """minutes: between two checkpoints inside an epoch; None: at its end only, 0: after every step."""
        self.run = run
        self.best = best
        self.minutes = minutes
        self.stop = stop
        self.place: dict[str, Any] = {}
        self.written = 0.0
        self.step: int | None = None

    @property
    def state_key(self) -> str:
        return "Saving"

    def state_dict(self) -> dict[str, Any]:
        return self.place

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.step = trainer.global_step or None
        self.written = time.monotonic()
        self.stop.listen()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        done = index + 1
        if not self.between_steps(trainer, module, done):
            return
        due = self.minutes is not None and time.monotonic() - self.written >= 60 * self.minutes
        stop, due = self.agreed(trainer, due)
        if stop or due:
            self.save(trainer, module, trainer.current_epoch, done)
        if stop:
            raise self.stopped(module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        epochs = trainer.current_epoch + 1
        finished = bool(trainer.should_stop) or epochs == trainer.max_epochs
        self.save(trainer, module, epochs, 0, finished)
        if not finished and self.agreed(trainer, False)[0]:
            raise self.stopped(module)

    def on_exception(self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException) -> None:
        """A dead loading process, an image that cannot be read: what is computed is whole, for no step is under way."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        waiting = trainer.training and batches.ready == batches.completed > 0
        alone = trainer.world_size == 1  # with others it takes all of them, and they are in the midst of a step
        if waiting and alone and isinstance(exception, (RuntimeError, DataError)) and self.between_steps(trainer, module, batches.ready):
            self.save(trainer, module, trainer.current_epoch, batches.ready)

    @staticmethod
    def between_steps(trainer: lightning.Trainer, module: lightning.LightningModule, done: int) -> bool:
        """Whether after `done` batches of an epoch there is no gradient and no validation due."""
        assert isinstance(module, LesionModule)
        last = done >= trainer.num_training_batches or trainer.global_step >= module.total_steps
        return done % trainer.accumulate_grad_batches == 0 and not last

    def agreed(self, trainer: lightning.Trainer, due: bool) -> tuple[bool, bool]:
        """Whether any process is to stop, and whether the first one's clock says that it is time; the same answer in all."""
        asked = self.stop.signal is not None
        if trainer.world_size == 1:
            return asked, due
        votes = torch.tensor([float(asked), float(due and trainer.is_global_zero)], device=trainer.strategy.root_device)
        stop, time_is_up = (add_up(votes) > 0).tolist()
        return stop, time_is_up

    def save(self, trainer: lightning.Trainer, module: lightning.LightningModule, epoch: int, batches: int, finished: bool = False) -> None:
        assert isinstance(module, LesionModule)
        module.check_finite()
        best = batches == 0 and self.best.epoch == epoch - 1
        self.place = {"epoch": epoch, "batches": batches, "finished": finished, "best": best}
        trainer.save_checkpoint(self.run / "checkpoints" / LAST)
        self.written = time.monotonic()
        self.step = trainer.global_step

    def stopped(self, module: lightning.LightningModule) -> Stopped:
        steps = module.total_steps if isinstance(module, LesionModule) else 0
        return Stopped(f"stopped after step {self.step} of {steps}, which is saved in {self.run}; {how_to_continue()}", self.stop.exit_code)
