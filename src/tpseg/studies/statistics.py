"""What a study's scores say: spread over seeds, bootstrap intervals, paired tests against one row, correction for many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import permutation_test

from tpseg.core.errors import DataError
from tpseg.evaluation.metrics import PROTOCOLS, Protocol, bootstrap_sums, percentile_interval

AVERAGE = "average"
"""Stands in the column `task` for the mean over tasks."""
RESAMPLES = 2000
PERMUTATIONS = 9999
"""Sign flips drawn by the test; with 13 images or fewer all of them are gone through instead."""
BATCH = 1_000_000
"""Numbers that the test keeps in memory at once."""
SUMMARY_COLUMNS = (
    *("row", "task", "seeds", "images"),
    *("dice", "dice_spread", "dice_low", "dice_high", "iou", "iou_spread", "iou_low", "iou_high"),
)
COMPARISON_COLUMNS = ("row", "task", "seeds", "difference", "low", "high", "p", "p_corrected", "seeds_ahead")


@dataclass(frozen=True)
class TaskScores:
    """What the cells of a study got on the n test images of one task."""

    name: str
    groups: Sequence[str]
    """The patient, case or video of each image; '' where none is named."""
    cells: Mapping[tuple[str, int], np.ndarray]
    """(row, seed) to the protocol's summands, (n, k)."""


@dataclass(frozen=True)
class Measured:
    """Dice and IoU of one trained model on one task, or on average: as found, and on images drawn anew."""

    found: np.ndarray  # (2,)
    redrawn: np.ndarray  # (RESAMPLES, 2)


