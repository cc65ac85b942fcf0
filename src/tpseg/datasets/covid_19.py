"""COVID-19 infection of the lung in CT slices, as the authors of M2SNet and Spider packed it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tpseg.core.tasks import Task
from tpseg.datasets.pictures import mask, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tree import FilePair, file_pairs

SCAN = re.compile(r"(.+)_\d+")


class Covid19(Source):
    """`COVID-19_Lung_Infection_train/{images,masks}` and `COVID-19_Lung_Infection_test/COVID/{images,masks}`.

    Slices are called SCAN_NUMBER. The scan is the group of a training slice, so that val shares none with train. It is no group of a
    reported one: the release may have divided scans, and leaving out all that touch its test part might leave nothing to learn from.
    """

    name = "covid-19"
    groups = "scan, by the name, in the training part alone"
    task = Task("lung_infection", "CT", "COVID-19 infection of the lung")
    facts = Facts(
        title="COVID-19 lung infection",
        size="about 1279 slices: 894 train, 383 or 385 test (papers differ); JPEG images, PNG masks",
        licence="none stated by the pack; the scans are from medicalsegmentation.com",
        page="https://github.com/Xiaoqi-Zhao-DLUT/MSNet-M2SNet (Google Drive links for M2SNet's COVID-19 training and test sets)",
        files="COVID-19_Lung_Infection_train/ and COVID-19_Lung_Infection_test/COVID/, each with images/ and masks/",
        citation="COVID-19 CT segmentation dataset, medicalsegmentation.com (2020); packed by Zhao et al., M2SNet, arXiv 2303.10894",
        counts={"train": 894, "val": 385},
        split="the release's folders; slices of one scan may be in both: see the column scan",
    )

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        found = list(file_pairs(release.files))
        parts = {one: _part(one.parent) for one in found if isinstance(one, FilePair)}
        if not any(parts.values()):
            return
        for one in found:
            if isinstance(one, LeftOut):
                yield one
            elif part := parts[one]:
                named = SCAN.fullmatch(one.stem)
                scan = named[1] if named else ""
                yield Pair(
                    name=f"{part}_{one.stem}",
                    image=picture(release, one.image),
                    mask=mask(release, one.mask),
                    split=part,
                    group=scan if part == "train" else "",
                    files=(one.image, one.mask),
                    columns={"scan": scan},
                )
            else:
                yield LeftOut(str(one.image), "in none of the folders that belong to this set", meant=True)


def _part(parent: PurePosixPath) -> str:
    """train or test by the innermost folder that ends so, in a path that speaks of COVID; '' for any other."""
    folders = [folder.lower() for folder in parent.parts]
    if not any("covid" in folder for folder in folders):
        return ""
    return next((part for folder in reversed(folders) for part in ("train", "test") if folder.endswith(part)), "")
