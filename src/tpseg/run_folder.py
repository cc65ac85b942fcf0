"""What a run leaves on disk while it trains: the best model and the table of all epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pandas as pd
from lightning.pytorch.callbacks import Callback

from tpseg.files import write_atomically
from tpseg.models.checkpoint import save_model
from tpseg.models.tpseg import TPSeg


class BestModel(Callback):
    """Writes the model folder whenever the mean val Dice is the best so far."""

    def __init__(self, folder: Path, provenance: dict[str, Any]) -> None:
        self.folder = folder
        self.provenance = provenance
        self.best = -1.0

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        dice = float(trainer.callback_metrics["val/dice"])
        if dice <= self.best:
            return
        self.best = dice
        scores = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        model = module.model
        assert isinstance(model, TPSeg)
        place = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "metrics": scores, "splits": model.splits()}
        save_model(model, self.folder, {**self.provenance, "training": place})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, pd.DataFrame(self.rows).to_csv(index=False))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
