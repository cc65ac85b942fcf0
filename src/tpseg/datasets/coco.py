"""The layout `coco`: one JSON file for many images, with polygons or run lengths."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tpseg.core.errors import DataError, few
from tpseg.datasets.layout import Layout, case_names, choose_labels, inside, path_key, picture_size, read_json, short, split_of
from tpseg.datasets.pictures import picture
from tpseg.datasets.references import Pictures, base_name
from tpseg.datasets.release import Release
from tpseg.datasets.shapes import draw_segmentation
from tpseg.datasets.source import LeftOut, Pair

KEYS = ("images", "annotations", "categories")
"""What makes a JSON file one of COCO's."""


@dataclass
class _Image:
    """An image of the JSON files: where its file lies, and what is drawn on it."""

    split: str
    size: tuple[Any, Any]
    """Height and width as the JSON says."""
    source: str
    """The JSON file and the image's id, for messages."""
    json: PurePosixPath
    annotations: list[tuple[str, Any]] = field(default_factory=list)
    """Name for messages and segmentation of each."""
    unknown: str = ""
    """An annotation whose category nobody knows: its mask would be incomplete."""


class CocoSource(Layout):
    """`annotations/*.json` and pictures anywhere below the source; an image without annotations is one without lesion.

    labels: names or ids of the categories that are lesion; by default all. annotations: the JSON file, by its path in the source;
    by default every one that is COCO's. Several annotations of an image are united, those with `iscrowd` too. A JSON file called
    after a split, or in a folder that is, gives its images that split.
    """

    name = "coco"

    def __init__(
        self,
        task: str = "lesion",
        modality: str = "unknown",
        description: str = "",
        labels: Sequence[str] = (),
        group: str | None = None,
        annotations: str = "",
    ) -> None:
        super().__init__(task, modality, description, labels, group)
        self.annotations = annotations

    def find(self, release: Release) -> Iterator[Pair | LeftOut]:
        images: dict[PurePosixPath, _Image] = {}
        pictures = Pictures(release.files)
        left_out: list[LeftOut] = []
        for file, content in self._contents(release):
            left_out += self._take_in(file, content, pictures, images)
        names = case_names([path_key(path) for path in sorted(images)])
        for path in sorted(images):
            image = images[path]
            if image.unknown:
                yield LeftOut(str(path), "an annotation of a category that is not in the list of categories", image.unknown)
                continue
            group = self.group_of(path.stem)
            mask = partial(_draw, release, path, image)
            yield Pair(
                names[path_key(path)], picture(release, path), mask, image.split, group, files=(path, image.json), searched=path.stem
            )
        yield from left_out
        unlisted = [path for path in pictures.all if images and path not in images]
        yield from (LeftOut(str(path), "a picture that no JSON file lists", meant=bool(self.annotations)) for path in unlisted)

    def _contents(self, release: Release) -> Iterator[tuple[PurePosixPath, Mapping[str, Any]]]:
        """The JSON files to read: the one named, or all that are COCO's."""
        if self.annotations:
            named = inside(self.annotations, PurePosixPath())
            if named is None or named not in release.files:
                found = few([str(file) for file in release.files if file.suffix.lower() == ".json"]) or "none"
                raise DataError(f"{release.path}: has no file {self.annotations}; JSON files in it: {found}")
            content = read_json(release, named)
            if not _is_coco(content):
                raise DataError(f"{named}: not COCO's layout; expected an object with the lists {', '.join(KEYS)}")
            yield named, content
            return
        for file in release.files:
            if file.suffix.lower() == ".json" and _is_coco(content := read_json(release, file)):
                yield file, content

    def _take_in(
        self,
        file: PurePosixPath,
        content: Mapping[str, Any],
        pictures: Pictures,
        images: dict[PurePosixPath, _Image],
    ) -> Iterator[LeftOut]:
        """Add the images of one JSON file; what it lists and cannot be used is yielded."""
        split = split_of(file / file.name) or _split_in_name(file)
        categories = _categories(file, content)
        ids = {str(id) for several in categories.values() for id in several}
        wanted = {str(id) for id in choose_labels(self.labels or tuple(categories), categories)}
        told = Counter(base_name(entry.get("file_name")) for entry in content["images"] if isinstance(entry, Mapping))
        by_id: dict[str, _Image] = {}
        for entry in content["images"]:
            shown = f"{file}: image {short(entry.get('id'))}" if isinstance(entry, Mapping) else f"{file}: {short(entry)}"
            try:
                path = _locate(entry, file, split, pictures, told, shown)
            except DataError as error:
                yield LeftOut(shown, "an image that is not there", str(error))
                if isinstance(entry, Mapping):
                    by_id[_key(entry.get("id"))] = _Image(split, (None, None), shown, file)
                continue
            image = images.setdefault(path, _Image(split, (entry.get("height"), entry.get("width")), shown, file))
            if image.split != split:
                raise DataError(f"{path}: in split '{image.split}' by {image.source}, in '{split}' by {file}; take it out of one of them")
            if by_id.setdefault(_key(entry.get("id")), image) is not image:
                raise DataError(f"{shown}: its id is that of another image, too; give each image an id of its own")
        for annotation in content["annotations"]:
            self._annotate(file, annotation, wanted, ids, by_id)

    def _annotate(
        self, file: PurePosixPath, annotation: Any, wanted: Container[str], ids: Container[str], by_id: Mapping[str, _Image]
    ) -> None:
        """Add an annotation to its image. An image that is not listed is an error: ids may all be shifted by one."""
        if not isinstance(annotation, Mapping):
            raise DataError(f"{file}: an annotation {short(annotation)}; expected an object with image_id, category_id and segmentation")
        name = f"{file}: annotation {short(annotation.get('id'))}"
        image = by_id.get(_key(annotation.get("image_id")))
        if image is None:
            raise DataError(f"{name}: of image {short(annotation.get('image_id'))}, which is not in the list of images")
        category = _key(annotation.get("category_id"))
        if category not in ids:
            image.unknown = image.unknown or f"{name}: category_id {short(annotation.get('category_id'))}; add it to the list"
        elif category in wanted:
            image.annotations.append((name, annotation.get("segmentation")))


