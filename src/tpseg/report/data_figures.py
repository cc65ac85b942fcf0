"""The figures of a data set: how many cases, how large, which lesions, which grey values; each as PNG, SVG and a caption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from tpseg.core.figures import PALETTE, in_lines, save_figure
from tpseg.data.manifest import SPLITS
from tpseg.data.quality.statistics import ALL, CHANNELS, Statistics

CHANNEL_STYLES = (("#D55E00", "-"), ("#009E73", "--"), ("#0072B2", ":"))
"""Red, green and blue that people with colour-blindness tell apart, by their dashes too."""
COMPONENTS = {"1": (1, 1, "#cfe3f1"), "2": (2, 2, "#7fb5d8"), "3 to 5": (3, 5, "#0072B2"), "6 and more": (6, np.inf, "#00334f")}
"""Labels, from and to how many regions, and colours from light to dark."""
BIN = 4
"""Grey values that share a step of the histogram."""


def draw_all(statistics: Statistics, folder: Path) -> list[Path]:
    """Write every figure that the data has something for; returns their paths without suffix.

    Of a data set without a readable image there are counts alone, of one without a lesion none of lesions.
    """
    drawn = [folder / "counts"]
    case_counts(drawn[0], statistics)
    if len(statistics.images):
        drawn += [folder / "sizes", folder / "intensity"]
        image_sizes(drawn[1], statistics)
        intensities(drawn[2], statistics)
    if (statistics.images["components"] > 0).any():
        drawn += [folder / "lesion-share", folder / "components"]
        lesion_shares(drawn[-2], statistics)
        component_counts(drawn[-1], statistics)
    return drawn


def case_counts(path: Path, statistics: Statistics) -> None:
    """Cases of each task by split, as bars."""
    table = statistics.table[statistics.table["task"] != ALL]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = np.zeros(len(table))
        for split, colour in zip(SPLITS, PALETTE, strict=False):
            axes.barh(range(len(table)), table[split], left=left, height=0.7, color=colour, label=split)
            left += table[split].to_numpy()
        for place, line in enumerate(table.to_dict("records")):
            text = " + ".join(str(line[split]) for split in SPLITS)
            axes.annotate(f"{line['total']} = {text}", (line["total"], place), (4, 0), textcoords="offset points", va="center")
        axes.set(xlabel="cases", xlim=(0, 1.3 * max(table["total"].max(), 1)))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _name_rows(axes, statistics)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

    caption = f"Cases of each task in train, val and test; {_total(statistics, 'total')} in all."
    save_figure(path, (7.2, _height(len(table))), draw, caption)


def image_sizes(path: Path, statistics: Statistics) -> None:
    """Width against height of the images of each task, small multiples; a mark grows with the number of images of its size."""
    sides = statistics.images[["width", "height"]].to_numpy()
    middle, span = np.sqrt(sides.min() * sides.max()), max(1.4 * np.sqrt(sides.max() / sides.min()), 3)
    low, high = middle / span, middle * span
    ticks = [step * 10**power for power in range(8) for step in ((1, 2, 5) if span < 6 else (1,)) if low <= step * 10**power <= high]

    def draw_task(axes: Axes, task: str) -> None:
        counts = statistics.images[statistics.images["task"] == task].groupby(["width", "height"]).size()
        axes.plot((low, high), (low, high), color="#8a949e", linewidth=0.8, linestyle=":")
        areas = 10 + 160 * counts.to_numpy() / max(counts.sum(), 1)
        width, height = (counts.index.get_level_values(side) for side in ("width", "height"))
        axes.scatter(width, height, areas, PALETTE[0], alpha=0.6, linewidths=0)
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_minor_locator(NullLocator())

    table = statistics.table.iloc[-1]
    caption = (
        f"Sizes of the images: {table['width_min']:g} to {table['width_max']:g} pixels wide, {table['height_min']:g} to "
        f"{table['height_max']:g} high; a mark's area grows with the share of the task's images of this size. Dotted: squares."
    )
    _small_multiples(path, statistics, draw_task, ("width, pixels", "height, pixels"), 1.75, caption)


def lesion_shares(path: Path, statistics: Statistics) -> None:
    """How much of the image the lesion takes, as boxes over a logarithmic axis; empty masks are left out."""
    lesions = statistics.images[statistics.images["components"] > 0]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shares = [100 * lesions.loc[lesions["task"] == name, "lesion_share"].to_numpy() for name in statistics.tasks.names]
        places = [place for place, one in enumerate(shares) if len(one)]
        line = {"color": "#3c4650", "linewidth": 1.1}
        axes.boxplot(
            [shares[place] for place in places],
            positions=places,
            orientation="horizontal",
            widths=0.55,
            whis=(5, 95),
            patch_artist=True,
            boxprops={"facecolor": "#cfe3f1", **line},
            whiskerprops=line,
            capprops=line,
            medianprops={"color": PALETTE[5], "linewidth": 2},
            flierprops={"marker": ".", "markersize": 2.5, "markerfacecolor": "#8a949e", "markeredgecolor": "none"},
        )
        axes.set(xscale="log", xlabel="lesion, % of the image's pixels")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _name_rows(axes, statistics)

    empty = int(_total(statistics, "empty"))
    caption = (
        "Share of the image that the lesion takes: median, quartiles, 5th to 95th percentile, and the images beyond as points; "
        f"{empty} empty {'mask' if empty == 1 else 'masks'} left out."
    )
    save_figure(path, (7.2, _height(len(statistics.tasks))), draw, caption)


def component_counts(path: Path, statistics: Statistics) -> None:
    """In how many separate parts the lesion of an image lies, as shares of each task's images with a lesion."""
    lesions = statistics.images[statistics.images["components"] > 0]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = np.zeros(len(statistics.tasks))
        for label, (low, high, colour) in COMPONENTS.items():
            inside = lesions["components"].between(low, high).groupby(lesions["task"]).mean()
            shares = 100 * np.array([inside.get(name, 0.0) for name in statistics.tasks.names])
            axes.barh(range(len(shares)), shares, left=left, height=0.7, color=colour, label=label)
            left += shares
        axes.set(xlabel="images with a lesion, %", xlim=(0, 100))
        _name_rows(axes, statistics)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(COMPONENTS), title="connected regions of the mask")

    caption = "Connected regions of the masks (pixels that meet at a corner are connected), as shares of the images with a lesion."
    save_figure(path, (7.2, _height(len(statistics.tasks)) + 0.2), draw, caption)