def summarise(scores: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Dice and IoU in [0, 1] of every row on every task and on average over tasks, columns `SUMMARY_COLUMNS`.

    scores: one line per row, seed and test image (`row`, `seed`, then the columns of evaluation.score_cases). A value is the
    mean over seeds of what the protocol gives for the seed; `*_spread` is the standard deviation over seeds (ddof 1, NaN for
    one seed); `*_low` and `*_high` end the 95 % percentile bootstrap interval that draws seeds and images (groups where
    named) at once: images of each task on their own, seeds for all tasks together, for one model serves them all. With one
    seed it speaks of images only, with two or three it is a little short. The average takes the seeds that have all tasks.
    Raises DataError if two cells were scored on different images of a task.
    """
    tasks = arrange(scores, PROTOCOLS[protocol])
    measured = measure(tasks, PROTOCOLS[protocol])
    images = {task.name: len(task.groups) for task in tasks}
    images[AVERAGE] = sum(images.values())
    lines = []
    for (row, task), by_seed in measured.items():
        line = {"row": row, "task": task, "seeds": len(by_seed), "images": images[task]}
        found = np.array([one.found for one in by_seed.values()]).reshape(-1, 2)
        redrawn = np.array([one.redrawn for one in by_seed.values()]).reshape(-1, RESAMPLES, 2)
        for column, key in enumerate(("dice", "iou")):
            low, high = interval_over_seeds(redrawn[..., column])
            line |= {key: _mean(found[:, column]), f"{key}_spread": _spread(found[:, column]), f"{key}_low": low, f"{key}_high": high}
        lines.append(line)
    return pd.DataFrame(lines, columns=list(SUMMARY_COLUMNS))


def compare(scores: pd.DataFrame, reference: str, protocol: str) -> pd.DataFrame:
    """Every other row against the reference in Dice, per task and on average, columns `COMPARISON_COLUMNS`.

    scores as in `summarise`. Only the seeds that both rows have are compared, pairwise; `seeds` counts them, NaN where there are
    none. `difference` is row less reference, `low` and `high` end its 95 % bootstrap interval (both rows on the same drawn
    seeds and images). `p` comes from a two-sided sign-flip test, see `sign_flip_test`: it asks about other images, not about other
    seeds. `p_corrected` is Holm's, over the rows, for each task and for the average on its own. `seeds_ahead` is "2/3" where
    the row's Dice is above the reference's with two of three seeds. Raises DataError if the reference has no scores, or if
    two cells were scored on different images of a task.
    """
    if scores.empty or reference not in set(scores["row"]):
        raise DataError(f"row '{reference}' has no scores, and the others are compared with it; run its cells first")
    definition = PROTOCOLS[protocol]
    tasks = arrange(scores, definition)
    measured = measure(tasks, definition)
    others = [row for row in dict.fromkeys(row for row, _ in measured) if row != reference]
    if not others:
        return pd.DataFrame(columns=list(COMPARISON_COLUMNS))
    parts = []
    for name, of_name in [*((task.name, [task]) for task in tasks), (AVERAGE, tasks)]:
        lines, units = [], []
        for row in others:
            ours, theirs = measured.get((row, name), {}), measured.get((reference, name), {})
            seeds = [seed for seed in ours if seed in theirs]
            found = np.array([ours[seed].found[0] - theirs[seed].found[0] for seed in seeds])  # (S,)
            redrawn = np.array([ours[seed].redrawn[:, 0] - theirs[seed].redrawn[:, 0] for seed in seeds])  # (S, RESAMPLES)
            low, high = interval_over_seeds(redrawn)
            line = {"row": row, "task": name, "seeds": len(seeds), "difference": _mean(found), "low": low, "high": high}
            lines.append({**line, "seeds_ahead": f"{np.count_nonzero(found > 0)}/{len(seeds)}"})
            units.append(np.concatenate([unit_differences(task, row, reference, seeds, definition) for task in of_name]) / len(of_name))
        part = pd.DataFrame(lines, columns=list(COMPARISON_COLUMNS))
        part["p"] = sign_flip_test(np.stack(units))
        part["p_corrected"] = holm(part["p"].to_numpy())
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values("row", key=lambda rows: rows.map(others.index), kind="stable", ignore_index=True)


def arrange(scores: pd.DataFrame, protocol: Protocol) -> list[TaskScores]:
    """The scores task by task, every cell's images in one order; raises DataError if the cells differ in their images."""
    tasks = []
    for name, of_task in scores.groupby("task", sort=False) if len(scores) else ():
        cells: dict[tuple[str, int], np.ndarray] = {}
        images: list[str] | None = None
        groups, first = [], ""
        for _, cell in of_task.groupby(["row", "seed"], sort=False):
            cell = cell.sort_values("image", kind="stable")
            row, seed = str(cell["row"].iloc[0]), int(cell["seed"].iloc[0])
            found = cell["image"].tolist()
            if images is None:
                images, groups, first = found, cell["group"].tolist(), f"row '{row}', seed {seed}"
            if found != images:
                odd = sorted(set(found) ^ set(images))
                raise DataError(
                    f"task '{name}': row '{row}', seed {seed} was scored on {len(found)} images and {first} on {len(images)}"
                    + (f"; '{odd[0]}' is not in both" if odd else "")
                    + "; expected the same test images everywhere, so run one of them again"
                )
            cells[row, seed] = protocol.summands(cell)
        tasks.append(TaskScores(str(name), groups, cells))
    return tasks


def measure(tasks: Sequence[TaskScores], protocol: Protocol) -> dict[tuple[str, str], dict[int, Measured]]:
    """(row, task) to seed to numbers; the rows in order, and each one's tasks followed by the average over them.

    All cells get the same drawn images, so that differences between them are paired. A seed that lacks a task has no average.
    """
    by_task: list[dict[tuple[str, int], Measured]] = []
    for position, task in enumerate(tasks):
        side_by_side = np.concatenate(list(task.cells.values()), axis=1)  # (n, cells * k)
        sums = np.split(bootstrap_sums(side_by_side, task.groups, RESAMPLES, [0, position]), len(task.cells), axis=1)
        found = {cell: protocol.statistics(summands.sum(axis=0)) for cell, summands in task.cells.items()}
        by_task.append({cell: Measured(found[cell], protocol.statistics(drawn)) for cell, drawn in zip(task.cells, sums, strict=True)})
    measured: dict[tuple[str, str], dict[int, Measured]] = {}
    for row in dict.fromkeys(row for cells in by_task for row, _ in cells):
        of_row = [{seed: one for (other, seed), one in sorted(cells.items()) if other == row} for cells in by_task]
        measured |= {(row, task.name): by_seed for task, by_seed in zip(tasks, of_row, strict=True) if by_seed}
        whole = [seed for seed in of_row[0] if all(seed in by_seed for by_seed in of_row)]
        measured[row, AVERAGE] = {seed: _average([by_seed[seed] for by_seed in of_row]) for seed in whole}
    return measured


def _average(tasks: Sequence[Measured]) -> Measured:
    return Measured(np.mean([one.found for one in tasks], axis=0), np.mean([one.redrawn for one in tasks], axis=0))


def interval_over_seeds(redrawn: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean over seeds, redrawn (S, RESAMPLES): in every resample S seeds are drawn with replacement."""
    count = len(redrawn)
    if not count:
        return np.nan, np.nan
    drawn = np.random.default_rng([1, count]).integers(count, size=redrawn.shape)  # the same for all rows and tasks with S seeds
    return percentile_interval(np.take_along_axis(redrawn, drawn, axis=0).mean(axis=0))


def unit_differences(task: TaskScores, row: str, reference: str, seeds: Sequence[int], protocol: Protocol) -> np.ndarray:
    """What each image, or group where named, adds to the row's mean lead in Dice over the reference, (units,); NaN without seeds.

    The Dice of one image is the protocol's statistic of that image's summands, averaged over `seeds`. An image that the protocol
    leaves out of either row is left out with that seed.
    """

    def dice(of: str) -> np.ndarray:
        return np.stack([protocol.statistics(task.cells[of, seed])[:, 0] for seed in seeds])  # (S, n)

    clusters = [f"group {group}" if group else f"image {position}" for position, group in enumerate(task.groups)]
    if not seeds:
        return np.full(len(set(clusters)), np.nan)
    differences = dice(row) - dice(reference)
    defined = np.isfinite(differences)
    counts = defined.sum(axis=0)
    images = np.where(defined, differences, 0).sum(axis=0) / np.maximum(counts, 1)  # (n,)
    units = pd.Series(images).groupby(clusters, sort=False).sum()
    return units.to_numpy() / max(np.count_nonzero(counts), 1)


def sign_flip_test(units: np.ndarray) -> np.ndarray:
    """Two-sided p (rows,) of each row's sum over its units (rows, n) under random signs, the same for all rows.

    If two models are as good as each other, a unit's difference might as well have had the other sign. NaN for a row of NaN;
    1 for a single unit, whose sum is as large with either sign.
    """
    there = np.isfinite(units).all(axis=1)
    p = np.where(there, 1.0, np.nan)
    if there.any() and units.shape[1] > 1:
        result = permutation_test(
            (units[there],),
            np.sum,
            permutation_type="samples",
            vectorized=True,
            n_resamples=PERMUTATIONS,
            batch=max(1, BATCH // units.size),
            axis=-1,
            random_state=np.random.default_rng(2),
        )
        p[there] = result.pvalue
    return p


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p (n,) for n tests; NaN is no test and stays NaN.

    The smallest p is multiplied by the number of tests, the next by one less and so on; none falls below one before it, or exceeds 1.
    """
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.count_nonzero(np.isfinite(p))]  # NaN sorts last
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return corrected


def _mean(over_seeds: np.ndarray) -> float:
    return float(over_seeds.mean()) if len(over_seeds) else np.nan


def _spread(over_seeds: np.ndarray) -> float:
    return float(over_seeds.std(ddof=1)) if len(over_seeds) > 1 else np.nan
