"""Predictions in files, made by anything: which file belongs to which case, and its values as probabilities."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from functools import cache
from pathlib import Path, PurePath

import numpy as np

from tpseg.core.errors import DataError, few
from tpseg.data.manifest import Case
from tpseg.imaging.pictures.formats import DARK, IMAGE_SUFFIXES, open_image, refuse_invisible
from tpseg.imaging.pictures.samples import samples_of

log = logging.getLogger(__name__)

SHOWN = 5
"""Files that an error names before it only counts them."""
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""What stands for certainty in a probability map of whole numbers."""


def read_predictions(folder: Path, cases: Sequence[Case]) -> Iterator[np.ndarray]:
    """Masks or grey probability maps made by anything, one (H, W) float32 in [0, 1] per case, read as they are asked for.

    A case's file is `folder/<task>/<stem>.<suffix>`, with only one task among the cases also `folder/<stem>.<suffix>`; the
    image's relative path may stand in for its stem, and must where two images of a task share a stem. Raises DataError for
    missing files (all of them counted before the first is read), several candidates, a file of another size or no map. All files
    are looked through first, for what their numbers mean is told by a task's files together.
    """
    files = _locate(folder, cases)
    maps = _tell_maps(files, cases)
    return (_read_map(path, case, maps) for path, case in zip(files, cases, strict=True))


def _locate(folder: Path, cases: Sequence[Case]) -> list[Path]:
    """The one file of every case, see `read_predictions`."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected predictions in it, one per image, as <task>/<name of the image>.png")
    one_task = len({case.task for case in cases}) == 1
    stems = Counter((case.task, _relative(case).name) for case in cases)
    relatives = Counter((case.task, _relative(case)) for case in cases)
    listing = cache(_files_by_stem)
    found, missing = [], []
    for case in cases:
        relative = _relative(case)
        if relatives[case.task, relative] > 1:
            raise DataError(
                f"task '{case.task}': several cases are called '{relative}' but for the suffix, so that no prediction "
                "could be told to belong to one of them; rename the images or remove the repeated lines from split.csv"
            )
        names = {relative, PurePath(relative.name)} if stems[case.task, relative.name] == 1 else {relative}
        places = [root / name for root in ([folder / case.task, folder] if one_task else [folder / case.task]) for name in sorted(names)]
        files = [file for place in places for file in listing(place.parent).get(place.name, ())]
        if len(files) > 1:
            raise DataError(f"{files[0]} and {files[1]}: both could be the prediction for {case.image}; remove one")
        found += files
        missing += [] if files else [" or ".join(f"{place}.*" for place in places)]
    if missing:
        shown = "; ".join(missing[:SHOWN]) + ("; ..." if len(missing) > SHOWN else "")
        raise DataError(
            f"{folder}: {len(missing)} of {len(cases)} predictions are missing; looked for {shown} ({', '.join(IMAGE_SUFFIXES)})"
        )
    return found


def _relative(case: Case) -> PurePath:
    """The image's path as its table has it, without suffix, root and `..`."""
    path = PurePath(case.name).with_suffix("")
    return PurePath(*[part for part in path.parts if part not in ("..", path.anchor)])


def _files_by_stem(directory: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            files.setdefault(path.stem, []).append(path)
    return files


def _tell_maps(files: Sequence[Path], cases: Sequence[Case]) -> set[tuple[str, np.dtype]]:
    """Tasks and number types, of whole numbers, of which some file is no mask: all files of these are probability maps.

    One file does not tell: {0, 1} is a mask, or a map that never exceeds 1/255, or one of the maps of three classes. Raises
    DataError where the files of a task tell together that they are no probabilities either.
    """
    held: dict[tuple[str, np.dtype], set[int]] = defaultdict(set)
    maps: dict[tuple[str, np.dtype], tuple[Path, list[int]]] = {}
    for path, case in zip(files, cases, strict=True):
        values = _grey_values(path)
        if values.dtype not in WHITE:
            continue
        found = np.flatnonzero(np.bincount(values.ravel())).tolist()
        key = case.task, values.dtype
        held[key] |= set(found)
        if not _is_mask(found):
            maps.setdefault(key, (path, found))
    for (task, kind), (path, found) in maps.items():
        low, white = DARK * WHITE[kind] // 255, WHITE[kind]
        if not any(low <= value < white for value in held[task, kind]):
            shown = few([str(value) for value in found])
            raise DataError(
                f"{path}: values {shown}; expected a mask of 0 and 1, or 0 and {white}, or a probability map in which {white} is 1, "
                f"but no prediction of task '{task}' has a value from {low} to {white - 1}. Convert class ids to one mask per task; "
                "save probabilities as 8 bits in which 255 is 1, or as floats in a TIFF"
            )
        if max(held[task, kind]) <= white // 2:
            log.warning(
                f"task '{task}': no prediction exceeds {max(held[task, kind])} of {white}, which is no probability over one half, "
                f"so all masks are empty; if they are masks, save them as 0 and {white}"
            )
    return set(maps)


def _is_mask(found: Sequence[float]) -> bool:
    """Whether distinct values are those of a mask, whatever its number type."""
    return any(set(found) <= {0, high} for high in (1, 255, 65535))


def _read_map(path: Path, case: Case, maps: Container[tuple[str, np.dtype]]) -> np.ndarray:
    """A prediction as probabilities, (H, W) float32; raises DataError for a size other than the mask's.

    maps: as `_tell_maps` tells. Whole numbers of 8 bits are divided by 255 then, those of 16 by 65535. Floats are taken as they
    are, and all others are masks.
    """
    values = _grey_values(path)
    height, width = values.shape
    expected = open_image(case.mask).size
    if (width, height) != expected:
        raise DataError(f"{path}: {width} x {height} pixels (width x height); expected {expected[0]} x {expected[1]} as {case.mask} has")
    if (case.task, values.dtype) in maps:
        return (values / WHITE[values.dtype]).astype(np.float32)
    if values.dtype.kind != "f" or values.max() > 1:
        found = np.unique(values).tolist()
        if _is_mask(found):
            return (values > 0).astype(np.float32)
        if values.dtype.kind != "f":
            raise DataError(
                f"{path}: values {few([str(value) for value in found])} of type {values.dtype}; expected a mask of 0 and 1, or a "
                "probability map of 8 or 16 bits or of floats. Convert class ids to one mask per task"
            )
    if not (values.min() >= 0 and values.max() <= 1):
        raise DataError(f"{path}: values from {values.min()} to {values.max()}; expected 0 to 1")
    return values.astype(np.float32)


def _grey_values(path: Path) -> np.ndarray:
    """A file's grey values as it has them, (H, W); a palette's as they look, if they do not stand for a mask of two colours.

    Raises DataError for colours, and for a prediction drawn in the alpha channel or in one colour.
    """
    samples = samples_of(open_image(path))
    refuse_invisible(samples, str(path))
    values = samples.values
    if samples.palette is not None:
        values = samples.palette[values][..., :3]
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            if samples.palette is None or samples.values.max() > 1:
                raise DataError(f"{path}: a coloured image; expected a mask or a grey probability map")
            values = samples.values[..., None]
        values = values[..., 0]
    return values
