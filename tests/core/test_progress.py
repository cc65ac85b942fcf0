"""Bars say what they know, whole: at 80 columns no number is cut, and what is not known yet is a dash."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from tpseg.core import progress
from tpseg.core.progress import FittingProgress, bar_over_a_list
from tpseg.training.callbacks import TrainingBar


def line(bar: FittingProgress, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a bar shows on a terminal of so many columns."""
    monkeypatch.setattr(progress.console, "_width", width)
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(bar.make_tasks_table(bar.tasks))
    return text.getvalue().rstrip("\n")


@pytest.fixture
def training() -> TrainingBar:
    """A training of 120 epochs and 24000 steps that has just begun."""
    bar = TrainingBar(24000)
    bar.on_train_start(trainer(0), None)  # type: ignore[arg-type]
    return bar


def trainer(step: int, **metrics: float) -> Any:
    scores = {key: torch.tensor(value) for key, value in metrics.items()}
    return SimpleNamespace(current_epoch=step // 200, max_epochs=120, global_step=step, callback_metrics={"val/dice": scores.get("dice")})


def test_nothing_is_nan_before_it_is_known(training, monkeypatch):
    shown = line(training.bar, 160, monkeypatch)
    assert re.search(r"epoch 1/120 .* 0/24000 loss – val Dice – best – .*left –", shown), shown
    assert "nan" not in shown
    assert progress.known(float("nan")) == "–"
    assert progress.known(0.5) == "0.500"


@pytest.mark.parametrize("width", [200, 120, 100, 90, 80, 70, 60, 50, 40, 30])
def test_a_narrow_terminal_has_fewer_columns_and_none_is_cut(training, monkeypatch, width):
    training.on_train_batch_end(trainer(12345), None, {"loss": torch.tensor(0.51234)}, None, 0)
    training.on_validation_end(trainer(12345, dice=0.8), None)
    training.on_train_batch_end(trainer(12345), None, {"loss": torch.tensor(0.51234)}, None, 0)
    shown = line(training.bar, width, monkeypatch)
    assert "\n" not in shown
    assert len(shown) <= width
    assert "…" not in shown
    assert "12345/24000" in shown
    parts = ["loss 0.512", "left –", "val Dice 0.800", "epoch 62/120", "best 0.800"]
    there = [part in shown for part in parts]
    assert there == sorted(there, reverse=True)  # the least needed went first
    assert all(there) or width < 80
    assert not all(there) or width > 60


def test_the_length_of_a_list_is_a_dash_until_it_is_known(monkeypatch):
    bar = bar_over_a_list()
    row = bar.add_task("segmenting", total=None)
    assert "0/–" in line(bar, 80, monkeypatch)
    bar.update(row, completed=3, total=123456)
    for width in (80, 40, 30):
        assert "3/123456" in line(bar, width, monkeypatch)
    assert "segmenting" in line(bar, 40, monkeypatch)
