"""Tasks and their ids: the one place that maps a task name to a number."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tpseg.core.errors import DataError, UsageError, nearest
from tpseg.core.untrusted import read_json

AUTO = "auto"
"""In the place of a task's name: the one that the image looks most like."""


@dataclass(frozen=True)
class Task:
    """A lesion type in an imaging modality."""

    name: str
    """Short name, letters, digits, `_` and `-`: `skin_lesion`."""
    modality: str = "unknown"
    """What made the image: `dermoscopy`, `ultrasound`, `CT`."""
    description: str = ""
    """Name for people, for tables and pictures; the task's name if empty."""
    window: str = ""
    """How grey values of more than 8 bits become 8: a window's name (`lung`) or `centre,width`; empty: as the file says, else from
    minimum to maximum."""
    finding: str = ""
    """What the mask shows, as a coded concept `scheme:value:meaning`, for DICOM: `SCT:126952004:Neoplasm of brain`."""
    anatomy: str = ""
    """Where it lies, likewise: `SCT:12738006:Brain`."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
            raise UsageError(f"task name {self.name!r}: expected letters, digits, '_' and '-' only")
        if self.name == AUTO:
            raise UsageError("task name 'auto': predict's '--task auto' means that the model chooses; give the task another name")

    @property
    def title(self) -> str:
        return self.description or self.name


MOST_TASKS = 1000
"""Of a set: with more, building a model takes minutes, and the list is damaged or hostile."""
ALWAYS_SAVED = ("name", "modality", "description")
"""The others are in `tasks.json` where they are set."""


class TaskSet(Sequence[Task]):
    """The ordered tasks of a data set or a model; a task's id τ is its position."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tuple(tasks)
        if not self._tasks:
            raise UsageError("a task set needs at least one task, found none")
        if len(self._tasks) > MOST_TASKS:
            raise UsageError(f"a task set holds at most {MOST_TASKS:,} tasks, found {len(self._tasks):,}")
        self._ids = {task.name: position for position, task in enumerate(self._tasks)}
        for position, task in enumerate(self._tasks):
            if self._ids[task.name] != position:
                raise UsageError(f"task {task.name!r} is listed twice; task names must be unique")

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, position):
        return self._tasks[position]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskSet) and self._tasks == other._tasks

    def __hash__(self) -> int:
        return hash(self._tasks)

    def __repr__(self) -> str:
        return f"TaskSet({', '.join(self.names)})"

    @property
    def names(self) -> list[str]:
        return [task.name for task in self._tasks]

    def id(self, name: str) -> int:
        """Task id of a name; raises UsageError that lists the tasks there are."""
        if name not in self._ids:
            raise UsageError(f"unknown task {name!r}{nearest(name, self.names)} (tasks: {', '.join(self.names)})")
        return self._ids[name]

    def save(self, path: Path) -> None:
        """Write `tasks.json`; the order in the file is the order of the ids."""
        entries = [{key: value for key, value in asdict(task).items() if value or key in ALWAYS_SAVED} for task in self]
        path.write_text(json.dumps({"tasks": entries}, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> TaskSet:
        """Read `tasks.json`; raises DataError for a file that is not one."""
        try:
            entries = read_json(path)["tasks"]
            tasks = cls([Task(**entry) for entry in entries])
            for task in tasks:
                if not all(isinstance(value, str) for value in vars(task).values()):
                    raise TypeError(f"task '{task.name}' has a field that is no text")
            return tasks
        except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
            raise DataError(f"{path}: not a task list written by tpseg ({error})") from error

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Mapping[str, str]]) -> TaskSet:
        """Tasks in the order of a mapping from name to an entry of `tasks.yaml`; where its data lie is none of a task's concern."""
        return cls(
            [Task(name, **{key: value for key, value in entry.items() if key not in ("data", "root")}) for name, entry in entries.items()]
        )
