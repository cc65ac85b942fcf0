"""Annotation files with any value replaced, or any bytes changed: a case, a case left out or one sentence, never a stack trace."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tpseg.core.errors import TPSegError
from tpseg.datasets.coco import CocoSource
from tpseg.datasets.labelme import LabelmeSource
from tpseg.datasets.release import Release
from tpseg.datasets.source import Pair, Source

SQUARE = [[2, 3, 6, 3, 6, 5, 2, 5]]
COCO = {
    "images": [{"id": number, "file_name": f"{number}.png", "width": 10, "height": 8} for number in range(2)],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": SQUARE, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": {"counts": [4, 3, 73], "size": [8, 10]}, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "lesion"}],
}
LABELME = {
    "shapes": [
        {"label": "lesion", "points": [[1, 1], [4, 1], [4, 4]], "shape_type": "polygon"},
        {"label": "lesion", "points": [[5, 4], [5, 2]], "shape_type": "circle"},
    ],
    "imagePath": "0.png",
    "imageData": None,
    "imageHeight": 8,
    "imageWidth": 10,
}
ODD: list[Any] = [
    None, True, -1, 0, 10**12, 10**400, 1e308, float("nan"), "", "x", "../x", "\x00", [], {}, [[]], [None], [1], [[1, 2]], [["a"]],
    {"a": 1}, [[10**400] * 6], "circle", "mask", ["0.png"], {"counts": "zz", "size": [8, 10]}, {"counts": [80], "size": [8, 10]},
]  # fmt: skip


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where something could be replaced."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def replaced(content: Any, path: tuple, odd: Any) -> Any:
    if not path:
        return odd
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return content


def variants(content: Any) -> Iterator[bytes]:
    """Every value replaced by every odd one, then 300 files with a few bytes changed or the end cut off."""
    for path in places(content):
        for odd in ODD:
            yield json.dumps(replaced(content, path, odd)).encode()
    rng, text = random.Random(0), json.dumps(content).encode()
    for _ in range(300):
        damaged = bytearray(text[: rng.randrange(1, len(text))] if rng.random() < 0.3 else text)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        yield bytes(damaged)


@pytest.mark.parametrize(("content", "source"), [(COCO, CocoSource()), (LABELME, LabelmeSource())])
def test_any_damage_is_a_case_or_a_sentence(content: Any, source: Source, tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(np.full((8, 10, 3), 90 * number, np.uint8)).save(tmp_path / f"{number}.png")
    outcomes: Counter[str] = Counter()
    for damaged in variants(content):
        (tmp_path / "0.json").write_bytes(damaged)
        message = ""
        try:
            with Release(tmp_path) as release:
                for one in source.pairs(release):
                    if not isinstance(one, Pair):
                        outcomes["left out"] += 1
                        continue
                    one.image()
                    assert one.mask().shape == (8, 10)
                    outcomes["case"] += 1
        except TPSegError as error:
            message = str(error)
            outcomes["sentence"] += 1
        assert "\n" not in message
        assert len(message) < 600
    assert min(outcomes[kind] for kind in ("case", "sentence", "left out")) > 50, outcomes
    assert sum(outcomes.values()) > 900
