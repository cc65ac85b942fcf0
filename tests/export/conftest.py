"""One miniature model, traced once, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from exportable import TRUNK, make_model
from torch.export import ExportedProgram

from tpseg.export.formats import OPSET, save_onnx, save_openvino, save_torch, trace
from tpseg.export.traceable import hardened_part
from tpseg.inference.exported_description import Description
from tpseg.models.trunks.hiera import TRUNK_SIZES


@pytest.fixture(autouse=True)
def openvino_is_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tests run as on an older processor: PyTorch's oneDNN has read the limit, and OpenVINO's own compiles nothing under SSE 4.1."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


@pytest.fixture
def exportable_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the length of a test the trunk `tiny` is that of the models here, so that their folders can be read."""
    monkeypatch.setitem(TRUNK_SIZES, "tiny", TRUNK)


@pytest.fixture(scope="session")
def model() -> Any:
    made = make_model(pgtds=(1,))  # the steps differ in widths only, and each takes a fifth of the time
    made.provenance = {"seed": 7}
    return made


@pytest.fixture(scope="session")
def description(model: Any) -> Description:
    return Description.of(hardened_part(model))


@pytest.fixture(scope="session")
def program(model: Any) -> ExportedProgram:
    return trace(hardened_part(model))


@pytest.fixture(scope="session")
def onnx_file(program: ExportedProgram, description: Description, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save_onnx(program, path, description, OPSET)
    return path


@pytest.fixture(scope="session")
def torch_file(program: ExportedProgram, description: Description, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torch") / "model.pt2"
    save_torch(program, path, description)
    return path


@pytest.fixture(scope="session")
def openvino_file(onnx_file: Path, description: Description, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "model.xml"
    save_openvino(onnx_file, path, path, description)
    return path
