"""The record of a calibration: what was saved comes back; anything else is refused with a sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tpseg.calibration.nearest_mean import Recognition
from tpseg.calibration.outliers import Outliers
from tpseg.calibration.record import JSON, TENSORS, Trust, load_trust, model_sha256, save_trust
from tpseg.calibration.space import Space
from tpseg.core.errors import DataError

pytestmark = pytest.mark.usefixtures("miniature_trunk")


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A model folder of its own."""
    return shutil.copytree(trained / "model", tmp_path / "model")


def record(**changes: object) -> Trust:
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(6, 3, generator=generator)
    parts: dict = {
        "tasks": ("bright_disc", "dark_disc"),
        "space": Space(torch.randn(8, generator=generator), torch.randn(8, 3, generator=generator)),
        "recognition": Recognition(torch.randn(2, 3, generator=generator), temperature=1.7, doubt=0.31),
        "outliers": Outliers(bank, torch.tensor([0, 0, 0, 1, 1, 1]), torch.rand(6, generator=generator) + 0.1, 2.5, 0.04),
        "confidence": {"bright_disc": {"temperature": 1.25, "threshold": None}},
        "provenance": {"seed": 3},
    }
    return Trust(**(parts | changes))


def test_what_was_saved_comes_back(folder):
    saved = record()
    save_trust(saved, folder)
    loaded = load_trust(folder)
    assert loaded is not None
    for name, tensor in saved.tensors().items():
        assert torch.equal(loaded.tensors()[name], tensor), name
    assert (loaded.tasks, loaded.confidence, loaded.provenance) == (saved.tasks, saved.confidence, saved.provenance)
    assert (loaded.recognition.temperature, loaded.recognition.doubt) == (1.7, 0.31)
    assert (loaded.outliers.limit, loaded.outliers.false_alarms) == (2.5, 0.04)


def test_a_model_that_was_not_calibrated_has_none(folder):
    assert load_trust(folder) is None


def test_other_weights_refuse_it(folder):
    save_trust(record(), folder)
    before = model_sha256(folder)
    tensors = load_file(folder / "model.safetensors")
    first = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[first] = tensors[first] + 1e-3
    save_file(tensors, folder / "model.safetensors")
    assert model_sha256(folder) != before
    with pytest.raises(DataError, match=r"other weights than .*model\.safetensors.*tpseg calibrate"):
        load_trust(folder)


def test_tasks_that_were_renamed_or_removed_refuse_it(folder):
    save_trust(record(), folder)
    tasks = json.loads((folder / "tasks.json").read_text())
    tasks["tasks"][1]["name"] = "grey_disc"
    (folder / "tasks.json").write_text(json.dumps(tasks))
    with pytest.raises(DataError, match="tasks were bright_disc, dark_disc; they are now bright_disc, grey_disc"):
        load_trust(folder)


def test_tensors_of_another_calibration_refuse_it(folder, tmp_path):
    save_trust(record(), folder)
    old = (folder / TENSORS).read_bytes()
    save_trust(record(recognition=Recognition(torch.zeros(2, 3), 1.0, 0.5)), folder)
    (folder / TENSORS).write_bytes(old)
    with pytest.raises(DataError, match="not the file that was written with it"):
        load_trust(folder)
    (folder / TENSORS).unlink()
    with pytest.raises(DataError, match=f"{TENSORS} cannot be read"):
        load_trust(folder)


def test_it_is_the_old_record_none_or_the_new_one_wherever_writing_stops(folder, monkeypatch):
    save_trust(record(), folder)
    replace, states = os.replace, []
    for stop in (0, 1):
        done = 0

        def interrupted(source: object, target: object, stop: int = stop) -> None:
            nonlocal done
            if done == stop:
                raise OSError("no space left")
            done += 1
            replace(source, target)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(OSError, match="no space"):
            save_trust(record(provenance={"seed": 4}), folder)
        monkeypatch.undo()
        states.append(load_trust(folder))
        save_trust(record(), folder)
    assert states == [None, None]

    def full(self: Path, data: bytes) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        save_trust(record(provenance={"seed": 4}), folder)
    monkeypatch.undo()
    kept = load_trust(folder)
    assert kept is not None
    assert kept.provenance == {"seed": 3}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(format=7), "format 7"),
        (lambda content: content.pop("recognition"), "damaged"),
        (lambda content: content["recognition"].update(temperature=0), "'temperature' is 0"),
        (lambda content: content["recognition"].update(doubt="much"), "damaged"),
        (lambda content: content["outliers"].update(limit=float("nan")), "'limit' is nan"),
        (lambda content: content.update(outliers=[1]), "damaged"),
        (lambda content: content.update(confidence={"liver": {}}), "'confidence'"),
        (lambda content: content.update(provenance=3), "'provenance'"),
        (lambda content: content.update(tasks=7), "tasks were 7"),
    ],
)
def test_numbers_that_no_calibration_writes_are_refused(folder, change, words):
    save_trust(record(), folder)
    content = json.loads((folder / JSON).read_text())
    change(content)
    (folder / JSON).write_text(json.dumps(content))
    with pytest.raises(DataError, match=words):
        load_trust(folder)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("centres", torch.zeros(3, 3), "'centres' has shape"),
        ("origin", torch.full((8,), float("nan")), "not finite"),
        ("reach", torch.zeros(6), "not positive"),
        ("bank_task", torch.zeros(6, dtype=torch.int64), "every task"),
        ("axes", torch.zeros(8), "damaged"),
    ],
)
def test_tensors_that_no_calibration_writes_are_refused(folder, monkeypatch, name, tensor, words):
    whole = record()
    monkeypatch.setattr(Trust, "tensors", lambda self, original=Trust.tensors: original(self) | {name: tensor})
    save_trust(whole, folder)
    monkeypatch.undo()
    with pytest.raises(DataError, match=words):
        load_trust(folder)
