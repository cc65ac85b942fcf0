"""Where a picture lies that another file speaks of, perhaps by a path of another machine."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from tpseg.datasets.layout import split_of
from tpseg.datasets.tree import is_picture


class Pictures:
    """The pictures of a release, to be found by name."""

    def __init__(self, files: Iterable[PurePosixPath]) -> None:
        self.all = {file: None for file in files if is_picture(file)}  # a set that keeps the order
        self._by_name: dict[str, list[PurePosixPath]] = defaultdict(list)
        self._by_key: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for file in self.all:
            self._by_name[file.name].append(file)
            self._by_key[file.with_suffix("")].append(file)

    def below(self, path: PurePosixPath) -> list[PurePosixPath]:
        """Those whose path is, or ends in, this one."""
        return [file for file in self._by_name.get(path.name, ()) if file.parts[-len(path.parts) :] == path.parts]

    def beside(self, file: PurePosixPath, told: str = "") -> list[PurePosixPath]:
        """Those in a file's folder with the base name that was told, or else with the file's own stem."""
        named = [one for one in self._by_name.get(base_name(told), ()) if one.parent == file.parent]
        return named or self._by_key.get(file.with_suffix(""), [])

    def alone(self, told: str, told_names: Counter[str]) -> PurePosixPath | None:
        """The one that a path of another machine means: the only one of its base name, if no other path that was told has that name.

        `told_names` counts by base name what was told. A picture in another split's folder than the path's own is not meant.
        """
        name = base_name(told)
        found = self._by_name.get(name, [])
        if len(found) != 1 or told_names[name] > 1:
            return None
        splits = {split_of(PurePosixPath(told.replace("\\", "/"))), split_of(found[0])} - {""}
        return found[0] if len(splits) < 2 else None


def base_name(told: Any) -> str:
    """The last part of a path of whatever system; '' for what is none."""
    return re.split(r"[/\\:]", told)[-1] if isinstance(told, str) else ""
