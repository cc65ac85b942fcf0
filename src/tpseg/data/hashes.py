"""The files of a data set as hashes: written beside a model, so that an evaluation can tell what the model has seen."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tpseg.core.errors import DataError, few

if TYPE_CHECKING:
    from tpseg.data.manifest import Case

COLUMNS = ("task", "split", "image_sha256", "mask_sha256")
MAX_WORKERS = 4
"""Threads that read; hashing leaves Python's lock."""
CHUNK = 1 << 20
"""Bytes of a file in memory at a time, per thread."""
LEARNED = {"train": "trained on", "val": "picked by"}
"""What seeing a split did to a model."""


@dataclass(frozen=True)
class CaseHashes:
    """One case of a data set without its names, which may say more of a patient than a model should."""

    task: str
    split: str
    image: str
    """SHA-256 of the file's bytes, hexadecimal; '' for a file that is missing."""
    mask: str


@dataclass(frozen=True)
class Comparison:
    """What a model's record says of the images it is scored on."""

    seen: dict[str, list[str]] = field(default_factory=dict)
    """The images that were in the model's `train` or `val` split, as `TASK NAME`; only splits with such images."""
    warnings: list[str] = field(default_factory=list)
    """Sentences on them: the scores are too good."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what else is to be known: the split has changed, or nothing is recorded."""


def hash_files(paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each file's bytes, hexadecimal, every file read once; '' for one that is missing."""
    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        return dict(zip(unique, pool.map(_hash_file, unique), strict=True))


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def total_sha256(cases: Sequence[Case], hashes: Mapping[Path, str]) -> str:
    """One hash over names, splits and the content of every image and mask, in order."""
    digest = hashlib.sha256()
    for case in cases:
        digest.update(f"{case.task}\0{case.name}\0{case.split}\0".encode())
        for path in (case.image, case.mask):
            digest.update(bytes.fromhex(hashes[path]) or b"missing")
    return digest.hexdigest()


def write_record(cases: Sequence[Case], hashes: Mapping[Path, str]) -> str:
    """The text of a model's `data.csv`: a row per case, in order, with its task, its split and the hashes of its files."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((case.task, case.split, hashes[case.image], hashes[case.mask]) for case in cases)
    return text.getvalue()


def read_record(text: str) -> list[CaseHashes]:
    """The cases of a `data.csv`; raises DataError for a text that write_record did not write."""
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or tuple(rows[0]) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise DataError(f"data.csv of the model: expected a table with the columns {', '.join(COLUMNS)}; take it from the original model")
    return [CaseHashes(*row) for row in rows[1:]]


def compare_with_record(cases: Sequence[Case], split: str, record: Sequence[CaseHashes]) -> Comparison:
    """What the record of a model's data says of the cases of a split, found by content, whatever the files are called.

    The split counts as unchanged if it has the same images and masks; the other splits are not read.
    """
    hashes = hash_files(path for case in cases for path in (case.image, case.mask))
    seen = {}
    for learned in LEARNED:
        known = {one.image for one in record if one.split == learned and one.image}
        seen[learned] = [f"{case.task} {case.name}" for case in cases if hashes[case.image] in known]
    seen = {learned: names for learned, names in seen.items() if names}
    warnings = [
        f"{len(names)} of {len(cases)} {split} images are among those the model was {LEARNED[learned]}, so these scores are too good: "
        f"{few(names)}"
        for learned, names in seen.items()
    ]
    tasks = {case.task for case in cases}
    now = {(hashes[case.image], hashes[case.mask]) for case in cases}
    then = {(one.image, one.mask) for one in record if one.split == split and one.task in tasks}
    return Comparison(seen, warnings, _changes(now, then, split))


def _changes(now: set[tuple[str, str]], then: set[tuple[str, str]], split: str) -> list[str]:
    """A sentence on how a split differs from the one of the training's data set, or none. Pairs of image and mask."""
    images, old_images = ({image for image, _ in pairs} for pairs in (now, then))
    if not images & old_images:
        return [f"another data set than in training: none of these images was in its {split} split"]
    counts = {
        "images are new": len(images - old_images),
        "images are gone": len(old_images - images),
        "images have another mask": len({image for image, _ in now - then} & old_images),
    }
    changed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return [f"the {split} split has changed since training: {changed}"] if changed else []
