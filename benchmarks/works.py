"""What is timed: each kind of work as functions that are called over and over, made ready from random numbers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import plan
from benchmarks.plan import Case
from benchmarks.reference import Reference
from benchmarks.systems import build, build_reference
from tpseg.checkpoints.model_folder import save_model
from tpseg.core.hardware import autocast
from tpseg.data.dataset import Draw, LesionDataset, collate
from tpseg.data.manifest import Case as ImageCase
from tpseg.data.preprocessing import preprocess
from tpseg.datasets.phantoms import PHANTOM_TASKS, phantom
from tpseg.imaging.pictures.formats import read_image
from tpseg.inference.network import for_prediction
from tpseg.inference.open_network import open_network
from tpseg.models.heads.losses import segmentation_loss
from tpseg.models.tpseg.network import TPSeg

Step = Callable[[], object]
LEARNING_RATE = WEIGHT_DECAY = 5e-4
"""The release's, and ours."""


@dataclass
class Ready:
    """A case that is ready to be timed."""

    points: dict[str, Step] = field(default_factory=dict)
    """What is timed, in turns. Most cases have one point, of no name."""
    warm_up: Step | None = None
    """Run before, untimed; by default every point once."""
    least: int = 1
    """Runs of each point, however long they take."""
    facts: dict[str, float] = field(default_factory=dict)
    """Results that are no times."""


def prepare(case: Case, device: torch.device, scratch: Path) -> Ready:
    """Build what a case needs; scratch: a folder that all cases of a run share."""
    works: dict[str, Callable[[Case, torch.device, Path], Ready]] = {
        plan.EQUALITY: equality,
        plan.MATRIX: matrix_product,
        plan.TRUNK: trunk_alone,
        plan.ONE: prediction,
        plan.EIGHT: passes,
        plan.MIXED: prediction,
        plan.KNOWN: tasks_known,
        plan.ASKED: tasks_asked,
        plan.EXPORT: exported,
        plan.TRAIN: training,
        plan.LOADING: loading,
        plan.MODEL_LOAD: model_load,
        plan.PREDICT_BATCH: prediction,
        plan.TRAIN_BATCH: training,
    }
    return works[case.work](case, device, scratch)


def images(count: int, size: int, device: torch.device) -> Tensor:
    return torch.randn(count, 3, size, size, device=device)


def mixed_tasks(count: int) -> Tensor:
    """A task of its own for each of `count` images, as far as the tasks go."""
    return torch.arange(count) % plan.TASKS


def equality(case: Case, device: torch.device, scratch: Path) -> Ready:
    """The reference beside our model of preset `release`, whose memory it shares, both in 32 bit, on two images of two tasks."""
    model = build(case.system, case.trunk, case.size, plan.TASKS, device)
    assert isinstance(model, TPSeg)
    image, task = images(2, case.size, device), torch.tensor([5, 2], device=device)
    torch.backends.cudnn.allow_tf32 = False  # 10 bits of mantissa, PyTorch's default for convolutions on a GPU; this process does no more
    with torch.inference_mode():
        ours, theirs = model(image, task).logits, Reference.of(model)(image, task).logits
    return Ready(facts={"largest difference": float((ours - theirs).abs().max()), "spread of the logits": float(ours.std())})


def matrix_product(case: Case, device: torch.device, scratch: Path) -> Ready:
    """Products of square matrices (n, n) at several n, named by their floating-point operations."""
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[case.variant]
    sizes = (1024, 2048, 3072) if device.type == "cpu" else (2048, 4096, 8192)

    def product(n: int) -> Step:
        one, other = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
        out = torch.empty(n, n, device=device, dtype=kind)
        return lambda: torch.mm(one, other, out=out)

    return Ready({str(2 * n**3): product(n) for n in sizes})


def trunk_alone(case: Case, device: torch.device, scratch: Path) -> Ready:
    model = build(case.system, case.trunk, case.size, 1, device)
    trunk, image = model.trunk, images(1, case.size, device)
    assert trunk is not None
    if case.variant == "bf16":
        for_prediction(model, str(device))

    @torch.inference_mode()
    def step() -> object:
        with torch.autocast(device.type, torch.bfloat16, enabled=case.variant == "bf16"):
            return trunk(image)

    return Ready({"": step})


def prediction(case: Case, device: torch.device, scratch: Path) -> Ready:
    """As many images as the case's batch has, each of another task, from tensors on the CPU to maps on the CPU."""
    image, task = images(case.batch, case.size, torch.device("cpu")), mixed_tasks(case.batch)
    if case.system.startswith("reference"):
        run = reference_pass(case, device, image)
        return Ready({"": lambda: run(task)})
    network = for_prediction(build(case.system, case.trunk, case.size, plan.TASKS, device), str(device))
    if case.variant == "compiled":
        network.model = torch.compile(network.model, dynamic=False)  # type: ignore[assignment]
    return Ready({"": lambda: network(image, task, torch.arange(case.batch))})


def reference_pass(case: Case, device: torch.device, image: Tensor) -> Callable[[Tensor], Tensor]:
    """A full pass over `image` for the tasks (B,) that it is called with, in 32 bit."""
    reference = build_reference(case.system, case.trunk, case.size, plan.TASKS, device)

    @torch.inference_mode()
    def run(task: Tensor) -> Tensor:
        return reference(image.to(device), task.to(device)).logits.cpu()

    return run


