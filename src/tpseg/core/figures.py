"""One look for all figures: colours, markers and lettering, and a figure as PNG, SVG and a caption."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from tpseg.core.errors import DataError
from tpseg.core.files import replacing, write_atomically

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#8C8C8C")
"""Okabe and Ito's colours for the colour-blind, grey in the place of yellow, which white paper swallows."""
MARKERS = "osD^vPX*"
DIVERGING = "PuOr_r"
"""Purple below 0, orange above: for colour-blind people too, and orange is what the prediction's contour is drawn in."""
NUMBERS_UP_TO = 8
"""Tasks up to which a matrix has room for a number in each cell."""
LINES = 4
"""That a label may have."""
LOOK: Any = {
    "font.size": 8.8,  # points: 11.7 px
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a949e",
    "axes.grid": True,
    "grid.color": "#e6e9ec",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "svg.fonttype": "none",  # text stays text: scripts that matplotlib's font lacks are left to the browser's
    "svg.hashsalt": "tpseg",
    "text.parse_math": False,  # a `$` in a task's name is no formula
}
DPI = 150
GREY = "#59636d"


def save_figure(path: Path, size: tuple[float, float], draw: Callable[[Figure], None], caption: str) -> None:
    """Write what `draw(figure)` draws as PATH.png (150 dpi) and PATH.svg, and PATH.txt with the caption; size in inches.

    Each file is written whole or not at all, and the same drawing gives the same bytes.
    """
    with matplotlib.rc_context(LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=size)
        figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
        draw(figure)
        for kind in ("png", "svg"):
            with replacing(path.with_name(f"{path.name}.{kind}")) as new:
                figure.savefig(new, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    write_atomically(path.with_name(f"{path.name}.txt"), caption + "\n")


def in_lines(title: str, width: int = 22) -> str:
    """A title in lines that fit beside a figure; of one that takes more than LINES the rest is left out."""
    return "\n".join(textwrap.wrap(title, width, max_lines=LINES, placeholder="…")) or title


def require_lines(table: pd.DataFrame, path: Path) -> None:
    """Raise DataError for a figure of nothing, such as prototypes of models that have none."""
    if table.empty:
        raise DataError(f"{path.name}: nothing to draw, the table has no lines; the models lack what it shows, or no cell is done")


def wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, break_long_words=False)) or text
