"""What is wrong with a data set: every file decoded once, then a report that says what to mend."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import fmean, median
from typing import TypeVar

import numpy as np

from tpseg.core.errors import DataError, few
from tpseg.data.manifest import SPLITS, Case, DataSet
from tpseg.data.quality.check_report import CheckReport, Problem, TaskCounts
from tpseg.data.quality.near_duplicates import BITS, nearest_elsewhere, perceptual_hash
from tpseg.imaging.pictures.formats import open_image, to_mask, to_rgb

MAX_WORKERS = 4
"""Threads that decode; memory is bounded by this many images, for only numbers are kept of each."""
UNBALANCED = 10
"""Tasks whose train counts differ by more than this factor are pointed out."""


@dataclass(frozen=True)
class _Facts:
    """What decoding one file told; `size` is (height, width), or None if it could not be decoded."""

    size: tuple[int, int] | None = None
    fault: str = ""
    fault_kind: str = ""
    digest: str = ""
    look: np.ndarray | None = None
    """Perceptual hash, (BITS,) bool."""
    constant: bool = False
    share: float | None = None
    note: str = ""


@dataclass(frozen=True)
class _Seen:
    """A case, what its files hold, and how they are named in the report."""

    case: Case
    image: _Facts
    mask: _Facts
    image_name: str
    mask_name: str

    def problem(self, level: str, kind: str, message: str, file: str = "") -> Problem:
        """A problem of this case's image, or of the file named."""
        return Problem(level, kind, self.case.task, file or self.image_name, message)


_Item = TypeVar("_Item")
_Job = tuple[Callable[[Path], _Facts], Path]


