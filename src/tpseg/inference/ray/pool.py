"""How the processors of a cluster are shared out: workers that hold the model, the rest for decoding and writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tpseg.core.errors import UsageError

THREADS = 4
"""CPU threads of a worker, unless --workers asks for another number of them: more threads on one image pay less and less."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Pool:
    """The workers: processes that hold the model."""

    workers: int
    threads: int
    """CPU threads of each, which are also the CPUs that Ray sets aside for it: workers on a machine do not fight."""
    gpus: int
    """GPUs of each: 1 or 0."""
    feeders: int
    """CPUs that are left: as many processes may decode and as many write. Ray sets none aside for them: when a machine is lost,
    its workers start anew on the others' last CPUs, and everything would wait for decoding, which waited for a CPU."""

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"


def plan_pool(nodes: Sequence[Node], workers: int | None = None, device: str | None = None) -> Pool:
    """A worker for each GPU, or where there is none for every 4 CPUs; one CPU of each node is kept for decoding and writing.

    With `workers` given, each has as many threads as the nodes can hold. Raises UsageError for more than they can hold.
    """
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"--device {device}: the ray engine takes cpu or cuda; on a cluster Ray says which GPU")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: expected 1 or more")
    cpus = sum(node.cpus for node in nodes)
    gpus = sum(min(node.gpus, node.cpus - 1) for node in nodes if node.gpus)
    if device == "cuda" or (device is None and gpus > 0):
        if gpus < (workers or 1):
            raise UsageError(
                f"--workers {workers or 1} with --device cuda: the cluster can use {gpus} GPUs (each needs a CPU, and each node one more)"
            )
        return Pool(workers or gpus, 1, 1, cpus - (workers or gpus))

    def capacity(threads: int) -> int:
        return sum(max(0, node.cpus - 1) // threads for node in nodes)

    most = max(node.cpus for node in nodes) - 1
    if capacity(1) < (workers or 1):
        listed = ", ".join(str(node.cpus) for node in nodes)
        raise UsageError(
            f"--workers {workers or 1}: the cluster can hold {capacity(1)} (CPUs of its nodes: {listed}; "
            "one of each is kept for decoding); ask for fewer or take --engine local"
        )
    if workers is None:
        threads = min(THREADS, most)
        workers = capacity(threads)
    else:
        threads = max(threads for threads in range(1, most + 1) if capacity(threads) >= workers)
    return Pool(workers, threads, 0, cpus - workers * threads)
