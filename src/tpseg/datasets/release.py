"""A download as it is: a folder, an archive, or a folder of archives, read as one tree of files, nothing unpacked beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO

from typing_extensions import Self

from tpseg.core.errors import DataError, nearest
from tpseg.data.left_out import LeftOut
from tpseg.datasets.archives import SUFFIXES, Budget, Entry, archive_stem, is_archive, open_archive, reading

MAX_DEPTH = 3
"""Archives inside archives: a public release has two levels."""
LITTER = ("__macosx", "thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class _File:
    """One file of the tree."""

    size: int
    checksum: int | None
    origin: str
    """The file, or the archive that holds it, for messages."""
    open: Callable[[], IO[bytes]]
    path: Path | None = None
    """Where it lies, if it is no archive's."""


class Release:
    """The files of a download, sorted, by their path in it; the members of an archive stand in the archive's folder.

    A context manager; what has to be unpacked lies in a temporary folder below `scratch` (the system's if not given) until the
    end. Hidden files and what macOS and Windows leave behind are left out; links are followed, and a broken one is `skipped`. A
    member that was unpacked beside its archive is read from there.

    Raises DataError for what is no folder and no archive, for archives that are damaged, encrypted, nested deeper
    than MAX_DEPTH, unpack to more than a hundred times their size or without a bound, for names and links that lead out of the tree.
    """

    def __init__(self, path: Path | str, scratch: Path | None = None) -> None:
        self.path = Path(path)
        self._scratch_parent = scratch
        self._stack = ExitStack()
        self._reading = threading.Lock()  # archives have one position in their file
        self._files: dict[PurePosixPath, _File] = {}
        self.skipped: list[LeftOut] = []
        """What is there and cannot be followed: broken links, folders that may not be read."""
        self._ambiguous: dict[PurePosixPath, str] = {}
        self._lent: dict[PurePosixPath, Path] = {}
        self._unpacked = 0
        self._scratch_folder: Path | None = None

    def __enter__(self) -> Self:
        try:
            self._gather()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def files(self) -> tuple[PurePosixPath, ...]:
        """All files, sorted by their path."""
        return tuple(self._files)

    def size(self, name: PurePosixPath | str) -> int:
        """A file's bytes, unpacked."""
        return self._file(name).size

    def read(self, name: PurePosixPath | str) -> bytes:
        """A file's content; may be called from several threads. Raises DataError that names the file."""
        file = self._file(name)
        if file.path is not None:
            return file.path.read_bytes()
        with self._reading, reading(f"{file.origin}: {name}"), file.open() as stream:
            content = stream.read(file.size + 1)  # no more, however much comes: a listed size may be a lie
        if len(content) != file.size:
            raise DataError(f"{file.origin}: {name} is damaged: {len(content)} bytes of {file.size}; download the archive again")
        return content

    def path_of(self, name: PurePosixPath | str) -> Path:
        """A real file with this content, under its own name; unpacked where need be, and gone when the release is closed."""
        file, key = self._file(name), PurePosixPath(name)
        if file.path is not None:
            return file.path
        if key not in self._lent:
            self._lent[key] = self._unpack(file, key)
        return self._lent[key]

    def sha256(self) -> str:
        """Of an archive its own hash, of a folder that of its listing: every path and size."""
        digest = hashlib.sha256()
        if self.path.is_file():
            with self.path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        else:
            for name, file in self._files.items():
                digest.update(f"{name}\0{file.size}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _file(self, name: PurePosixPath | str) -> _File:
        key = PurePosixPath(name)
        if key in self._ambiguous:
            raise DataError(f"{self.path}: {self._ambiguous[key]}; keep the right one alone")
        if key not in self._files:
            raise DataError(f"{self.path}: has no file {key}{nearest(str(key), [str(one) for one in self._files])}")
        return self._files[key]

    def _gather(self) -> None:
        if self.path.is_dir():
            root = self.path.resolve()
            archives = list(self._walk(root))
            for path in archives:
                folder = PurePosixPath(path.parent.relative_to(root).as_posix())
                self._add_archive(path, str(path), folder, depth=1, budget=Budget(str(path), path.stat().st_size))
        elif self.path.is_file() and is_archive(self.path.name):
            budget = Budget(str(self.path), self.path.stat().st_size)
            self._add_archive(self.path, str(self.path), PurePosixPath(), depth=1, budget=budget)
        else:
            found = "a file that is no archive" if self.path.exists() else "nothing"
            raise DataError(f"{self.path}: found {found}; expected a download: a folder, or an archive ({', '.join(SUFFIXES)})")
        self._files = dict(sorted(self._files.items(), key=lambda item: str(item[0])))

    def _walk(self, root: Path) -> Iterator[Path]:
        """Take in the files of a folder, through links in it too; the archives among them are yielded instead."""
        for parent, folders, files in os.walk(root, followlinks=True, onerror=lambda error: self._skip(root, error)):
            folders[:] = sorted(name for name in folders if not _litter(name))
            for name in [*folders, *sorted(name for name in files if not _litter(name))]:
                path = Path(parent, name)
                if path.is_symlink():
                    self._check_link(path, root)
                if path.is_dir():
                    continue
                if not path.is_file():
                    detail = f"to {os.readlink(path)}" if path.is_symlink() else "neither a file nor a folder"
                    reason = "a broken link" if path.is_symlink() else "no file"
                    self.skipped.append(LeftOut(path.relative_to(root).as_posix(), reason, detail))
                elif is_archive(name):
                    yield path
                else:
                    key = PurePosixPath(path.relative_to(root).as_posix())
                    self._files[key] = _File(path.stat().st_size, None, str(path), lambda path=path: path.open("rb"), path)  # type: ignore[misc]

    def _check_link(self, path: Path, root: Path) -> None:
        """Raises DataError for a link out of the tree, and for one that would lead round in it for ever."""
        try:
            target = path.resolve()
        except RuntimeError:  # a link to itself, which Python 3.13 resolves to itself
            return
        if not target.is_relative_to(root):
            raise DataError(f"{path}: a link that leads out of {self.path}; put the files themselves there, or give their folder")
        if any(place.resolve().is_relative_to(target) for place in path.parents if place.is_relative_to(root)):
            raise DataError(f"{path}: a link to a folder that it lies in; remove it")

    def _skip(self, root: Path, error: OSError) -> None:
        place = Path(error.filename or root)
        self.skipped.append(LeftOut(place.relative_to(root).as_posix(), "a folder that cannot be read", error.strerror or ""))

    def _add_archive(self, path: Path, shown: str, folder: PurePosixPath, depth: int, budget: Budget) -> None:
        """Take in the members of an archive, and of those in it. `shown` is its name in messages."""
        if depth > MAX_DEPTH:
            raise DataError(f"{shown}: archives are nested deeper than {MAX_DEPTH}; unpack the outer ones and give the folder")
        for entry in open_archive(path, shown, self._stack, self._scratch, budget):
            inner = PurePosixPath(entry.name)
            if any(_litter(part) for part in inner.parts):
                continue
            key = folder / inner
            if self._lies_unpacked(key, folder / archive_stem(path.name) / inner, entry.size):
                continue
            file = _File(entry.size, entry.checksum, shown, entry.open)
            if is_archive(inner.name):
                unpacked = self._unpack(file, PurePosixPath(inner.name))
                self._add_archive(unpacked, f"{shown}: {inner}", key.parent, depth + 1, budget)
            else:
                self._add_member(key, file, entry)

    def _lies_unpacked(self, key: PurePosixPath, in_own_folder: PurePosixPath, size: int) -> bool:
        present = (self._files.get(place) for place in (key, in_own_folder))
        return any(file is not None and file.path is not None and file.size == size for file in present)

    def _add_member(self, key: PurePosixPath, file: _File, entry: Entry) -> None:
        """The same file in two archives counts once; two different ones of a name are nobody's until somebody asks for it."""
        present = self._files.setdefault(key, file)
        if present is not file and (present.size, present.checksum) != (entry.size, entry.checksum):
            self._ambiguous[key] = f"{key} is in {present.origin} and, different, in {file.origin}"

    def _unpack(self, file: _File, name: PurePosixPath) -> Path:
        """A member as a file in the scratch folder, in a folder of its own."""
        with self._reading, reading(f"{file.origin}: {name}"):
            self._unpacked += 1
            path = self._scratch() / str(self._unpacked) / name.name
            path.parent.mkdir()
            with file.open() as stream, path.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)  # at most the listed size: no archive's library gives more
        return path

    def _scratch(self) -> Path:
        if self._scratch_folder is None:
            if self._scratch_parent is not None:
                self._scratch_parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix="tpseg-release-", dir=self._scratch_parent)
            self._scratch_folder = Path(self._stack.enter_context(folder))
        return self._scratch_folder


def _litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER
