"""AMD-SD: retinal OCT with the lesions of wet macular degeneration; picture and coloured labels side by side in one PNG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from tpseg.core.errors import DataError, few
from tpseg.core.tasks import Task
from tpseg.datasets.pictures import decode, labels, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tree import IMAGE_FOLDERS, file_pairs, is_picture
from tpseg.imaging.pictures.formats import to_rgb

COLOURS = ((255, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 0), (0, 0, 255))
"""IS/OS disruption, intraretinal fluid, subretinal fluid, subretinal hyperreflective material, pigment epithelial detachment."""
LISTS = {"training.txt": "train", "validation.txt": "test"}


class AmdSd(Source):
    """`images/PATIENT/EYE_NUMBER.png` with the split in two text files; or the Kaggle mirror's `images/` and `masks/` of class ids."""

    name = "amd-sd"
    groups = "patient (the mirror names the eye alone)"
    task = Task("wet_amd", "OCT", "Wet age-related macular degeneration")
    facts = Facts(
        title="AMD-SD",
        size="3049 PNG, picture and labels side by side in 1140x380; 138 patients",
        licence="CC BY-NC-ND 4.0 (no derivatives: do not pass on what is made of it)",
        page="https://doi.org/10.1038/s41597-024-03844-6 (figshare, Springer Nature collection 7157554)",
        files="AMD-SD.zip with images/PATIENT/EYE_NUMBER.png, training.txt, validation.txt; or the Kaggle mirror's images/ and masks/",
        citation="AMD-SD: An Optical Coherence Tomography Image Dataset for wet AMD Lesions Segmentation, Scientific Data 11:1014 (2024)",
        counts={"train": 2346, "val": 703},
        split="the release's training.txt and validation.txt; the mirror has none: drawn by eye",
    )

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        panels = [file for file in release.files if is_picture(file) and _in_patient_folder(file)]
        if panels:
            yield from _originals(release, panels)
        elif not any(file.name.lower() in LISTS for file in release.files):
            yield from _mirrored(release)


def _in_patient_folder(file: PurePosixPath) -> bool:
    return len(file.parts) > 2 and file.parts[-3].lower() in IMAGE_FOLDERS and file.stem.replace("_", "").isdigit()


def _originals(release: Release, panels: list[PurePosixPath]) -> Iterator[Pair | LeftOut]:
    split, unknown = _official_split(release, panels)
    yield from unknown
    for file in panels:
        if split and file not in split:
            yield LeftOut(str(file), "in neither training.txt nor validation.txt")
            continue
        yield Pair(
            name=f"{file.parent.name}_{file.stem}",
            image=lambda file=file: _panels(release, file)[0],  # type: ignore[misc]
            mask=lambda file=file: lesion_of_colours(_panels(release, file)[1]),  # type: ignore[misc]
            split=split.get(file, ""),
            group=file.parent.name,
            files=(file,),
        )


def _panels(release: Release, file: PurePosixPath) -> tuple[np.ndarray, np.ndarray]:
    """Left and right half, (H, W/2, 3) uint8 each."""
    both = to_rgb(decode(release.read(file), str(file)), str(file))
    height, width = both.shape[:2]
    if width % 2 or width < 2 * height:
        raise DataError(f"{file}: {width}x{height}; expected picture and labels side by side, such as 1140x380")
    return both[:, : width // 2], both[:, width // 2 :]


def lesion_of_colours(panel: np.ndarray) -> np.ndarray:
    """The label panel (H, W, 3) uint8 as (H, W) bool: each channel taken as 0 or 255, then any of the five lesion colours."""
    bright = panel >= 128
    return np.logical_or.reduce([(bright == (np.array(colour) == 255)).all(axis=2) for colour in COLOURS])


def _official_split(release: Release, panels: list[PurePosixPath]) -> tuple[dict[PurePosixPath, str], list[LeftOut]]:
    """Each picture's part by the text files, whose lines may be a path, a name or a patient; and lines that name nothing here.

    A picture of both lists is in the reported part: it must not be trained on.
    """
    by_line: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in panels:
        path = file.with_suffix("").parts
        for depth in range(len(path)):
            by_line["/".join(path[depth:])].append(file)
    by_patient: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in panels:
        by_patient[file.parent.name].append(file)
    split: dict[PurePosixPath, str] = {}
    unknown = []
    for text in (file for file in release.files if file.name.lower() in LISTS):
        part = LISTS[text.name.lower()]
        for line in release.read(text).decode("utf-8-sig", "replace").splitlines():
            words = [word.strip("'\"").replace("\\", "/") for word in line.replace(",", " ").split()]
            keys = [_without_suffix(word) for word in words]
            found = next((places[key] for key in keys for places in (by_line, by_patient) if key in places), [])
            if len(found) > 1 and not any(key in by_patient for key in keys):
                raise DataError(f"{text}: '{line.strip()}' may be any of {few([str(file) for file in found])}; expected PATIENT/NAME")
            for file in found:
                split[file] = "test" if split.get(file) == "test" else part
            if words and not found:
                unknown.append(LeftOut(words[0], f"named in {text.name}, not in the download"))
    return split, unknown


def _without_suffix(word: str) -> str:
    path = PurePosixPath(word)
    return str(path.with_suffix("") if is_picture(path) else path)


def _mirrored(release: Release) -> Iterator[Pair | LeftOut]:
    """`images/EYE_NUMBER.png` and `masks/EYE_NUMBER.png`, of class ids 1 to 5."""
    found = list(file_pairs(release.files))
    stems = [one.stem for one in found if not isinstance(one, LeftOut)]
    if not stems or not all("_" in stem and stem.replace("_", "").isdigit() for stem in stems):
        return
    for one in found:
        if isinstance(one, LeftOut):
            yield one
        else:
            yield Pair(
                one.stem, picture(release, one.image), labels(release, one.mask), group=one.stem.split("_")[0], files=(one.image, one.mask)
            )
