"""Using an exported file: predict, evaluate, Segmenter and a user's own program give the masks of the model folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from miniature import disc
from onnx import TensorProto, helper
from PIL import Image

import tpseg.inference.network
from tpseg.checkpoints.model_folder import save_model
from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.export.parity import dice
from tpseg.export.traceable import hardened_part
from tpseg.inference import Segmenter
from tpseg.inference.exported import ExportedNetwork

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, task in enumerate(("bright_disc", "dark_disc")):
        Image.fromarray(disc(task, np.random.default_rng(number), 70, 90)[0]).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def in_32_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpseg.inference.network, "bf16_is_native", lambda device: False)
    monkeypatch.setattr(tpseg.inference.network, "autocast", lambda device: nullcontext())


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) > 0 for path in sorted(folder.rglob("*.png"))}


@pytest.mark.usefixtures("exportable_trunk", "in_32_bit")
def test_predict_takes_the_file_in_the_place_of_the_model_folder(model, onnx_file, pictures, tmp_path):
    save_model(hardened_part(model), tmp_path / "model")
    for source, out in ((tmp_path / "model", "folder"), (onnx_file, "file")):
        assert main(["predict", str(source), str(pictures), "--task", "polyp", "--out", str(tmp_path / out)]) == 0
    expected, found = masks(tmp_path / "folder"), masks(tmp_path / "file")
    assert list(expected) == list(found) == ["0.png", "1.png"]
    for name in expected:
        assert expected[name].any()
        assert not expected[name].all()
        assert dice(expected[name], found[name]) >= 0.999


@pytest.mark.usefixtures("in_32_bit")
def test_several_tasks_on_one_image_through_a_segmenter(model, onnx_file, pictures):
    there, here = Segmenter(str(onnx_file)), Segmenter(hardened_part(model), device="cpu")
    image = np.asarray(Image.open(pictures / "0.png"))
    pairs = zip(there.tasks_of(image, model.tasks.names), here.tasks_of(image, model.tasks.names), strict=True)
    for one, other in pairs:
        assert one.task == other.task
        np.testing.assert_allclose(one.probability, other.probability, atol=1e-3)
        np.testing.assert_allclose(one.similarity, other.similarity, atol=1e-3)


@pytest.mark.parametrize("kind", ["npy", "png"])
def test_the_example_gives_the_masks_of_tpseg(onnx_file, pictures, tmp_path, kind):
    picture, out = pictures / "0.png", tmp_path / "mask.pgm"
    image = np.asarray(Image.open(picture))
    if kind == "npy":
        picture = tmp_path / "picture.npy"
        np.save(picture, image)
    absent = ["torch", "tpseg", *(["PIL"] if kind == "npy" else [])]  # it has to do without
    code = f"import runpy, sys; sys.modules.update(dict.fromkeys({absent})); del sys.argv[0]; runpy.run_path(sys.argv[0])"
    words = [str(EXAMPLE), str(onnx_file), str(picture), str(out), "breast_lesion"]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    expected = Segmenter(str(onnx_file))(image, "breast_lesion").mask
    found = np.asarray(Image.open(out)) > 0
    assert 0 < expected.sum() < expected.size
    assert found.shape == expected.shape
    assert (found != expected).mean() < 0.005  # Pillow rounds between its two passes, by one grey level at most
    assert dice(found, expected) > 0.95


def foreign_onnx(path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def foreign_torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")


@pytest.mark.parametrize(("name", "write"), [("foreign.onnx", foreign_onnx), ("foreign.pt2", foreign_torch)])
def test_a_file_of_something_else_is_refused(tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: not written by 'tpseg export'"):
        ExportedNetwork(tmp_path / name, trust=True)


@pytest.mark.parametrize("source", ["onnx_file", "torch_file", "openvino_file"])
def test_a_damaged_file_is_refused_in_one_line(request, tmp_path, source):
    whole = request.getfixturevalue(source)
    broken = tmp_path / f"broken{whole.suffix}"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match="broken") as error:
        ExportedNetwork(broken, trust=True)
    assert "\n" not in str(error.value)
    assert "export the model again" in str(error.value)


def test_a_file_that_is_not_there_is_a_wrong_option(tmp_path, capsys):
    assert main(["predict", str(tmp_path / "no.onnx"), str(tmp_path), "--out", str(tmp_path / "out")]) != 0
    for name in ("no.onnx", "README.md"):
        with pytest.raises(UsageError, match="no such file; expected one that 'tpseg export' wrote"):
            ExportedNetwork(tmp_path / name)


def test_a_device_that_the_library_has_not_is_refused(onnx_file, openvino_file):
    with pytest.raises(UsageError, match="device 'cuda'"):
        ExportedNetwork(openvino_file, "cuda")
    with pytest.raises(UsageError, match="device 'xpu'"):
        ExportedNetwork(onnx_file, "xpu")
