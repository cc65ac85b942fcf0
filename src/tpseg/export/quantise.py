"""int8: an ONNX file whose large products are computed in 8 bit, its ranges taken from calibration images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tpseg.core.errors import UsageError
from tpseg.core.extras import require
from tpseg.core.files import replacing
from tpseg.inference.exported import ExportedNetwork, quiet
from tpseg.inference.exported_description import KEY


def quantise(path: Path, out: Path, images: Sequence[Tensor], tasks: Sequence[int]) -> Path:
    """Write the int8 version of an ONNX file; returns `out`.

    Weights are 8 bit with a scale per channel, activations 8 bit with ranges from `images`, each (3, S, S) float32 normalised,
    with their task ids. Only products with stored weights are quantised: the trunk's and the decoder's linear layers and
    convolutions; products of two activations, norms, the adapters and the tasks' own layers stay in 32 bit (docs/export.md).
    Raises UsageError for no images and a file that is no ONNX file.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: int8 is made from an ONNX file; export with --format onnx")
    if not images:
        raise UsageError("int8 needs calibration images; found none")
    require("onnxruntime", "onnx")
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    network = ExportedNetwork(path, "cpu")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.inputs = self._inputs()

        def _inputs(self) -> Iterator[dict[str, np.ndarray]]:
            for image, task in zip(images, tasks, strict=True):
                batch = {"image": image[None].numpy()}
                yield batch | ({"task": np.array([task])} if network.description.takes_task else {})

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory() as folder, replacing(out) as new, quiet():
        folded = Path(folder) / "folded.onnx"
        quant_pre_process(path, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            new,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            nodes_to_exclude=batched_products(onnx.load(folded)),
            extra_options={"MatMulConstBOnly": True},
        )
        written = onnx.load(new)
        entry = next(entry for entry in written.metadata_props if entry.key == KEY)
        entry.value = network.description.as_int8().to_json()
        onnx.save(written, new)
    return out


def batched_products(model: Any) -> list[str]:
    """Names of the products whose stored weights are no matrix (the adapters'): onnxruntime cannot run them in 8 bit."""
    ranks = {weight.name: len(weight.dims) for weight in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    return [node.name for node in products if any(ranks.get(name, 2) != 2 for name in node.input)]
