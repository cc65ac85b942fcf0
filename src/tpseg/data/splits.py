"""From a folder of images and masks to a `split.csv` and an entry in `tasks.yaml`."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd
import yaml

from tpseg.core.errors import DataError, UsageError, few
from tpseg.core.files import write_atomically
from tpseg.core.folder_search import may_be_case
from tpseg.core.tasks import Task
from tpseg.data.left_out import MAX_LEFT_OUT, LeftOut, check_share, refuse_losses
from tpseg.data.manifest import SPLITS, read_entries
from tpseg.data.quality.groups import suggest_groups
from tpseg.imaging.pictures.formats import IMAGE_SUFFIXES

MASK_ENDING = re.compile(r"[_-](masks?|seg|segmentation|gt|labels?)([_-]?\d+)?$", re.IGNORECASE)
"""What a mask's stem may have beyond its image's; a number where an image has several masks."""
DRAWS = 100
"""Random assignments tried; the one nearest to the fractions is kept."""


@dataclass(frozen=True)
class Drawn:
    """What `split_folder` has written, and what it has to say."""

    table: pd.DataFrame
    """The table written: image, mask, split, group and whatever else a list of cases had."""
    left_out: list[LeftOut]
    hint: str
    """Groups that the names suggest, or ''."""


def pair_folder(images: Path, masks: Path) -> tuple[list[tuple[str, str]], list[LeftOut]]:
    """Pairs of image and mask, sorted, each named relative to its folder, sub-folders included; and what has no partner, or several.

    A pair has the same sub-folder and stem, of whatever suffix; the mask's stem may end in `_mask`, `-seg` and so on besides,
    see MASK_ENDING.
    """
    (image_files, left_out), (mask_files, others) = _files_by_stem(images), _files_by_stem(masks)
    left_out += others
    of_image: dict[str, list[str]] = {stem: [] for stem in image_files}
    for stem, files in mask_files.items():
        partner = stem if stem in of_image else MASK_ENDING.sub("", stem)
        if partner in of_image:
            of_image[partner] += files
        else:
            left_out += [LeftOut(f"{masks.name}/{file}", "a mask without an image") for file in files]
    pairs = []
    for stem, files in sorted(image_files.items()):
        image, found = f"{images.name}/{files[0]}", of_image[stem]
        if len(files) > 1:
            left_out.append(LeftOut(image, "images of one name", f"also {', '.join(files[1:])}; keep one"))
        elif len(found) > 1:
            left_out.append(LeftOut(image, "several masks of one image", f"{', '.join(found)}; data prepare folder unites them"))
        elif not found:
            left_out.append(LeftOut(image, "an image without a mask"))
        else:
            pairs.append((files[0], found[0]))
    return pairs, left_out


def draw_split(table: pd.DataFrame, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0, group: str | None = None) -> pd.DataFrame:
    """A copy of a table of cases (columns image, mask and, optionally, group) with the columns split and group filled.

    `fractions` are those of train, val and test. No group crosses a split; with three groups or more no split of a
    fraction above 0 stays empty. `group` is a regular expression searched in the image's stem: its first group, or else
    the whole match, names the case's group; without it the table's own groups are kept, and an image without a group is
    drawn by itself. The draw depends on the seed and the names only, not on the order of the rows. Raises UsageError for
    fractions or an expression that make no sense, DataError for images that the expression does not match.
    """
    _check_fractions(fractions)
    table = table.copy()
    if group is not None:
        table["group"] = _match_groups(table["image"].tolist(), group)
    elif "group" not in table:
        table["group"] = ""
    units: list[Hashable] = [(name or "", "" if name else image) for name, image in zip(table["group"], table["image"], strict=True)]
    assigned = assign_splits(Counter(units), fractions, seed)
    table["split"] = [assigned[unit] for unit in units]
    first = ["image", "mask", "split", "group"]
    return table[first + [column for column in table.columns if column not in first]]


def split_folder(
    folder: Path,
    task: str,
    modality: str = "unknown",
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    group_pattern: str | None = None,
    tasks_file: Path | None = None,
    overwrite: bool = False,
    most_left_out: float = MAX_LEFT_OUT,
) -> Drawn:
    """Draw the splits of FOLDER, which has images/ and masks/; write FOLDER/split.csv and its entry in `tasks.yaml`.

    A split.csv without a column `split` is taken as the list of cases, its groups and other columns kept; one with that
    column is an earlier result and only `overwrite` replaces it, from the folder as it is now but with the groups it
    named. `tasks_file` is FOLDER/../tasks.yaml if not given; its other entries are kept. What has no partner is left out;
    `most_left_out` is the share that may be. Raises DataError or UsageError before anything is written.
    """
    Task(task, modality)
    check_share(most_left_out)
    tasks_file = tasks_file or Path(os.path.abspath(folder)).parent / "tasks.yaml"
    split_file = folder / "split.csv"
    data = Path(os.path.relpath(split_file, tasks_file.parent)).as_posix()
    text = tasks_text(tasks_file, task, {"modality": modality, "data": data}, overwrite)
    table, left_out = _list_cases(folder, split_file, overwrite, most_left_out)
    if group_pattern is not None and not overwrite and table.get("group", pd.Series(dtype=str)).any():
        raise UsageError(f"{split_file}: names groups already; leave out the group pattern to keep them, or empty the column")
    table = draw_split(table, fractions, seed, group_pattern)
    write_atomically(split_file, table.to_csv(index=False, lineterminator="\n"))
    write_atomically(tasks_file, text)
    hint = "" if table["group"].any() else suggest_groups([PurePosixPath(image).stem for image in table["image"]])
    return Drawn(table, left_out, hint)


def _files_by_stem(folder: Path) -> tuple[dict[str, list[str]], list[LeftOut]]:
    """Image files below a folder and in folders that it links to, by relative path without suffix, and what else there is.

    Hidden files and documents are not spoken of.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    files: dict[str, list[str]] = defaultdict(list)
    left_out, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in seen:  # by a link
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            name, shown = path.relative_to(folder), f"{folder.name}/{path.relative_to(folder).as_posix()}"
            if not path.is_file():
                left_out.append(LeftOut(shown, "a broken link"))
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                files[name.with_suffix("").as_posix()].append(name.as_posix())
            elif may_be_case(path):
                left_out.append(LeftOut(shown, "no picture", f"expected {', '.join(IMAGE_SUFFIXES)}", meant=True))
    if not files:
        raise DataError(f"{folder}: holds no image files; expected {', '.join(IMAGE_SUFFIXES)}")
    return dict(files), left_out


