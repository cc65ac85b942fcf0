"""Which model made a mask: the hash of its weights, wherever it lies."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import pytest

from tpseg.core.errors import DataError, UsageError
from tpseg.imaging.writing.identity import ModelIdentity
from tpseg.inference.identity import identify


def test_a_model_folder_and_its_run_are_known_by_the_hash_of_the_weights(tmp_path: Path):
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    expected = hashlib.sha256(b"weights").hexdigest()
    assert identify(folder) == identify(tmp_path / "run") == ModelIdentity(expected, "tpseg", version("tpseg"))


def test_an_exported_file_is_hashed_itself_and_openvinos_weights_beside_the_network(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    (tmp_path / "model.xml").write_bytes(b"<net/>")
    (tmp_path / "model.bin").write_bytes(b"weights")
    assert identify(str(tmp_path / "model.onnx")).sha256 == hashlib.sha256(b"onnx").hexdigest()
    assert identify(tmp_path / "model.xml").sha256 == hashlib.sha256(b"weights").hexdigest()


def test_what_is_no_model_is_said_to_be_none(tmp_path: Path):
    with pytest.raises(UsageError, match="not a model folder"):
        identify(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"model\.safetensors: the model's weights cannot be read \(No such file or directory\)"):
        identify(tmp_path)
