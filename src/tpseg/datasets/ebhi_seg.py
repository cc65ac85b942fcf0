"""EBHI-Seg: enteroscope biopsies stained with H&E; the paper uses the adenocarcinomas."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tpseg.core.tasks import Task
from tpseg.datasets.pictures import mask, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tree import file_pairs

CLASSES = ("high-grade in", "low-grade in", "normal", "polyp", "serrated adenoma")
"""The folders of the other classes."""


class EbhiSeg(Source):
    """`EBHI-SEG/Adenocarcinoma/{image,label}/NAME.png`; the other classes' folders are left out."""

    name = "ebhi-seg"
    groups = "what the name has before its first dash, such as GT2000000: taken for the case"
    task = Task("adenocarcinoma", "pathology", "Adenocarcinoma of the colon")
    facts = Facts(
        title="EBHI-Seg",
        size="2228 pairs of six classes, PNG of 224x224; 795 adenocarcinomas",
        licence="CC BY 4.0",
        page="https://doi.org/10.6084/m9.figshare.21540159",
        files="EBHI-SEG.rar with Adenocarcinoma/image/ and Adenocarcinoma/label/",
        citation="Shi et al., EBHI-Seg: A Novel Enteroscope Biopsy Histopathological Hematoxylin and Eosin Image Dataset for Image "
        "Segmentation Tasks, Frontiers in Medicine 10:1114673 (2023)",
        counts={"train": 636, "val": 159},
        split="drawn 4:1, as the paper did; its draw is not published",
    )

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        for one in file_pairs([file for file in release.files if _class(file.parts) == "adenocarcinoma"]):
            if isinstance(one, LeftOut):
                yield one
            else:
                found = re.match(r"[^-]+(?=-)", one.stem)
                group = found[0] if found else ""
                yield Pair(one.stem, picture(release, one.image), mask(release, one.mask), group=group, files=(one.image, one.mask))
        for one in file_pairs([file for file in release.files if _class(file.parts) in CLASSES]):
            if not isinstance(one, LeftOut):
                yield LeftOut(str(one.image), "another class than adenocarcinoma, which the paper uses alone", meant=True)


def _class(parts: tuple[str, ...]) -> str:
    """The folder above `image` or `label`."""
    return parts[-3].lower() if len(parts) > 2 else ""
