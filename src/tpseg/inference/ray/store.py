"""Folders on any store that fsspec knows (local disk, S3, ...): files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tpseg.core.errors import UsageError

PUTS_WHOLE = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory")
"""Stores whose put shows an object when all of it is there, and never a part of it."""


def locate(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The store of a path or URL and the path on it, absolute on local disks; raises UsageError if it cannot be opened."""
    try:
        return fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:  # a package that is not installed; a protocol that nobody knows
        raise UsageError(f"{url}: this kind of store cannot be opened ({error})") from error


def address(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """What a file is called wherever it is spoken of: on a local disk its absolute path, links among the folders followed, else its URL."""
    if not isinstance(fs, LocalFileSystem):
        return str(fs.unstrip_protocol(path))
    folder, name = os.path.split(path.rstrip("/"))
    return os.path.join(resolve(folder), name)


@lru_cache(maxsize=10_000)
def resolve(folder: str) -> str:
    """A local folder's own path; one folder holds many images, and a look at the disk for each would take minutes."""
    return os.path.realpath(folder)


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """A file of any store as a local one, for as long as the block lasts; raises OSError if it cannot be had."""
    fs, path = locate(url)
    if isinstance(fs, LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        copy.write_bytes(fs.cat_file(path))
        yield copy


class Folder:
    """A folder to write results into, on a local disk or an object store."""

    def __init__(self, url: str) -> None:
        """Raises UsageError for a store on which a file cannot be written whole."""
        self.fs, root = locate(url)
        self.local = isinstance(self.fs, LocalFileSystem)
        self.root = resolve(root) if self.local else root.rstrip("/")
        protocol = self.fs.protocol if isinstance(self.fs.protocol, str) else self.fs.protocol[0]
        if not self.local and protocol not in PUTS_WHOLE:
            known = ", ".join(f"{name}://" for name in PUTS_WHOLE)
            raise UsageError(f"{url}: no way is known to write whole files to {protocol}://; expected a local folder or one of {known}")

    def address(self, name: str = "") -> str:
        """Absolute path or URL of the folder, or of a file in it."""
        path = f"{self.root}/{name}" if name else self.root
        return path if self.local else str(self.fs.unstrip_protocol(path))

    def put(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file, whole or not at all, in the place of an older one.

        On a local disk the content goes to a name of its own beside the file, which is renamed at the end; two machines
        that write the same file at once leave the file of one of them. On an object store a put does the same.

        durable: come back only when a local disk has the content for certain, even if the power fails.
        """
        path = f"{self.root}/{name}"
        if not self.local:
            self.fs.pipe_file(path, content)
            return
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name(f".{uuid.uuid4().hex}.new")
        try:
            with new.open("wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(new, place)
        finally:
            new.unlink(missing_ok=True)

    def get(self, name: str) -> bytes | None:
        """Content of a file, or None if there is none of that name."""
        try:
            return bytes(self.fs.cat_file(f"{self.root}/{name}"))
        except FileNotFoundError:
            return None

    def get_all(self, folder: str, suffix: str) -> dict[str, bytes]:
        """Content of all files of a subfolder that end in `suffix`, by name; from an object store many at a time."""
        names = [name for name in self.sizes(folder) if name.endswith(suffix)]
        if not names:
            return {}
        content: dict[str, Any] = self.fs.cat([f"{self.root}/{name}" for name in names])
        return {self._name(path): bytes(data) for path, data in content.items()}

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every file in the folder or a subfolder and below, by name; empty if there is no such folder."""
        found = self.fs.find(f"{self.root}/{folder}".rstrip("/"), detail=True, refresh=True)
        return {self._name(path): int(entry["size"]) for path, entry in found.items()}

    def _name(self, path: str) -> str:
        return path[len(self.root) + 1 :]
