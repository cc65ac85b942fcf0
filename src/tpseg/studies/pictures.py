"""Figs. 5 and 6 of the paper: the same test images as the models of several study rows segment them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tpseg.core.figures import in_lines, require_lines, save_figure, wrap
from tpseg.data.manifest import Case, DataSet
from tpseg.data.pairs import read_pair
from tpseg.evaluation.metrics import confusion
from tpseg.imaging.overlay import draw_overlay
from tpseg.report.pictures import SIDE, fit, fit_mask, pick_cases

CELL = 1.12
"""Inches from one picture to the next."""
LABELS, TITLES = 1.4, 0.5
"""Room left of the pictures and above them, in cells."""
Segment = Callable[[str, Case], np.ndarray]
"""Row.id and case to the mask (H, W) bool that the row's model finds, of the image's own size."""


def visual_comparison(
    path: Path,
    data: DataSet,
    scores: pd.DataFrame,
    rows: Mapping[str, str],
    titles: Mapping[str, str],
    segment: Segment,
    reference: str,
    note: str = "",
) -> None:
    """Figs. 5 and 6: a test image of each task with its truth, and below it what each study row makes of it.

    The image is the one with the reference row's median Dice, so it is neither the best nor the worst. scores: a row per
    image; note: a sentence for the caption, such as which seed the models are of. Tasks that the reference row has no
    scores of are left out.
    """
    require_lines(scores[scores["row"] == reference], path)
    cases = median_cases(data, scores, reference)
    shown = [cases[task] for task in titles if task in cases]

    def draw(figure: Figure) -> None:
        """On one axes for all cells, in units of a cell: an axes for each would take ten times as long."""
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-LABELS, len(shown)), ylim=(len(rows) + 1, -TITLES))
        axes.set_axis_off()
        for column, case in enumerate(shown):
            image, truth = read_pair(case)
            axes.text(column + 0.5, -0.05, in_lines(titles[case.task], 15), ha="center", va="bottom")
            _draw_cell(axes, column, 0, draw_overlay(fit(image), np.zeros_like(fit_mask(truth)), fit_mask(truth)))
            for line, row in enumerate(rows, start=1):
                found = segment(row, case)
                tp, fp, fn, _ = confusion(found, truth)
                dice = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0
                _draw_cell(axes, column, line, draw_overlay(fit(image), fit_mask(found)), f"{100 * dice:.1f}")
        for line, name in enumerate(["Truth", *rows.values()]):
            axes.text(-0.06, line + 0.5, wrap(name, 19), ha="right", va="center")

    chosen = "; ".join(f"{titles[case.task]}: {case.name}" for case in shown)
    caption = (
        "Contours of the truth (top row, cyan) and of the predictions (amber), Dice in percent in the corner of each. "
        f"For each task the test image with a lesion on which '{rows.get(reference, reference)}' has its median Dice "
        f"(mean over seeds), chosen by this rule alone. {note} Images: {chosen}."
    )
    save_figure(path, (CELL * (LABELS + len(shown)), CELL * (TITLES + len(rows) + 1)), draw, " ".join(caption.split()))


def median_cases(data: DataSet, scores: pd.DataFrame, reference: str) -> dict[str, Case]:
    """For each task the scored case with the reference row's median Dice, mean over seeds; among those with a lesion, if any."""
    own = scores[scores["row"] == reference]
    split = own["split"].iloc[0] if len(own) else "test"
    cases = {(case.task, case.name): case for case in data.cases if case.split == split}
    found = {}
    for task, images in own.groupby("task", sort=False):
        images = images[images["true_area"] > 0] if (images["true_area"] > 0).any() else images
        means = images.groupby("image", as_index=False)[["dice", "true_area"]].mean()
        picked = pick_cases(means)
        found[str(task)] = cases[str(task), picked.get("Median", picked["Best"])["image"]]
    return found


def _draw_cell(axes: Axes, column: int, line: int, picture: np.ndarray, corner: str = "") -> None:
    """A picture (h, w, 3) in the middle of its cell, with a number in its corner."""
    height, width = (0.96 * side / SIDE for side in picture.shape[:2])
    left, top = column + (1 - width) / 2, line + (1 - height) / 2
    axes.imshow(picture, extent=(left, left + width, top + height, top), aspect="auto", interpolation="antialiased")
    if corner:
        box = {"facecolor": "black", "alpha": 0.65, "pad": 1.5, "edgecolor": "none"}
        axes.text(left + 0.035, top + height - 0.035, corner, color="white", ha="left", va="bottom", bbox=box)
