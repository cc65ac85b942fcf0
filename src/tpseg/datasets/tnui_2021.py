"""TNUI-2021: thyroid nodules in ultrasound, in folders by part."""

from __future__ import annotations

from collections.abc import Iterator

from tpseg.core.tasks import Task
from tpseg.datasets.isic2018 import speaks_of_isic
from tpseg.datasets.pictures import mask, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tree import FilePair, file_pairs

PARTS = {"train": "train", "val": "test"}
"""The paper reports on the release's val."""


class Tnui2021(Source):
    """`thyroid_data/{train,val,test}/{images,masks}/NNN.png`; the paper uses train and val, so test is left out."""

    name = "tnui-2021"
    task = Task("thyroid_nodule", "ultrasound", "Thyroid nodule")
    facts = Facts(
        title="TNUI-2021",
        size="1381 PNG: 966 train, 276 val, 139 test; 546 MB",
        licence="none stated: ask the authors before you pass anything on",
        page="https://github.com/zxg3017/TNUI-2021-",
        files="the repository, or its zip, with thyroid_data/{train,val,test}/{images,masks}/",
        citation="zxg3017, TNUI-2021, GitHub repository (2021)",
        counts={"train": 966, "val": 276},
        split="the release's train, and its val as what is reported; its test is not used, as in the paper",
    )

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        found = list(file_pairs(release.files))
        of_part = [one for one in found if isinstance(one, FilePair) and one.parent.name.lower() in PARTS]
        if {one.parent.name.lower() for one in of_part} != set(PARTS) or any(_skin(release, one) for one in of_part):
            return
        for one in found:
            if isinstance(one, LeftOut):
                yield one
            elif one.parent.name.lower() == "test":
                yield LeftOut(str(one.image), "the release's test part, which the paper does not use", meant=True)
            elif one.parent.name.lower() in PARTS:
                part = one.parent.name.lower()
                files = (one.image, one.mask)
                yield Pair(f"{part}_{one.stem}", picture(release, one.image), mask(release, one.mask), split=PARTS[part], files=files)


def _skin(release: Release, one: FilePair) -> bool:
    """Skin lesions are packed in such folders too."""
    return one.stem.startswith("ISIC_") or speaks_of_isic(release, one.image)
