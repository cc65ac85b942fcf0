"""Where the masks of a scan go: back into the kind of file it came from, or into PNG files that show its frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tpseg.core.errors import UsageError
from tpseg.core.extras import require
from tpseg.core.files import replacing, replacing_folder
from tpseg.core.tasks import Task
from tpseg.imaging.overlay import draw_overlay, with_caption
from tpseg.imaging.reading.opening import ITK_SUFFIXES, NIFTI_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from tpseg.imaging.reading.picture import PictureScan
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.regions import BAND, reduce

if TYPE_CHECKING:
    from tpseg.imaging.reading.dicom import DicomScan
    from tpseg.imaging.reading.volume import VolumeScan
    from tpseg.imaging.writing.identity import ModelIdentity
    from tpseg.imaging.writing.video import Video

ENDINGS = ("", "_probability", "_overlay", "_report")
"""What the names of a mask, its probability, its overlay and its measurement report end in."""
SUFFIXES = (".png", ".dcm", ".nii.gz", ".nrrd", ".mha", ".mkv", ".mp4")
"""Of all the files that are written here."""


@dataclass(frozen=True)
class Wanted:
    """What is to be written of each scan beside its masks, and how."""

    probability: bool = False
    overlay: bool = False
    report: bool = False
    """The measurement report of a DICOM scan."""
    png: bool = False
    """Masks as PNG files, whatever the scan's kind."""


@dataclass(frozen=True)
class Map:
    """What was found on one frame for one task."""

    mask: np.ndarray
    """(H, W) bool."""
    probability: np.ndarray | None
    """(H, W) float32, where it is wanted."""


@dataclass(frozen=True)
class Part:
    """What was found on one frame, for the tasks that see it through the same window."""

    index: int
    maps: Mapping[str, Map]
    """By task."""
    image: np.ndarray | None
    """The frame, (H / factor, W / factor, 3) uint8, where an overlay is wanted."""
    factor: int = 1

    def overlay(self, task: str) -> np.ndarray:
        """The contour over the frame, of the size of `image`."""
        assert self.image is not None
        mask = self.maps[task].mask
        if self.factor > 1:
            mask = reduce(mask.view(np.uint8) * np.uint8(255), self.factor) >= 128
        return draw_overlay(self.image, mask)


class Sink:
    """Files that one kind of result of a scan goes to. Each `write` is followed by an `append` of the same part; either may do nothing."""

    def write(self, part: Part) -> None:
        """Take a part, in any order, from any thread."""

    def append(self, part: Part) -> None:
        """Take a part, frame by frame, from one thread."""

    def finish(self) -> None:
        """All parts were taken: write what is left."""

    def cancel(self) -> None:
        """The scan failed: leave nothing behind."""

    def outputs(self) -> list[Path]:
        """The files and folders that lie there once it is finished."""
        raise NotImplementedError


@dataclass(frozen=True)
class Target:
    """Where the results of one scan lie."""

    name: str
    folders: Mapping[str, Path]
    """By task."""
    out: Path
    model: str = ""
    """What overlays call the model that made them."""

    def file(self, task: str, ending: str, suffix: str) -> Path:
        return self.folders[task] / f"{self.name}{ending}{suffix}"


