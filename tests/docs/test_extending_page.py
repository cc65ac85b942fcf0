"""docs/extending.md does what it says: its code, its line, its settings and its commands are run as they are printed."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from miniature import checkpoint, history, settings_file, stopped
from PIL import Image

from tpseg.checkpoints.model_folder import load_model
from tpseg.cli import main
from tpseg.core.config import load_config
from tpseg.inference import Segmenter
from tpseg.models.catalogue import MODELS

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
MODULE = "tpseg.models.networks.two_scales"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(block: str, data: Path, folder: Path) -> list[list[str]]:
    """The block's `tpseg` commands in words, with the page's example files replaced by those of the test."""
    places = {
        "tasks.yaml": data,
        "photo.png": data.parent / "bright_disc" / "00.png",
        "masks": folder / "masks",
        "small,variant.yaml": f"small,{folder / 'variant.yaml'},{folder / 'miniature.yaml'}",
        "mine.yaml": folder / "mine.yaml",
        "studies": folder / "studies",
        "small": f"small,{folder / 'miniature.yaml'}",
    }
    found = []
    for line in block.splitlines():
        program, *words = shlex.split(line)
        assert program == "tpseg"
        found.append([str(places.get(word, folder / word if word.startswith("runs/") else word)) for word in words])
    return found


@pytest.fixture
def two_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's file as a module of the package, and its line in the catalogue."""
    code, line, _ = blocks("python")
    path = tmp_path / "two_scales.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, MODULE, module)
    spec.loader.exec_module(module)
    entries = eval("{" + line + "}", vars(module))
    assert list(entries) == ["two_scales"]
    monkeypatch.setitem(MODELS, "two_scales", entries["two_scales"])
    return module


@pytest.mark.usefixtures("miniature_trunk", "two_scales")
def test_the_model_of_the_page_trains_saves_loads_predicts_and_resumes(discs: Path, tmp_path: Path) -> None:
    settings_file(tmp_path / "miniature.yaml", training={"epochs": 4, "learning_rate": 1e-2})
    train, predict = commands(blocks("sh")[0], discs, tmp_path)
    with stopped(epoch=2):
        main(train)
    assert main([*train, "--resume"]) == 0
    run = tmp_path / "runs" / "two_scales"
    table = history(run)
    assert table["step"].tolist() == [3, 6, 9, 12]
    assert table["train/loss"].iloc[-1] < 0.9 * table["train/loss"].iloc[0]
    assert any(key.startswith("model.network.fine_head") for key in checkpoint(run)["state_dict"])

    assert main(predict) == 0
    mask = Image.open(tmp_path / "masks" / "00.png")
    assert mask.size == (64, 48)
    model = load_model(run)
    assert type(model.network).__name__ == "TwoScales"
    output = model(torch.zeros(1, 3, 40, 50), torch.tensor([0]))
    assert [tuple(one.shape) for one in output.supervised] == [(1, 1, 40, 50)] * 2
    prediction = Segmenter(run / "model")(discs.parent / "bright_disc" / "00.png", task="bright_disc")
    assert (prediction.mask * 255 == np.asarray(mask)).all()


def test_the_page_s_line_for_the_suite_fits_the_suite() -> None:
    *_, line = blocks("python")
    suite = (PAGE.parents[1] / "tests" / "helpers" / "miniature_models.py").read_text(encoding="utf-8")
    assert line.replace("two_scales", "monai_unet") in suite


@pytest.mark.usefixtures("miniature_trunk")
def test_the_variant_of_the_page_trains(discs: Path, tmp_path: Path) -> None:
    variant, _ = blocks("yaml")
    (tmp_path / "variant.yaml").write_text(variant)
    settings_file(tmp_path / "miniature.yaml", training={"epochs": 1})
    plain, varied = (load_config(["small", *more]).to_dict()["model"] for more in ([], [tmp_path / "variant.yaml"]))
    assert {key: value for key, value in varied.items() if value != plain[key]} == {"adapter": "plain", "pgtds": [1]}
    (train,) = commands(blocks("sh")[1], discs, tmp_path)
    assert main(train) == 0
    model = load_model(tmp_path / "runs" / "variant")
    assert (model.config.adapter, model.config.pgtds) == ("plain", (1,))
    assert list(model.prototypes()) == ["pgtd1"]


@pytest.mark.usefixtures("miniature_trunk")
def test_the_study_of_the_page_is_planned(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, rows = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(rows)
    (plan,) = commands(blocks("sh")[2], discs, tmp_path)
    assert main(plan) == 0
    printed = capsys.readouterr().out
    assert "Plain adapters and one PGTD against the full model" in printed
    assert "18 models, 18 to train" in printed  # 3 seeds of 4 models for all tasks and of 2 for one
