"""BUSI: breast ultrasound, benign and malignant; one image may have several masks, which are united."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from tpseg.core.tasks import Task
from tpseg.datasets.pictures import mask, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tree import MASK_FOLDERS, NO_PARTNER, is_picture

NAME = re.compile(r"(?P<kind>benign|malignant|normal) ?\((?P<number>\d+)\)(?P<mask>_mask(_\d+)?)?", re.IGNORECASE)


class Busi(Source):
    """`Dataset_BUSI_with_GT/{benign,malignant,normal}/benign (1).png`, `benign (1)_mask.png`, `benign (1)_mask_1.png`.

    Or, as others have packed them, images and masks of one name in folders `images` and `masks`.
    """

    name = "busi"
    task = Task("breast_lesion", "ultrasound", "Breast lesion")
    facts = Facts(
        title="BUSI, breast ultrasound images",
        size="780 PNG of about 500x500: 437 benign, 210 malignant, 133 normal",
        licence="stated differently in different places: CC0, CC BY, other; ask before you pass anything on",
        page="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        files="Dataset_BUSI.zip with Dataset_BUSI_with_GT/{benign,malignant,normal}/",
        citation="Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28:104863 (2020)",
        counts={"train": 486, "val": 161},
        split="drawn 3:1 from benign and malignant; normals have no lesion and are left out, as in the paper; it has known duplicates",
    )

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        images: dict[tuple[str, int], PurePosixPath] = {}
        masks: dict[tuple[str, int], list[PurePosixPath]] = defaultdict(list)
        for file in filter(is_picture, release.files):
            found = NAME.fullmatch(file.stem)
            if found is None:
                continue
            key = (found["kind"].lower(), int(found["number"]))
            if found["mask"] or any(folder.lower() in MASK_FOLDERS for folder in file.parts[:-1]):
                masks[key].append(file)
            elif images.setdefault(key, file) != file:
                yield LeftOut(str(file), "a second file of one name", f"{images[key]} was taken", meant=True)
        for key, image in sorted(images.items()):
            kind, number = key
            if kind == "normal":
                yield LeftOut(str(image), "normal: holds no lesion, and the paper does without", meant=True)
            elif key not in masks:
                yield LeftOut(str(image), NO_PARTNER, "an image without a mask")
            else:
                name, files = f"{kind}_{number:03d}", (image, *masks[key])
                yield Pair(name, picture(release, image), mask(release, *masks[key]), files=files, columns={"kind": kind})
        for key in sorted(set(masks) - set(images)):
            for file in masks[key]:
                yield LeftOut(str(file), NO_PARTNER, "a mask without an image")
