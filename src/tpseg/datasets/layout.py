"""What the layouts `folder`, `nnunet`, `coco` and `labelme` have in common: names, splits and groups of their cases, chosen labels."""

from __future__ import annotations

import io
import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tpseg.core.errors import DataError, UsageError, few, nearest
from tpseg.core.tasks import Task
from tpseg.data.left_out import refuse_losses
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair, Source
from tpseg.imaging.pictures.formats import size_of

SPLIT_FOLDERS = {
    "train": ("train", "training", "trainset"),
    "val": ("val", "valid", "validation", "valset", "dev"),
    "test": ("test", "testing", "testset"),
}
"""What the folders of a split are called, but for capitals, digits and signs: `train2017`, `test_set`."""
MAX_JSON = 1 << 30
"""Bytes of a JSON file; COCO's own largest has 470 MB. Its content takes several times as much memory."""


class Layout(Source):
    """A layout that many data sets have; the user says what the task is.

    task: name of the task. labels: what is lesion, as each layout names it. group: regular expression searched in a case's name; its
    first group, or else the whole match, is the patient, case or video. Raises UsageError for a name or an expression that makes no
    sense.
    """

    def __init__(
        self,
        task: str = "lesion",
        modality: str = "unknown",
        description: str = "",
        labels: Sequence[str] = (),
        group: str | None = None,
    ) -> None:
        self.task = Task(task, modality, description)
        self.labels = tuple(labels)
        self.group = group
        try:
            re.compile(group or "")
        except re.error as error:
            raise UsageError(f"group pattern '{group}': not a regular expression ({error})") from error

    def group_of(self, case: str) -> str:
        """The group of a case by its name, '' without a pattern; raises DataError if the pattern finds none."""
        if not self.group:
            return ""
        match = re.search(self.group, case)
        found = (match[1] if match.re.groups else match[0]) if match else None
        if not found:
            raise DataError(f"group pattern '{self.group}' finds no group in {case}; it is searched in the name without suffix")
        return found

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        """The cases that `find` finds; where folders name splits, what lies in none of them is left out.

        Raises DataError that names the first ones if all is left out.
        """
        found = list(self.find(release))
        useless = [one for one in found if isinstance(one, LeftOut)]
        if found and len(useless) == len(found):
            refuse_losses(release.path, 0, useless)
        named = any(isinstance(one, Pair) and one.split for one in found)
        for one in found:
            if named and isinstance(one, Pair) and not one.split:
                yield LeftOut(one.name, "in no split, though other cases are", "put it in a folder called train, val or test as the others")
            else:
                yield one

    @abstractmethod
    def find(self, release: Release) -> Iterator[Pair | LeftOut]:
        """As `pairs`, with the split '' where no folder or file name tells it."""


def split_of(file: PurePosixPath) -> str:
    """The split that a folder above a file is called after, the innermost such folder; '' if none is."""
    for folder in reversed(file.parts[:-1]):
        letters = "".join(filter(str.isalpha, folder.lower()))
        for split, words in SPLIT_FOLDERS.items():
            if letters in words:
                return split
    return ""


def case_names(paths: Sequence[str]) -> dict[str, str]:
    """A name for each path (without suffix): its last part, or, where several have that one, its parts joined by `_`.

    Names differ in more than capitals, for some file systems do not tell them apart.
    """
    stems = Counter(PurePosixPath(path).name.casefold() for path in paths)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in paths:
        stem = PurePosixPath(path).name
        name = stem if stems[stem.casefold()] == 1 else path.replace("/", "_")
        free, number = name, 2
        while free.casefold() in taken:
            free, number = f"{name}_{number}", number + 1
        taken.add(free.casefold())
        names[path] = free
    return names


def path_key(file: PurePosixPath) -> str:
    """A file's path without the suffix of its format."""
    return (file.parent / stem_of(file)).as_posix()


def stem_of(file: PurePosixPath) -> str:
    """A file's name without the suffix of its format, `.nii.gz` being one."""
    return file.name[: -len(".nii.gz")] if file.name.lower().endswith(".nii.gz") else file.stem


def choose_labels(wanted: Sequence[str], known: Mapping[str, Sequence[int]]) -> list[int]:
    """The ids of labels given by name, which may stand for several, or by id; raises UsageError that lists what there is."""
    ids = {id for several in known.values() for id in several}
    chosen: set[int] = set()
    for label in wanted:
        if label in known:
            chosen |= set(known[label])
        elif label.isdecimal() and int(label) in ids:
            chosen.add(int(label))
        else:
            raise unknown_label(label, {f"{name} ({', '.join(map(str, several))})": name for name, several in known.items()})
    return sorted(chosen)


