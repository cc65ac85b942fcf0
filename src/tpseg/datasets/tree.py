"""The layout that most sets share: a folder of images beside a folder of masks, at any depth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tpseg.data.splits import MASK_ENDING
from tpseg.datasets.source import LeftOut
from tpseg.imaging.pictures.formats import IMAGE_SUFFIXES

IMAGE_FOLDERS = ("images", "image")
MASK_FOLDERS = ("masks", "mask", "labels", "label")
NO_PARTNER = "no partner"


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file."""

    parent: PurePosixPath
    """The folder that holds the folder of images and that of masks."""
    stem: str
    """The image's name, and its folders below the folder of images, without suffix."""
    image: PurePosixPath
    mask: PurePosixPath


def is_picture(file: PurePosixPath) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES


def file_pairs(files: Sequence[PurePosixPath]) -> Iterator[FilePair | LeftOut]:
    """Images and masks of one stem in sister folders `images` and `masks` (or `image`, `mask`, `label`), whatever the suffix.

    A mask's stem may end in `_mask`, `_segmentation` and so on. What has no partner is left out; what stands in a folder without a
    sister is not spoken of here.
    """
    images, masks = _below(files, IMAGE_FOLDERS), _below(files, MASK_FOLDERS)
    for parent in sorted(set(images) & set(masks), key=str):
        partners: dict[str, list[PurePosixPath]] = defaultdict(list)
        for stem, named in masks[parent].items():
            partners[stem if stem in images[parent] else MASK_ENDING.sub("", stem)] += named
        for stem, (image, *others) in images[parent].items():
            if not partners[stem]:
                yield LeftOut(str(image), NO_PARTNER, "an image without a mask")
                continue
            mask, *other_masks = partners.pop(stem)
            yield FilePair(parent, stem, image, mask)
            for other in (*others, *other_masks):
                yield LeftOut(str(other), "a second file of one name", f"{image} and {mask} were taken", meant=True)
        for file in (file for named in partners.values() for file in named):
            yield LeftOut(str(file), NO_PARTNER, "a mask without an image")


def part_of(parent: PurePosixPath, parts: Mapping[str, Sequence[str]]) -> str:
    """The part whose words name the innermost folder of a path that any of them names; '' if none does. Case does not matter."""
    for folder in reversed(parent.parts):
        for part, words in parts.items():
            if folder.lower() in words:
                return part
    return ""


def _below(files: Sequence[PurePosixPath], names: Sequence[str]) -> dict[PurePosixPath, dict[str, list[PurePosixPath]]]:
    """Pictures in folders of these names: by the folder's parent, then by what follows it without suffix."""
    found: dict[PurePosixPath, dict[str, list[PurePosixPath]]] = defaultdict(lambda: defaultdict(list))
    for file in filter(is_picture, files):
        depths = [depth for depth, folder in enumerate(file.parts[:-1]) if folder.lower() in names]
        if depths:
            parent = PurePosixPath(*file.parts[: depths[-1]])
            stem = PurePosixPath(*file.parts[depths[-1] + 1 :]).with_suffix("").as_posix()
            found[parent][stem].append(file)
    return found
