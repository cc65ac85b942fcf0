"""Where the frames of DICOM images lie in the patient, and how a segmentation says so, or that nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from tpseg.imaging.reading.dicom import pair_of
from tpseg.imaging.reading.grey import functional_group
from tpseg.imaging.reading.series import even_distance

SAME = 1e-3
"""Millimetres, and parts of a cosine: what differs by less is the same."""


@dataclass(frozen=True)
class Plane:
    """A frame's place in its frame of reference."""

    position: Sequence[float]
    """Of its first pixel, millimetres to the left, to the back and up."""
    orientation: Sequence[float]
    """Direction cosines of a row and of a column."""
    spacing: Sequence[float]
    """Millimetres between rows and between columns."""
    thickness: float | None


def planes_of(headers: Sequence[Dataset], frames: int) -> list[Plane] | None:
    """A plane for each frame; None where there is no frame of reference or any frame has no place in it."""
    if not headers[0].get("FrameOfReferenceUID"):
        return None
    planes = []
    for frame in range(frames):
        header, index = (headers[0], frame) if len(headers) == 1 else (headers[frame], 0)
        position = functional_group(header, index, "PlanePositionSequence").get("ImagePositionPatient")
        orientation = functional_group(header, index, "PlaneOrientationSequence").get("ImageOrientationPatient")
        measures = functional_group(header, index, "PixelMeasuresSequence")
        if not complete(position, 3) or not complete(orientation, 6) or pair_of(measures.get("PixelSpacing")) is None:
            return None
        thickness = measures.get("SliceThickness")
        planes.append(Plane(position, orientation, measures.PixelSpacing, thickness if thickness and thickness > 0 else None))
    return planes


def complete(values: Sequence[float] | None, count: int) -> bool:
    return (
        values is not None
        and not isinstance(values, str)
        and len(values) == count
        and bool(np.isfinite(np.array(values, np.float64)).all())
    )


def regular(planes: Sequence[Plane]) -> bool:
    """Whether all planes are parallel, of one spacing, and no two in one place: what highdicom can order by itself."""
    orientations = np.array([plane.orientation for plane in planes], np.float64)
    spacings = np.array([plane.spacing for plane in planes], np.float64)
    places = np.sort(places_of(planes))
    return bool(
        np.abs(orientations - orientations[0]).max() < SAME
        and np.abs(spacings - spacings[0]).max() < SAME
        and (np.diff(places) > SAME).all()
        and len({plane.thickness for plane in planes}) == 1
    )


def distance(planes: Sequence[Plane]) -> float | None:
    """Millimetres between neighbours of regular planes; None for a single one and for uneven distances."""
    return even_distance(places_of(planes).tolist())


def places_of(planes: Sequence[Plane]) -> np.ndarray:
    """How far each lies along the first one's normal, (N,) millimetres."""
    orientation = np.array(planes[0].orientation, np.float64)
    return np.array([plane.position for plane in planes], np.float64) @ np.cross(orientation[:3], orientation[3:])


def stack(frames: int) -> list[Plane]:
    """Planes one below the other, which is the order that highdicom puts frames in; `make_irregular` removes them."""
    return [Plane((0, 0, -frame), (1, 0, 0, 0, 1, 0), (1, 1), None) for frame in range(frames)]


def make_irregular(segmentation: Dataset, planes: Sequence[Plane] | None, shown: Sequence[int]) -> None:
    """Order the frames of a segmentation made on `stack` by their number, and put the true planes in the place of these.

    planes: None for frames outside any frame of reference: all that is said of such a frame is which image it was made from. shown:
    the source's frame that each frame of the segmentation was made from.
    """
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence
    if planes is None:
        del segmentation.FrameOfReferenceUID, segmentation.PositionReferenceIndicator
    if "DimensionOrganizationType" in segmentation:
        del segmentation.DimensionOrganizationType  # 3D: a regular volume
    order = segmentation.DimensionIndexSequence[-1]
    order.DimensionIndexPointer = tag_for_keyword("InStackPositionNumber")
    order.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    order.DimensionDescriptionLabel = "In-Stack Position Number"
    for group, frame in zip(segmentation.PerFrameFunctionalGroupsSequence, shown, strict=True):
        content = group.FrameContentSequence[0]
        content.StackID = "1"
        content.InStackPositionNumber = frame + 1
        del group.PlanePositionSequence
        if planes is not None:
            plane = planes[frame]
            group.PlanePositionSequence = PlanePositionSequence("PATIENT", plane.position)
            group.PlaneOrientationSequence = PlaneOrientationSequence("PATIENT", plane.orientation)
            group.PixelMeasuresSequence = PixelMeasuresSequence(plane.spacing, plane.thickness)


def allow_unknown_thickness(segmentation: Dataset) -> None:
    """Leave the slice thickness empty where the source has none: highdicom writes pixel measures without it and does not read these."""
    for group in (*segmentation.SharedFunctionalGroupsSequence, *segmentation.PerFrameFunctionalGroupsSequence):
        for measures in group.get("PixelMeasuresSequence", ()):
            if "SliceThickness" not in measures:
                measures.SliceThickness = None
