"""The layout `labelme`: a JSON file beside each picture, with polygons, rectangles, circles or painted masks."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tpseg.core.errors import DataError, few
from tpseg.datasets.layout import Layout, case_names, failing, inside, path_key, picture_size, read_json, short, split_of, unknown_label
from tpseg.datasets.pictures import decode, picture, suffix_of
from tpseg.datasets.references import Pictures, base_name
from tpseg.datasets.release import Release
from tpseg.datasets.shapes import draw_circle, draw_polygon, draw_rectangle, is_rectangle, read_points
from tpseg.datasets.source import LeftOut, Pair
from tpseg.imaging.pictures.formats import refuse_invisible, to_rgb
from tpseg.imaging.pictures.samples import samples_of

FLAT = ("point", "points", "line", "linestrip")
"""Shapes without an area."""
FLAT_LABEL = "a label of points or lines alone, which has no area"


class LabelmeSource(Layout):
    """JSON files of labelme, each with its picture beside it or where its `imagePath` says; a folder called after a split gives it.

    labels: names of the shapes that are lesion; by default all but those of points and lines alone. Shapes of an image are united.
    A picture without a JSON file is left out, for it may hold lesions that nobody has drawn yet; a JSON file without shapes says
    that there are none.
    """

    name = "labelme"

    def find(self, release: Release) -> Iterator[Pair | LeftOut]:
        files, left_out, known, areal = [], [], set(), set()
        told: Counter[str] = Counter()
        for file in release.files:
            if file.suffix.lower() != ".json":
                continue
            try:
                content = read_json(release, file)
            except DataError as error:
                left_out.append(LeftOut(str(file), "a JSON file that cannot be read", str(error)))
                continue
            if isinstance(content, Mapping) and isinstance(content.get("shapes"), list):
                files.append(file)
                told[base_name(content.get("imagePath"))] += 1
                shapes = [shape for shape in content["shapes"] if isinstance(shape, Mapping)]
                known |= {str(shape.get("label")) for shape in shapes}
                areal |= {str(shape.get("label")) for shape in shapes if shape.get("shape_type") not in FLAT}
        for label in self.labels if files else ():
            if label not in known:
                raise unknown_label(label, {name: name for name in sorted(known)})
        wanted = self.labels or tuple(areal or known)
        left_out += [LeftOut(f"label {label}", FLAT_LABEL, meant=True) for label in sorted(known - areal) if label not in wanted]
        names = case_names([path_key(file) for file in files])
        pictures = Pictures(release.files)
        drawn = {file.with_suffix("") for file in files}
        for file in files:
            pair = self._pair(release, file, names[path_key(file)], pictures, told, wanted)
            drawn |= {path.with_suffix("") for path in pair.files}
            yield pair
        unseen = [path for path in pictures.all if files and path.with_suffix("") not in drawn]
        yield from (LeftOut(str(path), "no JSON file") for path in unseen)
        yield from left_out

    def _pair(
        self, release: Release, file: PurePosixPath, name: str, pictures: Pictures, told: Counter[str], wanted: Container[str]
    ) -> Pair:
        """The case of one JSON file; nothing of the file is kept in memory."""
        group, split = self.group_of(file.stem), split_of(file)
        try:
            path = _locate(read_json(release, file), file, pictures, told)
        except DataError as error:
            return Pair(name, failing(error), failing(error), split, group, files=(file,))
        image = picture(release, path) if path is not None else partial(_embedded_picture, release, file)
        files = (file,) if path is None else (path, file)
        return Pair(name, image, partial(_draw, release, file, path, wanted), split, group, files=files, searched=file.stem)


def _draw(release: Release, file: PurePosixPath, path: PurePosixPath | None, wanted: Container[str]) -> np.ndarray:
    """The union of a file's shapes with the chosen labels, (H, W) bool."""
    content = read_json(release, file)
    if path is not None:
        size = picture_size(release, path)
    else:
        decoded = decode(_embedded(content, file), f"{file}: imageData")
        size = (decoded.height, decoded.width)
    told = (content.get("imageHeight"), content.get("imageWidth"))
    if any(side is not None for side in told) and told != size:
        raise DataError(
            f"{file}: drawn on {short(told[1])}x{short(told[0])} pixels, but {path or 'imageData'} has {size[1]}x{size[0]}; "
            "is it the image that was annotated?"
        )
    mask = np.zeros(size, bool)
    for number, shape in enumerate(content["shapes"], start=1):
        if not isinstance(shape, Mapping):
            raise DataError(f"{file}: shape {number}: found {short(shape)}, expected an object with label and points")
        if str(shape.get("label")) in wanted:
            _draw_shape(mask, shape, f"{file}: shape {number} ({str(shape.get('label'))[:40]})")
    return mask