def unknown_label(label: str, shown: Mapping[str, str]) -> UsageError:
    """The error for a label that is not there; `shown` are the names there are, by what to show of each."""
    return UsageError(f"labels: unknown '{label}'{nearest(label, shown.values())} (labels: {few(list(shown), 20) or 'none'})")


def label_ids(wanted: Sequence[str]) -> list[int] | None:
    """Labels given as ids, for files that know no names; None for every id but 0. Raises UsageError for a name."""
    for label in wanted:
        if not label.isdecimal():
            raise UsageError(f"labels: found '{label}', expected ids (whole numbers): these files give their labels no names")
    return [int(label) for label in wanted] or None


def among(values: np.ndarray, ids: Sequence[int] | None, name: str, known: Collection[int] | None = None) -> np.ndarray:
    """Where label values of any number type are among the ids, or not 0 for None; bool of the same shape.

    Raises DataError that names the file for values that are no labels: probabilities, NaN, and what is not among `known`, if that is
    given, or below 0 where any other value would count.
    """
    if np.issubdtype(values.dtype, np.floating):
        if not np.isfinite(values).all():
            raise DataError(f"{name}: holds NaN or infinite labels; replace them by 0 or by the label that belongs there")
        whole = np.rint(values)
        if (np.abs(values - whole) > 1e-3).any():
            raise DataError(f"{name}: label values such as {values[np.abs(values - whole) > 1e-3].flat[0]:g}; expected whole numbers")
        values = whole
    strange = np.zeros(0) if ids is not None else values[values < 0]
    if known is not None:
        strange = values[~np.isin(values, [*known, 0])]
    if strange.size:
        found = few([f"{value:g}" for value in np.unique(strange)])
        listed = f"expected those of dataset.json, {few([str(id) for id in sorted(known)], 10)}" if known else "expected 0 and above"
        raise DataError(f"{name}: {strange.size} labels with values {found}; {listed}")
    return values != 0 if ids is None else np.isin(values, ids)


def read_json(release: Release, file: PurePosixPath) -> Any:
    """A JSON file's content; raises DataError for one that is damaged, absurdly large or nested without end.

    In UTF-8, or, as Windows in China writes it, in GBK: numbers and braces are the same, and a name that was meant otherwise
    leads to nothing and is told so.
    """
    if release.size(file) > MAX_JSON:
        raise DataError(f"{file}: {release.size(file) / 2**30:.1f} GiB; at most {MAX_JSON >> 30} GiB of JSON can be read: divide it")
    try:
        content = release.read(file)
        encoding = json.detect_encoding(content)
        try:
            return json.loads(content.decode(encoding))
        except UnicodeDecodeError:
            if encoding not in ("utf-8", "utf-8-sig"):
                raise
            return json.loads(content.decode("gbk"))
    except (ValueError, RecursionError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        raise DataError(f"{file}: not a JSON file ({' '.join(str(error).split())[:200]})") from error


def picture_size(release: Release, file: PurePosixPath) -> tuple[int, int]:
    """Height and width of a picture, upright by its EXIF tag, from its header alone; raises DataError that names it."""
    try:
        return size_of(io.BytesIO(release.read(file)))
    except DataError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error... for damaged files
        raise DataError(f"{file}: cannot be decoded ({' '.join(str(error).split())})") from error


def inside(path: str, folder: PurePosixPath) -> PurePosixPath | None:
    """A path that a file in `folder` gives, from the root of the release, `..` resolved; None where it leads out of the release."""
    text = path.replace("\\", "/")
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        return None
    parts: list[str] = list(folder.parts)
    for part in PurePosixPath(text).parts:
        if part == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)


def short(value: Any) -> str:
    """What was found where something else was expected, in at most 60 letters."""
    text = repr(value.tolist() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def failing(error: DataError) -> Callable[[], Any]:
    """For Pair.image or Pair.mask of a case that is to be left out."""

    def fail() -> Any:
        raise error

    return fail


def evenly(items: Sequence[int], share: float) -> Iterator[int]:
    """A share of the items, evenly spaced: 0 none, 1 all."""
    count = round(share * len(items))
    return (items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count))
