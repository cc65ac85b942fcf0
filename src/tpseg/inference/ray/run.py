"""The verb: find the images, leave out what is done, start Ray, stream the rest through the pipeline, list what failed."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tpseg.core.errors import DataError, UsageError, install
from tpseg.inference import Segmenter
from tpseg.inference.identity import identify
from tpseg.inference.ray.inputs import BY_IMAGE, assign_tasks, find_images, name_masks
from tpseg.inference.ray.manifest import KEY, Settings, open_manifest, read_manifest
from tpseg.inference.ray.pipeline import SEPARATOR, Worker, decode, model_sha256, write
from tpseg.inference.ray.pool import Node, Pool, plan_pool
from tpseg.inference.ray.store import Folder

Watch = Callable[[Iterable[str], int, str], Iterable[str]]
"""Gets the images as they are finished, their number and a word for what happens: a progress bar."""

BLOCK = 128
"""Images that are handed on together: as many are done anew when a worker is lost, and stand in a part of the manifest."""
BLOCKS_A_WORKER = 4
"""With fewer images than workers × this × BLOCK the blocks are smaller, so that every worker has something to do."""
CALLS = 1000
"""Blocks that a process decodes or writes before Ray replaces it: what a library forgets to free goes with it. That these
steps have an option that the worker has not also keeps Ray Data from fusing them with it, which would end their overlap."""

FAILURES = "failures.csv"


@dataclass(frozen=True)
class Report:
    """How a bulk run ended."""

    masks: int
    """Images times tasks that were asked for."""
    before: int
    """How many of these an earlier run had done."""
    failures: pd.DataFrame
    """Those without a mask: image, task, reason."""

    def __str__(self) -> str:
        before = f" ({self.before} were there before)" if self.before else ""
        return f"{self.masks - len(self.failures)} of {self.masks} masks{before}"

    def complaints(self, shown: int = 20) -> list[str]:
        """The first failures in a line each, and where the others are listed."""
        lines = [f"skipped: {reason}" for reason in self.failures["reason"].head(shown)]
        return lines + ([f"and {len(self.failures) - shown} more, listed in {FAILURES}"] if len(self.failures) > shown else [])


def pass_on(items: Iterable[str], total: int, description: str) -> Iterable[str]:
    return items


def predict_bulk(
    model: str,
    inputs: Sequence[str],
    out: str,
    *,
    task: str | None = None,
    all_tasks: bool = False,
    probability: bool = False,
    overlay: bool = False,
    weights: str | None = None,
    trust: bool = False,
    device: str | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    watch: Watch = pass_on,
) -> Report:
    """Segment the images that `inputs` stand for into the folder or URL `out`; goes on with an earlier run in it.

    model: a folder that every machine sees under the same path, or a hub id. trust: open a .pt2 file, which is a program, on each of
    the machines. address: of a Ray cluster; by default that of the environment variable RAY_ADDRESS, else this machine. A Ray that this
    process is connected to already is used and left running. retry_failed: try the images again that failed before. Writes the masks,
    `failures.csv` and `_manifest/`.

    Raises UsageError for settings that do not fit each other or the run in `out`, DataError if the run stops halfway.
    """
    require_ray()
    if batch_size < 1:
        raise UsageError(f"batch size: found {batch_size}, expected 1 or more")
    folder = Folder(out)
    model, weights = absolute(model), None if weights is None else absolute(weights)
    segmenter = Segmenter(model, device="cpu", weights=weights, trust=trust)
    known, size = segmenter.tasks, segmenter.image_size
    del segmenter  # it was loaded to find out whether it can be, before any machine is set to work
    sha256 = model_sha256(model)
    work, tasks = assign_tasks(find_images(inputs, folder), known, task, all_tasks)
    endings = [ending for ending, wanted in (("_probability", probability), ("_overlay", overlay)) if wanted]
    work = name_masks(work, folder, folder_per_task=work["task"].nunique() > 1 or tasks == BY_IMAGE, endings=endings)
    open_manifest(folder, Settings(sha256, tasks, probability, overlay))
    recorded = read_manifest(folder, endings)
    refuse_foreign(work, recorded)
    over = recorded if not retry_failed else recorded[recorded["error"] == ""]
    left = work[~in_keys(work, over)]
    if len(left):
        with connected(address):
            pool = plan_pool(cluster_nodes(), workers, device)
            worker = {
                "model": model,
                "sha256": sha256,
                "weights": weights,
                "trust": trust,
                "device": pool.device,
                "threads": pool.threads,
                "batch_size": batch_size,
            }
            named = identify(model).words if overlay else ""
            writing = {"out": folder.address(), "probability": probability, "overlay": overlay, "model": named}
            for _ in watch(stream(left, pool, size, batch_size, worker, writing), len(left), "segmenting"):
                pass
        recorded = read_manifest(folder, endings)
        if not in_keys(work, recorded).all():
            raise DataError(
                f"{folder.address()}: the manifest or files in it were removed during the run; the same command makes them anew"
            )
    failures = recorded[recorded["error"] != ""].rename(columns={"error": "reason"})[[*KEY, "reason"]]
    folder.put(FAILURES, failures.sort_values(KEY).to_csv(index=False).encode())
    done_before = int(in_keys(work, over[over["error"] == ""]).sum())
    return Report(len(work), done_before, failures[in_keys(failures, work)].reset_index(drop=True))


def require_ray() -> None:
    """Raises UsageError where Ray Data is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to Ray's makers unless a user wants it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its core writes to the terminal what is no error of the user's
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--engine ray needs Ray Data ({error}): {install('ray')}") from error
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that its progress bars are off
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)  # prints stack traces of what is raised anyway


