"""The figures of a study: each function draws one from plain tables and writes it as PNG, SVG and a caption of text.

Two mappings give names and order everywhere: `titles`, task name to its title, and `rows`, Row.id to Row.name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tpseg.core.figures import GREY, MARKERS, PALETTE, in_lines, require_lines, save_figure, wrap
from tpseg.report.figures import draw_cosines
from tpseg.report.prototypes import correlation_sentence
from tpseg.studies.learned import conflict_summary, correlate, separation_against_scores

COLLAPSE = 0.9
"""The paper's "task collapse threshold" for cosines between tasks' prototypes (§4.4)."""


def prototype_cosines(path: Path, prototypes: pd.DataFrame, titles: Mapping[str, str], name: str) -> None:
    """Fig. 7: cosines between the foreground prototypes at each PGTD, mean over seeds; `name` of the model.

    prototypes: the lines of one study row in `learned.prototype_table`.
    """
    require_lines(prototypes, path)
    panels, sentences = {}, []
    for pgtd, table in sorted(prototypes.groupby("pgtd")):
        matrix = as_matrix(table, titles)
        pairs = matrix[~np.eye(len(matrix), dtype=bool)]
        sentences.append(f"{str(pgtd).upper()}: mean {pairs.mean():.2f}, largest {pairs.max():.2f}")
        panels[f"{str(pgtd).upper()}\nlargest between tasks {pairs.max():.2f}"] = matrix + np.eye(len(matrix))
    seeds = prototypes["seed"].nunique()
    caption = (
        f"Cosine similarity between the foreground prototypes of the tasks, {name}, mean over {_count(seeds, 'seed')}. "
        f"{'; '.join(sentences)}. The paper calls {COLLAPSE} the threshold of task collapse. Random unit vectors would lie near 0."
    )
    save_figure(path, *_matrices(panels, list(titles.values()), "cosine similarity", COLLAPSE), minus(caption))


def gradient_matrices(path: Path, conflicts: Mapping[str, pd.DataFrame], titles: Mapping[str, str], part: str = "all") -> None:
    """Cosines between the tasks' gradients on what they share, models side by side; the diagonal is a task with itself.

    conflicts: a model's name, such as with and without TCA, to its `learned.gradient_conflict`, with the lines of all seeds.
    """
    panels, sentences = {}, []
    for name, table in conflicts.items():
        of_part = table[table["part"] == part]
        require_lines(of_part, path)
        summary = conflict_summary(of_part).groupby("part").mean(numeric_only=True).iloc[0]
        panels[f"{name}\n{100 * summary['conflicting']:.0f} % of pairs conflict"] = as_matrix(of_part, titles)
        sentences.append(
            f"{name}: {100 * summary['conflicting']:.0f} % of the pairs below 0, mean cosine {summary['cosine']:.2f}, "
            f"halves of one task {summary['agreement']:.2f}"
        )
    where = "all shared parameters" if part == "all" else f"the shared parameters of the {part}"
    caption = (
        f"Cosine between the tasks' gradients on {where}, mean over seeds. On the diagonal, framed: gradients on two halves of "
        f"one task's images, which is what noise leaves of an agreement of 1. {'; '.join(sentences)}."
    )
    size, draw = _matrices(panels, list(titles.values()), "cosine of gradients", framed=True)
    save_figure(path, size, draw, minus(caption))


def as_matrix(table: pd.DataFrame, titles: Mapping[str, str]) -> np.ndarray:
    """(T, T) from lines task, other, cosine, each pair once: mean over seeds, the same on both sides; 0 where there is no line."""
    means = table.groupby(["task", "other"], as_index=False)["cosine"].mean()
    matrix = np.zeros((len(titles), len(titles)))
    position = {name: number for number, name in enumerate(titles)}
    one, other = means["task"].map(position), means["other"].map(position)
    matrix[one, other] = matrix[other, one] = means["cosine"]
    return matrix


def _matrices(
    panels: Mapping[str, np.ndarray], names: Sequence[str], label: str, mark: float | None = None, framed: bool = False
) -> tuple[tuple[float, float], Callable[[Figure], None]]:
    """Matrices side by side with one colour bar; gives their size and drawing."""
    side = max(0.36 * len(names), 1.8)

    def draw(figure: Figure) -> None:
        several = figure.subplots(1, len(panels), squeeze=False)[0]
        for position, (axes, (title, matrix)) in enumerate(zip(several, panels.items(), strict=True)):
            draw_cosines(axes, matrix, names)
            axes.set_title(title)
            axes.tick_params(labelleft=position == 0)
            for diagonal in range(len(matrix) if framed else 0):
                axes.add_patch(Rectangle((diagonal - 0.5, diagonal - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1))
        bar = figure.colorbar(several[0].images[0], ax=list(several), label=label, fraction=0.03, pad=0.02)
        bar.set_ticks([-1, -0.5, 0, 0.5, 1], labels=["−1", "−0.5", "0", "0.5", "1"])
        bar.outline.set_visible(False)
        if mark is not None:
            bar.ax.axhline(mark, color="white", linewidth=1.5)
            bar.ax.annotate(f"{mark:g}: collapse (paper)", (1, mark), (4, 0), textcoords="offset points", va="center")

    return (1.5 + len(panels) * (side + 0.25) + 1.2, side + 2.2), draw


def separation_scores(path: Path, separations: pd.DataFrame, scores: pd.DataFrame, titles: Mapping[str, str], name: str) -> None:
    """Fig. 8: separation of foreground and background per task and PGTD, and its mean over PGTDs against Dice and mIoU.

    separations and scores: the lines of one study row in `learned.separation_table` and in the scores, a row per image.
    """
    require_lines(separations, path)
    points = separation_against_scores(separations, scores)
    points = points[points["pgtd"] == "mean"].set_index("task")
    points = points.loc[[task for task in titles if task in points.index]]
    sentences = {}
    for measure, title in (("dice", "Dice"), ("iou", "mIoU")):
        x, y = points["separation"].to_numpy(), points[measure].to_numpy()
        rho = correlate(x, y)[3]
        sentences[title] = correlation_sentence(x, y) + ("" if np.isnan(rho) else minus(f" Spearman ρ = {rho:.2f}."))

    def draw(figure: Figure) -> None:
        above, below = cast("np.ndarray", figure.subfigures(2, 1, height_ratios=(1, 1.25)))
        _draw_bars(above.subplots(), separations, titles)
        for axes, measure, title in zip(below.subplots(1, 2), ("dice", "iou"), sentences, strict=True):
            for position, task in enumerate(points.index):
                style = {"color": PALETTE[position % len(PALETTE)], "marker": MARKERS[position % len(MARKERS)], "markersize": 7}
                axes.plot(points["separation"][task], 100 * points[measure][task], linestyle="", label=in_lines(titles[task]), **style)
            axes.margins(0.12)
            axes.set(xlabel="separation, mean over PGTDs", ylabel=f"{title}, %")
            axes.set_title(wrap(sentences[title], 58), fontsize=8)
        below.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)

    caption = (
        f"1 − cos between foreground and background prototype, 0 (the same) to 2 (opposite), {name}: bars are means over "
        f"{_count(separations['seed'].nunique(), 'seed')}, dots the seeds. Below, each task's mean over seeds and PGTDs against its "
        f"score. Dice: {sentences['Dice']} mIoU: {sentences['mIoU']}"
    )
    save_figure(path, (8.2, 6.4), draw, caption)


def _draw_bars(axes: Axes, separations: pd.DataFrame, titles: Mapping[str, str]) -> None:
    """Groups of bars by task, a bar for each PGTD, a dot for each seed."""
    pgtds = sorted(separations["pgtd"].unique())
    width = 0.8 / len(pgtds)
    for number, pgtd in enumerate(pgtds):
        by_task = separations[separations["pgtd"] == pgtd].groupby("task")["separation"]
        places = np.arange(len(titles)) + (number - (len(pgtds) - 1) / 2) * width
        axes.bar(places, [by_task.mean().get(task, np.nan) for task in titles], 0.9 * width, color=PALETTE[number], label=pgtd.upper())
        for place, task in zip(places, titles, strict=True):
            seeds = by_task.get_group(task) if task in by_task.groups else []
            axes.plot([place] * len(seeds), seeds, linestyle="", marker="o", markersize=2.6, color="black", markerfacecolor="white")
    axes.set_xticks(range(len(titles)), [in_lines(title.replace("_", " "), 12) for title in titles.values()], fontsize=8)
    axes.set(ylabel="1 − cos(P_fg, P_bg)", ylim=(0, max(1.05 * separations["separation"].max(), 0.1)))
    axes.grid(False, axis="x")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(pgtds), borderaxespad=0.2)


def gate_figure(path: Path, gates: pd.DataFrame, splits: pd.DataFrame, titles: Mapping[str, str], name: str) -> None:
    """w(τ, b) of each task over the blocks, a line for each seed, and the splits b* of all seeds.

    gates and splits: the lines of one study row in `learned.gate_table` and `learned.split_table`.
    """
    require_lines(gates, path)
    columns = min(4, len(titles))
    lines = -(-len(titles) // columns)
    blocks = int(splits["blocks"].max())

    def draw(figure: Figure) -> None:
        left, right = cast("np.ndarray", figure.subfigures(1, 2, width_ratios=(1.75 * columns, 3.4)))
        panels = left.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (task, title) in zip(panels, titles.items(), strict=False):
            own = splits[splits["task"] == task].set_index("seed")["split"]
            for position, (seed, curve) in enumerate(gates[gates["task"] == task].groupby("seed")):
                style = {"color": PALETTE[position % len(PALETTE)], "marker": MARKERS[position % len(MARKERS)], "markersize": 5}
                axes.plot(curve["block"], curve["weight"], linewidth=1.2, markevery=[own[seed]] if own[seed] < blocks else [], **style)
            axes.set_title(wrap(title, 22), fontsize=8.8)
            axes.set(ylim=(-0.04, 1.04), yticks=(0, 0.5, 1))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axes in panels[len(titles) :]:
            axes.remove()
        left.supxlabel("block b", fontsize=8.8)
        left.supylabel("w(τ, b), share of the task's own route", fontsize=8.8)
        _draw_splits(right.subplots(), splits, titles, blocks)

    caption = (
        f"The split gate, {name}: share of the task's own route at each block, a line for each of "
        f"{_count(splits['seed'].nunique(), 'seed')}; the marks are the splits b*, the first block with w ≥ ½, "
        f"counted from 0. At right b* of all tasks; {blocks} means never."
    )
    save_figure(path, (1.75 * columns + 3.4, max(1.55 * lines + 0.5, 2.6)), draw, caption)


def sharing_curve(path: Path, sharing: pd.DataFrame, summary: pd.DataFrame, rows: Mapping[str, str]) -> None:
    """Average Dice of each row against what its trunk costs when all tasks are asked of one image; a line joins the rows in order.

    sharing: `learned.sharing_table` of all rows; summary: `statistics.summarise`.
    """
    require_lines(sharing, path)
    dice = summary[summary["task"] == "average"].set_index("row")
    by_row = sharing.groupby("row")["passes"]
    shown = [row for row in rows if row in by_row.groups and row in dice.index]
    tasks, seeds = int(sharing["tasks"].max()), sharing["seed"].nunique()

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(by_row.mean()[shown], 100 * dice.loc[shown, "dice"], color=GREY, linewidth=1, zorder=1)
        for position, row in enumerate(shown):
            style: dict[str, Any] = {"color": PALETTE[position % len(PALETTE)], "marker": MARKERS[position % len(MARKERS)]}
            low, mean, high = 100 * dice.loc[row, ["dice_low", "dice", "dice_high"]].to_numpy(dtype=float)
            passes = by_row.get_group(row)
            axes.plot([passes.mean()] * 2, (low, high), color=style["color"], linewidth=1.2)
            axes.plot((passes.min(), passes.max()), [mean] * 2, color=style["color"], linewidth=1.2)
            axes.plot(passes.mean(), mean, markersize=7, linestyle="", label=in_lines(rows[row], 34), **style)
        axes.margins(0.08)
        axes.set(xlabel=f"passes of the trunk for {tasks} tasks on one image", ylabel="Dice, mean over tasks, %")
        figure.legend(loc="outside right upper")

    caption = (
        f"Average Dice, with its 95 % interval, against what the trunk costs when all {tasks} tasks are asked of one image: the shared "
        f"route once, up to the latest split, and each task's own blocks from its split on, in passes of the whole trunk, blocks "
        f"counted alike. Means over {_count(seeds, 'seed')}; bars along the axis of passes span the seeds."
    )
    save_figure(path, (8.2, 3.8), draw, caption)


def _draw_splits(axes: Axes, splits: pd.DataFrame, titles: Mapping[str, str], blocks: int) -> None:
    """b* over tasks, a dot for each seed; seeds are set apart a little, for many share a block."""
    seeds = sorted(splits["seed"].unique())
    for position, seed in enumerate(seeds):
        found = splits[splits["seed"] == seed].set_index("task")["split"]
        shift = 0.5 * (position / (len(seeds) - 1) - 0.5) if len(seeds) > 1 else 0.0
        style: dict[str, Any] = {"color": PALETTE[position % len(PALETTE)], "marker": MARKERS[position % len(MARKERS)], "markersize": 5}
        axes.plot([found.get(task, np.nan) for task in titles], np.arange(len(titles)) + shift, linestyle="", label=f"seed {seed}", **style)
    axes.set_yticks(range(len(titles)), [in_lines(title) for title in titles.values()])
    axes.set(xlabel="split b*", xlim=(-0.5, blocks + 0.5), ylim=(len(titles) - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, handletextpad=0.1, columnspacing=1)


def learning_curves(path: Path, histories: Mapping[tuple[str, int], pd.DataFrame], rows: Mapping[str, str]) -> None:
    """Mean val Dice over steps of the rows of a study: their mean over seeds, with a thin line for each seed.

    histories: Row.id and seed to the table `logs/metrics.csv` of the run. A row's mean ends where its shortest run does.
    """
    trained = [row for row in rows if any(key[0] == row for key in histories)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for position, row in enumerate(trained):
            seeds = [table.set_index("step")["val/dice"] for (of, _), table in histories.items() if of == row]
            color = PALETTE[position % len(PALETTE)]
            dashes = ("-", "--", ":", "-.")[position // len(PALETTE) % 4]
            for seed in seeds:
                axes.plot(seed.index, 100 * seed, color=color, linewidth=0.7, alpha=0.3)
            mean = pd.concat(seeds, axis=1, join="inner").mean(axis=1)
            style: dict[str, Any] = {"marker": MARKERS[position % len(MARKERS)], "markevery": (position % 4, 4), "markersize": 4}
            axes.plot(mean.index, 100 * mean, color=color, linestyle=dashes, label=in_lines(rows[row], 34), **style)
        axes.set(xlabel="optimiser step", ylabel="val Dice, mean over tasks, %", xlim=(0, None), ylim=(0, None))
        figure.legend(loc="outside right upper")

    most = max((sum(key[0] == row for key in histories) for row in trained), default=0)
    caption = f"Mean Dice on the validation split over training; thick: mean over seeds (up to {most}), thin: each seed."
    save_figure(path, (8.2, max(3.8, 0.23 * len(trained) + 0.8)), draw, caption)


def margins(path: Path, comparison: pd.DataFrame, rows: Mapping[str, str], reference: str, measure: str = "Dice") -> None:
    """Difference of each row to the reference on average over tasks, with its 95 % interval; in the study's order.

    comparison: as `statistics.compare` gives it, differences as shares of 1.
    """
    average = comparison[comparison["task"] == "average"].set_index("row").dropna(subset="difference")
    shown = [row for row in rows if row in average.index]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1.2)
        for position, row in enumerate(shown):
            low, difference, high = 100 * average.loc[row, ["low", "difference", "high"]].to_numpy(dtype=float)
            clear = average["p_corrected"][row] < 0.05
            color = PALETTE[0] if difference >= 0 else PALETTE[5]
            axes.plot((low, high), (position, position), color=color, solid_capstyle="butt")
            axes.plot(difference, position, "o", color=color, markersize=6, markerfacecolor=color if clear else "white")
            text = minus(f"{difference:+.1f} ({low:+.1f} to {high:+.1f})")
            axes.annotate(text, (1, position), (6, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", va="center")
        axes.set_yticks(range(len(shown)), [in_lines(rows[row], 34) for row in shown])
        axes.set(xlabel=f"{measure} less that of '{in_lines(rows.get(reference, reference), 60)}', points", ylim=(len(shown) - 0.5, -0.5))
        axes.margins(x=0.06)
        axes.grid(False, axis="y")

    caption = (
        f"Mean {measure} over tasks, each row less '{rows.get(reference, reference)}', in percentage points with 95 % bootstrap intervals. "
        "Left of 0 the row is worse. Filled: p < 0.05 after correction for the number of rows; hollow: not."
    )
    save_figure(path, (7.4, 0.9 + 0.29 * max(len(shown), 2)), draw, caption)


def minus(text: str) -> str:
    """Text whose negative numbers have a true minus sign."""
    return re.sub(r"(?<![\w)])-(?=\d)", "−", text)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
