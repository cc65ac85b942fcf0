"""Files and folders written whole or not at all: an error halfway, such as a full disk, leaves the old content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tpseg.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file to write; it takes the place of `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file through `replacing`."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the place of `folder` when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (folder.with_name(f".{os.getpid()}.{folder.name}.{which}") for which in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)  # left behind by a process that was killed and had the same number
    new.mkdir()
    try:
        yield new
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_json_object(path: Path, refusal: str) -> dict[str, Any]:
    """A JSON object; raises DataError with the words of `refusal` for a file that is damaged or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {refusal} ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: {refusal} (found {type(content).__name__})")
    return content