def absolute(source: str) -> str:
    """A path that means the same in the processes of Ray, which have another working folder; a hub id as it is."""
    return str(Path(source).absolute()) if Path(source).exists() else source


def in_keys(rows: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Which of the rows have an image and task that the table lists (once), (N,) bool."""
    return (rows[KEY].merge(table[KEY], how="left", indicator=True)["_merge"] == "both").to_numpy()


def refuse_foreign(work: pd.DataFrame, recorded: pd.DataFrame) -> None:
    """Raise UsageError if a mask of this run would take the place of another image's."""
    both = work.merge(recorded[recorded["error"] == ""], on="mask", suffixes=("", "_before"))
    foreign = both[both["image"] != both["image_before"]]
    if not foreign.empty:
        image, mask, before = foreign[["image", "mask", "image_before"]].iloc[0]
        raise UsageError(f"{image}: its mask {mask} would take the place of that of {before}; choose another --out")


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray, for as long as the block lasts; raises UsageError if there is none at the address."""
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdigit() and "://" not in host:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for minutes
        if address is None:
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:  # a ConnectionError is an OSError
        raise UsageError(f"--address {address}: no Ray cluster answers there ({str(error).splitlines()[0]})") from error
    try:
        yield
    finally:
        ray.shutdown()


def cluster_nodes() -> list[Node]:
    """The machines that Ray has now."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in found]


def by_image(work: pd.DataFrame) -> pd.DataFrame:
    """A line for each image, as decode takes it: image, tasks, masks."""
    return work.groupby("image", sort=False).agg(tasks=("task", SEPARATOR.join), masks=("mask", SEPARATOR.join)).reset_index()


def stream(left: pd.DataFrame, pool: Pool, size: int, batch_size: int, worker: dict[str, Any], writing: dict[str, Any]) -> Iterator[str]:
    """Decode, segment and write; yields the image of each mask or failure once it is in the manifest.

    The three steps run at the same time. Ray Data keeps the rows between them in its object store and starts no more
    decoding while they fill half of it: that is the bound on memory, however many images there are. Raises DataError if
    a machine reports an error that is not one image's.
    """
    import ray.data
    from ray.exceptions import RayError

    images = by_image(left)
    block = max(batch_size, min(BLOCK, math.ceil(len(images) / (pool.workers * BLOCKS_A_WORKER))))
    table = pa.Table.from_pandas(images, preserve_index=False)
    data: Any = ray.data.from_arrow([table.slice(start, block) for start in range(0, len(images), block)])
    data.context.enable_progress_bars = False
    feeding: dict[str, Any] = {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(size=pool.feeders), "max_calls": CALLS}
    decoded = data.map_batches(decode, batch_size=batch_size, batch_format="numpy", fn_kwargs={"size": size}, **feeding)
    segmented = decoded.map_batches(
        Worker,
        batch_size=batch_size,
        batch_format="numpy",
        fn_constructor_kwargs=worker,
        num_cpus=pool.threads,
        num_gpus=pool.gpus,
        compute=ray.data.ActorPoolStrategy(size=pool.workers, max_tasks_in_flight_per_actor=2),
    )
    written = segmented.map_batches(write, batch_size=None, batch_format="numpy", fn_kwargs=writing, **feeding)
    try:
        for batch in written.iter_batches(batch_size=None, batch_format="numpy"):
            yield from batch["image"]
    except RayError as error:
        raise DataError(f"the run stopped ({cause(error)}); what is done stays, and the same command goes on from there") from error


def cause(error: BaseException) -> str:
    """The reason of an error that came from another machine: the end of its stack trace, without the error's class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^[\w.]*\b[A-Z]\w*(Error|Exception): ", "", lines[-1]) if lines else type(error).__name__
