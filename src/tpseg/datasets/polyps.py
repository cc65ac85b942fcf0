"""Colon polyps as PraNet's authors packed them: two sets to train on, five to report on."""

from __future__ import annotations

from collections.abc import Iterator

from tpseg.core.tasks import Task
from tpseg.datasets.pictures import mask, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import Facts, LeftOut, Pair, Source
from tpseg.datasets.tree import FilePair, file_pairs, part_of

TRAIN = "TrainDataset"
SETS = {
    "CVC-300": ("cvc-300",),
    "CVC-ClinicDB": ("cvc-clinicdb",),
    "CVC-ColonDB": ("cvc-colondb",),
    "ETIS-LaribPolypDB": ("etis-laribpolypdb", "etis"),
    "Kvasir": ("kvasir",),
}
PARTS = {**SETS, TRAIN: ("traindataset", "train")}


class Polyps(Source):
    """`TrainDataset/{image,mask}` and `TestDataset/SET/{images,masks}`; the column `set` says which of the five an image is of."""

    name = "polyps"
    task = Task("colon_polyp", "endoscopy", "Colon polyp")
    facts = Facts(
        title="Polyps: Kvasir, CVC-ClinicDB, CVC-300, CVC-ColonDB, ETIS-LaribPolypDB",
        size="2248 PNG of many sizes: 1450 train, 798 test (60 CVC-300, 62 CVC-ClinicDB, 380 CVC-ColonDB, 196 ETIS, 100 Kvasir)",
        licence="each set its own, for research; see their pages before you pass anything on",
        page="https://github.com/DengPingFan/PraNet (links to TrainDataset and TestDataset)",
        files="TrainDataset.zip and TestDataset.zip, with images/ and masks/ (older packs: image/ and mask/)",
        citation="Fan et al., PraNet: Parallel Reverse Attention Network for Polyp Segmentation, MICCAI 2020; and the five sets' papers",
        counts={"train": 1450, "val": 798},
        split="PraNet's TrainDataset and TestDataset; papers report the mean over the five sets: the column set is for that",
    )

    def pairs(self, release: Release) -> Iterator[Pair | LeftOut]:
        found = list(file_pairs(release.files))
        parts = {one: part_of(one.parent, PARTS) for one in found if isinstance(one, FilePair)}
        if not set(parts.values()) & set(SETS):
            return
        for one in found:
            if isinstance(one, LeftOut):
                yield one
            elif part := parts[one]:
                yield Pair(
                    name=f"{'train' if part == TRAIN else part}_{one.stem}",
                    image=picture(release, one.image),
                    mask=mask(release, one.mask),
                    split="train" if part == TRAIN else "test",
                    files=(one.image, one.mask),
                    columns={"set": part},
                )
            else:
                yield LeftOut(str(one.image), "in none of the folders that belong to this set", meant=True)
