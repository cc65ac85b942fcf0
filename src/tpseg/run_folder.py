"""What a run leaves on disk: its settings, and while it trains the best model and the table of all epochs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import yaml
from lightning.pytorch.callbacks import Callback

from tpseg.config import Config, build_config
from tpseg.errors import UsageError
from tpseg.files import write_atomically
from tpseg.models.checkpoint import save_model
from tpseg.models.tpseg import TPSeg


def prepare_run(config: Config, data_path: Path, out: Path, steps: int | None, resume: bool) -> None:
    """Create the run folder with its settings.yaml, or check that a resumed run has the same ones."""
    wanted = {**config.to_dict(), "run": {"data": str(data_path), "steps": steps}}
    settings = out / "settings.yaml"
    if settings.exists():
        if not resume:
            raise UsageError(f"{out} already holds a run; continue it with --resume, or choose another --out")
        difference = first_difference(yaml.safe_load(settings.read_text()), wanted)
        if difference:
            raise UsageError(f"{out} was started with other settings: {difference}; resume with the same ones or choose another --out")
        return
    if resume:
        raise UsageError(f"{out} holds no run to resume (no settings.yaml); leave --resume out to start one")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} exists and is not empty; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(settings, yaml.safe_dump(wanted, sort_keys=False))


def read_settings(run: Path) -> tuple[Config, Path, int | None]:
    """Settings, data path and step limit of a run folder; raises UsageError if it is none."""
    try:
        content = yaml.safe_load((run / "settings.yaml").read_text(encoding="utf-8"))
        place = content.pop("run")
    except (OSError, yaml.YAMLError, KeyError, AttributeError) as error:
        raise UsageError(f"{run}: not a run folder of 'tpseg train' (no readable settings.yaml)") from error
    return build_config(content, source=f"{run}/settings.yaml"), Path(place["data"]), place["steps"]


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """`key: old, now new` for the first value that differs between nested mappings, or ''."""
    for key in new:
        if isinstance(new[key], Mapping):
            found = first_difference(old.get(key, {}), new[key], f"{prefix}{key}.")
            if found:
                return found
        elif old.get(key) != new[key]:
            return f"{prefix}{key} was {old.get(key)}, now {new[key]}"
    return ""


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
