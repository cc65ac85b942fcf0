"""The report's figures: each `draw_` function draws on axes, `render` makes an inline SVG of them. One look for all."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tpseg.core.figures import DIVERGING, LOOK, MARKERS, NUMBERS_UP_TO, PALETTE, in_lines

WIDTH = 370
"""Pixels; the width of a column of the page and of a phone, so that text keeps its size."""


def render(draw: Callable[..., None], *content: object, width: int = WIDTH, height: int = 250) -> str:
    """What `draw(axes, *content)` draws, as the data URI of an SVG of width x height pixels."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(width / 96, height / 96), layout="constrained")
        draw(figure.subplots(), *content)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return svg_uri(buffer.getvalue())


def svg_uri(content: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()


def legend_height(titles: Sequence[str]) -> int:
    """Pixels that a legend in two columns takes."""
    half = math.ceil(len(titles) / 2)
    lines = max((sum(in_lines(title).count("\n") for title in column) for column in (titles[:half], titles[half:])), default=0)
    return 17 * half + 14 * lines + 8


def draw_losses(axes: Axes, history: pd.DataFrame, kept: int | None) -> None:
    """Training and validation loss over epochs."""
    for position, key in enumerate(("train/loss", "val/loss")):
        if key in history:
            axes.plot(history["epoch"], history[key], color=PALETTE[position], marker=MARKERS[position], label=key.replace("/", " "))
    axes.set_ylim(0, None)
    _finish_curve(axes, history["epoch"], kept)


def draw_dice(axes: Axes, history: pd.DataFrame, kept: int | None) -> None:
    """Mean val Dice over epochs."""
    axes.plot(history["epoch"], 100 * history["val/dice"], color=PALETTE[2], marker=MARKERS[2], label="mean over tasks")
    axes.set_ylim(0, 100)
    _finish_curve(axes, history["epoch"], kept)


def draw_task_dice(axes: Axes, history: pd.DataFrame, titles: Mapping[str, str], kept: int | None) -> None:
    """Val Dice of each task over epochs."""
    for position, (name, title) in enumerate(titles.items()):
        if f"val/dice/{name}" in history:
            axes.plot(history["epoch"], 100 * history[f"val/dice/{name}"], label=in_lines(title), **_style(position))
    axes.set_ylim(0, 100)
    _finish_curve(axes, history["epoch"], kept)


def draw_splits(axes: Axes, history: pd.DataFrame, titles: Mapping[str, str], kept: int | None) -> None:
    """Split b* of each task over epochs; tasks are set apart by a little, for many share a block."""
    for position, (name, title) in enumerate(titles.items()):
        shift = 0.4 * (position / max(len(titles) - 1, 1) - 0.5)
        axes.plot(history["epoch"], history[f"split/{name}"] + shift, label=in_lines(title), **_style(position))
    splits = history[[f"split/{name}" for name in titles]].to_numpy(dtype=float)
    axes.set_ylim(splits.min() - 0.5, splits.max() + 0.5)  # every block that is met has its tick
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _finish_curve(axes, history["epoch"], kept)


def draw_gate(axes: Axes, weights: np.ndarray, task: int, split: int) -> None:
    """w(τ, b) of one task over the blocks, the other tasks in grey behind it, b* marked; weights (T, N)."""
    blocks = np.arange(weights.shape[1])
    axes.plot(blocks, np.delete(weights, task, axis=0).T, color="#c9ced3", linewidth=0.8)
    axes.plot(blocks, weights[task], color=PALETTE[0], marker="o" if len(blocks) <= 24 else "")
    if split < len(blocks):
        axes.axvline(split, color=PALETTE[5], linestyle="--", linewidth=1.2)
        left = split > len(blocks) / 2  # the curve is low before the split and high after it: the label goes where it is not
        axes.annotate(
            f"b* = {split}", (split, 0.99 if left else 0.01), (-5 if left else 5, 0), textcoords="offset points",
            color=PALETTE[5], ha="right" if left else "left", va="top" if left else "bottom",
        )  # fmt: skip
    axes.set(xlabel="block b", ylabel="w", ylim=(-0.04, 1.04), yticks=(0, 0.5, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_cosines(axes: Axes, cosines: np.ndarray, titles: Sequence[str]) -> None:
    """A (T, T) matrix of cosines, coloured from −1 to 1."""
    axes.imshow(cosines, cmap=DIVERGING, vmin=-1, vmax=1)
    names = [in_lines(title) for title in titles]
    small = {"fontsize": LOOK["font.size"] * min(1, NUMBERS_UP_TO / len(names))}
    axes.set_xticks(range(len(names)), names, rotation=90, **small)
    axes.set_yticks(range(len(names)), names, **small)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(names) <= NUMBERS_UP_TO:
        for (row, column), value in np.ndenumerate(cosines):
            text = f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", color="white" if abs(value) > 0.7 else "black")


def draw_separation(axes: Axes, separation: np.ndarray, dice: np.ndarray, titles: Sequence[str]) -> None:
    """Foreground-background separation against Dice, a point per task; both (T,)."""
    for position, title in enumerate(titles):
        style = {**_style(position), "linestyle": "", "markersize": 7}
        axes.plot(separation[position], 100 * dice[position], label=in_lines(title), **style)
    axes.margins(0.1)
    axes.set(xlabel="1 − cos(P_fg, P_bg)", xlim=(-0.05, 2.05), ylabel="Dice, %")
    _legend_below(axes)


def draw_colour_bar(axes: Axes, limit: float, label: str) -> None:
    """The colours of values from −limit to limit."""
    axes.imshow(np.linspace(-limit, limit, 256)[None], cmap=DIVERGING, extent=(-limit, limit, 0, 1), aspect="auto")
    axes.set(xlabel=label, yticks=(), xticks=(-limit, 0, limit))
    axes.set_xticklabels([f"−{limit:g}", "0", f"{limit:g}"])
    axes.grid(False)


def _style(position: int) -> dict[str, Any]:
    """A line that differs from the others by colour and marker, after eight by dashes too."""
    style = ("-", "--", ":", "-.")[position // len(PALETTE) % 4]
    return {"color": PALETTE[position % len(PALETTE)], "marker": MARKERS[position % len(MARKERS)], "linestyle": style}


def _finish_curve(axes: Axes, epochs: pd.Series, kept: int | None) -> None:
    """Epochs below, the epoch whose model was kept as a dotted line."""
    if kept is not None:
        axes.axvline(kept, color="#59636d", linestyle=":", linewidth=1.2)
    axes.set(xlabel="epoch", xlim=(epochs.min() - 0.5, epochs.max() + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    cast(Figure, axes.figure).legend(loc="outside lower center", ncols=2)
