"""What lies in a folder and below it: links are followed, each folder is searched once, and what is left out is told."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from tpseg.core.errors import few

log = logging.getLogger(__name__)

DOCUMENTS = (
    ".json", ".txt", ".csv", ".tsv", ".md", ".rst", ".xml", ".yaml", ".yml", ".html", ".pdf", ".xls", ".xlsx", ".doc", ".docx",
    ".py", ".m", ".ipynb", ".sh", ".raw", ".zraw",
)  # fmt: skip
"""Files that are about the data, or a header's voxels: that no case is made of them says nothing."""


@dataclass(frozen=True)
class Below:
    """Files in a folder and in all folders below it, in the order of their names."""

    files: Sequence[Path]
    broken: Sequence[Path]
    """Links that lead nowhere."""


def search(folder: Path) -> Below:
    """What lies in a folder, its subfolders and the folders that links in them lead to.

    A folder that lies there itself and is linked to besides is found where it lies; of several links to a folder outside the first
    is followed; one to a folder that holds the link itself is not. Logs these, folders that cannot be listed, and what macOS writes
    beside the files of others.
    """
    files: list[Path] = []
    broken: list[Path] = []
    macos: list[Path] = []
    passed: list[Path] = []
    locked: list[Path] = []
    seen: set[str] = set()
    tops = deque([folder])
    while tops:
        top = tops.popleft()
        if os.path.realpath(top) in seen:
            passed.append(top)
            continue
        for place, folders, names in os.walk(top, onerror=lambda error: locked.append(Path(error.filename))):
            parent, where = Path(place), os.path.realpath(place)
            if where in seen:
                folders.clear()
                continue
            seen.add(where)
            macos += [parent / name for name in (*folders, *names) if is_of_macos(name)]
            folders[:] = sorted(name for name in folders if not is_of_macos(name))
            for name in folders:
                if os.path.islink(parent / name):
                    holds_it = Path(where).is_relative_to(os.path.realpath(parent / name))
                    (passed if holds_it else tops).append(parent / name)
            for path in (parent / name for name in names if not is_of_macos(name)):
                if path.is_file():
                    files.append(path)
                elif path.is_symlink() and not path.exists():
                    broken.append(path)
    told = [
        (passed, "links to folders that are searched anyway, or that hold the link, are not followed"),
        (locked, "folders cannot be listed, and nothing in them is found: have their permissions changed"),
        (macos, "entries that macOS writes beside the files (._*, __MACOSX) are left out"),
    ]
    for paths, words in told:
        if paths:
            log.warning(f"{folder}: {len(paths)} {words}: {few(sorted(map(str, paths)), 3)}")
    return Below(sorted(files), sorted(broken))


def is_of_macos(name: str) -> bool:
    """Whether a file or folder is what macOS adds on foreign disks and in zips: attributes of files, under the suffixes of these."""
    return name == "__MACOSX" or name.startswith("._")


def may_be_case(file: PurePath) -> bool:
    """Whether a file is named when no case is made of it: it is neither hidden nor a document."""
    return not file.name.startswith(".") and file.suffix.lower() not in DOCUMENTS
