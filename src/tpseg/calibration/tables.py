"""What calibration found, for the terminal and as figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tpseg.calibration.calibrate import Measured
from tpseg.calibration.calibration_report import StatedConfidence
from tpseg.calibration.record import Trust
from tpseg.core.figures import NUMBERS_UP_TO, in_lines, save_figure
from tpseg.core.tasks import TaskSet


def recognition_table(measured: Measured, trust: Trust) -> Table:
    """A line per task: images, share recognised, false warnings and alarms; what the words mean below."""
    caption = (
        f"Right: the task is recognised; of all images {100 * measured.accuracy:.1f} %, expected calibration error {measured.ece:.3f} "
        "(15 bins). Doubted: asked for its own task, an image is said to look like another (probability below "
        f"{trust.recognition.doubt:.2g}). Missed: of the other tasks' images, asked for this one, the share without that warning. Alarms: "
        f"said to be unlike anything learned (the limit was set for {trust.outliers.false_alarms:.0%} of images of new patients)"
    )
    table = Table(title=f"Which task, and is it known? ({measured.split})", caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Task", overflow="fold", min_width=14)
    for heading in ("Images", "Right %", "Doubted %", "Missed %", "Alarms %"):
        table.add_column(heading, justify="right")
    for task, images in measured.images.items():
        position = trust.tasks.index(task)
        right = measured.confusion[position][position] / images
        shares = (right, measured.false_warnings[task], measured.missed.get(task), measured.false_alarms[task])
        table.add_row(task, str(images), *["–" if value is None else f"{100 * value:.1f}" for value in shares])
    return table


def confidence_table(stated: StatedConfidence) -> Table:
    """A line per task: calibration error of its pixels before and after, Dice at ½ and at the chosen threshold, false alarms."""
    (caught, oracle), interval = stated.caught["0.2"], stated.interval["0.2"]
    between = "" if interval is None else f"95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f}; "
    caption = (
        "ECE: expected calibration error of the pixels' probability of lesion, as the network says it and calibrated, over all pixels and "
        "near lesions' borders. Dice in percent, of masks at ½ and at the task's threshold. Alarms: lesion-free images that get a "
        f"mask. Expected against true Dice: mean absolute error {stated.mean_error:.3f}. The 20 % of images with the lowest expected Dice "
        f"hold {100 * caught:.1f} % of the error ({between}by true Dice {100 * oracle:.1f})"
    )
    table = Table(title=f"How sure? ({stated.split})", caption=caption, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Task", overflow="fold", min_width=14)
    for heading in ("Images", "ECE", "after", "border", "after", "Dice", "chosen", "Alarms %"):
        table.add_column(heading, justify="right")
    for task, one in stated.tasks.items():
        errors = (one.before.all, one.after.all, one.before.band, one.after.band)
        alarms = (one.false_alarms, one.false_alarms_at_threshold)
        table.add_row(
            task,
            str(one.images),
            *["–" if value is None else f"{value:.3f}" for value in errors],
            *[f"{100 * value:.1f}" for value in (one.dice, one.dice_at_threshold)],
            " → ".join("–" if value is None else f"{100 * value:.0f}" for value in alarms) if one.lesion_free else "–",
        )
    return table


def mistaken(measured: Measured, trust: Trust) -> list[str]:
    """The confusion matrix off its diagonal in words: `3 of 80 breast_lesion taken for wet_amd`; empty if all are right."""
    return [
        f"{count} of {measured.images[task]} {task} taken for {trust.tasks[column]}"
        for row, task in enumerate(trust.tasks)
        for column, count in enumerate(measured.confusion[row])
        if count and row != column
    ]


def draw_confusion(path: Path, measured: Measured, trust: Trust, tasks: TaskSet) -> None:
    """The confusion matrix as PATH.png, PATH.svg and a caption PATH.txt."""
    titles = [in_lines(task.title) for task in tasks]
    counts = np.array(measured.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(titles)), titles, rotation=45, ha="right")
        axes.set_yticks(range(len(titles)), titles)
        axes.set(xlabel="recognised as", ylabel="images of")
        axes.grid(False)
        if len(titles) <= NUMBERS_UP_TO:
            for row, column in np.argwhere(counts):
                ink = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink)

    caption = (
        f"Which task an image is taken for, {measured.split} split: number of images, shaded by the share of the row. "
        f"{100 * measured.accuracy:.1f} % of {counts.sum()} images are recognised."
    )
    save_figure(path, (2.2 + 0.42 * len(titles), 2.0 + 0.38 * len(titles)), draw, caption)
