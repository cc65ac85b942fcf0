"""Files that would run a program when they are read carelessly: each is refused, and nothing ran."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from miniature import settings_file
from torch.export import Dim

from tpseg.checkpoints.model_folder import load_model
from tpseg.checkpoints.trunk_weights import load_trunk_weights
from tpseg.cli import main
from tpseg.core.config import build_config, read_source
from tpseg.core.errors import DataError, TPSegError, UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.cache import Shelf
from tpseg.data.manifest import read_dataset
from tpseg.inference import Segmenter
from tpseg.inference.exported_description import KEY, Description
from tpseg.models.trunks.hiera import Trunk
from tpseg.studies.plan import read_budget, read_study
from tpseg.training.checkpoints import newest
from tpseg.training.run_folder import read_settings

pytestmark = pytest.mark.usefixtures("miniature_trunk")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.marker, "ran"))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "the-code-ran"


def test_the_bomb_goes_off_where_a_file_is_read_carelessly(marker: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


def saved(bomb: object, path: Path, zipped: bool = True) -> Path:
    torch.save({"state_dict": {}, "model": bomb, "epoch": 0}, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("name", ["sam2.pt", "sam2.pth", "sam2.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_trunk_weights(name: str, zipped: bool, marker: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="refused, for it holds more than tensors"):
        load_trunk_weights(Trunk("tiny"), str(saved(Bomb(marker), tmp_path / name, zipped)))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["sam2.pt", "sam2.safetensors"])
def test_a_bare_pickle_in_the_place_of_weights(name: str, marker: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(DataError, match=name):
        load_trunk_weights(Trunk("tiny"), str(tmp_path / name))
    assert not marker.exists()


def test_a_checkpoint_of_training(marker: Path, tmp_path: Path) -> None:
    saved(Bomb(marker), tmp_path / "last.ckpt")
    with pytest.raises(DataError):
        newest(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tasks.json", "provenance.json"])
def test_every_file_of_a_model(name: str, trained: Path, marker: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    for content in (pickle.dumps(Bomb(marker)), saved(Bomb(marker), tmp_path / "x").read_bytes()):
        (tmp_path / "model" / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            load_model(tmp_path / "model")
    assert not marker.exists()


def test_a_pickle_beside_a_model_is_not_read(trained: Path, marker: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    for name in ("pytorch_model.bin", "model.pt", "model.pkl", "config.py", "modeling.py"):
        (tmp_path / "model" / name).write_bytes(pickle.dumps(Bomb(marker)))
    load_model(tmp_path / "model")
    assert not marker.exists()


@pytest.fixture
def program(tmp_path: Path, marker: Path) -> Path:
    """A .pt2 file as `tpseg export` writes them, but with a bomb in one of its pickles."""

    class Half(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image[:, :1] / 2

    shape = {"image": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    exported = torch.export.export(Half(), (), {"image": torch.zeros(3, 3, 64, 64)}, dynamic_shapes=shape, strict=False)
    description = Description(TaskSet([Task("lesion")]), False, 64)
    torch.export.save(exported, tmp_path / "whole.pt2", extra_files={f"{KEY}.json": description.to_json()})
    bomb = io.BytesIO()
    torch.save(((), {"image": Bomb(marker)}), bomb)
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(tmp_path / "whole.pt2") as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, bomb.getvalue() if "sample_inputs" in info.filename else old.read(info))
    return path


def test_a_pt2_file_is_opened_only_if_it_is_trusted(program: Path, marker: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.pt2: a .pt2 file is a program.*--trust"):
        Segmenter(program)
    assert not marker.exists()
    with suppress(TPSegError):
        Segmenter(program, trust=True)
    assert marker.exists(), "the file does not do what the refusal is for, so that this test would show nothing"


def test_predict_and_evaluate_take_the_same_word_for_it(program: Path, discs: Path, marker: Path, tmp_path: Path, capsys) -> None:
    picture = str(discs.parent / "bright_disc" / "00.png")
    assert main(["predict", str(program), picture, "--out", str(tmp_path / "out")]) == 2
    assert main(["evaluate", str(program), "--data", str(discs), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("is a program") == 2
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_pickle_called_like_another_exported_file(suffix: str, marker: Path, tmp_path: Path) -> None:
    (tmp_path / f"model{suffix}").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(DataError):
        Segmenter(tmp_path / f"model{suffix}")
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".nii", ".nii.gz", ".dcm", ".nrrd", ".mha", ".mp4", ".pkl"])
def test_a_pickle_in_the_place_of_an_image(suffix: str, trained: Path, marker: Path, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    with path.open("wb") as file:
        np.save(file, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    segment = Segmenter(trained, device="cpu")
    with pytest.raises(DataError, match="image"):
        segment(path, "bright_disc")
    assert not marker.exists()


def test_an_array_of_the_cache(marker: Path, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"key": "k", "contents": ["a"], "files": {}}))
    shelf = Shelf(tmp_path, "k", 8, ["a"], {}, {})
    for name in shelf.shapes:
        with shelf._file(tmp_path, name).open("wb") as file:
            np.save(file, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        shelf.arrays  # noqa: B018
    assert not marker.exists()


YAML_READERS: dict[str, Callable[[Path], object]] = {
    "tasks.yaml": read_dataset,
    "config.yaml": lambda path: build_config(read_source(path)),
    "settings.yaml": lambda path: read_settings(path.parent),
    "study.yaml": lambda path: read_study(str(path)),
    "budget.yaml": lambda path: read_budget(str(path)),
}


def call(marker: Path, function: str) -> str:
    """A YAML value that writes a file when it is read carelessly."""
    how = {"os.system": f"echo ran > {marker}", "builtins.exec": f"open({str(marker)!r}, 'w').close()"}[function]
    return f'!!python/object/apply:{function} ["{how}"]'


@pytest.mark.parametrize("function", ["os.system", "builtins.exec"])
def test_the_yaml_does_what_it_is_refused_for(function: str, marker: Path) -> None:
    yaml.unsafe_load(f"tasks: {call(marker, function)}\n")
    assert marker.exists()


@pytest.mark.parametrize("function", ["os.system", "builtins.exec"])
@pytest.mark.parametrize("name", YAML_READERS)
def test_yaml_that_calls(name: str, function: str, marker: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"tasks: {call(marker, function)}\n")
    with pytest.raises(TPSegError):
        YAML_READERS[name](tmp_path / name)
    assert not marker.exists()


def test_yaml_on_the_command_line(discs: Path, marker: Path, tmp_path: Path, capsys) -> None:
    command = ["train", "--config", settings_file(tmp_path / "mine.yaml"), "--data", str(discs), "--out", str(tmp_path / "run")]
    assert main([*command, "--training.epochs", call(marker, "builtins.exec")]) == 2
    assert main([*command, f"--model.neck-widths={call(marker, 'builtins.exec')}"]) == 2
    assert not marker.exists()
    capsys.readouterr()