class PngSink(Sink):
    """A PNG for each task; of a scan of several frames a folder with a PNG for each, numbered from 0.

    Masks are 0 and 255, probabilities 16 bit (65535 = 1), overlays the frame with the contour.
    """

    def __init__(self, scan: Scan, target: Target, kinds: Sequence[str]) -> None:
        """kinds: of ENDINGS, which to write."""
        self.target, self.kinds = target, kinds
        self.digits = max(4, len(str(scan.frames - 1)))
        self.several = scan.frames > 1
        self._places: dict[tuple[str, str], Path] = {}
        with ExitStack() as stack:  # what is begun is given up where a later name is refused
            for task in target.folders:
                for kind in kinds:
                    folder = target.file(task, kind, "")
                    if self.several:
                        refuse_foreign(folder)
                    place = replacing_folder(folder) if self.several else replacing(target.file(task, kind, ".png"))
                    self._places[task, kind] = stack.enter_context(place)
            self._stack = stack.pop_all()

    def write(self, part: Part) -> None:
        for task, found in part.maps.items():
            for kind in self.kinds:
                if kind == "_overlay":
                    values = with_caption(part.overlay(task), task, self.target.model)
                elif kind == "_probability":
                    assert found.probability is not None
                    values = sixteen_bit(found.probability)
                else:
                    values = found.mask.view(np.uint8) * np.uint8(255)
                place = self._places[task, kind]
                save_png(place / f"{part.index:0{self.digits}d}.png" if self.several else place, values)

    def finish(self) -> None:
        self._stack.close()

    def cancel(self) -> None:
        _leave(self._stack)

    def outputs(self) -> list[Path]:
        suffix = "" if self.several else ".png"
        return [self.target.file(task, kind, suffix) for task in self.target.folders for kind in self.kinds]


class VolumeSink(Sink):
    """The masks of all frames in memory, one byte a voxel, then one file for each task: NIfTI for NIfTI, NRRD or MetaImage for these."""

    def __init__(self, scan: VolumeScan, target: Target, kind: str) -> None:
        """kind: '' for the masks, `_probability` for these, in float32."""
        self.scan, self.target, self.kind = scan, target, kind
        self.volumes = {task: np.zeros((scan.frames, *scan.size), bool if kind == "" else np.float32) for task in target.folders}

    def write(self, part: Part) -> None:
        for task, found in part.maps.items():
            self.volumes[task][part.index] = found.mask if self.kind == "" else found.probability

    def finish(self) -> None:
        from tpseg.imaging.reading.nifti import NiftiScan
        from tpseg.imaging.writing.volumes import write_itk, write_nifti

        for path, volume in zip(self.outputs(), self.volumes.values(), strict=True):
            if isinstance(self.scan, NiftiScan):
                write_nifti(self.scan, volume, path)
            else:
                from tpseg.imaging.reading.itk import ItkScan

                assert isinstance(self.scan, ItkScan)
                write_itk(self.scan, volume, path)

    def outputs(self) -> list[Path]:
        nifti = suffix_of(self.scan.path) in NIFTI_SUFFIXES
        suffix = ".nii.gz" if nifti else ".nrrd" if self.scan.path.suffix.lower() == ".nrrd" else ".mha"
        return [self.target.file(task, self.kind, suffix) for task in self.volumes]


class DicomSink(Sink):
    """The masks of all frames and tasks in memory, then one DICOM SEG with a segment for each task, and the report if wanted."""

    def __init__(self, scan: DicomScan, target: Target, tasks: Sequence[Task], model: ModelIdentity, report: bool) -> None:
        require("highdicom")
        self.scan, self.target, self.model, self.report = scan, target, model, report
        self.masks = {task: np.zeros((scan.frames, *scan.size), bool) for task in tasks}

    def write(self, part: Part) -> None:
        for task, masks in self.masks.items():
            if task.name in part.maps:
                masks[part.index] = part.maps[task.name].mask

    def finish(self) -> None:
        from tpseg.imaging.writing.segmentation_object import write_segmentation

        mask, *report = self.outputs()
        write_segmentation(self.scan, self.masks, mask, self.model)
        for path in report:
            from tpseg.imaging.writing.measurement_report import write_report

            write_report(self.scan, self.masks, path, self.model)

    def outputs(self) -> list[Path]:
        return [self.target.out / f"{self.target.name}{ending}.dcm" for ending in ("", *(["_report"] if self.report else []))]


