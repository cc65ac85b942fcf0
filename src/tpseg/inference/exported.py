"""Running an exported file: onnxruntime, OpenVINO or torch.export behind one call, the `Network` of tpseg.inference.network."""

from __future__ import annotations

import inspect
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tpseg.core.errors import DataError, UsageError
from tpseg.core.extras import require
from tpseg.core.hardware import pick_device
from tpseg.core.tasks import TaskSet
from tpseg.inference.exported_description import KEY, Description
from tpseg.inference.network import Maps

Run = Callable[[dict[str, Tensor]], "list[Tensor]"]
"""Inputs by name to outputs in order, all on the CPU."""


class ExportedNetwork:
    """A file of `tpseg export`, for any batch, height and width; computes in the precision it was written in.

    >>> network = ExportedNetwork(Path("mine.onnx"))
    >>> maps = network(image, task, rows)      # as tpseg.inference.network.Network says
    """

    tasks: TaskSet
    image_size: int

    def __init__(self, path: Path, device: str | None = None, *, trust: bool = False) -> None:
        """device: cpu or cuda; by default a GPU if there is one and the file's library can use it.

        trust: open a .pt2 file, which is a program: it can do whatever the person can who opens it.

        Raises UsageError for a file or device that is not there and a library that is not installed, DataError for a file
        that is damaged or not of tpseg.
        """
        openers = {".onnx": open_onnx, ".xml": open_openvino, ".pt2": open_torch}
        if path.suffix not in openers or not path.is_file():
            raise UsageError(f"{path}: no such file; expected one that 'tpseg export' wrote ({', '.join(openers)})")
        if path.suffix == ".pt2" and not trust:
            raise UsageError(
                f"{path}: a .pt2 file is a program, which could do anything on this machine when it is opened; if you trust who made it, "
                "say --trust (in Python trust=True), else ask for the model's folder or an .onnx file, which hold no code"
            )
        self.path = path
        self._run, self.description = openers[path.suffix](path, device)
        self.tasks = self.description.tasks
        self.image_size = self.description.image_size

    def __call__(self, image: Tensor, task: Tensor, rows: Tensor) -> Maps:
        """image (B, 3, H, W) float32 normalised; output p is image rows[p] segmented for task[p], both (P,) int64; all on the CPU."""
        inputs = {"image": image.index_select(0, rows)}
        if self.description.takes_task:
            inputs["task"] = task
        outputs = self._run(inputs)
        return Maps(outputs[0], outputs[1] if len(outputs) > 1 else None)


def damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DataError(f"{path}: cannot be read, it is damaged or not what its ending says ({reason}); export the model again")


def open_onnx(path: Path, device: str | None) -> tuple[Run, Description]:
    """Through onnxruntime, with as many threads as PyTorch has."""
    require("onnxruntime")
    import onnxruntime

    there = onnxruntime.get_available_providers()
    wanted = "cuda" if device is None and "CUDAExecutionProvider" in there else (device or "cpu").split(":")[0]
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(wanted)
    if provider not in there:
        raise UsageError(f"device '{device}': this onnxruntime has none for it (it has {', '.join(there)}); try 'cpu'")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # its own exceptions have no common class
        raise damaged(path, error) from error
    description = Description.from_json(session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {name: value.numpy() for name, value in inputs.items()})]

    return run, description


def open_openvino(path: Path, device: str | None) -> tuple[Run, Description]:
    """Through OpenVINO on a CPU, in 32 bit: left alone it computes in bfloat16 where the processor has it."""
    require("openvino")
    import openvino

    if device not in (None, "cpu"):
        raise UsageError(f"device '{device}': OpenVINO files run on 'cpu' here")
    try:
        network = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise damaged(path, error) from error
    text = network.get_rt_info(KEY).astype(str) if network.has_rt_info(KEY) else None
    description = Description.from_json(text, path)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.compile_model(network, "CPU", settings)

    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        answer: Any = compiled({name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(np.array(answer[output])) for output in compiled.outputs]

    return run, description


def open_torch(path: Path, device: str | None) -> tuple[Run, Description]:
    """Through PyTorch alone, which unpickles parts of the file and evaluates others: only for files that are trusted."""
    try:
        with zipfile.ZipFile(path) as archive:  # before PyTorch reads it: a foreign file is refused unread
            texts = [archive.read(name).decode() for name in archive.namelist() if name.endswith(f"/{KEY}.json")]
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise damaged(path, error) from error
    description = Description.from_json(texts[0] if texts else None, path)
    place = pick_device(device)
    try:
        with quiet():
            program = torch.export.load(path)
            if place.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, place)
    except Exception as error:  # it raises its own, pickle's and zipfile's errors
        raise damaged(path, error) from error
    guarded = "check_guards" in inspect.signature(program.module).parameters  # newer PyTorch checks the example's coincidences
    module = program.module(check_guards=False) if guarded else program.module()

    @torch.inference_mode()
    def run(inputs: dict[str, Tensor]) -> list[Tensor]:
        return [output.cpu() for output in module(**{name: value.to(place) for name, value in inputs.items()})]

    return run, description


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' remarks on their own affairs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
