"""A DICOM file, or the files of one series, as a scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
from pydicom import Dataset

from tpseg.core.errors import DataError
from tpseg.imaging.reading.dicom_file import COLOURS, DicomFile
from tpseg.imaging.reading.grey import colour_to_rgb, extent, functional_group, grey_of, palette_to_rgb
from tpseg.imaging.reading.guarding import reading
from tpseg.imaging.reading.scan import Scan
from tpseg.imaging.reading.series import distance_along_normal, even_distance, order_of
from tpseg.imaging.reading.windows import Window, parse_window

CENTIMETRES = 3
"""The code of centimetres in an ultrasound region's physical units."""
TWO_DIMENSIONAL = 1
"""The code of an ultrasound region that is an image, not a curve."""


class DicomScan(Scan):
    """Frames of a DICOM file in the file's order, or of a series' single-frame files in the order of their positions.

    Grey frames are shown in the window asked for, else as the file says: its VOI table or first window. Without either, up to 8
    bits without a unit are shown as they are, and others from the lowest to the highest value of all frames, padding left out; for
    that, all are decoded once before the first is shown.
    """

    files: tuple[Path, ...]
    """In the order of the frames: one for each, or one for all."""
    headers: tuple[Dataset, ...]
    """Of each of `files`, without the pixels."""
    multi_frame: bool
    """Whether one file holds all the frames."""
    slice_spacing: float | None
    """Millimetres between neighbouring frames; None where the files do not say or the distances are uneven."""
    spacing_from: str
    """The header's element that `spacing` was taken from; ImagerPixelSpacing is measured at the detector, not in the patient."""

    def __init__(self, files: Sequence[Path], path: Path, name: str, window: str = "") -> None:
        """Reads the headers. Raises UsageError for an unknown window, DataError for files that are damaged or do not fit together."""
        self._window = parse_window(window) if window else None
        self.path, self.name = path, name
        opened = [DicomFile(file) for file in files]
        with reading(path, "DICOM", quoting=False):
            opened = [opened[number] for number in order_of([file.header for file in opened])]
            self._check_alike(opened)
            self._opened = tuple(opened)
            self.files = tuple(file.path for file in opened)
            self.headers = tuple(file.header for file in opened)
            self.size = opened[0].size
            self.frames = len(opened) if len(opened) > 1 else opened[0].frames
            self.multi_frame = len(opened) == 1 and "NumberOfFrames" in self.headers[0]
            self.spacing, self.spacing_from = self._find_spacing()
            self.slice_spacing = even_distance(self._places())
        self._range: Window | None = None
        self._lock = Lock()

    def source(self, index: int) -> tuple[Dataset, int | None]:
        """The header of the file that frame `index` lies in, and its number in that file, from 1; None in a single-frame file."""
        return (self.headers[0], index + 1) if self.multi_frame else (self.headers[index], None)

    @property
    def true_spacing(self) -> tuple[float, float] | None:
        """None also for a spacing at the detector, which shows the patient magnified."""
        return None if self.spacing_from == "ImagerPixelSpacing" else self.spacing

    def frame(self, index: int) -> np.ndarray:
        file, number = self._at(index)
        stored, photometric = file.stored(number)
        with explaining(file, number):
            if photometric in COLOURS:
                return colour_to_rgb(stored, photometric, file.colour_bits(stored))
            if photometric == "PALETTE COLOR":
                return palette_to_rgb(stored, file.header)
            grey = grey_of(file.header, number)
        window = self._window
        if window is None and grey.window is None and grey.table is None:
            window = self._whole_range(stored)
        with explaining(file, number):
            return grey.show(stored, window)

    def _at(self, index: int) -> tuple[DicomFile, int]:
        """The file that frame `index` lies in, and which of the file's frames it is, from 0."""
        return (self._opened[index], 0) if len(self._opened) > 1 else (self._opened[0], index)

    def _whole_range(self, only: np.ndarray) -> Window:
        """From the lowest to the highest value of all frames; found once. only: the frame at hand, which may be all there is."""
        with self._lock:
            if self._range is None:
                low, high = np.inf, -np.inf
                for index in range(self.frames):
                    file, number = self._at(index)
                    stored = only if self.frames == 1 else file.stored(number)[0]
                    with explaining(file, number):
                        lowest, highest = extent(stored, grey_of(file.header, number), file.header)
                    low, high = min(low, lowest), max(high, highest)
                self._range = Window.between(low, high) if low <= high else Window.between(0, 0)  # all of it padding
            return self._range

    def _places(self) -> list[float | None]:
        return [distance_along_normal(file.header, number) for file, number in map(self._at, range(self.frames))]

    def _check_alike(self, opened: Sequence[DicomFile]) -> None:
        seen: dict[str, Path] = {}
        for file in opened:
            if len(opened) > 1 and (file.frames > 1 or file.size != opened[0].size):
                raise DataError(
                    f"{file.path}: {file.frames} frames of {file.size[1]}x{file.size[0]} in a series whose other files hold one of "
                    f"{opened[0].size[1]}x{opened[0].size[0]}; segment it by itself"
                )
            instance = str(file.header.get("SOPInstanceUID") or file.path)
            if instance in seen:
                raise DataError(f"{file.path}: the same image as {seen[instance].name}; remove one of them")
            seen[instance] = file.path

    def _find_spacing(self) -> tuple[tuple[float, float] | None, str]:
        """Millimetres between rows and columns, and the element that says so; None if none does or frames differ."""
        header = self.headers[0]
        measures = [functional_group(header, index, "PixelMeasuresSequence") for index in range(self.frames if self.multi_frame else 1)]
        for element in ("PixelSpacing", "ImagerPixelSpacing"):
            found = {pair_of(group.get(element)) for group in measures}
            if len(found) == 1 and (pair := found.pop()):
                return pair, element
        return (regions, "SequenceOfUltrasoundRegions") if (regions := ultrasound_spacing(header)) else (None, "")


@contextmanager
def explaining(file: DicomFile, number: int) -> Iterator[None]:
    """Name file and frame in what is raised while its values are turned to grey or colour."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{file.path}: frame {number + 1} {error}") from error
    except Exception as error:  # windows, tables and palettes of a damaged header raise whatever numpy and pydicom do
        raise DataError(
            f"{file.path}: frame {number + 1} cannot be shown ({type(error).__name__}); are window, rescaling and palette complete?"
        ) from error


def pair_of(value: object) -> tuple[float, float] | None:
    """A spacing of two positive numbers, or None."""
    try:
        rows, columns = (float(one) for one in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return (rows, columns) if 0 < rows < np.inf and 0 < columns < np.inf else None


def ultrasound_spacing(header: Dataset) -> tuple[float, float] | None:
    """Millimetres between rows and columns, where all image regions of an ultrasound frame agree; None otherwise."""
    found = set()
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        if region.get("RegionSpatialFormat") == TWO_DIMENSIONAL:
            metric = region.get("PhysicalUnitsXDirection") == CENTIMETRES == region.get("PhysicalUnitsYDirection")
            steps = (region.get("PhysicalDeltaY"), region.get("PhysicalDeltaX"))
            found.add(pair_of([10 * abs(step) for step in steps]) if metric and None not in steps else None)
    return found.pop() if len(found) == 1 else None
