"""What the tests of training, prediction and the command line share: a model and a data set that train in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from torch.testing import assert_close

from tpseg.checkpoints.model_folder import load_model
from tpseg.core.config import Config, build_config, merge
from tpseg.data.dataset import Batch
from tpseg.models.trunks.hiera import TrunkSize
from tpseg.training.module import LesionModule
from tpseg.training.run import train

TRUNK = TrunkSize(16, 1, (1, 1, 3, 1), (3, 4, 4), (8, 4, 14, 7), 7)
"""A Hiera of 6 blocks; the fixture `miniature_trunk` puts it in the place of `tiny`."""

SETTINGS: dict[str, Any] = {
    "model": {
        "trunk": "tiny",
        "weights": None,
        "freeze": False,
        "image_size": 64,
        "rank": 4,
        "neck_widths": [8, 8, 16, 16],
        "decoder_widths": [16, 8, 8],
    },
    "sampling": {"workers": 0},
    "training": {"epochs": 2, "batch_size": 4, "precision": "32", "learning_rate": 2e-3},
}

TASKS = {"bright_disc": ("test", (215, 120, 90)), "dark_disc": ("ultrasound", (40, 40, 60))}
"""Modality and colour of the discs to be found, on a grey ground."""


def settings(**sections: dict[str, Any]) -> dict[str, Any]:
    """The miniature's settings with changes: `settings(training={"epochs": 4})`."""
    return merge(SETTINGS, sections)


def config(**sections: dict[str, Any]) -> Config:
    return build_config(settings(**sections))


def settings_file(path: Path, **sections: dict[str, Any]) -> str:
    """The same as a file, for --config."""
    path.write_text(yaml.safe_dump(settings(**sections)))
    return str(path)


def disc(task: str, rng: np.random.Generator, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) uint8 of one disc in the task's colour, and its mask (H, W) bool."""
    rows, columns = np.mgrid[:height, :width]
    radius = rng.integers(min(height, width) // 7, min(height, width) // 4 + 1)
    row, column = rng.integers(radius, height - radius), rng.integers(radius, width - radius)
    mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    image = rng.normal(128, 10, (height, width, 3))
    image[mask] += np.array(TASKS[task][1]) - 128
    return image.clip(0, 255).astype(np.uint8), mask


def write_discs(folder: Path, train: int = 6, val: int = 2, test: int = 3) -> Path:
    """A `tasks.yaml` of two tasks, each with so many cases."""
    entries = []
    for number, (task, (modality, _)) in enumerate(TASKS.items()):
        rng = np.random.default_rng(number)
        rows = ["image,mask,split,group"]
        (folder / task / "masks").mkdir(parents=True)
        for case, split in enumerate(["train"] * train + ["val"] * val + ["test"] * test):
            image, mask = disc(task, rng)
            Image.fromarray(image).save(folder / task / f"{case:02d}.png")
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / task / "masks" / f"{case:02d}.png")
            rows.append(f"{case:02d}.png,masks/{case:02d}.png,{split},")
        (folder / task / "split.csv").write_text("\n".join([*rows, ""]))
        entries.append(f"  {task}: {{modality: {modality}, data: {task}/split.csv}}\n")
    (folder / "tasks.yaml").write_text("tasks:\n" + "".join(entries))
    return folder / "tasks.yaml"


class Stopped(Exception):
    """Stands for a kill, a power cut, a time limit."""


@contextmanager
def stopped(epoch: int, step: int = 0) -> Iterator[None]:
    """Training ends, as if killed, in epoch `epoch` (from 0) before its batch `step`."""

    def stop(self: LesionModule, batch: Batch, index: int) -> None:
        if (self.current_epoch, index) == (epoch, step):
            raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(LesionModule, "on_train_batch_start", stop, raising=False)
        yield


def train_miniature(data: Path, out: Path, *, steps: int | None = None, resume: bool = False, **sections: dict[str, Any]) -> Path:
    return train(config(**sections), data, out, steps=steps, resume=resume, bar=False)


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=False)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, prototypes, optimiser, schedules and every logged number are equal, bit for bit."""
    first, second = checkpoint(one), checkpoint(other)
    assert any("prototypes" in key for key in first["state_dict"])
    for part in ("lr_schedulers", "epoch", "global_step"):
        assert first[part] == second[part], f"{part}: {first[part]} against {second[part]}"
    assert first.get("plateau") == second.get("plateau")
    for part in ("state_dict", "optimizer_states"):
        assert_close(first[part], second[part], rtol=0, atol=0, msg=lambda text, part=part: f"{part}: {text}")
    assert (one / "logs" / "metrics.csv").read_text() == (other / "logs" / "metrics.csv").read_text()
    assert_close(load_model(one).state_dict(), load_model(other).state_dict(), rtol=0, atol=0)


def history(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "logs" / "metrics.csv")
