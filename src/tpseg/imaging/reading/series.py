"""Which DICOM files make one series of frames, in what order, and how far apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import SegmentationStorage

from tpseg.imaging.reading.grey import functional_group
from tpseg.imaging.reading.silence_pydicom import keep_quiet
from tpseg.imaging.reading.sniffing import looks_like_dicom

keep_quiet()

TOLERANCE = 0.01
"""Share by which the distances of neighbouring slices may differ and count as one spacing."""
GROUPED_BY = [
    "SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames",
    "PhotometricInterpretation", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID",
]  # fmt: skip


def group_series(files: Sequence[Path]) -> list[list[Path]]:
    """The files of one folder that belong together: of one series, size, orientation and pixel spacing, each of one frame.

    A localiser or another odd image in a series is thereby a group of its own, and so is a multi-frame file. Files that are
    damaged are, too, for whoever opens them to say so; DICOM files that hold no image, or masks, are left out. Groups are in the order of
    the series' numbers, then of their first file.
    """
    groups: dict[Hashable, list[Path]] = defaultdict(list)
    numbers: dict[Hashable, int] = {}
    for file in files:
        key, number = _belongs(file)
        if key is not None:
            groups[key].append(file)
            numbers.setdefault(key, number)
    return [groups[key] for key in sorted(groups, key=lambda key: numbers[key])]


def _belongs(file: Path) -> tuple[Hashable, int]:
    """What the files of a group have in common, None for a file without an image; and its series' number."""
    try:
        if not looks_like_dicom(file):
            return file, 0
        header = dcmread(file, stop_before_pixels=True, specific_tags=GROUPED_BY, force=True)
        number = int(header.get("SeriesNumber") or 0)
        orientation = tuple(np.round([float(value) for value in header.get("ImageOrientationPatient") or ()], 3).tolist())
        spacing = tuple(np.round([float(value) for value in header.get("PixelSpacing") or ()], 4).tolist())
        if int(header.get("NumberOfFrames") or 1) > 1 or not header.get("SeriesInstanceUID"):
            return file, number
    except Exception:  # damaged in whatever way; opening it will say how
        return file, 0
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    if kind == SegmentationStorage:
        return None, number
    if "Rows" not in header:  # a report or a directory is no image; an image without its size is damaged, and opening it will say so
        return (None if kind is not None and "Image Storage" not in kind.name else file), number
    alike = ("SeriesInstanceUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "FrameOfReferenceUID")
    return (*(str(header.get(word)) for word in alike), orientation, spacing), number


def distance_along_normal(header: Dataset, index: int = 0) -> float | None:
    """Where a frame lies along the normal of its plane, in millimetres; None where the file does not say."""
    position = functional_group(header, index, "PlanePositionSequence").get("ImagePositionPatient")
    orientation = functional_group(header, index, "PlaneOrientationSequence").get("ImageOrientationPatient")
    if not position or not orientation or len(position) != 3 or len(orientation) != 6:
        return None
    row, column = np.array(orientation, np.float64).reshape(2, 3)
    return float(np.dot(np.cross(row, column), np.array(position, np.float64)))


def order_of(headers: Sequence[Dataset]) -> list[int]:
    """The order of a series' files: by position along the normal, where all have one, then by instance number, then as given."""
    places = [distance_along_normal(header) for header in headers]
    placed = all(place is not None for place in places)

    def key(number: int) -> tuple[float, int]:
        place = places[number]
        return round(place, 3) if placed and place is not None else 0.0, int(headers[number].get("InstanceNumber") or 0)

    return sorted(range(len(headers)), key=key)


def even_distance(places: Sequence[float | None]) -> float | None:
    """The distance of neighbouring frames in millimetres; None for one frame, for unknown places and for uneven distances."""
    if len(places) < 2 or any(place is None for place in places):
        return None
    distances = np.abs(np.diff(np.array(places, np.float64)))
    middle = float(np.median(distances))
    return middle if middle > 0 and bool((np.abs(distances - middle) <= TOLERANCE * middle).all()) else None