def intensities(path: Path, statistics: Statistics) -> None:
    """Histogram of the grey values or colour channels of each task's images, small multiples."""
    caption = (
        "How often each value occurs in the images of a task, all pixels together: black for grey images, else red (solid), green "
        f"(dashed) and blue (dotted). Steps of {BIN} values; a peak at an end, such as of black borders, is cut off where it would hide "
        "the rest."
    )
    labels = ("value, 0 to 255", "pixels, % per value")
    _small_multiples(path, statistics, lambda axes, task: _draw_histogram(axes, statistics.histograms[task]), labels, 1.5, caption)


def _small_multiples(
    path: Path, statistics: Statistics, draw_task: Callable[[Axes, str], None], labels: tuple[str, str], height: float, caption: str
) -> None:
    """A panel of so many inches for each task, drawn by `draw_task(axes, task)`, with one label for all x axes and one for all y."""
    columns = min(4, len(statistics.tasks))
    lines = -(-len(statistics.tasks) // columns)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
        for axes, task in zip(panels, statistics.tasks, strict=False):
            draw_task(axes, task.name)
            axes.set_title(in_lines(task.title), fontsize=8.8)
        for axes in panels[len(statistics.tasks) :]:
            axes.remove()
        figure.supxlabel(labels[0], fontsize=8.8)
        figure.supylabel(labels[1], fontsize=8.8)

    save_figure(path, (1.9 * columns + 0.4, height * lines + 0.5), draw, caption)


def _draw_histogram(axes: Axes, histogram: np.ndarray) -> None:
    """Counts (3, 256) of one task; grey images have three equal channels."""
    total = max(histogram[0].sum(), 1)
    shares = 100 * histogram.reshape(len(CHANNELS), -1, BIN).mean(2) / total  # (3, 256 / BIN)
    grey = bool((histogram == histogram[0]).all())
    edges = np.arange(0, 257, BIN)
    for share, (colour, dashes) in zip(shares[:1] if grey else shares, [("#1d2630", "-")] if grey else CHANNEL_STYLES, strict=True):
        axes.stairs(share, edges, color=colour, linestyle=dashes, linewidth=1.3)
    inner = shares[:, 1:-1].max()
    axes.set(xlim=(0, 256), ylim=(0, 1.15 * (inner or shares.max() or 1)), xticks=(0, 128, 255))
    axes.yaxis.set_major_locator(MaxNLocator(3))


def _total(statistics: Statistics, column: str) -> Any:
    return statistics.table.iloc[-1][column]


def _name_rows(axes: Axes, statistics: Statistics) -> None:
    """The tasks' titles beside a row each, the first at the top."""
    axes.set_yticks(range(len(statistics.tasks)), [in_lines(task.title, 26) for task in statistics.tasks])
    axes.set_ylim(len(statistics.tasks) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")


def _height(rows: int) -> float:
    """Inches for so many rows."""
    return 1.1 + 0.3 * max(rows, 2)
