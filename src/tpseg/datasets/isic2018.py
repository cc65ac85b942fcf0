"""ISIC 2018, task 1: dermoscopic images of skin lesions; training and validation pooled and drawn 7:3, as papers do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tpseg.core.tasks import Task
from tpseg.datasets.pictures import mask, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tree import MASK_FOLDERS, NO_PARTNER, file_pairs, is_picture, part_of

NAME = re.compile(r"(?P<id>ISIC_\d+)(?P<mask>_segmentation)?", re.IGNORECASE)
TEST = re.compile(r"(^|[_ -])test([_ -]|$)", re.IGNORECASE)
PARTS = {"train": ("train",), "test": ("val",)}
"""The folders of MALUNet's pack, which is drawn already; its val is what papers report."""


class Isic2018(Source):
    """The challenge's `ISIC_0000000.jpg` and `ISIC_0000000_segmentation.png`, in whatever folders; or a pack with `train/` and `val/`.

    A pack that has numbered its images is known by a folder `isic...` above them.
    """

    name = "isic2018"
    task = Task("skin_lesion", "dermoscopy", "Skin lesion")
    facts = Facts(
        title="ISIC 2018 task 1",
        size="2594 training and 100 validation images, JPEG of several megapixels; masks PNG; about 11 GB",
        licence="CC BY-NC 4.0 (to be checked on the page)",
        page="https://challenge.isic-archive.com/data/#2018",
        files="ISIC2018_Task1-2_Training_Input.zip, ISIC2018_Task1_Training_GroundTruth.zip, ISIC2018_Task1-2_Validation_Input.zip, "
        "ISIC2018_Task1_Validation_GroundTruth.zip",
        citation="Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv 1902.03368; Tschandl et al., The HAM10000 "
        "dataset, Scientific Data 5:180161 (2018)",
        counts={"train": 1886, "val": 808},
        split="training and validation pooled (2694) and drawn 7:3; the folders of MALUNet's pack are kept; the challenge's test part "
        "is not used",
    )

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        images: dict[str, PurePosixPath] = {}
        masks: dict[str, PurePosixPath] = {}
        for file in filter(is_picture, release.files):
            found = NAME.fullmatch(file.stem)
            if found is None:  # super-pixels and attribute maps have names of their own
                continue
            wanted = masks if found["mask"] or any(folder.lower() in MASK_FOLDERS for folder in file.parts[:-1]) else images
            name = found["id"].upper()
            if wanted.setdefault(name, file) != file:
                yield LeftOut(str(file), "a second file of one name", f"{wanted[name]} was taken", meant=True)
        if not images:
            yield from _numbered(release)
        packed = {part_of(image.parent, PARTS) for image in images.values()} == set(PARTS)
        for name, image in sorted(images.items()):
            if any(TEST.search(folder) for folder in image.parts[:-1]):
                yield LeftOut(str(image), "the challenge's test part, which papers do not use", meant=True)
            elif name not in masks:
                yield LeftOut(str(image), NO_PARTNER, "an image without a mask")
            else:
                split = part_of(image.parent, PARTS) if packed else ""
                yield Pair(name, picture(release, image), mask(release, masks[name]), split=split, files=(image, masks[name]))
        for name in sorted(set(masks) - set(images)):
            yield LeftOut(str(masks[name]), NO_PARTNER, "a mask without an image")


def speaks_of_isic(release: Release, file: PurePosixPath) -> bool:
    """Whether a folder above a file, or the release itself, is called after the challenge."""
    return any("isic" in folder.lower() for folder in (release.path.resolve().name, *file.parts[:-1]))


def _numbered(release: Release) -> Iterator[Pair | LeftOut]:
    """A pack whose `{train,val}/{images,masks}` hold names of its own."""
    found = list(file_pairs([file for file in release.files if speaks_of_isic(release, file)]))
    if {part_of(one.parent, PARTS) for one in found if not isinstance(one, LeftOut)} != set(PARTS):
        return
    for one in found:
        if isinstance(one, LeftOut):
            yield one
        else:
            part = part_of(one.parent, PARTS)
            name = f"{one.parent.name}_{one.stem}"
            yield Pair(name, picture(release, one.image), mask(release, one.mask), split=part, files=(one.image, one.mask))
