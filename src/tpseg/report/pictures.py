"""The report's pictures: examples of the data, and test cases with what the model makes of them."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.core.figures import DIVERGING
from tpseg.data.manifest import Case, DataSet
from tpseg.data.pairs import read_pair
from tpseg.imaging.overlay import draw_overlay
from tpseg.inference import Segmenter

SIDE = 256
"""Longer side of a picture in pixels."""
EXAMPLES = 2
"""Pictures of each task's training images."""
DRIFT = 0.02
"""Dice may differ so much between the table and a picture (other precision, other device) before the report speaks up."""


@dataclass(frozen=True)
class Shown:
    """One case: its pictures as data URIs, by what they show, and words for below them."""

    title: str
    name: str
    pictures: dict[str, str]
    dice: float | None = None
    note: str = ""


@dataclass(frozen=True)
class _Predicted:
    """A case as the model sees it, already small; `similarity` waits for the scale that all cases share."""

    shown: Shown
    similarity: np.ndarray | None


def example_cases(data: DataSet, task: str) -> list[Shown]:
    """Images of a task with their true contour, spread over its training split; none if it has no such cases."""
    cases = [case for case in data.cases if case.task == task and case.split == "train"]
    chosen = sorted({len(cases) * (number + 1) // (EXAMPLES + 1) for number in range(EXAMPLES)}) if cases else []
    return [_example(cases[position]) for position in chosen]


def _example(case: Case) -> Shown:
    try:
        image, truth = read_pair(case)
    except DataError as error:
        return Shown(case.split, case.name, {}, note=f"Cannot be shown: {error}")
    small, outline = fit(image), fit_mask(truth)
    drawn = draw_overlay(small, np.zeros_like(outline), outline)
    return Shown(case.split, case.name, {"image with true contour": jpeg(drawn)}, note="" if truth.any() else "no lesion in this image")


def pick_cases(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Best, median and worst of one task's scored images; of equals, the larger lesion is the more telling."""
    order = rows.sort_values(["dice", "true_area", "image"], ascending=[False, False, True])
    picked = {"Best": order.iloc[0]}
    if len(order) > 2:
        picked["Median"] = order.iloc[len(order) // 2]
    if len(order) > 1:
        last = order[order["dice"] == order["dice"].min()]
        picked["Worst"] = last.iloc[0] if len(last) < len(order) else order.iloc[-1]
    return picked


def predicted_cases(segmenter: Segmenter, data: DataSet, rows: pd.DataFrame, split: str) -> tuple[dict[str, list[Shown]], float | None]:
    """Best, median and worst case of each task that rows and model share, and the limit of the similarity maps' colours.

    The limit is one for all maps, so that they may be compared; None for a model without prototypes.
    """
    cases = {(case.task, case.name): case for case in data.cases if case.split == split}
    predicted: dict[str, list[_Predicted]] = {}
    for task, of_task in rows.groupby("task", sort=False):
        if str(task) in segmenter.tasks.names:
            picked = pick_cases(of_task).items()
            predicted[str(task)] = [_predict(segmenter, cases.get((row["task"], row["image"])), row, title) for title, row in picked]
    largest = [float(np.abs(one.similarity).max()) for several in predicted.values() for one in several if one.similarity is not None]
    limit = max(math.ceil(10 * max(largest)) / 10, 0.1) if largest else None
    return {task: [_with_similarity(one, limit) for one in several] for task, several in predicted.items()}, limit


def _predict(segmenter: Segmenter, case: Case | None, row: pd.Series, title: str) -> _Predicted:
    shown = Shown(title, row["image"], {}, row["dice"])
    if case is None:
        return _Predicted(replace(shown, note="Cannot be shown: the data set has no such case in this split."), None)
    try:
        image, truth = read_pair(case)
    except DataError as error:
        return _Predicted(replace(shown, note=f"Cannot be shown: {error}"), None)
    prediction = segmenter(image, case.task)
    small = fit(image)
    overlay = draw_overlay(small, fit_mask(prediction.mask), fit_mask(truth))
    pictures = {"image": jpeg(small), "truth and prediction": jpeg(overlay)}
    similarity = None if prediction.similarity is None else _resize(prediction.similarity, Image.Resampling.BILINEAR)
    return _Predicted(replace(shown, pictures=pictures, note=_drift_note(prediction.mask, truth, row["dice"])), similarity)


def _drift_note(found: np.ndarray, truth: np.ndarray, scored: float) -> str:
    """A warning if the model that drew the picture is not the one that was scored, or ''."""
    total = np.count_nonzero(found) + np.count_nonzero(truth)
    dice = 2 * np.count_nonzero(found & truth) / total if total else 1.0
    return "" if abs(dice - scored) <= DRIFT else f"The model as it is now gives Dice {100 * dice:.1f} % here: evaluate it again."


def _with_similarity(predicted: _Predicted, limit: float | None) -> Shown:
    if predicted.similarity is None or limit is None:
        return predicted.shown
    picture = jpeg(similarity_colours(predicted.similarity, limit))
    return replace(predicted.shown, pictures={**predicted.shown.pictures, "similarity D": picture})


def similarity_colours(similarity: np.ndarray, limit: float) -> np.ndarray:
    """D (h, w) to RGB (h, w, 3) uint8: purple at −limit, near white at 0, orange at limit."""
    return np.round(255 * matplotlib.colormaps[DIVERGING]((similarity / limit + 1) / 2)[..., :3]).astype(np.uint8)


def fit(image: np.ndarray) -> np.ndarray:
    """An RGB image (H, W, 3) uint8 with its longer side brought to SIDE."""
    return np.asarray(Image.fromarray(image).resize(_fitted_size(image.shape), Image.Resampling.BILINEAR))


def fit_mask(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool with its longer side brought to SIDE, by area; even the smallest lesion keeps a pixel."""
    soft = _resize(mask, Image.Resampling.BOX)
    return soft >= min(0.5, soft.max()) if mask.any() else soft > 0


def _resize(values: np.ndarray, method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(_fitted_size(values.shape), method))


def _fitted_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) for Pillow."""
    scale = SIDE / max(shape[:2])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def jpeg(pixels: np.ndarray) -> str:
    """RGB pixels (H, W, 3) uint8 as a data URI; colours at full resolution, for contours are thin."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=85, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
