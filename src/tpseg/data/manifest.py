"""What a data set consists of: `tasks.yaml` and one `split.csv` per task, read into a list of cases."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tpseg.core.errors import DataError, UsageError, nearest
from tpseg.core.tasks import TaskSet
from tpseg.core.untrusted import printable, read_yaml, short
from tpseg.data.hashes import hash_files, total_sha256

SPLITS = ("train", "val", "test")
TASK_KEYS = ("modality", "data", "root", "description", "window", "finding", "anatomy")
MOST_BYTES, MOST_BYTES_OF_A_NAME = 4095, 255
"""Of a path, and of each name in it: for longer ones the operating system has errors in the place of an answer."""


@dataclass(frozen=True)
class Case:
    """One image with its mask."""

    task: str
    image: Path
    mask: Path
    split: str
    group: str
    """Patient, case or video; '' where the CSV names none. No group may cross a split."""
    name: str
    """The image's path as the CSV has it: the case's name in tables."""
    part: str = ""
    """Which of several sets that a task is made of, from the column `set`: papers report polyps for each of five."""


@dataclass(frozen=True)
class DataSet:
    """All cases of a `tasks.yaml`, in its order."""

    source: Path
    tasks: TaskSet
    cases: tuple[Case, ...]

    def split(self, split: str) -> list[Case]:
        """Cases of one split; raises DataError if there are none."""
        if split not in SPLITS:
            raise UsageError(f"unknown split {split!r}{nearest(split, SPLITS)} (splits: {', '.join(SPLITS)})")
        found = [case for case in self.cases if case.split == split]
        if not found:
            raise DataError(f"{self.source}: no case has split '{split}'; assign one with 'tpseg data split' or in the split.csv files")
        return found

    def only(self, tasks: Iterable[str]) -> DataSet:
        """The same data set with the named tasks alone; raises UsageError for a name that it does not have."""
        wanted = {self.tasks[self.tasks.id(name)].name for name in tasks}
        kept = TaskSet([task for task in self.tasks if task.name in wanted])
        return DataSet(self.source, kept, tuple(case for case in self.cases if case.task in wanted))

    def sha256(self) -> str:
        """Hash over names, splits and the content of every image and mask, in order."""
        return total_sha256(self.cases, self.hashes())

    def hashes(self) -> dict[Path, str]:
        """SHA-256 of every image and mask by its path, each file read once; '' for one that is missing."""
        return hash_files(path for case in self.cases for path in (case.image, case.mask))


def read_dataset(path: Path | str) -> DataSet:
    """Read a `tasks.yaml` and the split files it names, paths relative to each file that names them.

    What a split file names lies beside or below it, below the tasks.yaml, or below the task's `root`. Raises DataError that names
    the file and line for anything amiss. Image files are not opened here.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tasks.yaml"
    entries = read_entries(path)
    cases = []
    for name, entry in entries.items():
        own = [path.parent / entry["root"]] if "root" in entry else []
        cases += read_split(path.parent / entry["data"], name, [path.parent, *own])
    return DataSet(path, TaskSet.from_mapping(entries), tuple(cases))


def read_entries(path: Path) -> dict[str, dict[str, str]]:
    """Read a `tasks.yaml` alone: each task's entry by its name, in order; raises DataError that names what is amiss."""
    try:
        content = read_yaml(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a tasks.yaml") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    entries = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{path}: expected 'tasks:' with one entry per task, e.g. skin_lesion: {{modality: dermoscopy, data: split.csv}}")
    for name, entry in entries.items():
        if not isinstance(name, str):
            raise DataError(f"{path}: task {short(name)}: a name must be text; put it in quotes")
        if not isinstance(entry, dict) or not isinstance(entry.get("data"), str):
            raise DataError(f"{path}: task '{name}': expected keys 'data' (path of its split.csv) and 'modality', found {short(entry)}")
        for key, value in entry.items():
            if key not in TASK_KEYS:
                raise DataError(
                    f"{path}: task '{name}': unknown key {short(key)}{nearest(str(key), TASK_KEYS)} (keys: {', '.join(TASK_KEYS)})"
                )
            if not isinstance(value, str):
                raise DataError(f"{path}: task '{name}': '{key}' is {short(value)}; expected text")
            if "\0" in value:
                raise DataError(f"{path}: task '{name}': '{key}' is {short(value)}, which holds a null character")
    try:
        TaskSet.from_mapping(entries)
    except UsageError as error:
        raise DataError(f"{path}: {error}") from error
    return entries


def read_split(path: Path, task: str, roots: Sequence[Path] = ()) -> list[Case]:
    """Read one `split.csv` with the columns image, mask, split and, optionally, group.

    roots: folders that its paths may lead into, beside its own. Raises DataError that names the line for a path out of all of them.
    """
    allowed = [os.path.abspath(folder) for folder in (path.parent, *roots)]
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", skip_blank_lines=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); it is the split file of task '{task}'") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV table ({' '.join(str(error).split())})") from error
    missing = [column for column in ("image", "mask", "split") if column not in table.columns]
    if missing:
        raise DataError(
            f"{path}: lacks column {', '.join(missing)}; expected image,mask,split,group, found {printable(','.join(table.columns))}"
        )
    cases = []
    for line, row in enumerate(table.to_dict("records"), start=2):
        if not any(row.values()):
            continue
        if row["split"] not in SPLITS:
            raise DataError(f"{path}: line {line}: split {short(row['split'])}; expected train, val or test")
        if not row["image"] or not row["mask"]:
            raise DataError(f"{path}: line {line}: an empty image or mask path")
        image, mask = (_within(path, row[column], allowed, f"{path}: line {line}") for column in ("image", "mask"))
        cases.append(Case(task, image, mask, row["split"], row.get("group", ""), row["image"], row.get("set", "")))
    return cases


def _within(file: Path, named: str, allowed: Sequence[str], where: str) -> Path:
    """The path that a split file names, `..` resolved before any link is followed; raises DataError for one outside of `allowed`."""
    path = file.parent / named
    if "\0" in named or len(os.fsencode(path)) > MOST_BYTES or any(len(os.fsencode(part)) > MOST_BYTES_OF_A_NAME for part in path.parts):
        raise DataError(f"{where}: {short(named)} is no path: it holds a null character or is longer than any disk takes")
    if path.is_absolute() or ".." in path.parts:
        whole = os.path.abspath(path)
        if not any(whole == folder or whole.startswith(folder.rstrip(os.sep) + os.sep) for folder in allowed):
            raise DataError(
                f"{where}: {printable(named)} leads out of the folders of the split file and of tasks.yaml; if it is meant, "
                f"allow it in tasks.yaml with 'root: FOLDER' beside 'data:'"
            )
        if ".." in path.parts:
            return Path(whole)
    return path
