"""A data set decoded once: images and masks at the model's size in memory-mapped files, which every process of a run reads."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
from filelock import FileLock, Timeout

from tpseg.core.errors import DataError
from tpseg.core.files import replacing_folder, write_atomically
from tpseg.core.prefetch import ahead
from tpseg.data.hashes import hash_files
from tpseg.data.manifest import Case, DataSet
from tpseg.data.pairs import read_square

FORMAT = 2
"""Raised whenever reading or resizing gives other pixels, or the files below have another layout."""
SPLITS = ("train", "val")
"""What training reads."""
THREADS = 8
"""That decode, at most; memory is bounded by this many images in full and twice as many at the model's size."""
AT_ONCE = 64
"""Files that are hashed between two moves of the bar."""
SETTLED = 2 * 10**9
"""Nanoseconds. A file may be written again within a tick of its clock: its times prove nothing until they are so old."""
INDEX = "index.json"

Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""A bar: called with a description, it gives what to call with (done, total), as `progress.track_calls` does."""
logger = logging.getLogger(__name__)


class DecodedCache:
    """The train and val cases of a data set at one size, a folder for each task below `place`; `fill` comes before `read`."""

    def __init__(self, place: Path, data: DataSet, size: int) -> None:
        self.place = place
        self.size = size
        origin = os.path.abspath(data.source)
        self.cases = {name: [case for case in data.cases if case.task == name and case.split in SPLITS] for name in data.tasks.names}
        self.folders = {
            name: place / f"{name}-{size}-{hashlib.sha256(f'{origin}:{name}'.encode()).hexdigest()[:8]}" for name in data.tasks.names
        }
        self.shelves: dict[str, Shelf] = {}

    def fill(self, watch: Watch | None = None) -> int:
        """Decode what is not there or is of other file contents than now; returns how many images were decoded.

        One process of a machine decodes while the others wait for it. Raises DataError for a file that cannot be read, a disk
        that is too small or a `place` that cannot be used.
        """
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            with _lock(self.place / ".lock"):
                return sum(self._fill(task, watch or _unwatched) for task in self.cases)
        except (OSError, NotImplementedError) as error:  # NotImplementedError: some network drives have no locks
            raise DataError(f"sampling.cache {self.place}: cannot be used ({error}); choose a folder on a local disk, or null") from error

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Image (3, S, S) uint8 and mask (S, S) bool: what `read_square` gave when the cache was filled."""
        return self.shelves[case.task].read(_paths(case))

    def _fill(self, task: str, watch: Watch) -> int:
        """Bring the folder of one task up to date, the lock held."""
        folder, cases = self.folders[task], list({_paths(case): case for case in self.cases[task]}.values())
        old = Shelf.find(folder, self.size)
        prints = _fingerprints([path for case in cases for path in _paths(case)], old.prints if old else {}, watch, task)
        contents = [_content(case, prints) for case in cases]
        key = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:16]
        shelf = Shelf(folder, key, self.size, contents, {_paths(case): row for row, case in enumerate(cases)}, prints)
        self.shelves[task] = shelf
        if old and old.key == key:
            if old.prints != prints:  # touched, renamed or copied, but the same bytes
                shelf.write_index(folder)
            return 0
        kept = {content: row for row, content in enumerate(old.contents)} if old else {}
        self._require_space(folder, shelf.bytes)
        for abandoned in self.place.glob(f".*.{folder.name}.*"):  # by a process that was killed: no other writes while we hold the lock
            shutil.rmtree(abandoned)
        with replacing_folder(folder) as new, watch(f"decoding {task}") as progress:
            shelf.write(new, self._pixels(cases, contents, kept, old, prints), progress)
            shelf.write_index(new)
        return sum(content not in kept for content in contents)

    def _pixels(
        self, cases: Sequence[Case], contents: Sequence[str], kept: dict[str, int], old: Shelf | None, prints: dict[str, Fingerprint]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images and masks in order, from the old files where those hold them, else decoded in a few threads."""

        def get(position: int) -> tuple[np.ndarray, np.ndarray]:
            case, row = cases[position], kept.get(contents[position])
            if old is not None and row is not None:
                return old.row(row)
            found = read_square(case, self.size)
            for path in _paths(case):
                if _stamp(path) != prints[path].stamp:
                    raise DataError(f"{path}: changed while it was read into the cache; start again when it is written")
            return found

        threads = min(THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            yield from ahead(pool, get, range(len(cases)), 2 * threads)

    def _require_space(self, folder: Path, needed: int) -> None:
        free = shutil.disk_usage(self.place).free
        if free < needed:
            raise DataError(
                f"sampling.cache {self.place}: {folder.name} takes {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there; choose a "
                "folder on another disk, a smaller model.image_size, or null"
            )


@dataclass(frozen=True)
class Fingerprint:
    """A file's content, and what its folder said of it at the time: size and times in nanoseconds."""

    sha256: str
    stamp: tuple[int, int, int]
    settled: bool
    """Whether an equal stamp proves an equal content."""


@dataclass(frozen=True)
class Shelf:
    """The files of one task at one size: images (N, 3, S, S) uint8, masks (N, ⌈S²/8⌉) uint8, eight pixels a byte, and an index.

    Opened in each process when it first reads; a process that is started with a copy of this opens them itself.
    """

    folder: Path
    key: str
    """Hash of `contents`, in the files' names: who has read an older index finds no file rather than other images."""
    size: int
    contents: list[str]
    """What each row was made of and how; equal texts are equal pixels."""
    rows: dict[tuple[str, str], int]
    prints: dict[str, Fingerprint]

    @classmethod
    def find(cls, folder: Path, size: int) -> Shelf | None:
        """What lies in a folder; None if that is nothing, damaged or incomplete."""
        try:
            index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            prints = {
                path: Fingerprint(sha256, (size, *times), settled) for path, (sha256, size, *times, settled) in index["files"].items()
            }
            shelf = cls(folder, index["key"], size, index["contents"], {}, prints)
            shelf.arrays  # noqa: B018 - it checks the files' sizes
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError):
            return None
        return shelf

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        pixels = self.size * self.size
        return {"images": (len(self.contents), 3, self.size, self.size), "masks": (len(self.contents), -(-pixels // 8))}

    @property
    def bytes(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Images and masks, memory-mapped; copy-on-write, for PyTorch warns of arrays that it may not write."""
        found = {}
        for name, shape in self.shapes.items():
            path = self._file(self.folder, name)
            try:
                found[name] = np.load(path, mmap_mode="c")
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: the cache was replaced or removed while in use ({error}); start again with --resume") from error
            if found[name].shape != shape or found[name].dtype != np.uint8:
                raise DataError(f"{path}: damaged: its shape is {found[name].shape}, expected {shape}; remove the folder and start again")
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "arrays"}

    def read(self, paths: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
        return self.row(self.rows[paths])

    def row(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (3, S, S) uint8 and mask (S, S) bool."""
        bits = np.unpackbits(self.arrays["masks"][row], count=self.size * self.size)
        return self.arrays["images"][row], bits.view(bool).reshape(self.size, self.size)

    def write(self, folder: Path, pixels: Iterator[tuple[np.ndarray, np.ndarray]], progress: Callable[[int, int], None]) -> None:
        """Write images and masks one after the other: through a memory map a full disk would end the process without a word."""
        with open(self._file(folder, "images"), "wb") as images, open(self._file(folder, "masks"), "wb") as masks:
            for file, shape in zip((images, masks), self.shapes.values(), strict=True):
                _write_header(file, shape)
            for done, (image, mask) in enumerate(pixels, start=1):
                images.write(image.tobytes())
                masks.write(np.packbits(mask).tobytes())
                progress(done, len(self.contents))

    def write_index(self, folder: Path) -> None:
        files = {path: [one.sha256, *one.stamp, one.settled] for path, one in self.prints.items()}
        write_atomically(folder / INDEX, json.dumps({"key": self.key, "contents": self.contents, "files": files}))

    def _file(self, folder: Path, name: str) -> Path:
        return folder / f"{name}-{self.key}.npy"


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _paths(case: Case) -> tuple[str, str]:
    return os.path.abspath(case.image), os.path.abspath(case.mask)


def _content(case: Case, prints: dict[str, Fingerprint]) -> str:
    """What a row is made of: the files' bytes, what tells how they are read, and what reads them."""
    suffixes = [path.suffix.lower() for path in (case.image, case.mask)]
    return " ".join([*(prints[path].sha256 for path in _paths(case)), *suffixes, f"pillow {PIL.__version__} format {FORMAT}"])


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _fingerprints(paths: Sequence[str], known: Mapping[str, Fingerprint], watch: Watch, task: str) -> dict[str, Fingerprint]:
    """Every file's content; read again unless an earlier look at it and its size and times prove that it is the same."""
    stamps = {path: _stamp(path) for path in dict.fromkeys(paths)}
    found = {path: known[path] for path, stamp in stamps.items() if path in known and known[path].settled and known[path].stamp == stamp}
    unknown = [path for path in stamps if path not in found]
    if unknown:
        with watch(f"reading {task}") as progress:
            for start in range(0, len(unknown), AT_ONCE):
                now = time.time_ns()
                before = {Path(path): _stamp(path) for path in unknown[start : start + AT_ONCE]}
                for path, sha256 in hash_files(before).items():
                    settled = max(before[path][1:]) < now - SETTLED
                    found[str(path)] = Fingerprint(sha256, before[path], settled)
                progress(len(found), len(stamps))
    return found


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        logger.warning("waiting for another process that fills the cache %s", path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _unwatched(description: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None
