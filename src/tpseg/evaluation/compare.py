"""Two evaluations of the same images, compared image by image (paired)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from scipy.stats import wilcoxon

from tpseg.core.errors import DataError
from tpseg.evaluation.evaluate import read_rows
from tpseg.evaluation.metrics import bootstrap_sums, percentile_interval


def compare_evaluations(one: Path, other: Path) -> pd.DataFrame:
    """Difference in Dice, `one` less `other`, per task and on average; protocol default.

    one, other: CSV files of 'tpseg evaluate' with a row per image. Returns columns task, images, one, other, difference,
    low, high (95 % paired bootstrap over images, or groups where named) and p (two-sided Wilcoxon signed-rank test over
    images; not corrected for the number of tasks; NaN for the average and where all differences are 0). Raises DataError
    if the files do not hold the same images.
    """
    first, second = read_rows(one), read_rows(other)
    key = ["task", "image"]
    pairs = first.merge(second, on=key, suffixes=("_one", "_other"), validate="one_to_one")
    if not len(first) == len(second) == len(pairs):
        raise DataError(f"{one} and {other} hold {len(first)} and {len(second)} images, {len(pairs)} of them the same; expected all")
    rows, resampled = [], []
    for position, (task, cases) in enumerate(pairs.groupby("task", sort=False)):
        difference = (cases["dice_one"] - cases["dice_other"]).to_numpy()
        sums = bootstrap_sums(np.stack([difference, np.ones_like(difference)], 1), cases["group_one"].tolist(), seed=[0, position])
        resampled.append(sums[:, 0] / sums[:, 1])
        p = float(wilcoxon(difference).pvalue) if difference.any() else np.nan
        rows.append(_row(str(task), len(cases), cases["dice_one"].mean(), cases["dice_other"].mean(), resampled[-1], p))
    means = [float(np.mean([row[column] for row in rows])) for column in ("one", "other")]
    rows.append(_row("average", len(pairs), means[0], means[1], np.mean(resampled, axis=0), np.nan))
    return pd.DataFrame(rows)


def _row(task: str, images: int, one: float, other: float, resampled: np.ndarray, p: float) -> dict[str, float | str]:
    low, high = percentile_interval(resampled)
    return {"task": task, "images": images, "one": one, "other": other, "difference": one - other, "low": low, "high": high, "p": p}


def comparison_table(differences: pd.DataFrame, names: tuple[str, str]) -> Table:
    """The comparison for the terminal, in percent."""
    caption = "Dice in percent, protocol default; in brackets 95 % paired bootstrap intervals; p: Wilcoxon signed-rank, not corrected"
    table = Table(title=f"{names[0]} less {names[1]}", caption=caption)
    for heading in ("Task", "Images", "first", "second", "difference", "p"):
        table.add_column(heading, justify="left" if heading == "Task" else "right")
    for row in differences.to_dict("records"):
        if row["task"] == "average":
            table.add_section()
        change = f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
        p = "" if np.isnan(row["p"]) else f"{row['p']:.2g}"
        table.add_row(str(row["task"]), str(row["images"]), f"{100 * row['one']:.1f}", f"{100 * row['other']:.1f}", change, p)
    return table
