"""Masks in colours: which pixels have those that are lesion, and which colours there are to choose from."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tpseg.core.errors import DataError, UsageError
from tpseg.datasets.pictures import ids_of
from tpseg.imaging.pictures.formats import to_rgb
from tpseg.imaging.pictures.samples import Picture

NEAR = 24
"""In each channel: what JPEG and soft edges make of a colour."""
MOST = 12
"""Colours of a drawn mask; more are a photograph's, or edges'."""
SMALL = 1e-4
"""Share of the pixels under which a colour is an edge's."""


def parse_colours(labels: Sequence[str]) -> list[tuple[int, int, int]]:
    """The labels that are colours, '#ff0000', as red, green and blue; none if they are ids; raises UsageError for both together."""
    given = [label for label in labels if label.startswith("#")]
    if not given:
        return []
    for label in labels:
        if not re.fullmatch("#[0-9a-fA-F]{6}", label):
            raise UsageError(f"labels: found '{label}' among colours, expected '#rrggbb', such as '#ff0000' for red")
    return [(int(label[1:3], 16), int(label[3:5], 16), int(label[5:], 16)) for label in labels]


def of_colours(pixels: np.ndarray, colours: Sequence[tuple[int, int, int]], name: str) -> np.ndarray:
    """Where pixels (H, W, 3) uint8 have one of the colours, (H, W) bool.

    Raises DataError that names the file where more pixels are nearly of a colour than of it, and of no drawn colour of their own:
    cut anywhere, such a mask would be a guess.
    """
    found, drawn = np.zeros(pixels.shape[:2], bool), frequent_colours(pixels)
    for colour in colours:
        exact = (pixels == colour).all(axis=2)
        near = (np.abs(pixels.astype(np.int16) - colour) <= NEAR).all(axis=2) & ~exact
        for other in drawn if exact.any() else ():
            near &= (pixels != other).any(axis=2)
        if near.sum() > exact.sum():
            raise DataError(
                f"{name}: {near.sum()} pixels are nearly {_written(colour)}, {exact.sum()} exactly; "
                "soft edges, or saved as JPEG? Save masks without loss, or give the colour they have"
            )
        found |= exact
    return found


def frequent_colours(pixels: np.ndarray) -> list[tuple[int, int, int]]:
    """The colours of a picture (H, W, 3) uint8 that more than a few pixels have, the most frequent first; none of a photograph."""
    packed = (pixels.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
    values, counts = np.unique(packed, return_counts=True)
    many = counts >= max(1, SMALL * packed.size)
    if many.sum() > MOST or counts[many].sum() < 0.9 * packed.size:
        return []
    order = np.argsort(-counts[many], kind="stable")
    return [(int(value) >> 16, int(value) >> 8 & 255, int(value) & 255) for value in values[many][order]]


def suggestion(image: Picture, name: str) -> str:
    """What to add to the refusal of a mask that is not black and white: its ids, or its colours, to choose from; '' of a photograph."""
    try:
        ids = np.unique(ids_of(image, name))
    except DataError:
        colours = frequent_colours(to_rgb(image, name))
        drawn = [_written(colour) for colour in colours if len(set(colour)) > 1]
        said = f"; its colours are {', '.join(map(_written, colours))}: choose with --labels '{','.join(drawn)}'"
        return said if drawn else ""
    ids = ids[ids > 0]
    return f"; or choose what is lesion with --labels {','.join(map(str, ids))}" if 0 < len(ids) <= MOST else ""


def _written(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
