"""zip, rar and tar by one interface, each member looked at before anything of it is unpacked."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import re
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import rarfile

from tpseg.core.errors import DataError
from tpseg.core.untrusted import short

SUFFIXES = (".zip", ".rar", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
RATIO = 100
"""An archive or a member that unpacks to more than so many times its size is a bomb, not a data set."""
UNSUSPECTED = 10_000_000
"""Bytes that may come of any archive or member: small text and empty masks shrink a thousandfold."""
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How a zip may pack its members: zipfile unpacks the other ways (bzip2, LZMA) at once, to whatever size comes of it."""
DAMAGED = (
    zipfile.BadZipFile, rarfile.Error, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error,
    EOFError, OSError, ValueError, IndexError, OverflowError, MemoryError,
)  # fmt: skip
"""What the libraries raise for damaged archives."""
ITS_OWN_FAULT = (None, errno.EINVAL, errno.ENAMETOOLONG)
"""Numbers of an OSError that come from what an archive says: a place before its beginning, a name that no disk takes."""


@dataclass(frozen=True)
class Entry:
    """A file in an archive."""

    name: str
    """Relative path with '/', checked to stay inside."""
    size: int
    """Unpacked."""
    checksum: int | None
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class _Listed:
    """A member as a library lists it."""

    name: str
    size: int
    packed: int
    checksum: int | None
    fault: str
    """'a link', 'encrypted', how it is packed if it may not be, or '' for a plain file."""
    open: Callable[[], IO[bytes]]


class Budget:
    """How much an archive may unpack to, those inside it included."""

    def __init__(self, shown: str, size: int) -> None:
        self.shown = shown
        self.left = max(UNSUSPECTED, RATIO * size)

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise DataError(f"{self.shown}: unpacks to more than {RATIO} times its size; if you trust it, unpack it and give the folder")


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def archive_stem(name: str) -> str:
    """The archive's name without its suffix: the folder that people unpack it into."""
    return name[: -max(len(suffix) for suffix in SUFFIXES if name.lower().endswith(suffix))]


def open_archive(path: Path, shown: str, stack: ExitStack, scratch: Callable[[], Path], budget: Budget) -> Iterator[Entry]:
    """The files of an archive, which stays open until `stack` closes; see Release for what is refused.

    `shown` is its name in messages; a compressed tar is unpacked into `scratch()`, for it cannot be read but from its beginning.
    """
    name = path.name.lower()
    with reading(shown):
        listed = (_zip if name.endswith(".zip") else _rar if name.endswith(".rar") else _tar)(path, shown, stack, scratch, budget)
        for one in listed:
            inside = _safe_name(one.name, shown)
            if one.fault:
                raise DataError(f"{shown}: {inside} is {one.fault}; unpack the archive and give the folder")
            if one.size > UNSUSPECTED and one.size > RATIO * one.packed:
                raise DataError(
                    f"{shown}: {inside} unpacks from {one.packed:,} to {one.size:,} bytes, more than {RATIO} times; "
                    "if you trust it, unpack it and give the folder"
                )
            budget.spend(one.size)
            yield Entry(inside, one.size, one.checksum, one.open)


@contextmanager
def reading(shown: str) -> Iterator[None]:
    """Turn what the libraries raise into one sentence."""
    try:
        yield
    except DataError:
        raise
    except rarfile.RarCannotExec as error:
        raise DataError(
            f"{shown}: a compressed rar needs a program to unpack it, and there is none; install unrar, unar or bsdtar, "
            "or unpack it yourself and give the folder"
        ) from error
    except RuntimeError as error:  # zipfile's word for a password, which is no subclass; NotImplementedError is one
        why = "encrypted" if "password" in str(error) else f"packed in a way that cannot be read ({error})"
        raise DataError(f"{shown}: {why}; unpack it yourself and give the folder") from error
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno not in ITS_OWN_FAULT:  # the disk's fault, not the archive's
            raise
        told = (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{shown}: damaged or no archive ({told}); download it again") from error


def _safe_name(name: str, shown: str) -> str:
    """A member's path with '/'; raises DataError for one that leads out of the folder it is unpacked in."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", str(path)) or not path.parts or "\0" in name:
        raise DataError(f"{shown}: holds a file named {short(name)}, which leads out of the folder; such an archive is not to be trusted")
    return str(path)


def _zip(path: Path, shown: str, stack: ExitStack, scratch: Callable[[], Path], budget: Budget) -> Iterator[_Listed]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for info in archive.infolist():
        if info.is_dir():
            continue
        fault = "a link" if stat.S_ISLNK(info.external_attr >> 16) else "encrypted" if info.flag_bits & 1 else ""
        if not fault and info.compress_type not in BOUNDED:
            fault = "packed with bzip2, LZMA or the like, not deflated"
        yield _Listed(info.filename, info.file_size, info.compress_size, info.CRC, fault, lambda info=info: archive.open(info))  # type: ignore[misc]


def _rar(path: Path, shown: str, stack: ExitStack, scratch: Callable[[], Path], budget: Budget) -> Iterator[_Listed]:
    try:
        archive = stack.enter_context(rarfile.RarFile(path))
    except rarfile.NeedFirstVolume:
        return  # a later part: the first one lists everything
    if archive.needs_password() and not archive.infolist():
        raise DataError(f"{shown}: encrypted; unpack it yourself and give the folder")
    for info in archive.infolist():
        if info.is_dir():
            continue
        fault = "a link" if info.is_symlink() else "encrypted" if info.needs_password() else ""
        yield _Listed(info.filename, info.file_size, info.compress_size, info.CRC, fault, lambda info=info: archive.open(info))  # type: ignore[misc]


def _tar(path: Path, shown: str, stack: ExitStack, scratch: Callable[[], Path], budget: Budget) -> Iterator[_Listed]:
    plain = path if path.name.lower().endswith(".tar") else _decompress(path, shown, scratch())
    archive = stack.enter_context(tarfile.TarFile(plain))
    for member in archive:
        if member.isdir():
            continue
        fault = "" if member.isreg() else "a link or a device"
        yield _Listed(member.name, member.size, member.size, None, fault, lambda member=member: _of_tar(archive, member))  # type: ignore[misc]


def _of_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    assert stream is not None  # a plain file
    return stream


def _decompress(path: Path, shown: str, scratch: Path) -> Path:
    """The tar in a compressed one, which can be read in any order."""
    allowed = Budget(shown, path.stat().st_size)
    kinds: dict[str, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
        ".gz": gzip.GzipFile,
        ".tgz": gzip.GzipFile,
        ".bz2": bz2.BZ2File,
        ".xz": lzma.LZMAFile,
    }
    with kinds[path.suffix.lower()](path) as packed, tempfile.NamedTemporaryFile(dir=scratch, suffix=".tar", delete=False) as copy:
        while chunk := packed.read(1 << 20):
            allowed.spend(len(chunk))
            copy.write(chunk)
    return Path(copy.name)
