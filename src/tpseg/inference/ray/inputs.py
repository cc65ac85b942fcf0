"""Which images a bulk run segments, for which tasks, and what their masks are called."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from tpseg.core.errors import DataError, UsageError, few
from tpseg.core.folder_search import is_of_macos, may_be_case, search
from tpseg.core.tasks import TaskSet
from tpseg.imaging.pictures.formats import IMAGE_SUFFIXES
from tpseg.imaging.reading.opening import DICOM_SUFFIXES, ITK_SUFFIXES, NIFTI_SUFFIXES, VIDEO_SUFFIXES, may_be_scan
from tpseg.inference import choose_tasks
from tpseg.inference.ray.store import Folder, address, locate

log = logging.getLogger(__name__)

CLINICAL_SUFFIXES = (*DICOM_SUFFIXES, *NIFTI_SUFFIXES, *ITK_SUFFIXES, *VIDEO_SUFFIXES)
BY_IMAGE = "by image"
"""Stands for the tasks of a run whose manifests name a task for each image."""


def find_images(inputs: Sequence[str], out: Folder) -> pd.DataFrame:
    """Images that folders (with subfolders), globs, files, `@lists` and CSV manifests stand for, on any store.

    Columns: `image`, an absolute path or URL; `name`, the path that the mask's is made from; `task`, '' where no
    manifest names one. Raises UsageError if there are none, or if `out` lies in a folder of images, where the next run
    would take masks for images; DataError for a manifest that is none.
    """
    several = sum(locate(entry)[0].isdir(locate(entry)[1]) for entry in inputs if not entry.startswith("@")) > 1
    tables = [_read_input(entry, several, out) for entry in inputs]
    found = pd.concat(tables, ignore_index=True).drop_duplicates(["image", "task"], ignore_index=True)
    refuse_clinical(found["image"])
    if found.empty:
        raise UsageError(f"no images in {', '.join(inputs)}; expected {', '.join(IMAGE_SUFFIXES)} files")
    return found


def refuse_clinical(files: Iterable[str]) -> None:
    """Raise UsageError that names the first file of a format that this engine does not read."""
    clinical = [file for file in files if file.lower().endswith(CLINICAL_SUFFIXES)]
    if clinical:
        raise UsageError(
            f"{few(clinical, 1)}: --engine ray segments pictures only ({', '.join(IMAGE_SUFFIXES)}); "
            "leave --engine ray out for DICOM, volumes and videos, or name the pictures alone"
        )


def _read_input(entry: str, several: bool, out: Folder) -> pd.DataFrame:
    """One input; several: more than one is a folder, so that a folder's name has to be a part of its images' names."""
    if entry.startswith("@"):
        fs, path = locate(entry[1:])
        try:
            lines = [line.strip() for line in fs.cat_file(path).decode().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{entry[1:]}: the list of images cannot be read ({error})") from error
        return _listed(lines, base="")
    fs, path = locate(entry)
    if fs.isdir(path):
        top = path.rstrip("/")
        if f"{out.address()}/".startswith(address(fs, f"{top}/x").removesuffix("x")):
            raise UsageError(
                f"--out {out.address()}: lies in {entry}, so that the next run would take masks for images; choose another --out"
            )
        listed = _files_in(fs, top)
        refuse_clinical(listed)
        files = [file for file in listed if file.lower().endswith(IMAGE_SUFFIXES)]
        unknown = [file for file in listed if not file.lower().endswith(IMAGE_SUFFIXES) and may_be_case(PurePosixPath(file))]
        if unknown:
            log.warning(f"{entry}: {len(unknown)} files of no known kind are left out: {few(unknown, 3)}")
        cut = len(top.rpartition("/")[0] if several else top) + 1
        return _table([address(fs, file) for file in files], [file[cut:] for file in files])
    if path.lower().endswith(".csv"):
        return _read_manifest(entry)
    if glob.has_magic(path) and not fs.exists(path):
        steady = path[: path.index(next(c for c in path if c in "*?["))].rpartition("/")[0]  # the folders before the first wildcard
        files = [file for file in sorted(fs.glob(path)) if not fs.isdir(file)]
        return _table([address(fs, file) for file in files], [file[len(steady) + 1 :] for file in files])
    return _table([address(fs, path)], [PurePosixPath(path).name])


def _files_in(fs: AbstractFileSystem, top: str) -> list[str]:
    """All files in a folder and below, in order; on a local disk links are followed, and those that lead nowhere are among them."""
    if isinstance(fs, LocalFileSystem):
        below = search(Path(top))
        lost = [link for link in below.broken if may_be_scan(link) and not link.suffix]
        if lost:
            log.warning(f"{top}: {len(lost)} links lead nowhere: {few(sorted(map(str, lost)), 3)}")
        return sorted(path.as_posix() for path in (*below.files, *below.broken) if path not in lost)
    listed = sorted(fs.find(top))
    macos = [file for file in listed if any(is_of_macos(part) for part in file[len(top) :].split("/"))]
    if macos:
        log.warning(f"{top}: {len(macos)} files that macOS writes beside those of others (._*, __MACOSX) are left out: {few(macos, 3)}")
    left_out = set(macos)
    return [file for file in listed if file not in left_out]


def _read_manifest(entry: str) -> pd.DataFrame:
    """A CSV with the column `image`, paths relative to it or absolute or URLs, and perhaps `task`; others are ignored."""
    fs, path = locate(entry)
    try:
        with fs.open(path, "rb") as file:
            table = pd.read_csv(file, dtype=str, keep_default_na=False, usecols=lambda column: column in ("image", "task"))
    except (OSError, ValueError) as error:
        raise DataError(f"{entry}: cannot be read as a CSV file ({error})") from error
    if "image" not in table:
        raise DataError(f"{entry}: no column 'image'; expected image[,task], a line for each image")
    found = _listed(table["image"].tolist(), base=address(fs, path).rpartition("/")[0])
    if "task" in table:
        if (table["task"] == "").any():
            raise DataError(
                f"{entry}: line {int((table['task'] == '').argmax()) + 2} names no task; name one in every line or drop the column"
            )
        found["task"] = table["task"]
    return found


def _listed(lines: Sequence[str], base: str) -> pd.DataFrame:
    """Images as a list or manifest names them; base: what relative paths begin at, '' for the working folder."""

    def place(line: str) -> str:
        relative = "://" not in line and not line.startswith("/")
        return address(*locate(f"{base}/{line}" if relative and base else line))

    def name(line: str) -> str:
        return "/".join(part for part in line.partition("://")[2 if "://" in line else 0].split("/") if part not in ("", ".", ".."))

    return _table([place(line) for line in lines], [name(line) for line in lines])


def _table(images: list[str], names: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"image": images, "name": names, "task": ""}, dtype="str")


def assign_tasks(found: pd.DataFrame, known: TaskSet, task: str | None, all_tasks: bool) -> tuple[pd.DataFrame, str]:
    """A line for each image and task, and the run's tasks in a word; raises UsageError if it is unclear or unknown."""
    named = found["task"] != ""
    if named.any():
        if not named.all() or task is not None or all_tasks:
            raise UsageError(
                "a manifest names a task for each image: give neither --task nor --all-tasks nor images without a task beside it"
            )
        for name in found["task"].unique():
            known.id(name)
        return found, BY_IMAGE
    tasks = choose_tasks(known, task, all_tasks)
    work = found.drop(columns="task").merge(pd.DataFrame({"task": tasks}, dtype="str"), how="cross")
    return work, ",".join(tasks)


