"""The layout `nnunet`: imagesTr, labelsTr and dataset.json, of volumes or of pictures; the Medical Segmentation Decathlon's too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tpseg.core.errors import DataError
from tpseg.datasets.layout import among, choose_labels, label_ids, read_json, short, stem_of
from tpseg.datasets.pictures import decode, ids_of, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair
from tpseg.datasets.volumes import LabelIds, VolumeLayout, Volumes
from tpseg.imaging.pictures.formats import IMAGE_SUFFIXES
from tpseg.imaging.reading.opening import ITK_SUFFIXES, NIFTI_SUFFIXES

CHANNEL = re.compile(r"(.+)_(\d{4})")
"""An image's name: the case's, and the number of the channel."""
VOLUMES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
ALL = -1
"""The channel of a file that may hold all of a case's."""
PARTS = {"Tr": "train", "Ts": "test"}


class NnunetSource(VolumeLayout):
    """`imagesTr/CASE_0000.nii.gz` with `labelsTr/CASE.nii.gz`, and `imagesTs`, `labelsTs` where there are labels: these are test.

    labels: names or ids of `dataset.json` (format 1 or 2) that are lesion; by default all but the background. channel: which of
    the images of a case, or volumes of its image, is taken; one, for prediction too is given one image. Volumes are cut along
    `axis` (axial, coronal, sagittal, or across voxel axis 0, 1, 2) into slices: all with lesion, and of those without the share
    `empty_slices`, evenly spaced. The group is the case, so that no volume is in two splits, or what the pattern `group` finds
    in its name. window: as in tasks.yaml; by default from percentile 0.5 to 99.5 of each volume, never of a slice. Pictures are
    taken as they are.
    """

    name = "nnunet"
    groups = "case"

    def __init__(
        self,
        task: str = "lesion",
        modality: str = "unknown",
        description: str = "",
        labels: Sequence[str] = (),
        group: str | None = None,
        window: str = "",
        axis: str = "",
        channel: int = 0,
        empty_slices: float = 0.0,
    ) -> None:
        super().__init__(task, modality, description, labels, group, window, axis, empty_slices)
        self.channel = channel

    def find(self, release: Release) -> Iterator[Pair | LeftOut]:
        roots = sorted({file.parent.parent for file in release.files if file.parent.name in ("imagesTr", "imagesTs")})
        if not roots:
            return
        if len(roots) > 1:
            raise DataError(f"{release.path}: {len(roots)} data sets ({roots[0]}, {roots[1]}...); give the folder of one")
        file = roots[0] / "dataset.json"
        description = read_json(release, file) if file in release.files else None
        ids = self._ids(description, file)
        one_file = Volumes(release, self.task.window, self.axis, ids, self.channel)  # the Decathlon's, with all channels of a case
        volumes = Volumes(release, self.task.window, self.axis, ids)
        tested = any(file.parent == roots[0] / "labelsTs" for file in release.files)
        for part, split in PARTS.items():
            split = split if tested else ""
            labels = {stem_of(file): file for file in release.files if file.parent == roots[0] / f"labels{part}"}
            images = _images(release, roots[0] / f"images{part}", labels)
            for case, channels in images.items():
                if case not in labels:
                    reason = "no label map" if part == "Tr" else "a test image without a label map"
                    yield LeftOut(case, reason, f"labels{part} has no file {case}", meant=part == "Ts")
                elif ALL in channels:
                    yield from self._case(release, one_file, case, channels[ALL], labels[case], split, ids)
                elif self.channel not in channels:
                    yield LeftOut(case, f"no channel {self.channel}", f"its channels: {', '.join(map(str, channels))}")
                else:
                    yield from self._case(release, volumes, case, channels[self.channel], labels[case], split, ids)
            yield from (LeftOut(str(labels[case]), "a label map without an image") for case in labels if case not in images)
            if part == "Tr":
                missing = [case for case in _listed_cases(description) if case not in images]
                yield from (LeftOut(case, "named in dataset.json, not in the download") for case in missing)

    def _case(
        self,
        release: Release,
        volumes: Volumes,
        case: str,
        image: PurePosixPath,
        labels: PurePosixPath,
        split: str,
        ids: LabelIds,
    ) -> Iterator[Pair | LeftOut]:
        group = self.group_of(case)
        if image.name.lower().endswith(VOLUMES):
            yield from volumes.slices(image, labels, case, split, group or case, self.empty_slices)
        elif image.suffix.lower() in IMAGE_SUFFIXES:
            yield Pair(
                case,
                picture(release, image),
                partial(_label_picture, release, labels, ids),
                split,
                group,
                files=(image, labels),
                searched=case,
            )
        else:
            yield LeftOut(str(image), "neither a volume nor a picture", f"expected {', '.join((*VOLUMES, *IMAGE_SUFFIXES))}")

    def _ids(self, description: Any, file: PurePosixPath) -> LabelIds:
        """What dataset.json, None if there is none, says of the labels, and what was chosen of them."""
        if description is None:
            return LabelIds(label_ids(self.labels))
        names = _label_names(description, file)
        known = frozenset(id for several in names.values() for id in several)
        ignored = names.pop("ignore", [None])[0]
        return LabelIds(choose_labels(self.labels, names) if self.labels else None, ignored, known)


def _images(release: Release, folder: PurePosixPath, labels: Mapping[str, PurePosixPath]) -> dict[str, dict[int, PurePosixPath]]:
    """The images of a folder by case and channel, ALL for all: in the Decathlon's layout an image is called as its label map."""
    found: dict[str, dict[int, PurePosixPath]] = {}
    for file in release.files:
        if file.parent != folder or file.suffix.lower() == ".json":
            continue
        name = stem_of(file)
        match = CHANNEL.fullmatch(name)
        alone = ALL if file.name.lower().endswith(NIFTI_SUFFIXES) else 0
        case, channel = (match[1], int(match[2])) if match and name not in labels else (name, alone)
        found.setdefault(case, {})[channel] = file
    return found


def _label_names(content: Any, file: PurePosixPath) -> dict[str, list[Any]]:
    """Ids by name. Format 1 has {"1": "tumour"}, format 2 {"tumour": 1} and regions {"whole": [1, 2]}."""
    labels = content.get("labels") if isinstance(content, Mapping) else None
    names: dict[str, list[Any]] = {}
    try:
        for key, value in labels.items():  # type: ignore[union-attr]
            if isinstance(value, str):
                names[value] = [int(key)]
            else:
                names[str(key)] = [int(id) for id in value] if isinstance(value, list) else [int(value)]
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{file}: labels: expected ids and names, as {{'tumour': 1}} or {{'1': 'tumour'}}, found {short(labels)}"
        ) from error
    if not all(names.values()):
        raise DataError(f"{file}: labels: a region without ids")
    return names


def _listed_cases(description: Any) -> list[str]:
    """The training cases that format 1 lists, as `{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}`."""
    listed = description.get("training") if isinstance(description, Mapping) else None
    told = [one.get("image") for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return [stem_of(PurePosixPath(path)) for path in told if isinstance(path, str)]


def _label_picture(release: Release, file: PurePosixPath, ids: LabelIds) -> np.ndarray:
    """A picture of label ids as a mask, (H, W) bool."""
    values = ids_of(decode(release.read(file), str(file)), str(file))
    if ids.ignored is not None and among(values, [ids.ignored], str(file)).any():
        raise DataError(f"{file}: holds pixels that are not labelled (id {ids.ignored})")
    return ids.lesion(values, str(file))
