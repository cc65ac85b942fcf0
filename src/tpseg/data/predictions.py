"""Predictions in files, made by anything: which file belongs to which case, and its values as probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from tpseg.data.formats import IMAGE_SUFFIXES, open_image
from tpseg.data.manifest import Case
from tpseg.errors import DataError

SHOWN = 5
"""Files that an error names before it only counts them."""


def read_predictions(folder: Path, cases: Sequence[Case]) -> Iterator[np.ndarray]:
    """Masks or grey probability maps made by anything, one (H, W) float32 in [0, 1] per case, read as they are asked for.

    A case's file is `folder/<task>/<stem>.<suffix>`, with only one task among the cases also `folder/<stem>.<suffix>`; the
    image's relative path may stand in for its stem, and must where two images of a task share a stem. Raises DataError for
    missing files (all of them counted before the first is read), several candidates, a file of another size or no map.
    """
    return (_read_map(path, case) for path, case in zip(_locate(folder, cases), cases, strict=True))


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


def _read_map(path: Path, case: Case) -> np.ndarray:
    """A prediction as probabilities, (H, W) float32; raises DataError for a size other than the mask's."""
    image = open_image(path)
    width, height = open_image(case.mask).size
    if image.size != (width, height):
        raise DataError(f"{path}: {image.width} x {image.height} pixels (width x height); expected {width} x {height} as {case.mask} has")
    return _probabilities(image, path)


def _probabilities(image: Image.Image, path: Path) -> np.ndarray:
    """Grey values to probabilities, (H, W) float32.

    Only {0, 1} or only {0, 255} is a mask; other 8-bit values are divided by 255, 16-bit ones by 65535, floats are taken as
    they are. Colours raise DataError, unless they are the two entries of a palette, which is a mask.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        white = 1 if image.mode == "F" else 65535
    else:
        rgb = np.asarray(image.convert("L" if image.mode == "LA" else "RGB").convert("RGB"))
        values, white = rgb[..., 0], 255
        if (rgb != values[..., None]).any():
            indices = np.asarray(image) if image.mode == "P" else None
            if indices is None or indices.max() > 1:
                raise DataError(f"{path}: a coloured image; expected a mask or a grey probability map")
            values = indices
    if not (values.min() >= 0 and values.max() <= white):
        raise DataError(f"{path}: values from {values.min()} to {values.max()}; expected 0 to {white}")
    found = set(np.unique(values).tolist())
    if found <= {0, 1} or found <= {0, 255}:
        return (values > 0).astype(np.float32)
    return (values / white).astype(np.float32)
