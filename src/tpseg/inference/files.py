"""`predict_files`: scans stream through reading, the network and writing; what is read ahead and not yet written is bounded."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tpseg.core.errors import UsageError
from tpseg.core.prefetch import THREADS, ahead
from tpseg.core.tasks import AUTO, TaskSet
from tpseg.imaging.reading.opening import Found, find_in_folder, name_of, suffix_of
from tpseg.imaging.reading.windows import parse_window
from tpseg.imaging.writing.results import ENDINGS, SUFFIXES, Wanted
from tpseg.inference.jobs import Failure, Job, Piece, Plan, open_job
from tpseg.inference.observer import Observer
from tpseg.inference.segmenter import Answer, Segmenter
from tpseg.inference.tally import Tally

log = logging.getLogger(__name__)

SMALLEST_TILE = 32
LONGEST_NAME = 220
"""Bytes of what a scan's results are called; disks allow 255, of which `00001_` and `_probability.nii.gz` may take 25."""
MANY_TIMES = 8
"""An image whose shorter side is more than so many times the network's loses what is small when it is shrunk."""
Watch = Callable[[int, int], None]
"""Gets the number of frames (or tiles) that are done and of those known of so far, an unopened file counting as one."""


def choose_tasks(tasks: TaskSet, task: str | None, all_tasks: bool) -> list[str]:
    """The tasks asked for, or `auto`; a model of one task needs no name. Raises UsageError if it is unclear."""
    if all_tasks:
        if task is not None:
            raise UsageError("--task and --all-tasks exclude each other; give one of them")
        return tasks.names
    if task == AUTO:
        return [AUTO]
    if task is None and len(tasks) > 1:
        raise UsageError(f"which task? Give --task NAME or --all-tasks (tasks: {', '.join(tasks.names)})")
    return [tasks[tasks.id(task or tasks.names[0])].name]


def output_names(scans: Sequence[Found]) -> list[str]:
    """A name for each scan's results: its own; where these clash, with its folder and suffix, or else a number. Long ones are cut."""
    clashes = Counter(scan.name for scan in scans)
    names = [_cut(scan.name if clashes[scan.name] == 1 else _long_name(scan)) for scan in scans]
    results = [f"{name}{ending}" for name in names for ending in ENDINGS]
    if len(set(results)) < len(results):
        names = [f"{number:05d}_{_cut(scan.name)}" for number, scan in enumerate(scans)]
    return names


def _cut(name: str) -> str:
    """A name that its results have room for beside what they add; what is cut off is told apart by a hash."""
    code = os.fsencode(name)
    if len(code) <= LONGEST_NAME:
        return name
    mark = f"_{hashlib.sha256(code).hexdigest()[:8]}"
    return code[: LONGEST_NAME - len(mark)].decode(errors="ignore") + mark


def _long_name(scan: Found) -> str:
    return "_".join(
        [scan.path.absolute().parent.name, scan.name, *([] if scan.path.is_dir() else [suffix_of(scan.path)[1:].replace(".", "_")])]
    )


def refuse_overwriting(scans: Sequence[Found], names: Sequence[str], plan: Plan) -> None:
    """Raise UsageError if a result could take the place of a file that is to be segmented."""
    places = {folder.resolve() for folder in (plan.out, *plan.folders.values())}
    files = {f"{name}{ending}" for name in names for ending in ENDINGS}
    folders = files if plan.wanted.png else {f"{name}{ending}" for name in names for ending in ENDINGS if ending}
    for scan in scans:
        for file in scan.files:
            where = file.resolve()
            taken = where.parent in places and _result_stem(where) in files
            if taken or any(folder.parent in places and folder.name in folders for folder in where.parents):
                raise UsageError(f"{file}: would be overwritten by a mask; choose another --out than {plan.out}")
        if scan.path.is_dir() and any(scan.path.resolve() in (place, *place.parents) for place in places):
            raise UsageError(f"{scan.path}: is the folder of a series, where its masks would be taken for images; choose another --out")


