"""Masks as a DICOM segmentation (SEG) that refers to the images they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import highdicom
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage

from tpseg.core.errors import DataError, TPSegError
from tpseg.core.files import replacing
from tpseg.core.tasks import Task
from tpseg.imaging.writing.codes import CATEGORY, finding_of
from tpseg.imaging.writing.geometry import Plane, allow_unknown_thickness, distance, make_irregular, planes_of, regular, stack
from tpseg.imaging.writing.identity import ModelIdentity, derived_uid
from tpseg.imaging.writing.inheriting import adopt, check_identifiers, unnamed

if TYPE_CHECKING:
    from tpseg.imaging.reading.dicom import DicomScan

__all__ = ["ModelIdentity", "segmentation", "write_segmentation"]

MANUFACTURER = "tpseg"
SERIES_NUMBERS = {"SEG": 1000, "SR": 2000}
"""What is added to the number of the source's series for the series of each modality that is derived from it."""
LABEL = 64
"""Characters that a segment's label has room for."""

Masks = Mapping[Task, np.ndarray]
"""For each task (N, H, W) bool."""


def write_segmentation(scan: DicomScan, masks: Masks, path: Path, model: ModelIdentity) -> None:
    """Write the masks of a scan's frames as one DICOM SEG file, see `segmentation`.

    Raises UsageError for a task's wrong code, DataError that names the scan for images that nothing can be derived from.
    """
    with naming(scan), replacing(path) as new:
        segmentation(scan.headers, masks, model).save_as(new, enforce_file_format=True)


@contextmanager
def naming(scan: DicomScan) -> Iterator[None]:
    """Name the scan in what is raised while something is derived from it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{scan.path}: {error}") from error
    except (TPSegError, OSError):
        raise
    except Exception as error:  # of odd headers highdicom and pydicom raise all kinds of errors, whose words may quote the patient
        raise DataError(f"{scan.path}: no DICOM object can be derived from its header ({type(error).__name__})") from error


def segmentation(headers: Sequence[Dataset], masks: Masks, model: ModelIdentity) -> Segmentation:
    """A binary segmentation with a segment for each task, in the tasks' order.

    headers: of the source images, without pixels, in the order of the frames; one of a file with many frames. masks: for each task
    (N, H, W) bool.

    Segments lie in the source's frame of reference, plane by plane, and each frame names the source image, or frame, that it was
    made from; sources without positions are referred to and no more. Frames without a lesion are left out, but all are there if no
    frame has one. The same masks of the same images by the same model get the same UIDs. Raises DataError for images that lack
    identifiers.
    """
    for header in headers:
        check_identifiers(header)
    frames = len(next(iter(masks.values())))
    planes = planes_of(headers, frames)
    even = planes is not None and regular(planes)
    layout = planes if planes is not None and even else stack(frames)
    filled = [frame for frame in range(frames) if any(mask[frame].any() for mask in masks.values())]
    kept = filled or list(range(frames))
    between = distance(layout)
    result = Segmentation(
        source_images=[stand_in(headers[0], layout[frame], frame, between) for frame in kept],
        pixel_array=np.stack([mask[kept] for mask in masks.values()], axis=-1).view(np.uint8),  # (N, H, W, S)
        segmentation_type="BINARY",
        segment_descriptions=[describe(number, task, model, headers[0]) for number, task in enumerate(masks, start=1)],
        series_instance_uid=series_uid(headers[0], model, "SEG"),
        series_number=series_number(headers[0], "SEG"),
        sop_instance_uid=instance_uid(headers, masks, model),
        instance_number=max(1, int(headers[0].get("InstanceNumber") or 1)),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=model.version,
        device_serial_number=model.sha256,
        omit_empty_frames=bool(filled),
        content_label="TPSEG",
        content_description="Lesions segmented by tpseg",
        series_description="Lesions segmented by tpseg",
    )
    shown = frames_shown(result)
    if not even:
        make_irregular(result, planes, shown)
    refer(result, headers, shown)
    allow_unknown_thickness(result)
    adopt(result, headers[0])
    result.ContentCreatorName = ""  # must be there, and nobody has
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = derived_uid("dimensions", result.SOPInstanceUID)  # highdicom draws one at random
    return Segmentation.from_dataset(result, copy=False)


def stand_in(header: Dataset, plane: Plane, number: int, between: float | None) -> Dataset:
    """A single-frame image on a frame's plane: what highdicom is told of, whatever kind of image the frame is from.

    Its instance UID is the frame's number, for `frames_shown` to find. between: millimetres to the next plane.
    """
    image = unnamed(header)
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = str(number)
    image.Rows, image.Columns = header.Rows, header.Columns
    image.FrameOfReferenceUID = header.get("FrameOfReferenceUID") or "1"
    image.PositionReferenceIndicator = header.get("PositionReferenceIndicator") or ""
    image.ImagePositionPatient = list(plane.position)
    image.ImageOrientationPatient = list(plane.orientation)
    image.PixelSpacing = list(plane.spacing)
    image.SliceThickness, image.SpacingBetweenSlices = plane.thickness, between
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if header.get(keyword):
            setattr(image, keyword, header[keyword].value)
    return image


def frames_shown(result: Dataset) -> list[int]:
    """Which frame of the source each frame of the segmentation was made from, by the names of their stand-ins."""
    groups = result.PerFrameFunctionalGroupsSequence
    return [int(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID) for group in groups]


def refer(result: Dataset, headers: Sequence[Dataset], shown: Sequence[int]) -> None:
    """Put the source images in the place of their stand-ins, everywhere they are referred to. shown: as `frames_shown` finds it."""
    many = len(headers) == 1 and "NumberOfFrames" in headers[0]
    for group, frame in zip(result.PerFrameFunctionalGroupsSequence, shown, strict=True):
        group.DerivationImageSequence = deepcopy(group.DerivationImageSequence)  # segments share one
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        header = headers[0] if len(headers) == 1 else headers[frame]
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        if many:
            source.ReferencedFrameNumber = frame + 1
    result.SourceImageSequence = [reference(header) for header in headers]
    series = Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ReferencedInstanceSequence = [reference(header) for header in headers]
    result.ReferencedSeriesSequence = [series]


def frames_of_segment(result: Dataset, headers: Sequence[Dataset], number: int) -> dict[int, int]:
    """The source's frames that segment `number` has frames for, from 0, and the numbers of these, from 1."""
    files = {header.SOPInstanceUID: position for position, header in enumerate(headers)}
    shared = result.SharedFunctionalGroupsSequence[0]
    found = {}
    for place, group in enumerate(result.PerFrameFunctionalGroupsSequence, start=1):
        holder = group if "SegmentIdentificationSequence" in group else shared  # of a single segment it stands there
        if holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            source = group.DerivationImageSequence[0].SourceImageSequence[0]
            frame = source.get("ReferencedFrameNumber")
            found[files[source.ReferencedSOPInstanceUID] if frame is None else frame - 1] = place
    return found


def reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item


def describe(number: int, task: Task, model: ModelIdentity, header: Dataset) -> SegmentDescription:
    """What a task's segment shows, where it lies and what made it."""
    finding = finding_of(task)
    return SegmentDescription(
        segment_number=number,
        segment_label=task.title.replace("\\", "/")[:LABEL],
        segmented_property_category=CATEGORY,
        segmented_property_type=finding.type,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=model.name,
            version=model.version,
            family=codes.cid7162.ArtificialIntelligence,
            source=MANUFACTURER,
            parameters={"task": task.name, "model_sha256": model.sha256},
        ),
        tracking_id=task.name,
        tracking_uid=tracking_uid(task, model, header),
        anatomic_regions=None if finding.anatomy is None else [finding.anatomy],
    )


def tracking_uid(task: Task, model: ModelIdentity, header: Dataset) -> str:
    """What segmentation and report call the lesions of one task in one image or series."""
    return derived_uid("lesions", header.SOPInstanceUID, model.sha256, task.name)


def instance_uid(headers: Sequence[Dataset], masks: Masks, model: ModelIdentity) -> str:
    """Decided by the source images, the model, what the segments say and every pixel of the masks."""
    digest = hashlib.sha256()
    for task, mask in masks.items():
        digest.update(f"{task!r}{mask.shape}".encode())
        for frame in mask:
            digest.update(np.packbits(frame).tobytes())
    return derived_uid("SEG", *(header.SOPInstanceUID for header in headers), model.sha256, model.version, digest.hexdigest())


def series_uid(header: Dataset, model: ModelIdentity, modality: str) -> str:
    """All that one model makes of one series is a series itself, as far as it lies in one frame of reference."""
    frame_of_reference = str(header.get("FrameOfReferenceUID") or "")
    return derived_uid("series", modality, header.SeriesInstanceUID, frame_of_reference, model.sha256, model.version)


def series_number(header: Dataset, modality: str) -> int:
    return SERIES_NUMBERS[modality] + max(0, int(header.get("SeriesNumber") or 0))