def check_dataset(data: DataSet, progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Decode every image and mask of a data set once and report what would hurt training or the results.

    `progress` is called with the number of files done and the number in all. Raises nothing for bad files: they are
    what the report is about.
    """
    facts = _decode(data.cases, progress)
    root = data.source.parent
    seen = [
        _Seen(case, facts[_image_facts, case.image], facts[_mask_facts, case.mask], _shown(case.image, root), _shown(case.mask, root))
        for case in data.cases
    ]
    by_task = {name: [item for item in seen if item.case.task == name] for name in data.tasks.names}
    tasks = {name: _count(items) for name, items in by_task.items()}
    problems = [problem for item in seen for problem in _file_problems(item)]
    for name, items in by_task.items():
        problems += [*_empty_masks(name, items), *_listed_twice(items), *_split_groups(items), *_name_clashes(items)]
    problems += [*_duplicates(seen), *_near_duplicates(seen), *_empty_splits(tasks), *_balance(tasks), *_task_names(data.tasks.names)]
    return CheckReport(str(data.source), tasks, sorted(dict.fromkeys(problems), key=lambda problem: problem.level != "error"))


def _decode(cases: Sequence[Case], progress: Callable[[int, int], None] | None) -> dict[_Job, _Facts]:
    """Look at each file once, however many cases name it; a few threads, for decoding leaves Python's lock."""
    jobs = list(dict.fromkeys(job for case in cases for job in ((_image_facts, case.image), (_mask_facts, case.mask))))
    facts: dict[_Job, _Facts] = {}
    pool = ThreadPoolExecutor(max_workers=min(MAX_WORKERS, os.cpu_count() or 1))
    try:
        for job, found in zip(jobs, pool.map(lambda job: job[0](job[1]), jobs), strict=True):
            facts[job] = found
            if progress:
                progress(len(facts), len(jobs))
    finally:  # an interrupt must not wait for the files still queued
        pool.shutdown(cancel_futures=True)
    return facts


def _image_facts(path: Path) -> _Facts:
    try:
        image = open_image(path)
    except DataError as error:
        return _undecoded(path, error)
    size = (image.height, image.width)
    try:
        pixels = to_rgb(image, str(path))
    except DataError as error:
        return _Facts(size, _without_path(error, path), "image values")
    digest = hashlib.sha256(f"{size}".encode() + pixels.tobytes()).hexdigest()
    return _Facts(size, digest=digest, look=perceptual_hash(pixels), constant=bool((pixels == pixels[0, 0]).all()))


def _mask_facts(path: Path) -> _Facts:
    try:
        image = open_image(path)
    except DataError as error:
        return _undecoded(path, error)
    size = (image.height, image.width)
    try:
        reading = to_mask(image, path)
    except DataError as error:
        return _Facts(size, _without_path(error, path), "mask values")
    return _Facts(size, share=float(reading.mask.mean()), note=reading.note)


def _undecoded(path: Path, error: DataError) -> _Facts:
    return _Facts(fault=_without_path(error, path), fault_kind="unreadable file" if path.exists() else "missing file")


def _without_path(error: DataError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _count(items: Sequence[_Seen]) -> TaskCounts:
    splits = Counter(item.case.split for item in items)
    sizes = [item.image.size for item in items if item.image.size]
    shares = [item.mask.share for item in items if item.mask.share is not None]
    return TaskCounts(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        empty_masks=shares.count(0.0),
        median_height=float(median(size[0] for size in sizes)) if sizes else None,
        median_width=float(median(size[1] for size in sizes)) if sizes else None,
        mean_lesion_share=fmean(shares) if shares else None,
    )


def _file_problems(item: _Seen) -> Iterator[Problem]:
    """What one image and its mask show by themselves."""
    for facts, name in ((item.image, item.image_name), (item.mask, item.mask_name)):
        if facts.fault:
            yield item.problem("error", facts.fault_kind, facts.fault, name)
    if item.image.size and item.mask.size and item.image.size != item.mask.size:
        (height, width), (mask_height, mask_width) = item.image.size, item.mask.size
        turned = "; the image is turned by its EXIF tag: turn the mask alike" if (height, width) == (mask_width, mask_height) else ""
        yield item.problem(
            "error",
            "size mismatch",
            f"image {width}x{height}, mask {item.mask_name} {mask_width}x{mask_height}; is it this image's mask{turned or '?'}",
        )
    if item.image.constant:
        yield item.problem("warning", "constant image", "every pixel is the same; leave the case out or export the image again")
    if item.mask.note:
        message = f"read as a mask all the same ({item.mask.note}); to be sure, save it as 8-bit grey PNG with 0 and 255"
        yield item.problem("warning", "mask format", message, item.mask_name)
    if item.mask.share == 1.0:
        yield item.problem("warning", "full mask", "all foreground; is it inverted, or is the lesion in another channel?", item.mask_name)


def _empty_masks(task: str, items: Sequence[_Seen]) -> Iterator[Problem]:
    empty = [item.mask_name for item in items if item.mask.share == 0.0]
    if empty:
        share = f"{len(empty)} of {len(items)} masks ({len(empty) / len(items):.1%}) hold no lesion: {few(empty)}"
        advice = "right if these images show none; protocols differ in how they score them"
        yield Problem("warning", "empty masks", task, "", f"{share}; {advice}")


def _listed_twice(items: Sequence[_Seen]) -> Iterator[Problem]:
    """Rows of one task that name the same image file."""
    for rows in _alike(items, lambda item: item.case.image):
        masks = list(dict.fromkeys(row.mask_name for row in rows))
        if len(masks) > 1:
            yield rows[0].problem("error", "two masks", f"listed with {len(masks)} masks: {few(masks)}; unite them into one, or drop rows")
        elif len({row.case.split for row in rows}) == 1:
            yield rows[0].problem("warning", "listed twice", f"{len(rows)} rows with the same mask; keep one")


def _duplicates(seen: Sequence[_Seen]) -> Iterator[Problem]:
    """The same decoded picture across splits, of any task, or twice in one split of a task.

    Constant images are left out: all of one size look alike.
    """
    for rows in _alike([item for item in seen if not item.image.constant], lambda item: item.image.digest or item.case.image):
        listed = few([f"{row.image_name} ({row.case.task}, {row.case.split})" for row in rows[1:]])
        if len({row.case.split for row in rows}) > 1:
            message = f"in {rows[0].case.split}, and the same picture again: {listed}; keep it in one split"
            yield rows[0].problem("error", "duplicate across splits", message)
            continue
        for alike in _alike(rows, lambda row: row.case.task):
            others = [name for name in dict.fromkeys(row.image_name for row in alike) if name != alike[0].image_name]
            if others:
                yield alike[0].problem("warning", "duplicate", f"the same picture as {few(others)}; keep one")


def _near_duplicates(seen: Sequence[_Seen]) -> Iterator[Problem]:
    """Images that look almost like one of another split: for each of val and test the nearest one of a split before it.

    What other problems tell of is left out: the same picture again, one group in two splits.
    """
    items = [item for item in seen if item.image.look is not None and not item.image.constant]
    looks = np.array([item.image.look for item in items]).reshape(-1, BITS)
    places = np.array([SPLITS.index(item.case.split) for item in items])
    same = [(item.image.digest, (item.case.task, item.case.group) if item.case.group else None) for item in items]
    for one, other, distance in nearest_elsewhere(looks, places):
        if any(a == b is not None for a, b in zip(same[one], same[other], strict=True)):
            continue
        like = f"{items[other].image_name} ({items[other].case.task}, {items[other].case.split})"
        yield items[one].problem(
            "warning",
            "near-duplicate across splits",
            f"in {items[one].case.split}, and almost the same as {like}: {distance} of {BITS} bits of their perceptual hashes differ; "
            "look at both, and if they are the same picture or neighbouring frames, give them one group or one split",
        )


def _split_groups(items: Sequence[_Seen]) -> Iterator[Problem]:
    for rows in _alike([item for item in items if item.case.group], lambda item: item.case.group):
        counts = Counter(row.case.split for row in rows)
        if len(counts) > 1:
            where = ", ".join(f"{split} ({count})" for split, count in counts.items())
            message = f"group '{rows[0].case.group}' is in {where}; give a group one split, or draw anew with 'tpseg data split'"
            yield rows[0].problem("error", "group across splits", message)


def _name_clashes(items: Sequence[_Seen]) -> Iterator[Problem]:
    """Images whose names differ only in suffix or case: what is written for one would overwrite the other's."""
    for rows in _alike(items, lambda item: str(PurePosixPath(item.case.name).with_suffix("")).casefold()):
        names = list(dict.fromkeys(row.image_name for row in rows))
        if len(names) > 1:
            yield rows[0].problem("warning", "name clash", f"differs only in suffix or case from {few(names[1:])}; rename one")


def _empty_splits(tasks: dict[str, TaskCounts]) -> Iterator[Problem]:
    use = {"train": "nothing to learn from", "val": "no epoch can be picked", "test": "no result can be reported"}
    for name, counts in tasks.items():
        for split in SPLITS:
            if not getattr(counts, split):
                level = "error" if split == "train" else "warning"
                yield Problem(
                    level, "empty split", name, "", f"no case has split '{split}': {use[split]}; draw one with 'tpseg data split'"
                )


def _balance(tasks: dict[str, TaskCounts]) -> Iterator[Problem]:
    trained = {name: counts.train for name, counts in tasks.items() if counts.train}
    if trained and max(trained.values()) > UNBALANCED * min(trained.values()):
        large, small = max(trained, key=trained.__getitem__), min(trained, key=trained.__getitem__)
        counts = f"{trained[large]} train cases of '{large}', {trained[small]} of '{small}'"
        advice = "the sampler draws all tasks equally often, so those few recur often: watch for overfitting"
        yield Problem("warning", "unbalanced tasks", "", "", f"{counts}; {advice}")


def _task_names(names: Sequence[str]) -> Iterator[Problem]:
    for alike in _alike(names, str.casefold):
        if len(alike) > 1:
            message = f"tasks {few(alike)} differ only in case; their folders would be one on Windows and macOS: rename one"
            yield Problem("warning", "name clash", "", "", message)


def _alike(items: Sequence[_Item], key: Callable[[_Item], Hashable]) -> list[list[_Item]]:
    """Lists of two or more items with equal keys, in order of first appearance."""
    groups: dict[Hashable, list[_Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return [group for group in groups.values() if len(group) > 1]
