"""The figures of calibration: reliability of the pixels, expected against true Dice, error caught against cases reviewed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tpseg.calibration.calibration_report import Pairs, StatedConfidence
from tpseg.calibration.collected_logits import Observed
from tpseg.calibration.confidence import Confidence
from tpseg.calibration.review import review_curve
from tpseg.calibration.temperature import Reliability, pool, reliability
from tpseg.core.figures import GREY, MARKERS, PALETTE, in_lines, save_figure

COLUMNS = 4
GROUPS = 10
"""Of images with about the same expected Dice."""
BUDGET = 0.2
"""Share reviewed that is marked."""


def draw_reliability(path: Path, observed: Sequence[Observed], confidence: Mapping[str, Confidence], titles: Mapping[str, str]) -> None:
    """PATH.png, .svg and .txt: for each task, how often pixels are lesion against how probable they were called."""
    names = [name for name in confidence if any(one.task == name for one in observed)]
    pooled = {name: pool(np.stack([one.counts for one in observed if one.task == name])) for name in names}
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)

    def draw(figure: Figure) -> None:
        cells = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for cell in cells.flat[len(names) :]:
            cell.set_visible(False)
        for position, name in enumerate(names):
            axes = cells.flat[position]
            before, after = reliability(pooled[name]), reliability(pooled[name], confidence[name].scaling)
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="as it should be")
            _draw_bins(axes, before, PALETTE[1], MARKERS[1], "as the network says")
            _draw_bins(axes, after, PALETTE[0], MARKERS[0], "calibrated")
            axes.set_title(f"{in_lines(titles[name])}\nECE {before.error:.3f} → {after.error:.3f}", fontsize="medium")
            axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
        figure.supxlabel("probability of lesion", fontsize="medium")
        figure.supylabel("share of pixels that are lesion", fontsize="medium")
        handles, labels = cells.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)

    errors = [(reliability(pooled[name]).error, reliability(pooled[name], confidence[name].scaling).error) for name in names]
    before, after = np.mean(errors, axis=0)
    caption = (
        "How often pixels are lesion against the probability they are given, in 15 equal bins of it, each image weighing the same; larger "
        "points hold more pixels. On the dotted line probabilities are right. Expected calibration error, mean over tasks: "
        f"{before:.3f} before, {after:.3f} after."
    )
    save_figure(path, (1.0 + 1.75 * columns, 1.1 + 1.95 * rows), draw, caption)


def _draw_bins(axes: Axes, bins: Reliability, colour: str, marker: str, name: str) -> None:
    filled = bins.share > 0
    predicted, found, size = bins.predicted[filled], bins.found[filled], 9 + 60 * np.sqrt(bins.share[filled])
    axes.plot(predicted, found, color=colour, linewidth=1, marker=marker, markersize=3, label=name)
    axes.scatter(predicted, found, s=size, color=colour, marker=marker, zorder=3, clip_on=False)  # whole on the edge, too


def draw_expected_dice(path: Path, pairs: Pairs, stated: StatedConfidence, titles: Mapping[str, str]) -> None:
    """PATH.png, .svg and .txt: true against expected Dice, a point for each image, and means of images in order of the latter."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle=":")
        for position, name in enumerate(dict.fromkeys(pairs.task)):
            mine = np.array([task == name for task in pairs.task])
            colour, marker = PALETTE[position % len(PALETTE)], MARKERS[position % len(MARKERS)]
            points = (100 * pairs.expected[mine], 100 * pairs.dice[mine])
            axes.scatter(*points, s=9, color=colour, marker=marker, alpha=0.55, label=in_lines(titles[name]))
        groups = [group for group in np.array_split(np.argsort(pairs.expected, kind="stable"), GROUPS) if len(group)]
        means = [(100 * pairs.expected[group].mean(), 100 * pairs.dice[group].mean()) for group in groups]
        axes.plot(*zip(*means, strict=True), color="black", marker="o", markersize=5, linewidth=1.4, label="mean of each tenth")
        axes.set(xlabel="expected Dice, %", ylabel="true Dice, %", xlim=(-2, 102), ylim=(-2, 102))
        figure.legend(loc="outside right center")

    rank = "" if stated.rank_correlation is None else f", Spearman's ρ {stated.rank_correlation:.2f}"
    caption = (
        f"Dice that was expected of each image's mask, without its truth, against the Dice it has ({stated.split} split, {len(pairs.dice)} "
        f"images). Black: means of the images in order of expected Dice, a tenth each. Mean absolute error {stated.mean_error:.3f}{rank}."
    )
    save_figure(path, (5.6, 4.0), draw, caption)


def draw_review(path: Path, pairs: Pairs, stated: StatedConfidence) -> None:
    """PATH.png, .svg and .txt: share of the error among the images looked at, worst expected Dice first."""
    curve = review_curve(pairs.expected, pairs.dice)
    caught, oracle = curve.at(BUDGET)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(100 * curve.reviewed, 100 * curve.oracle, color=PALETTE[2], linestyle="--", label="by true Dice: the most there is")
        axes.plot(100 * curve.reviewed, 100 * curve.caught, color=PALETTE[0], label="by expected Dice")
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle=":", label="at random")
        axes.axvline(100 * BUDGET, color=GREY, linewidth=0.8)
        axes.plot([100 * BUDGET], [100 * caught], color=PALETTE[0], marker="o", markersize=5)
        axes.annotate(
            f"{100 * caught:.0f} % of the error\nin {100 * BUDGET:.0f} % of the images", (100 * BUDGET, 100 * caught), (8, -8),
            textcoords="offset points", va="top", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
        axes.set(xlabel="images looked at, %", ylabel="share of all error among them, %", xlim=(0, 100), ylim=(0, 100))
        figure.legend(loc="outside lower center", ncols=1)

    caption = (
        f"Share of the total error (sum of 1 − Dice, {stated.split} split) among the images looked at, lowest expected Dice first. "
        f"Looking at {100 * BUDGET:.0f} % finds {100 * caught:.1f} % of it; by the true Dice it would be {100 * oracle:.1f} %, at random "
        f"{100 * BUDGET:.0f} %."
    )
    save_figure(path, (4.2, 4.0), draw, caption)
