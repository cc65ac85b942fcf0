"""What calibration comes to, in a few lines: what may be relied on and what may not."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, RenderableType
from scipy.stats import binomtest

from tpseg.calibration.calibrate import Measured
from tpseg.calibration.calibration_report import StatedConfidence
from tpseg.calibration.record import Trust
from tpseg.calibration.tables import mistaken
from tpseg.core.files import write_atomically

BUDGET = "0.2"
"""Share of the images that a review looks at."""
UNLIKELY = 0.05
"""Chance below which more alarms than the limit allows are no accident."""


def verdict(measured: Measured, stated: StatedConfidence, trust: Trust) -> list[str]:
    """A line each on recognition, on images unlike any known, on the expected Dice and on a review by it."""
    return [recognised(measured, trust), unlike(measured, trust.outliers.false_alarms), expected(stated), reviewed(stated)]


def recognised(measured: Measured, trust: Trust) -> str:
    images, wrong = sum(measured.images.values()), mistaken(measured, trust)
    few = "; ".join(wrong[:3]) + (f" and {len(wrong) - 3} more such pairs" if len(wrong) > 3 else "")
    return f"Which task: {100 * measured.accuracy:.1f} % of {images} {measured.split} images are recognised" + (
        f" ({few})." if few else "."
    )


def unlike(measured: Measured, limit: float) -> str:
    """Whether known images are called unknown more often than the limit allows: a one-sided binomial test."""
    alarms = {task: round(share * measured.images[task]) for task, share in measured.false_alarms.items()}
    images, found = sum(measured.images.values()), sum(alarms.values())
    said = f"Unlike anything known: said of {found} of {images} images of the model's own tasks ({100 * found / images:.1f} %)"
    if binomtest(found, images, limit, alternative="greater").pvalue >= UNLIKELY:
        bound = f"the limit of {100 * limit:g} %"
        return f"{said}, {f'within {bound}' if found <= limit * images else f'above {bound}, but no more than chance explains'}."
    worst = max(alarms, key=lambda task: measured.false_alarms[task])
    return (
        f"{said}, more than the limit of {100 * limit:g} % allows, most often of {worst} ({alarms[worst]} of {measured.images[worst]}): "
        "do not rely on this warning; more training images, or more patients, help."
    )


def expected(stated: StatedConfidence) -> str:
    high = "too high" if stated.bias > 0 else "too low"
    return (
        f"How sure: the expected Dice is {100 * stated.mean_error:.1f} points off on average, and in the mean "
        f"{100 * abs(stated.bias):.1f} points {high}."
    )


def reviewed(stated: StatedConfidence) -> str:
    (caught, oracle), interval = stated.caught[BUDGET], stated.interval[BUDGET]
    share = float(BUDGET)
    said = (
        f"Review: the {100 * share:g} % of images with the lowest expected Dice hold {100 * caught:.0f} % of the error (the true order "
        f"{100 * oracle:.0f} %, chance {100 * share:g} %"
    )
    if interval is None:
        return f"{said}): one image tells nothing of others."
    better = "it finds errors sooner than chance" if interval[0] > share else "it is not shown to find errors sooner than chance"
    return f"{said}; 95 % interval {100 * interval[0]:.0f} to {100 * interval[1]:.0f}): {better}."


def write_tables(path: Path, tables: Iterable[RenderableType]) -> None:
    """All numbers behind a verdict as a text file."""
    text = io.StringIO()
    Console(file=text, width=120, markup=False, highlight=False, color_system=None).print(*tables, sep="\n")
    write_atomically(path, "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")