def _result_stem(path: Path) -> str | None:
    """The name of a file without its suffix, if it has one of those that results have."""
    return next((path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def as_found(file: Found | Path) -> list[Found]:
    if isinstance(file, Found):
        return [file]
    return find_in_folder(file) if file.is_dir() else [Found(file, (file,), name_of(file))]


def predict_files(
    segmenter: Segmenter,
    files: Sequence[Found | Path],
    tasks: Sequence[str],
    out: Path,
    *,
    probability: bool = False,
    overlay: bool = False,
    report: bool = False,
    png: bool = False,
    window: str | None = None,
    axis: str = "",
    tile: int | None = None,
    batch_size: int = 8,
    observer: Observer | None = None,
    tally: Tally | None = None,
    watch: Watch = lambda done, total: None,
) -> Iterator[Path | Failure]:
    """Segment files and folders for one or several tasks into `out`; yields each scan's path when it is done, or its Failure.

    Each scan becomes NAME of its own kind: PNG for a picture, NIfTI (`.nii.gz`), NRRD, MetaImage (`.mha`), a DICOM SEG (`.dcm`,
    a segment per task), a lossless video of masks (`.mkv`); PNG for all with `png`. With several tasks all but DICOM lie in a
    folder per task. On request `NAME_probability` (16-bit PNG, 65535 = 1; volumes float32 in their own format),
    `NAME_overlay` (PNG, a folder of PNGs for more than one frame, MP4 for a video) and `NAME_report.dcm`, the measurements of a
    DICOM scan. window, axis: as open_scan takes them; None for each task's own window. tile: cut frames into tiles of so many
    pixels and blend them. observer: sees each scan first; with one that chooses, the only task may be `auto`, the one that each
    scan looks most like, and a scan that looks like none is Declined. It sees what the network says too, and the masks before they are
    written. tally: counts what was found and names what was written.

    A bad file is reported and skipped. Files are read and written in threads while the network computes; about 3 · batch_size
    frames are in memory at a time, and of volumes and DICOM scans the masks, one byte a pixel, frame and task. Raises UsageError
    if a result would take the place of an image, or for settings that no file could be segmented with.
    """
    known = tasks
    if AUTO in tasks:
        if observer is None or not observer.chooses or len(tasks) > 1:
            raise UsageError("task 'auto' stands alone, and needs an observer that chooses: that of a calibrated model")
        known = segmenter.tasks.names
    for task in known:
        segmenter.tasks.id(task)
    if batch_size < 1:
        raise UsageError(f"batch size: found {batch_size}, expected 1 or more")
    if tile is not None and tile < SMALLEST_TILE:
        raise UsageError(f"--tile {tile}: expected {SMALLEST_TILE} pixels or more")
    if report and png:
        raise UsageError("--sr and --format png exclude each other: the report refers to the DICOM segmentation; leave one out")
    if window:
        parse_window(window)
    scans = [scan for file in files for scan in as_found(file)]
    folders = {task: out / task if len(tasks) > 1 else out for task in known}
    wanted = Wanted(probability, overlay, report, png)
    plan = Plan(segmenter, tasks, out, folders, wanted, window, axis, tile, observer, tally)
    names = output_names(scans)
    refuse_overwriting(scans, names, plan)
    for scan, name in zip(scans, names, strict=True):
        if len(os.fsencode(scan.name)) > LONGEST_NAME:
            log.warning(f"{scan.path}: its results have no room for so long a name; they are called {name}")
    return _stream(scans, names, plan, batch_size, watch)


def _stream(scans: Sequence[Found], names: Sequence[str], plan: Plan, batch_size: int, watch: Watch) -> Iterator[Path | Failure]:
    """Scans to their ends, in order: opened, loaded and answered in threads, put together and finished in one more."""
    opened: set[Job] = set()
    total, done = len(scans), 0

    def start(at: int) -> Job:
        job = open_job(scans[at], names[at], plan)
        opened.add(job)
        return job

    def pieces(jobs: Iterator[Job]) -> Iterator[Piece]:
        nonlocal total
        for job in jobs:
            total += job.count() - 1
            yield from job.pieces()

    def load(piece: Piece) -> Piece:
        piece.job.load(piece)
        return piece

    def segment(loaded: Iterator[Piece]) -> Iterator[tuple[Piece, list[Answer]]]:
        side, hinted = plan.segmenter.image_size, False
        while batch := list(islice(loaded, max(1, batch_size // len(plan.tasks)))):
            answers = plan.segmenter.answers(
                (piece.loaded for piece in batch if piece.loaded is not None), [piece.tasks for piece in batch if piece.tasks], batch_size
            )
            for piece in batch:
                if not hinted and is_large(piece):
                    hinted = True
                    log.warning(
                        f"{piece.job.found.path}: is shown to the model at {side}x{side} pixels, where small lesions vanish; "
                        "--tile N segments it in tiles of N pixels"
                    )
                yield piece, list(islice(answers, len(piece.tasks)))

    def record(answered: tuple[Piece, list[Answer]]) -> Piece:
        piece, answers = answered
        piece.job.record(piece, answers)
        return piece

    def settle(piece: Piece) -> Path | Failure | None:
        result = piece.job.settle(piece)
        if result is not None:
            opened.discard(piece.job)
        return result

    try:
        with ThreadPoolExecutor(THREADS) as pool, ThreadPoolExecutor(1) as ending:
            jobs = ahead(pool, start, range(len(scans)), THREADS)
            answered = segment(ahead(pool, load, pieces(jobs), 2 * batch_size))
            for result in ahead(ending, settle, ahead(pool, record, answered, batch_size), batch_size):
                done += 1
                watch(done, total)
                if result is not None:
                    yield result
    finally:
        for job in opened:
            job.cancel()


def is_large(piece: Piece) -> bool:
    """Whether much of a frame is lost when it is shrunk to the network's size."""
    return (
        piece.loaded is not None and piece.frame is None and min(piece.loaded.image.shape[:2]) > MANY_TIMES * piece.loaded.pixels.shape[-1]
    )
