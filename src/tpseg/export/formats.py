"""Writing a model as ONNX, OpenVINO or torch.export file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from tpseg.checkpoints.model_folder import load_model
from tpseg.core.errors import UsageError, nearest
from tpseg.core.extras import require
from tpseg.core.files import replacing
from tpseg.export.traceable import Traceable, hardened_part
from tpseg.inference.exported import quiet
from tpseg.inference.exported_description import KEY, Description
from tpseg.models.base import LesionModel

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
"""What the files of each format end in."""
OPSET = 18
"""ONNX operator set; onnxruntime 1.14 and newer read it."""
LARGEST = 2**31 - 2**24
"""Bytes of weights that fit into one ONNX file, with room for the graph."""
EXAMPLE = (3, 287, 478)
"""Batch, height and width of the example that is traced: of no special value, so that nothing is taken for a constant."""


def export_model(
    model: LesionModel | Path | str,
    out: Path,
    format: str = "onnx",
    tasks: Sequence[str] | None = None,
    *,
    opset: int = OPSET,
    weights: str | None = None,
) -> Path:
    """Write a model, its gate hardened, to a file for any batch, height and width; returns the file.

    model: a model, its folder, a run folder or a hub id. tasks: one, some, or all of them by default; with more than one the
    file has an input `task`. opset: ONNX's operator set. weights: where the frozen trunk lies, as load_model takes it.
    Raises UsageError for an unknown format or task, an ending that does not fit, an architecture that cannot be followed, and
    where the extra that writes the format is not installed.
    """
    check_target(out, format)
    if not isinstance(model, LesionModel):
        model = load_model(model, weights=weights)
    part = hardened_part(model, tasks)
    description = Description.of(part)
    program = trace(part)
    with replacing(out) as new:
        if format == "torch":
            save_torch(program, new, description)
        elif format == "onnx":
            save_onnx(program, new, description, opset)
        else:
            with tempfile.TemporaryDirectory(dir=out.parent) as folder:
                onnx = Path(folder) / "model.onnx"
                save_onnx(program, onnx, description, opset)
                save_openvino(onnx, new, out, description)
    return out


def check_target(out: Path, format: str) -> None:
    """Raise UsageError for what can be told before the work."""
    if format not in ENDINGS:
        raise UsageError(f"format: found '{format}'{nearest(format, ENDINGS)} (formats: {', '.join(ENDINGS)})")
    if out.suffix != ENDINGS[format]:
        raise UsageError(f"{out}: a file of format {format} ends in {ENDINGS[format]}; name it {out.with_suffix(ENDINGS[format]).name}")
    if format != "torch":
        require("onnx", "onnxscript")
    if format == "openvino":
        require("openvino")


def trace(part: LesionModel) -> ExportedProgram:
    """The program of a model of `hardened_part`, which is changed; batch, height and width stay open."""
    module = Traceable(part).eval()
    batch, height, width = EXAMPLE
    inputs: dict[str, Any] = {"image": torch.zeros(batch, 3, height, width)}
    shapes: dict[str, Any] = {"image": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    if module.takes_task:
        inputs["task"] = torch.zeros(batch, dtype=torch.int64)
        shapes["task"] = {0: Dim.DYNAMIC}
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(module, (), inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever it meets: torch.export raises its own, PyTorch's and sympy's errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f"model.architecture '{part.config.architecture}' cannot be exported for any size ({reason})") from error


def save_torch(program: ExportedProgram, path: Path, description: Description) -> None:
    with quiet():
        torch.export.save(program, path, extra_files={f"{KEY}.json": description.to_json()})


def save_onnx(program: ExportedProgram, path: Path, description: Description, opset: int) -> None:
    """Raises UsageError for more weights than one ONNX file can hold."""
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if size > LARGEST:
        raise UsageError(f"{size / 1e9:.1f} GB of weights; an ONNX file holds 2 GB: choose tasks with --tasks, or --format torch")
    names = ["logits", "similarity"][: len(program.graph_signature.user_outputs)]
    axes: dict[str, Any] = {"image": {0: "batch", 2: "height", 3: "width"}}
    if description.takes_task:
        axes["task"] = {0: "batch"}
    with quiet():
        written: Any = torch.onnx.export(
            program, (), dynamo=True, opset_version=opset, output_names=names, dynamic_shapes=axes, optimize=True, verbose=False
        )
    for node in written.model.graph.all_nodes():  # they hold the exporting machine's paths and fill megabytes
        node.metadata_props.clear()
        node.doc_string = None
    written.model.metadata_props[KEY] = description.to_json()
    written.model.producer_name, written.model.producer_version = "tpseg", description.version
    written.save(path)


def save_openvino(onnx: Path, path: Path, out: Path, description: Description) -> None:
    """FILE.xml at `path`, from an ONNX file of the same model, and FILE.bin with the weights beside `out`."""
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        network = openvino.convert_model(onnx)
        network.set_rt_info(description.to_json(), [KEY])
        openvino.save_model(network, Path(folder) / "model.xml", compress_to_fp16=False)  # 16 bit would cost digits unasked
        shutil.move(Path(folder) / "model.bin", out.with_suffix(".bin"))
        shutil.move(Path(folder) / "model.xml", path)
