"""Which cases a benchmark consists of: a case is one kind of work of one system, measured in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SEED = 0
"""Of weights and images."""
TASKS = 8
"""Tasks that every model knows, unless the case is about their number: as many as the paper's."""
BATCH = 4
"""Images of the mixed batches, each of another task."""
TASKS_KNOWN = (1, 8, 32)
TASKS_ASKED = (1, 2, 4, 8)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Measured on a GPU."""
RUNTIMES = ("PyTorch, as shipped", "PyTorch, fp32", "onnxruntime, fp32")

EQUALITY, MATRIX, TRUNK, LOADING, MODEL_LOAD = "equality", "matrix product", "trunk alone", "loading", "model load"
ONE, EIGHT, MIXED = "one image, one task", "one image, eight tasks", "mixed batch of four"
KNOWN, ASKED, EXPORT = "tasks the model knows", "tasks asked for", "export runtimes"
TRAIN, PREDICT_BATCH, TRAIN_BATCH = "training step", "prediction by batch", "training by batch"

WORKS = {
    EQUALITY: "largest difference between the reference's logits and ours, with the same weights",
    MATRIX: "product of two square matrices",
    TRUNK: "the trunk without adapters, neck and decoder",
    ONE: "one image for one task",
    EIGHT: "one image for eight tasks",
    MIXED: "four images of four tasks in a batch",
    KNOWN: "four images of four tasks, by the number of tasks that the model knows",
    ASKED: "one image, by the number of tasks asked for; splits in the middle of the trunk",
    EXPORT: "one image, a model of one task",
    TRAIN: "a training step of four images of four tasks",
    LOADING: "reading from disk, one process",
    MODEL_LOAD: "from a model folder to a network that is ready",
    PREDICT_BATCH: "prediction, by batch",
    TRAIN_BATCH: "training step, by batch",
}
"""Every kind of work and what is timed, in the order of the table."""


@dataclass(frozen=True)
class Case:
    """One process."""

    work: str
    """A key of WORKS."""
    system: str
    """A key of systems.SYSTEMS, or what else does the work."""
    trunk: str = ""
    """Size of the trunk; empty where there is none."""
    size: int = 0
    """Image height and width in pixels."""
    variant: str = ""
    """How: `bf16`, `fp32`, `recomputing` (training.checkpointing), `compiled`, `autocast`, or one of RUNTIMES."""
    batch: int = 1
    """Images."""
    once: bool = False
    """Only in the first round: it takes long to make ready, or is not worth repeating."""

    @property
    def title(self) -> str:
        return " · ".join(part for part in (self.trunk, self.work, self.system, self.variant) if part)


def plan(models: Mapping[str, int], accelerator: bool, quick: bool = False, bf16: bool = True) -> list[Case]:
    """All cases; models: trunk to image size in pixels; accelerator: whether they run on a GPU; quick: without exporting.

    bf16: whether the device computes in bfloat16: emulated, it takes hundreds of times as long and says nothing about the device.
    """
    precisions = ("fp32", "bf16") if bf16 else ("fp32",)
    cases = [Case(MATRIX, "PyTorch", variant=precision) for precision in precisions]
    for trunk, size in models.items():
        cases += [Case(EQUALITY, "reference", trunk, size, once=True)]
        cases += [Case(TRUNK, "tpseg", trunk, size, precision) for precision in precisions]
        cases += [Case(ONE, system, trunk, size) for system in ("reference", "reference, lean attention", "tpseg", "SAM2-UNet")]
        cases += [Case(EIGHT, "reference", trunk, size), Case(ASKED, "tpseg hardened", trunk, size)]
        cases += [Case(MIXED, system, trunk, size, batch=BATCH) for system in ("reference", "tpseg", "SAM2-UNet")]
        cases += [Case(KNOWN, "tpseg", trunk, size, batch=BATCH)]
        cases += [Case(TRAIN, "reference", trunk, size, batch=BATCH), Case(TRAIN, "tpseg", trunk, size, batch=BATCH)]
        cases += [Case(TRAIN, "tpseg", trunk, size, "recomputing", BATCH), Case(TRAIN, "SAM2-UNet", trunk, size, batch=BATCH)]
        cases += [Case(LOADING, "tpseg", trunk, size, batch=BATCH), Case(MODEL_LOAD, "tpseg", trunk, size)]
        cases += on_a_gpu(trunk, size) if accelerator else []
    return cases if accelerator or quick else cases + runtimes(*list(models.items())[-1])


def runtimes(trunk: str, size: int) -> list[Case]:
    """The hardened model of one task in PyTorch and exported; of the last of the models only, for exporting takes minutes."""
    return [Case(EXPORT, "tpseg hardened", trunk, size, runtime, once=runtime.startswith("onnxruntime")) for runtime in RUNTIMES]


def on_a_gpu(trunk: str, size: int) -> list[Case]:
    """What is worth measuring on a GPU only: compiling, the release's mixed precision, and how far a batch can grow."""
    compiled = [Case(ONE, "tpseg", trunk, size, "compiled"), Case(MIXED, "tpseg", trunk, size, "compiled", BATCH)]
    training = [Case(TRAIN, "tpseg", trunk, size, "compiled", BATCH), Case(TRAIN, "reference", trunk, size, "autocast", BATCH)]
    predicting = [
        Case(PREDICT_BATCH, system, trunk, size, batch=batch, once=True) for system in ("reference", "tpseg") for batch in BATCH_SIZES
    ]
    learners = (("reference", ""), ("tpseg", ""), ("tpseg", "recomputing"))
    learning = [Case(TRAIN_BATCH, system, trunk, size, variant, batch, True) for system, variant in learners for batch in BATCH_SIZES]
    return [*compiled, *training, *predicting, *learning]