def _draw(release: Release, path: PurePosixPath, image: _Image) -> np.ndarray:
    """The union of an image's annotations, (H, W) bool."""
    size = picture_size(release, path)
    if any(told is not None for told in image.size) and image.size != size:
        told = f"{short(image.size[1])}x{short(image.size[0])}"
        raise DataError(f"{path}: {size[1]}x{size[0]} pixels, but {image.source} says {told}; is it the image that was annotated?")
    mask = np.zeros(size, bool)
    for name, segmentation in image.annotations:
        draw_segmentation(mask, segmentation, name)
    return mask


def _is_coco(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(content.get(key), list) for key in KEYS)


def _categories(file: PurePosixPath, content: Mapping[str, Any]) -> dict[str, list[int]]:
    """Ids by name, of which two categories may have the same."""
    found: dict[str, list[int]] = defaultdict(list)
    try:
        for category in content["categories"]:
            found[str(category["name"])].append(int(_key(category["id"])))
        return dict(found)
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{file}: categories: expected objects with id and name ({error})") from error


def _key(id: Any) -> str:
    """An image's or a category's id; some tools write it as text in one place and as a number, even 1.0, in another."""
    return str(int(id)) if isinstance(id, float) and id.is_integer() else str(id)


def _locate(entry: Any, file: PurePosixPath, split: str, pictures: Pictures, told_names: Counter[str], shown: str) -> PurePosixPath:
    """The picture that an entry's file_name means: the one whose path ends in it; of several the one in the split's folder.

    A path of the annotator's own machine means the only picture of that base name, see Pictures.alone.
    """
    told = entry.get("file_name") if isinstance(entry, Mapping) else None
    if not isinstance(told, str) or not told:
        raise DataError(f"{shown}: expected an object with id and file_name")
    name = inside(told, PurePosixPath())
    found = pictures.below(name) if name is not None else []
    if not found and (alone := pictures.alone(told, told_names)) is not None:
        return alone
    if name is None:
        raise DataError(f"{shown}: file_name '{told}' leads out of the data set; expected a path below it, or a name that one picture has")
    beside = [path for path in found if path == file.parent / name]
    if len(found) > 1:
        found = beside or [path for path in found if split and split_of(path) == split] or found
    if len(found) != 1:
        what = f"{len(found)} files, {few([str(path) for path in found])}" if found else "no file"
        raise DataError(f"{shown}: file_name '{told}' means {what}; expected one picture of that name below the source")
    return found[0]


def _split_in_name(file: PurePosixPath) -> str:
    """The split that a JSON file is called after: `instances_train2017.json`, `val.json`."""
    words = "".join(letter if letter.isalpha() else " " for letter in file.stem.lower()).split()
    found = {split_of(PurePosixPath(word) / file.name) for word in words} - {""}
    return found.pop() if len(found) == 1 else ""
