"""Files and folders written whole or not at all: an error halfway, such as a full disk, leaves the old content."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Any

from tpseg.core.errors import DataError
from tpseg.core.untrusted import read_json

CHUNK = 1 << 20
"""Bytes of a file in memory at a time."""
LEFTOVER = re.compile(r"\.\d+\.(?P<name>.+?)(\.(?P<which>new|old))?")
"""Names of what is being written, beside its place: a process number and the name; of a folder also whether it comes or goes."""
EVERY_FILE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ENOENT, errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.ENODEV, errno.EHOSTDOWN, errno.ETIMEDOUT),
)
"""Numbers of errors that the next file in the same place would meet too: a full disk, a folder without permission, a share that is gone."""
SHOWN = 40
"""Letters of a name that a file has while it is written, its suffix among them, by which writers go."""


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """A new file to write; it takes the place of `path` when the block ends without an error.

    durable: wait until the disk has it, so that a power cut too leaves the old file or the new one. A name that is too long is
    refused before the block begins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.lstat()
    new = path.with_name(passing_name(path.name))
    try:
        yield new
        follow_umask(new)
        if durable:
            sync(new)
        os.replace(new, path)
        if durable:
            sync(path.parent)
    finally:
        new.unlink(missing_ok=True)


def passing_name(name: str) -> str:
    """What a file is called while it is written: by a hash of its name and its end, no longer where that is as long as may be."""
    return f".{os.getpid()}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}.{name[-SHOWN:]}"


def follow_umask(path: Path) -> None:
    """Let those read a new file, or the files in a new folder, who may read any other new one: safetensors' are its owner's alone."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    private = [file for file in files if not stat.S_IMODE(file.stat().st_mode) & 0o077]
    if not private or os.name == "nt":
        return
    probe = path.with_name(f".{os.getpid()}.{get_ident()}.mode")  # the process's umask cannot be asked for without being changed
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in private:
        file.chmod(mode)


def write_atomically(path: Path, text: str, durable: bool = False) -> None:
    """Write a text file through `replacing`."""
    with replacing(path, durable) as new:
        new.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or the names in a folder."""
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing_folder(folder: Path, durable: bool = False) -> Iterator[Path]:
    """A new folder to fill; it takes the place of `folder` when the block ends without an error.

    A process killed between the two renames leaves no `folder`, but what it was: `tidy` puts that back. durable: as of `replacing`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (folder.with_name(f".{os.getpid()}.{folder.name}.{which}") for which in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)  # left behind by a process that was killed and had the same number
    new.mkdir()
    try:
        yield new
        follow_umask(new)
        if durable:
            for path in (*new.iterdir(), new):
                sync(path)
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
        if durable:
            sync(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def tidy(folder: Path) -> None:
    """Remove what processes that were killed left half-written in a folder, and put back a folder that one was about to replace.

    To be called where no other process writes into the folder.
    """
    for path in sorted(folder.iterdir()):
        found = LEFTOVER.fullmatch(path.name)
        if found is None:
            continue
        place = folder / found["name"]
        if found["which"] == "old" and not place.exists():
            os.rename(path, place)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def ends_all(error: OSError) -> bool:
    """Whether the next file in the same place would fare no better than the one of this error."""
    return error.errno in EVERY_FILE


def why_not_written(error: OSError) -> str:
    """What the operating system said of a file, in a clause for people: `RUN/x.csv: the disk is full (0 MB free)`."""
    name = str(error.filename2 or error.filename or "")
    where = f"{name}: " if name else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full, or your quota used up{_room(Path(name))}; free some space"
    if error.errno == errno.ENAMETOOLONG:
        return f"the name is too long for this disk ({Path(name).name[:SHOWN]}...): {len(os.fsencode(Path(name).name))} bytes; shorten it"
    if error.errno in (errno.EINVAL, errno.EILSEQ):
        return f"{where}this disk does not take the name, or what is written ({error.strerror}); rename it, or choose another place"
    if error.errno == errno.EFBIG:
        return f"{where}the file may not grow so large here (a limit of the file system or of ulimit -f); choose another place"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{where}may not be written ({error.strerror}); choose another place, or have its permissions changed"
    if error.errno in (errno.ENOENT, errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.ENODEV, errno.EHOSTDOWN, errno.ETIMEDOUT):
        return f"{where}cannot be reached ({error.strerror}); is a network share or a disk gone?"
    return str(error)


def _room(path: Path) -> str:
    """` (12 MB free)` on the disk of a file, or nothing if that is gone."""
    try:
        return f" ({shutil.disk_usage(path.parent).free // 10**6} MB free)"
    except OSError:
        return ""


def read_json_object(path: Path, refusal: str) -> dict[str, Any]:
    """A JSON object; raises DataError with the words of `refusal` for a file that is damaged or holds something else."""
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {refusal} ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: {refusal} (found {type(content).__name__})")
    return content