class VideoSink(Sink):
    """A video for each task, frame by frame as its source: masks lossless (FFV1, grey, 0 and 255), overlays to be looked at (H.264)."""

    def __init__(self, scan: Scan, target: Target, kind: str) -> None:
        """kind: '' for the masks, `_overlay` for these."""
        require("av")
        from tpseg.imaging.writing.video import rate_of

        self.kind, self.rate, self.model = kind, rate_of(scan.path), target.model
        self._stack = ExitStack()
        suffix = ".mkv" if kind == "" else ".mp4"
        self._places = [target.file(task, kind, suffix) for task in target.folders]
        self._files = {task: self._stack.enter_context(replacing(place)) for task, place in zip(target.folders, self._places, strict=True)}
        self._videos: dict[str, Video] = {}
        self._drawn: dict[tuple[int, str], np.ndarray] = {}

    def write(self, part: Part) -> None:
        for task, found in part.maps.items():
            mask = found.mask.view(np.uint8) * np.uint8(255)
            self._drawn[part.index, task] = with_caption(part.overlay(task), task, self.model) if self.kind else mask

    def append(self, part: Part) -> None:
        from tpseg.imaging.writing.video import Video

        for task in part.maps:
            if task not in self._videos:
                self._videos[task] = Video(self._files[task], self.rate, lossless=self.kind == "")
            self._videos[task].add(self._drawn.pop((part.index, task)))

    def finish(self) -> None:
        for video in self._videos.values():
            video.close()
        self._stack.close()

    def cancel(self) -> None:
        for video in self._videos.values():
            video.close()
        _leave(self._stack)

    def outputs(self) -> list[Path]:
        return self._places


def open_sinks(scan: Scan, target: Target, tasks: Sequence[Task], wanted: Wanted, model: Callable[[], ModelIdentity]) -> list[Sink]:
    """The files that the results of a scan go to, by its kind; those of its masks first.

    Raises UsageError if a folder of results holds other files, or where the library for a format is not installed.
    """
    shown = [kind for kind, asked in (("_probability", wanted.probability), ("_overlay", wanted.overlay)) if asked]
    if isinstance(scan, PictureScan) or wanted.png:
        return [PngSink(scan, target, ["", *shown])]
    suffix = "" if scan.path.is_dir() else suffix_of(scan.path)
    sinks: list[Sink]
    if suffix in NIFTI_SUFFIXES + ITK_SUFFIXES:
        from tpseg.imaging.reading.volume import VolumeScan

        assert isinstance(scan, VolumeScan)
        sinks, pictures = [VolumeSink(scan, target, kind) for kind in ("", *shown) if kind != "_overlay"], {"_overlay"}
    elif suffix in VIDEO_SUFFIXES:
        sinks, pictures = [VideoSink(scan, target, kind) for kind in ("", *shown) if kind != "_probability"], {"_probability"}
    else:
        from tpseg.imaging.reading.dicom import DicomScan

        assert isinstance(scan, DicomScan)
        sinks, pictures = [DicomSink(scan, target, tasks, model(), wanted.report)], {"_probability", "_overlay"}
    left = [kind for kind in shown if kind in pictures]
    return [*sinks, PngSink(scan, target, left)] if left else sinks


def refuse_foreign(folder: Path) -> None:
    """Raise UsageError if a folder that is to be replaced holds more than an earlier run's frames."""
    if folder.is_dir() and any(not re.fullmatch(r"\d{4,}\.png", entry.name) for entry in folder.iterdir()):
        raise UsageError(f"{folder}: holds other files than frames of an earlier run, and would be replaced; choose another --out")


def sixteen_bit(probability: np.ndarray) -> np.ndarray:
    """Probabilities (H, W) as uint16, 65535 = 1; in bands, for a large image has no room for copies in floats."""
    values = np.empty(probability.shape, np.uint16)
    for top in range(0, len(values), BAND):
        values[top : top + BAND] = np.round(probability[top : top + BAND] * 65535)
    return values


def save_png(path: Path, values: np.ndarray) -> None:
    """Write an array as PNG."""
    Image.fromarray(values).save(path, format="PNG")


def _leave(stack: ExitStack) -> None:
    """Close what is on the stack as if its block had failed: nothing takes its place."""
    error = RuntimeError("cancelled")
    stack.__exit__(type(error), error, None)