def _check_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6:
        shown = ",".join(f"{fraction:g}" for fraction in fractions)
        raise UsageError(f"fractions {shown}: expected three numbers of 0 or more that sum to 1, for train, val and test: 0.7,0.1,0.2")


def _match_groups(images: Sequence[str], pattern: str) -> list[str]:
    """Each image's group by a regular expression on its stem; see draw_split."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"group pattern '{pattern}': not a regular expression ({error})") from error
    matches = [expression.search(PurePosixPath(image).stem) for image in images]
    groups = [(match[1] if expression.groups else match[0]) if match else None for match in matches]
    unmatched = [image for image, group in zip(images, groups, strict=True) if not group]
    if unmatched:
        raise DataError(
            f"group pattern '{pattern}' finds no group in {len(unmatched)} of {len(images)} images: {few(unmatched)}; "
            "it is searched in the file name without suffix"
        )
    return [group or "" for group in groups]


def assign_splits(sizes: Counter[Hashable], fractions: Sequence[float], seed: int) -> dict[Hashable, str]:
    """A split for each group, sizes given: of some random assignments the one nearest to the fractions of train, val and test.

    A split of fraction 0 gets none; one of a fraction above 0 stays empty only if there are fewer groups than such splits.
    """
    total = sum(sizes.values())
    wanted = {split: fraction * total for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0}
    best: dict[Hashable, str] = {}
    best_error = float("inf")
    for draw in range(DRAWS):
        # a hash orders alike on every machine and in every version, unlike a random generator
        order = sorted(sizes, key=lambda unit: hashlib.sha256(f"{seed}\0{draw}\0{unit}".encode()).digest())
        assigned = _deal(order, sizes, wanted)
        counts: Counter[str] = Counter()
        for unit, split in assigned.items():
            counts[split] += sizes[unit]
        error = max(abs(counts[split] - wanted[split]) for split in wanted)
        if error < best_error:
            best, best_error = assigned, error
        if best_error < 1:
            break
    return best


def _deal(order: Sequence[Hashable], sizes: Counter[Hashable], wanted: dict[str, float]) -> dict[Hashable, str]:
    """Deal groups in order: one to each split, the largest split first, then each to the split that lacks most."""
    lacking = dict(wanted)
    waiting = sorted(wanted, key=wanted.__getitem__, reverse=True)
    assigned = {}
    for unit in order:
        split = waiting.pop(0) if waiting else max(lacking, key=lacking.__getitem__)
        assigned[unit] = split
        lacking[split] -= sizes[unit]
    return assigned


def _list_cases(folder: Path, split_file: Path, overwrite: bool, most_left_out: float) -> tuple[pd.DataFrame, list[LeftOut]]:
    """The cases to split, from split.csv or from the folder, and what is left out of it; see split_folder."""
    listed = _read_table(split_file) if split_file.exists() else None
    if listed is not None and "split" not in listed:
        return listed, []
    if listed is not None and not overwrite:
        raise UsageError(f"{split_file}: exists; allow overwriting it, or empty it of its column 'split' to keep its list of cases")
    images, masks = (_either(folder, name) for name in ("images", "masks"))
    found, left_out = pair_folder(images, masks)
    refuse_losses(folder, len(found), left_out, most_left_out)
    pairs = [(f"{images.name}/{image}", f"{masks.name}/{mask}") for image, mask in found]
    table = pd.DataFrame(pairs, columns=["image", "mask"])
    if listed is not None and "group" in listed:
        groups = dict(zip(listed["image"], listed["group"], strict=True))
        table["group"] = [groups.get(image, "") for image in table["image"]]
    return table, left_out


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV table ({' '.join(str(error).split())})") from error
    missing = [column for column in ("image", "mask") if column not in table.columns]
    if missing or table.empty:
        raise DataError(
            f"{path}: expected the columns image and mask, and a row per case, found {','.join(table.columns)} and {len(table)} rows"
        )
    return table


def _either(folder: Path, plural: str) -> Path:
    """FOLDER/images or FOLDER/image."""
    found = [folder / name for name in (plural, plural[:-1]) if (folder / name).is_dir()]
    if not found:
        raise DataError(f"{folder}: has no folder {plural}/; expected images/ and masks/ in it")
    return found[0]


def tasks_text(path: Path, task: str, entry: dict[str, str], overwrite: bool) -> str:
    """What `tasks.yaml` is to hold: its present text with the task's entry added or brought up to date.

    A new entry is added as a line at the end, so that comments stay, wherever that gives the wanted content.
    """
    line = "  " + yaml.safe_dump({task: entry}, default_flow_style=None, sort_keys=False, width=10_000, allow_unicode=True)
    if not path.exists():
        return f"tasks:\n{line}"
    present = read_entries(path).get(task, {})
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    if present.get("data", entry["data"]) != entry["data"] and not overwrite:
        raise UsageError(f"{path}: has a task '{task}' with data {present['data']}; give this one another name, or allow overwriting")
    if present == {**present, **entry}:
        return text
    content["tasks"][task] = {**present, **entry}
    longer = f"{text.rstrip()}\n{line}"
    if not present and _holds(longer, content):
        return longer
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _holds(text: str, content: dict) -> bool:
    """Whether a YAML text has just this content, tasks in the same order."""
    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    return read == content and list(read["tasks"]) == list(content["tasks"])