def name_masks(work: pd.DataFrame, out: Folder, folder_per_task: bool, endings: Sequence[str]) -> pd.DataFrame:
    """Add the column `mask`: TASK/sub/folder/NAME.png, or without TASK, for the image sub/folder/NAME.jpg.

    Images that differ in their suffix alone keep it: NAME.jpg.png. endings: of the files that may lie beside a mask.
    Raises UsageError if two images would share a name, or if an image lies in `out`.
    """
    inside = work["image"].str.startswith(out.address() + "/")
    if inside.any():
        raise UsageError(f"{work['image'][inside].iloc[0]}: lies in --out, where the masks go; choose another --out than {out.address()}")
    images = work.drop_duplicates("image")
    stems = images["name"].str.replace(r"\.[^./]*$", "", regex=True)
    names = stems.where(~stems.duplicated(keep=False), images["name"])
    files = pd.concat([names + ending for ending in ("", *endings)])
    twice = files[files.duplicated(keep=False)]
    if not twice.empty:
        first = images.loc[twice.index[twice == twice.iloc[0]], "image"].tolist()
        raise UsageError(f"{few(first)}: would share the mask {twice.iloc[0]}.png; give one folder that holds all, or separate runs")
    mask = work["image"].map(names.set_axis(images["image"])) + ".png"
    return work.assign(mask=work["task"] + "/" + mask if folder_per_task else mask)
