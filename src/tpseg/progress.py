"""Progress bars: one for training, one for anything that goes through a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
console = Console(stderr=True)


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Pass items on, with a bar on stderr."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        yield from bar.track(items, total=total, description=description)


@contextmanager
def track_calls(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that moves with each call (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        row = bar.add_task(description)
        yield lambda done, total: bar.update(row, completed=done, total=total)


class TrainingBar(Callback):
    """One bar over all steps: epoch, loss, mean val Dice so far and its best, time left.

    Where stderr is no terminal (a log file, CI) it writes one line per epoch instead.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self.loss = float("nan")
        self.dice = float("nan")
        self.best = float("nan")

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  val Dice {task.fields[dice]:.3f} (best {task.fields[best]:.3f})"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.row = self.bar.add_task("train", total=self.total_steps, completed=trainer.global_step, **self._fields(trainer))
        self.bar.start()

    def _fields(self, trainer: lightning.Trainer) -> dict[str, Any]:
        return {"epoch": trainer.current_epoch + 1, "epochs": trainer.max_epochs, "loss": self.loss, "dice": self.dice, "best": self.best}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        loss = float(outputs["loss"])
        self.loss = loss if self.loss != self.loss else 0.9 * self.loss + 0.1 * loss
        self.bar.update(self.row, completed=trainer.global_step, **self._fields(trainer))

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.dice = float(trainer.callback_metrics["val/dice"])
        self.best = self.dice if self.best != self.best else max(self.best, self.dice)
        if not console.is_terminal:
            console.print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}/{self.total_steps}  "
                f"loss {self.loss:.3f}  val Dice {self.dice:.3f} (best {self.best:.3f})"
            )

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()
