"""Checkpoints on disk: the last, the one before it and the best, each written whole, with their SHA-256 in SHA256SUMS.

`sha256sum -c SHA256SUMS` checks them; `newest` does so before a run goes on from one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from tpseg.core.errors import DataError
from tpseg.core.files import file_sha256, replacing, write_atomically

LAST, PREVIOUS, BEST, SUMS = "last.ckpt", "previous.ckpt", "best.ckpt", "SHA256SUMS"
logger = logging.getLogger(__name__)


class Hashed:
    """A file to write to, and the SHA-256 of what was meant to be written, whatever the disk makes of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.hash = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """PyTorch calls this from C++, where an error would end the process: it is kept, and raised by `check`."""
        if self.error is None:
            self.hash.update(data)
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        self.file.flush()

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def write_checkpoint(content: dict[str, Any], path: Path, best: bool = False) -> None:
    """Write a checkpoint into its folder; one in the place of last.ckpt becomes previous.ckpt. best: it is best.ckpt as well.

    The sums are written first, with those of the files that are about to be renamed: a file is whole if any line has its
    sum, so that at each moment there is one that is whole and known to be. Raises OSError for a disk that is full or gone.
    """
    folder = path.parent
    with replacing(path, durable=True) as new:
        try:
            with new.open("wb", buffering=0) as file:
                hashed = Hashed(file)
                torch.save(content, hashed)  # type: ignore[arg-type]
                hashed.check()
        except OSError as error:
            error.filename = error.filename or str(path)
            raise
        sums = read_sums(folder)
        if path.name == LAST and path.is_file():
            sums[PREVIOUS] = sums[LAST] if LAST in sums else file_sha256(path)
        sums[path.name] = hashed.hash.hexdigest()
        if best:  # before it is the last: a run that is killed in between does this epoch again
            sums[BEST] = sums[path.name]
            _give_name(new, folder / BEST)
        write_atomically(folder / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(sums.items())), durable=True)
        if path.name == LAST and path.is_file():
            os.replace(path, folder / PREVIOUS)


def _give_name(path: Path, name: Path) -> None:
    """A second name for a file, or a copy where the disk has no second names."""
    with replacing(name) as new:
        try:
            os.link(path, new)
        except OSError:
            shutil.copyfile(path, new)


def read_sums(folder: Path) -> dict[str, str]:
    """SHA-256 by name of file; lines that are none are left out."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    return {name: value for value, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)}


@dataclass(frozen=True)
class Place:
    """Where in its course a run was saved, and so where it goes on."""

    epoch: int
    """From 0."""
    batches: int
    """Of that epoch that are done."""
    step: int
    """Optimiser steps that are done."""
    finished: bool
    """The run has come to its end: its epochs, its steps, or early stopping."""


def newest(folder: Path) -> tuple[Path, Place] | None:
    """The newest checkpoint of a run that is whole, under the name last.ckpt; None if there is none yet.

    A last one that is damaged gives way to the one before it, with a warning. Raises DataError if both are damaged.
    """
    if not folder.is_dir():
        return None
    known = set(read_sums(folder).values())
    reasons: list[str] = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        place = _place(path, known)
        if isinstance(place, Place):
            if name == PREVIOUS:
                for reason in reasons:
                    logger.warning("%s; going on from the checkpoint before it, of step %d", reason, place.step)
                os.replace(path, folder / LAST)  # what is damaged must not be kept as the one before the next
            return folder / LAST, place
        reasons.append(place)
    if reasons:
        raise DataError(f"{'; '.join(reasons)}; start again with another --out. RUN/model, if there is one, is the best model so far")
    return None


def _place(path: Path, known: set[str]) -> Place | str:
    """Where a checkpoint goes on, or what is wrong with it. known: sums; none of them for one that an older tpseg wrote."""
    if known and file_sha256(path) not in known:
        return f"{path} is damaged: its SHA-256 is not in {path.parent / SUMS}"
    try:
        content = torch.load(path, weights_only=True, mmap=True)
        saved = content["callbacks"].get("Saving")
        epoch, step = int(content["epoch"]), int(content["global_step"])
    except Exception as error:  # what is wrong with a file, PyTorch says in errors of many kinds
        return f"{path} cannot be read as a checkpoint ({type(error).__name__})"
    if saved is None:  # written at the end of an epoch by an older tpseg
        return Place(epoch + 1, 0, step, False)
    return Place(saved["epoch"], saved["batches"], step, saved["finished"])
