"""`Adviser`: judges what is about to be segmented, an image or a scan of many frames, and keeps what it said for the summary."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from tpseg.calibration.features import describe_with
from tpseg.calibration.record import Trust, load_trust
from tpseg.calibration.task_recognition import Judgement, judge_together
from tpseg.checkpoints.model_folder import find_model
from tpseg.core.errors import DataError, UsageError
from tpseg.core.files import write_atomically
from tpseg.imaging.reading.opening import Found, open_scan
from tpseg.imaging.reading.picture import PictureScan
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.regions import FrameRegions, open_regions, read_tile
from tpseg.imaging.tiles import Tiling
from tpseg.inference.network import EXPORTED

if TYPE_CHECKING:
    from tpseg.calibration.segmenter import Segmenter
    from tpseg.inference.segmenter import Loaded

log = logging.getLogger(__name__)

LOOKED_AT = 5
"""Frames of a scan, or tiles of a large image, at most, that its judgement is made from, evenly spaced."""
TABLE = "judgements.csv"


@dataclass(frozen=True)
class Advice:
    """What was said of a file, or of an image at hand."""

    name: str
    """The file's path, with the series' name where a folder holds several; '' for an image at hand."""
    tasks: tuple[str, ...]
    """What it is segmented for; none where it looks like no task and `auto` was asked for."""
    judgement: Judgement
    warnings: tuple[str, ...]

    @property
    def declined(self) -> bool:
        """No mask: it looks like no task, and none was named."""
        return not self.tasks

    def check_chosen(self) -> None:
        """Raise DataError that says why there is no mask where `auto` chose no task."""
        if self.declined:
            raise DataError(f"{self.name or 'image'}: {self.warnings[0]}")

    def log(self) -> None:
        """Log the warnings."""
        for warning in self.warnings:
            log.warning(f"{self.name or 'image'}: {warning}")


class Adviser:
    """Judges by the record in the model's folder.

    >>> adviser = Adviser.of(segmenter)         # None for a model that was not calibrated
    >>> adviser.advise([loaded], ["auto"]).tasks    # ("skin_lesion",)
    """

    def __init__(self, segmenter: Segmenter, trust: Trust) -> None:
        self.segmenter, self.trust = segmenter, trust
        self.given: dict[Found, Advice] = {}
        """What was said of the files that `predict_files` segmented."""

    @classmethod
    def of(cls, segmenter: Segmenter) -> Adviser | None:
        """For a segmenter that was opened from a calibrated model's folder; None for any other.

        Raises DataError for a record that is damaged, or made for other weights or tasks.
        """
        if segmenter.source is None or Path(segmenter.source).suffix in EXPORTED:
            return None
        trust = load_trust(find_model(segmenter.source))
        return None if trust is None else cls(segmenter, trust)

    def judge(self, images: Sequence[Loaded]) -> Judgement:
        """One judgement of an image, or of several that belong together."""
        return judge_together(self.trust, describe_with(self.segmenter.network, torch.stack([image.pixels for image in images])))

    def advise(self, images: Sequence[Loaded], asked: Sequence[str], name: str = "") -> Advice:
        """Judge images that belong together; `auto` among the tasks asked for becomes the most likely one, or none: see `choose`."""
        judgement = self.judge(images)
        tasks = judgement.choose(asked)
        for task in tasks:
            self.segmenter.tasks.id(task)
        return Advice(name, tasks, judgement, tuple(judgement.warnings(tasks, self.segmenter.tasks)))

    def advise_scan(self, scan: Scan, asked: Sequence[str], tile: int | None = None) -> Advice:
        """Judge a scan by some of its frames, or one that is cut into tiles of so many pixels by some of these."""
        return self.advise([self.segmenter.load(pixels) for pixels in looked_at(scan, tile)], asked, called(scan))

    def advise_file(self, found: Found, asked: Sequence[str], window: str, axis: str, tile: int | None) -> Advice:
        """Judge a file on its way to be segmented, as `advise_scan`; may be called from several threads. What was said is in `given`."""
        self.given[found] = self.advise_scan(open_scan(found, window=window, axis=axis), asked, tile)
        return self.given[found]


def required_adviser(segmenter: Segmenter) -> Adviser:
    """The adviser of a segmenter; raises UsageError that says what to do where there is none, DataError for a record that does not fit."""
    adviser = segmenter.adviser or Adviser.of(segmenter)
    if adviser is None:
        raise UsageError(
            "task 'auto', rank: this model was not calibrated, so it cannot tell its tasks apart; run "
            "'tpseg calibrate MODEL --data tasks.yaml' (not for exported files), or name a task"
        )
    return adviser


def adviser_or_warning(segmenter: Segmenter) -> Adviser | None:
    """The adviser; a record that cannot be used is told in a warning, for naming a task needs none."""
    try:
        return Adviser.of(segmenter)
    except DataError as error:
        log.warning(f"images are not checked against what the model knows: {error}")
        return None


def looked_at(scan: Scan, tile: int | None = None) -> Iterator[np.ndarray]:
    """The frames, or the tiles of the middle frame, that a scan is judged by, (H, W, 3) uint8 each."""
    if tile is None:
        yield from (scan.frame(index) for index in spread(scan.frames))
        return
    regions = open_regions(scan.path) if isinstance(scan, PictureScan) else FrameRegions(scan.frame(scan.frames // 2))
    corners = list(Tiling(scan.size, tile))
    for position in spread(len(corners)):
        yield read_tile(regions, *corners[position], tile)


def spread(count: int) -> list[int]:
    """At most LOOKED_AT positions out of so many: the middles of equal parts."""
    parts = min(count, LOOKED_AT)
    return [(2 * part + 1) * count // (2 * parts) for part in range(parts)]


def called(scan: Scan) -> str:
    """A scan's path; with its name where the path does not tell it, as of one of several series in a folder."""
    return str(scan.path) if scan.path.name.startswith(scan.name) else f"{scan.path} ({scan.name})"


def write_advice(given: Mapping[Found, Advice], path: Path) -> None:
    """A CSV with a line for each scan: its name and file as in the review list, task, probability, how strange it is, and the warning."""
    rows = [
        {
            "name": found.name,
            "file": str(found.path),
            "task": " ".join(advice.tasks),
            "looks_like": advice.judgement.task,
            "probability": round(advice.judgement.ranking[0][1], 4),
            "strangeness": round(advice.judgement.strangeness, 3),
            "outlier": advice.judgement.outlier,
            "warning": "; ".join(advice.warnings),
        }
        for found, advice in given.items()
    ]
    columns = ["name", "file", "task", "looks_like", "probability", "strangeness", "outlier", "warning"]
    write_atomically(path, pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))