def passes(case: Case, device: torch.device, scratch: Path) -> Ready:
    """Eight tasks on one image in the release's way: eight passes, warmed up by one."""
    run = reference_pass(case, device, images(1, case.size, torch.device("cpu")))
    tasks = [torch.tensor([task]) for task in range(plan.TASKS)]
    return Ready({"": lambda: [run(task) for task in tasks]}, warm_up=lambda: run(tasks[0]))


def tasks_known(case: Case, device: torch.device, scratch: Path) -> Ready:
    """A mixed batch, by the number of tasks that the model knows; those of one task get the batch of one task."""
    image = images(case.batch, case.size, torch.device("cpu"))

    def step(known: int) -> Step:
        network = for_prediction(build(case.system, case.trunk, case.size, known, device), str(device))
        return lambda: network(image, torch.arange(case.batch) % known, torch.arange(case.batch))

    return Ready({str(known): step(known) for known in plan.TASKS_KNOWN}, least=2)


def tasks_asked(case: Case, device: torch.device, scratch: Path) -> Ready:
    """One image, by the number of tasks asked for."""
    network = for_prediction(build(case.system, case.trunk, case.size, plan.TASKS, device), str(device))
    image = images(1, case.size, torch.device("cpu"))

    def step(asked: int) -> Step:
        return lambda: network(image, torch.arange(asked), torch.zeros(asked, dtype=torch.int64))

    return Ready({str(asked): step(asked) for asked in plan.TASKS_ASKED})


def exported(case: Case, device: torch.device, scratch: Path) -> Ready:
    """One image through the hardened model of one task, in one of plan.RUNTIMES."""
    image, none = images(1, case.size, torch.device("cpu")), torch.zeros(1, dtype=torch.int64)
    if case.variant.startswith("onnxruntime"):
        network = open_network(export_once(case, device, scratch))
        return Ready({"": lambda: network(image, none, none)})
    model = build(case.system, case.trunk, case.size, 1, device)
    if case.variant == "PyTorch, as shipped":
        shipped = for_prediction(model, str(device))
        return Ready({"": lambda: shipped(image, none, none)})
    model.settle()

    @torch.inference_mode()
    def step() -> object:
        return model(image, none).logits

    return Ready({"": step})


def export_once(case: Case, device: torch.device, scratch: Path) -> Path:
    """The ONNX file of the hardened model of one task; written by the first round."""
    from tpseg.export import export_model

    file = scratch / f"{case.trunk}-{case.size}.onnx"
    if not file.exists():
        model = build(case.system, case.trunk, case.size, 1, device)
        export_model(model, file, "onnx", model.tasks.names)
    return file


def training(case: Case, device: torch.device, scratch: Path) -> Ready:
    """Forward, loss, backward, clipping, prototypes and AdamW; warmed up, on a CPU by a step at a quarter of the image size.

    The reference in 32 bit, the others in what training takes: bfloat16 where the processor has it.
    """
    reference = case.system.startswith("reference")
    if reference:
        model: nn.Module = build_reference(case.system, case.trunk, case.size, plan.TASKS, device)
    else:
        built = build(case.system, case.trunk, case.size, plan.TASKS, device)
        assert built.trunk is not None
        built.trunk.checkpointing = case.variant == "recomputing"
        model = built
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=not reference)
    called = torch.compile(model, dynamic=False) if case.variant == "compiled" else model
    task = mixed_tasks(case.batch).to(device)

    def step(size: int) -> None:
        image = images(case.batch, size, device)
        mask = (image[:, :1] > 0).float()
        with precision(case, device):
            output = called(image, task)
        segmentation_loss(output.supervised, mask).mean().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        model.observe(output, mask, task)
        model.move_prototypes()
        optimiser.step()
        optimiser.zero_grad()

    small = max(32, case.size // 128 * 32)
    return Ready({"": lambda: step(case.size)}, warm_up=(lambda: step(small)) if device.type == "cpu" else None)


def precision(case: Case, device: torch.device) -> AbstractContextManager[object]:
    return nullcontext() if case.system.startswith("reference") and case.variant != "autocast" else autocast(device)


def loading(case: Case, device: torch.device, scratch: Path) -> Ready:
    """A batch as training reads it, varied, and one image as prediction reads it; from JPEGs and PNG masks of the model's size."""
    folder, cases = scratch / f"pictures-{case.size}", []
    folder.mkdir(exist_ok=True)
    for task in PHANTOM_TASKS.names[: case.batch]:
        path = folder / f"{task}.jpg"
        if not path.exists():
            picture, mask = phantom(task, 0, case.size)
            Image.fromarray(mask.astype(np.uint8) * 255).save(path.with_suffix(".png"))
            Image.fromarray(picture).save(path, quality=92)
        cases.append(ImageCase(task, path, path.with_suffix(".png"), "train", "", path.name))
    dataset = LesionDataset(cases, PHANTOM_TASKS, case.size, "full")
    return Ready(
        {
            f"batch of {case.batch}, varied": lambda: collate([dataset[Draw(index, index)] for index in range(case.batch)]),
            "one image": lambda: preprocess(read_image(cases[0].image), case.size),
        }
    )


def model_load(case: Case, device: torch.device, scratch: Path) -> Ready:
    folder = scratch / f"{case.trunk}-{case.size}-model"
    if not folder.exists():
        save_model(build(case.system, case.trunk, case.size, plan.TASKS, torch.device("cpu")), folder)
    return Ready({"": lambda: open_network(folder, str(device))}, warm_up=lambda: None)
