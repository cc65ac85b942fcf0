"""What a data set is like: counts, sizes, lesions and grey values of each task, from one look at every image and mask."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Group
from rich.table import Table
from rich.text import Text
from scipy import ndimage

from tpseg.core.errors import DataError
from tpseg.core.files import write_atomically
from tpseg.core.prefetch import ahead
from tpseg.core.tasks import TaskSet
from tpseg.data.manifest import SPLITS, Case, DataSet
from tpseg.data.pairs import read_pair

MAX_WORKERS = 4
"""Threads that decode; memory is bounded by this many images, for only numbers are kept of each."""
CHANNELS = ("red", "green", "blue")
ALL = "all tasks"
TOUCHING = np.ones((3, 3), bool)
"""Pixels that meet at a corner are of one component."""
IMAGE_COLUMNS = ("task", "split", "group", "image", "height", "width", "lesion_share", "components", *(f"mean_{name}" for name in CHANNELS))


@dataclass(frozen=True)
class Statistics:
    """The numbers of each image, and of each task a histogram; `rich` prints them as three tables, a line for each task."""

    source: str
    tasks: TaskSet
    cases: tuple[Case, ...]
    images: pd.DataFrame
    """A line for each case that could be read: IMAGE_COLUMNS; lesion_share of the image's pixels, components 0 for an empty mask."""
    histograms: dict[str, np.ndarray]
    """Task to (3, 256) int64: how many pixels of its images have each value, by channel, as images of 8 bits."""
    unreadable: list[str]
    """What is wrong with each of the other cases."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """A line for each task and one for all, in columns that a program finds by name; NaN where there is nothing to count."""
        lines = [self._line(name, task.title, task.modality, [name]) for name, task in zip(self.tasks.names, self.tasks, strict=True)]
        return pd.DataFrame([*lines, self._line(ALL, ALL, "", self.tasks.names)])

    def _line(self, name: str, title: str, modality: str, tasks: Sequence[str]) -> dict[str, Any]:
        cases = [case for case in self.cases if case.task in tasks]
        images = self.images[self.images["task"].isin(tasks)]
        lesions = images[images["components"] > 0]
        splits = [case.split for case in cases]
        histogram = np.sum([self.histograms[task] for task in tasks], axis=0)
        return {
            "task": name,
            "title": title,
            "modality": modality,
            **{split: splits.count(split) for split in SPLITS},
            "total": len(cases),
            "groups": len({(case.task, case.group) for case in cases if case.group}),
            "read": len(images),
            "empty": len(images) - len(lesions),
            **_spread("height", images["height"]),
            **_spread("width", images["width"]),
            **_spread("lesion_share", lesions["lesion_share"]),
            **_spread("components", lesions["components"]),
            "colour": bool((histogram != histogram[0]).any()),
            **_intensity(histogram),
        }

    def summary(self) -> dict[str, Any]:
        """The table as an object for each task, with its histogram, and what could not be read."""
        lines = self.table.astype(object).where(self.table.notna(), None).set_index("task", drop=False).to_dict("index")
        for task, histogram in self.histograms.items():
            lines[task]["histogram"] = dict(zip(CHANNELS, histogram.tolist(), strict=True))
        return {"source": self.source, "tasks": lines, "unreadable": self.unreadable}

    def write(self, folder: Path) -> None:
        """Write `statistics.csv` (a line for each task), `images.csv` (one for each image) and `statistics.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "statistics.csv", self.table.to_csv(index=False, lineterminator="\n"))
        write_atomically(folder / "images.csv", self.images.to_csv(index=False, lineterminator="\n"))
        write_atomically(folder / "statistics.json", json.dumps(self.summary(), indent=2) + "\n")

    def __rich__(self) -> Group:
        lines: list[dict[str, Any]] = [dict(line) for line in self.table.to_dict("records")]  # type: ignore[arg-type]
        parts = [_count_table(lines, self.source), _image_table(lines), _lesion_table(lines)]
        return Group(*parts, *(Text(f"left out: {problem}", style="red") for problem in self.unreadable))


def measure_dataset(data: DataSet, progress: Callable[[int, int], None] | None = None) -> Statistics:
    """Decode every image and mask of a data set once; a case that cannot be read is left out and named.

    `progress` is called with the number of cases done and the number in all.
    """
    rows: list[dict[str, Any]] = []
    histograms = {name: np.zeros((len(CHANNELS), 256), np.int64) for name in data.tasks.names}
    unreadable = []
    threads = min(MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for done, (case, found) in enumerate(zip(data.cases, ahead(pool, _look, data.cases, 4 * threads), strict=True), start=1):
            if isinstance(found, DataError):
                unreadable.append(str(found))
            else:
                row, histogram = found
                rows.append(row)
                histograms[case.task] += histogram
            if progress:
                progress(done, len(data.cases))
    return Statistics(str(data.source), data.tasks, data.cases, pd.DataFrame(rows, columns=IMAGE_COLUMNS), histograms, unreadable)


def _look(case: Case) -> tuple[dict[str, Any], np.ndarray] | DataError:
    """The numbers of one case and the histogram of its image, (3, 256)."""
    try:
        image, mask = read_pair(case)
    except DataError as error:
        return error
    histogram = np.array(Image.fromarray(image).histogram(), np.int64).reshape(len(CHANNELS), 256)
    means = histogram @ np.arange(256) / mask.size
    facts = (case.task, case.split, case.group, case.name, *mask.shape, mask.mean(), count_components(mask), *means)
    return dict(zip(IMAGE_COLUMNS, facts, strict=True)), histogram


def count_components(mask: np.ndarray) -> int:
    """Connected regions of a mask (H, W) bool."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # labels take four bytes a pixel
    return int(ndimage.label(box, TOUCHING)[1])


def _spread(name: str, values: pd.Series) -> dict[str, float]:
    """Smallest, quartiles, largest and mean of a column."""
    points = values.quantile([0, 0.25, 0.5, 0.75, 1]) if len(values) else [math.nan] * 5
    return dict(zip([f"{name}_{point}" for point in ("min", "q1", "median", "q3", "max")], map(float, points), strict=True)) | {
        f"{name}_mean": float(values.mean())
    }


def _intensity(histogram: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation of each channel over all pixels, 0 to 255, from how often each value occurs, (3, 256)."""
    values, found = np.arange(256), {}
    for channel, counts in zip(CHANNELS, histogram, strict=True):
        total = counts.sum()
        mean = counts @ values / total if total else math.nan
        found[f"intensity_mean_{channel}"] = float(mean)
        found[f"intensity_std_{channel}"] = float(math.sqrt(counts @ (values - mean) ** 2 / total)) if total else math.nan
    return found


def _count_table(lines: Sequence[dict[str, Any]], source: str) -> Table:
    table = _table(f"{source}: cases", ["task", "modality"], [*SPLITS, "total", "groups", "empty"])
    for line in lines:
        numbers = [*(line[split] for split in SPLITS), line["total"], line["groups"] or "–", line["empty"]]
        table.add_row(line["task"], line["modality"], *map(str, numbers), end_section=line is lines[-2])
    return table


def _image_table(lines: Sequence[dict[str, Any]]) -> Table:
    table = _table("images: median pixels (smallest–largest), mean±deviation of values", ["task"], ["height", "width", "grey, or r g b"])
    for line in lines:
        sides = [f"{line[f'{side}_median']:g} ({line[f'{side}_min']:g}–{line[f'{side}_max']:g})" for side in ("height", "width")]
        channels = CHANNELS if line["colour"] else CHANNELS[:1]
        value = " ".join(f"{line[f'intensity_mean_{name}']:.0f}±{line[f'intensity_std_{name}']:.0f}" for name in channels)
        table.add_row(line["task"], *([*sides, value] if line["read"] else ["–"] * 3), end_section=line is lines[-2])
    return table


def _lesion_table(lines: Sequence[dict[str, Any]]) -> Table:
    shares = {"lesion %\nmean": "mean", "\nq1": "q1", "\nmedian": "median", "\nq3": "q3"}
    regions = {"regions\nmean": "mean", "\nmedian ": "median", "\nmax": "max"}
    table = _table("lesions: share of the image, connected regions; empty masks left out", ["task"], [*shares, *regions])
    for line in lines:
        found = [100 * line[f"lesion_share_{point}"] for point in shares.values()]
        found += [line[f"components_{point}"] for point in regions.values()]
        table.add_row(line["task"], *("–" if math.isnan(one) else f"{one:.3g}" for one in found), end_section=line is lines[-2])
    return table


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for heading in words:
        table.add_column(heading, overflow="fold")  # names give way before numbers do
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
