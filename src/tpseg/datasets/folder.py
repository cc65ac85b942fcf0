"""The layout `folder`: images in one folder, masks in another, as pictures, DICOM files or volumes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from tpseg.core.errors import DataError, UsageError, few
from tpseg.data.splits import MASK_ENDING
from tpseg.datasets.colours import frequent_colours, of_colours, parse_colours, suggestion
from tpseg.datasets.layout import among, case_names, inside, label_ids, split_of, stem_of
from tpseg.datasets.pairing import Keyed, by_patterns, choose
from tpseg.datasets.pictures import decode, ids_of, picture
from tpseg.datasets.release import Release
from tpseg.datasets.source import LeftOut, Pair
from tpseg.datasets.tree import NO_PARTNER, is_picture
from tpseg.datasets.volumes import LabelIds, VolumeLayout, Volumes
from tpseg.imaging.pictures.formats import IMAGE_SUFFIXES, to_mask, to_rgb
from tpseg.imaging.reading.opening import ITK_SUFFIXES, NIFTI_SUFFIXES, is_dicom, open_scan

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "scans")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "segmentations", "segmentation", "annotations", "groundtruth", "ground_truth", "gt",
)  # fmt: skip
VOLUMES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)


class FolderSource(VolumeLayout):
    """Images and masks of one stem: in two folders, in one as `x.jpg` and `x_mask.png` or `x.png`, or in a folder for each patient.

    Two folders are called `images` and `masks`, or so that their names say it, at any depth; subfolders must be the same.
    `images` and `masks` name others, or are patterns, see tpseg.datasets.pairing. A mask's stem may end in `_mask`, `_seg`,
    `_segmentation`, `_gt` or `_label`, and in a number: several masks of an image are united. Folders train, val and test,
    above or below those of images and masks, give the split. labels: ids that are lesion, or colours as '#ff0000'; by default
    pictures must be binary, and of volumes every id but 0 is. Images are pictures, or volumes with volumes as masks, cut as
    tpseg.datasets.nnunet says, or single DICOM files with pictures as masks, those of one folder being one group. The
    pattern `group` is searched in the path below the folder of images, without suffix.
    """

    name = "folder"
    advice = "say which are which by patterns of their paths, as in --images '*_scan' --masks '*_truth', and look with --preview"

    def __init__(
        self,
        task: str = "lesion",
        modality: str = "unknown",
        description: str = "",
        images: str = "",
        masks: str = "",
        labels: Sequence[str] = (),
        group: str | None = None,
        window: str = "",
        axis: str = "",
        empty_slices: float = 0.0,
    ) -> None:
        super().__init__(task, modality, description, labels, group, window, axis, empty_slices)
        if bool(images) != bool(masks):
            raise UsageError("folder: name both, the folder of images and that of masks, or neither")
        self.images, self.masks = images, masks
        self._chosen()

    def _chosen(self) -> tuple[list[int] | None, list[tuple[int, int, int]]]:
        """The labels that are lesion, as ids or as colours."""
        colours = parse_colours(self.labels)
        return None if colours else label_ids(self.labels), colours

    def find(self, release: Release) -> Iterator[Pair | LeftOut]:
        images, masks, unpaired = self._files(release)
        volumes = Volumes(release, self.task.window, self.axis, LabelIds(self._chosen()[0]))
        of_image: dict[str, list[PurePosixPath]] = {key: [] for key in images}
        alone = []
        for key, files in masks.items():
            partner = key if key in images else MASK_ENDING.sub("", key)
            if partner in images:
                of_image[partner] += files
            else:
                alone.append((key, files))
        named = {key: files[0] for key, files in images.items() if len(files) == 1 and of_image[key]}
        names = case_names(list(named))
        for key, image in named.items():
            yield from self._case(release, volumes, key, image, of_image[key], names[key])
        for files in images.values():
            if len(files) > 1:
                yield LeftOut(str(files[0]), "images of one name", f"also {', '.join(map(str, files[1:]))}; keep one")
        series = {PurePosixPath(key).parent.as_posix() for key in images if not of_image[key]}
        for key, files in alone:
            if MASK_ENDING.sub("", key) in series and files[0].name.lower().endswith(VOLUMES):
                detail = "convert the series to NIfTI, with dcm2niix for one, so that image and mask have one grid"
                yield LeftOut(str(files[0]), "a volume as the mask of a DICOM series", detail)
            else:
                yield from (LeftOut(str(file), NO_PARTNER, "a mask without an image") for file in files)
        yield from (LeftOut(str(files[0]), NO_PARTNER, "an image without a mask") for key, files in images.items() if not of_image[key])
        yield from (LeftOut(str(file), NO_PARTNER, "neither image nor mask by the names of the others") for file in unpaired)

    def _case(
        self, release: Release, volumes: Volumes, key: str, image: PurePosixPath, masks: Sequence[PurePosixPath], name: str
    ) -> Iterator[Pair | LeftOut]:
        """The cases of one image file."""
        ids, colours = self._chosen()
        split, group = split_of(image), self.group_of(key)
        flat = all(mask.suffix.lower() in IMAGE_SUFFIXES for mask in masks)
        if image.name.lower().endswith(VOLUMES):
            if colours:
                yield LeftOut(str(image), "a volume, whose labels have no colours", "give their ids")
            elif flat or len(masks) > 1:
                yield LeftOut(str(image), "a volume without one volume as its mask", ", ".join(map(str, masks)))
            else:
                yield from volumes.slices(image, masks[0], name, split, group or key, self.empty_slices)
            return
        if not flat:
            yield LeftOut(str(image), "an image whose mask is no picture", f"{masks[0]}; expected {', '.join(IMAGE_SUFFIXES)}")
            return
        mask = partial(_read_masks, release, tuple(masks), ids, colours)
        if image.suffix.lower() in IMAGE_SUFFIXES:
            yield Pair(name, picture(release, image), mask, split, group, files=(image, *masks), searched=key)
            return
        folder = PurePosixPath(key).parent.as_posix()
        shown = partial(_read_dicom, release, image, self.task.window)
        yield Pair(name, shown, mask, split, group or folder.removeprefix("."), files=(image, *masks))

    def _files(self, release: Release) -> tuple[Keyed, Keyed, list[PurePosixPath]]:
        """Images and masks, each by their path without suffix and without what says which of the two they are.

        And, where nobody has said which are which, what the patterns that were found leave over.
        """
        readable = [file for file in release.files if _is_readable(release, file)]
        if "*" in self.images + self.masks:
            images, masks = by_patterns(readable, self.images, self.masks)
            for pattern, matched in ((self.images, images), (self.masks, masks)):
                if not matched:
                    raise DataError(f"{release.path}: no file fits '{pattern}'; files there: {few([str(file) for file in readable])}")
            return images, masks, []
        places = self._places(release)
        found: dict[str, Keyed] = {part: defaultdict(list) for part in ("images", "masks")}
        for file in readable:
            part, rest = _part_of(file, places) if places else _part_by_name(file)
            if part:
                found[part][PurePosixPath(*rest[:-1], stem_of(file)).as_posix()].append(file)
        if places or (found["images"] and found["masks"]):
            return found["images"], found["masks"], []
        images, masks = choose(readable, partial(_looks_like_a_mask, release), str(release.path))
        taken = {file for part in (images, masks) for files in part.values() for file in files}
        return images, masks, [file for file in readable if taken and file not in taken]

    def _places(self, release: Release) -> dict[str, PurePosixPath]:
        """The folders that were named; raises DataError for one that is not there."""
        places = {}
        for part, folder in (("images", self.images), ("masks", self.masks)):
            place = inside(folder, PurePosixPath())
            if folder and (place is None or not any(place in file.parents for file in release.files)):
                raise DataError(f"{release.path}: has no folder {folder} with files, which was named for the {part}")
            if folder and place is not None:
                places[part] = place
        return places


def _looks_like_a_mask(release: Release, file: PurePosixPath) -> bool:
    """Whether a file is a picture of a few flat colours."""
    try:
        return is_picture(file) and bool(frequent_colours(to_rgb(decode(release.read(file), str(file)), str(file))))
    except DataError:
        return False


def _part_of(file: PurePosixPath, places: Mapping[str, PurePosixPath]) -> tuple[str, tuple[str, ...]]:
    """Whether a file is an image or a mask by the folders named, the inner one if one holds the other, and its path below; or ''."""
    above = {part: place for part, place in places.items() if place in file.parents}
    part = max(above, key=lambda part: len(above[part].parts), default="")
    return part, file.relative_to(above[part]).parts if part else ()


def _part_by_name(file: PurePosixPath) -> tuple[str, tuple[str, ...]]:
    """The same by the innermost folder called as those of images or of masks are; the path is without that folder."""
    for depth, folder in reversed(list(enumerate(file.parts[:-1]))):
        for part, names in (("images", IMAGE_FOLDERS), ("masks", MASK_FOLDERS)):
            if folder.lower() in names:
                return part, (*file.parts[:depth], *file.parts[depth + 1 :])
    return "", ()


def _is_readable(release: Release, file: PurePosixPath) -> bool:
    """Whether a file is a picture, a volume or DICOM; for a file of no known suffix that is read from its beginning."""
    return file.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUMES)) or is_dicom(release.path_of(file))


def _read_dicom(release: Release, file: PurePosixPath, window: str) -> np.ndarray:
    """The one frame of a DICOM file, (H, W) or (H, W, 3) uint8."""
    scan = open_scan(release.path_of(file), window=window)
    if scan.frames != 1:
        raise DataError(f"{file}: {scan.frames} frames with a picture as mask; expected one frame")
    return scan.frame(0)


def _read_masks(
    release: Release, files: Sequence[PurePosixPath], ids: Sequence[int] | None, colours: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """The union of an image's masks, (H, W) bool."""
    masks = []
    for file in files:
        image = decode(release.read(file), str(file))
        if colours:
            masks.append(of_colours(to_rgb(image, str(file)), colours, str(file)))
        elif ids is None:
            try:
                masks.append(to_mask(image, Path(file)).mask)
            except DataError as error:
                raise DataError(f"{error}{suggestion(image, str(file))}") from error
        else:
            masks.append(among(ids_of(image, str(file)), ids, str(file)))
        if masks[-1].shape != masks[0].shape:
            raise DataError(
                f"{file}: {masks[-1].shape[1]}x{masks[-1].shape[0]} pixels, unlike {files[0]}; masks of one image have one size"
            )
    return np.logical_or.reduce(masks)