def _draw_shape(mask: np.ndarray, shape: Mapping[str, Any], name: str) -> None:
    kind = shape.get("shape_type") or "polygon"
    if kind in FLAT:
        raise DataError(f"{name}: a {kind}, which has no area; choose labels that have one, or draw a polygon")
    drawing: dict[str, tuple[Callable[[np.ndarray, np.ndarray], None], int, int | None]] = {
        "polygon": (draw_polygon, 3, None),
        "rectangle": (draw_rectangle, 2, 4),
        "rotation": (draw_rectangle, 4, 4),
        "circle": (draw_circle, 2, 2),
        "mask": (partial(_draw_painted, shape, name), 2, 2),
    }
    if not isinstance(kind, str) or kind not in drawing:
        raise DataError(f"{name}: a {short(kind)}; expected {', '.join(drawing)}")
    draw, least, most = drawing[kind]
    points = read_points(shape.get("points"), name, least)
    if most is not None and not (len(points) in (least, most) and (len(points) != 4 or is_rectangle(points))):
        corners = " that are a rectangle's corners, in their order" if most == 4 else ""
        raise DataError(f"{name}: a {kind} of {len(points)} points; expected {' or '.join(map(str, sorted({least, most})))}{corners}")
    draw(mask, points)


def _draw_painted(shape: Mapping[str, Any], name: str, mask: np.ndarray, points: np.ndarray) -> None:
    """A painted mask: a picture of it in base64, for the pixels from the first of two corners to the second, both included."""
    painted = decode(_base64(shape.get("mask"), f"{name}: mask"), f"{name}: mask")
    refuse_invisible(samples_of(painted), f"{name}: mask")
    patch = to_rgb(painted)[..., 0] > 0
    (left, top), (right, bottom) = np.rint(points).astype(int).tolist()
    height, width = mask.shape
    if patch.shape != (bottom - top + 1, right - left + 1) or left < 0 or top < 0 or right >= width or bottom >= height:
        raise DataError(f"{name}: a painted mask of {patch.shape[1]}x{patch.shape[0]} pixels for {left},{top} to {right},{bottom}")
    mask[top : bottom + 1, left : right + 1] |= patch


def _locate(content: Any, file: PurePosixPath, pictures: Pictures, told_names: Counter[str]) -> PurePosixPath | None:
    """The picture that a JSON file belongs to, or None where the file holds it itself.

    It is where `imagePath` says, or beside the file under either's name; a path of another machine leads nowhere else than to
    the only picture of its base name, see Pictures.alone.
    """
    told = content.get("imagePath")
    told = told if isinstance(told, str) else ""
    path = inside(told, file.parent) if told else None
    if path is not None and path in pictures.all:
        return path
    beside = pictures.beside(file, told)
    if len(beside) > 1:
        raise DataError(f"{file}: belongs to {few([str(one) for one in beside])}, and imagePath '{told}' to none; keep one of them")
    if beside:
        return beside[0]
    if content.get("imageData"):
        return None
    alone = pictures.alone(told, told_names)
    if alone is None:
        where = "leads out of the data set" if told and path is None else "is not there"
        raise DataError(f"{file}: the picture '{told}' {where}, nor in the file itself (imageData); expected it beside the JSON file")
    return alone


def _embedded_picture(release: Release, file: PurePosixPath) -> np.ndarray | bytes:
    data = _embedded(read_json(release, file), file)
    return data if suffix_of(data) else to_rgb(decode(data, f"{file}: imageData"), f"{file}: imageData")


def _embedded(content: Mapping[str, Any], file: PurePosixPath) -> bytes:
    return _base64(content.get("imageData"), f"{file}: imageData")


def _base64(value: Any, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise DataError(f"{name}: not a picture in base64 ({error})") from error
