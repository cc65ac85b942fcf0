"""Area, longest diameter and volume of what was segmented, as a DICOM structured report (SR, template TID 1500)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    ReferencedSegmentationFrame,
    SourceImageForMeasurementGroup,
    SourceImageForSegmentation,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from tpseg.core.files import replacing
from tpseg.core.tasks import Task
from tpseg.imaging.writing.codes import CATEGORY, finding_of, snomed
from tpseg.imaging.writing.identity import ModelIdentity, derived_uid
from tpseg.imaging.writing.inheriting import UTF_8, adopt, unnamed
from tpseg.imaging.writing.measures import Measures, measure, volume
from tpseg.imaging.writing.segmentation_object import (
    MANUFACTURER,
    Masks,
    frames_of_segment,
    naming,
    segmentation,
    series_number,
    series_uid,
    tracking_uid,
)

if TYPE_CHECKING:
    from tpseg.imaging.reading.dicom import DicomScan

PIXELS = Code("{pixels}", "UCUM", "pixels")
"""The unit of lengths and areas where nobody knows how large a pixel is."""
LESIONS = snomed("246206008", "Number of lesions")
Group = (
    PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
    | MeasurementsAndQualitativeEvaluations
)


def write_report(scan: DicomScan, masks: Masks, path: Path, model: ModelIdentity) -> None:
    """Write the measurements of a scan's masks as one DICOM SR file; raises as `report` does, naming the scan."""
    with naming(scan), replacing(path) as new:
        report(scan, masks, model).save_as(new, enforce_file_format=True)


def report(scan: DicomScan, masks: Masks, model: ModelIdentity) -> ComprehensiveSR:
    """The measurement report to the segmentation that the same masks make, see `segmentation`, whose segments it refers to.

    masks: for each task (N, H, W) bool. For each task and frame with a lesion: area, longest diameter and number of lesions; for a
    task over evenly spaced slices also the volume, with the longest diameter in any slice; for a task without any lesion, that
    there are none. Millimetres where the file says how large a pixel is in the patient, otherwise pixels: also where it only says
    how large one is at the detector. Raises DataError for images that lack identifiers.
    """
    segments = segmentation(scan.headers, masks, model)
    evidence = [unnamed(header) for header in (segments, *scan.headers)]  # highdicom looks at the first, and knows its kind
    header = scan.headers[0]
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer(model)),
        procedure_reported=codes.SCT.ImagingProcedure,
        title=codes.cid7021.ImagingMeasurementReport,
        imaging_measurements=[
            group for number, task in enumerate(masks, start=1) for group in groups_of(scan, task, masks[task], number, segments, model)
        ],
    )
    result = ComprehensiveSR(
        evidence=evidence,
        content=content,
        series_instance_uid=series_uid(header, model, "SR"),
        series_number=series_number(header, "SR"),
        sop_instance_uid=derived_uid("SR", segments.SOPInstanceUID),
        instance_number=segments.InstanceNumber,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=model.version,
        device_serial_number=model.sha256,
        series_description="Measurements by tpseg",
        specific_character_set=UTF_8,
        is_complete=True,
    )
    adopt(result, header)
    return result


def observer(model: ModelIdentity) -> ObserverContext:
    """The program that measured."""
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", model.sha256, model.version),
        name=model.name,
        manufacturer_name=MANUFACTURER,
        model_name=model.name,
        serial_number=model.sha256,
    )
    return ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


def groups_of(scan: DicomScan, task: Task, masks: np.ndarray, number: int, segments: Segmentation, model: ModelIdentity) -> Iterator[Group]:
    """A task's groups of measurements: of its volume, then of each frame; number: its segment's."""
    spacing = scan.true_spacing
    finding = finding_of(task)
    common: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(uid=tracking_uid(task, model, scan.headers[0]), identifier=task.name),
        "finding_type": finding.type,
        "finding_category": CATEGORY,
        "finding_sites": None if finding.anatomy is None else [FindingSite(finding.anatomy)],
        "algorithm_id": AlgorithmIdentification(model.name, model.version, [f"task={task.name}", f"model_sha256={model.sha256}"]),
    }
    filled = [frame for frame in range(len(masks)) if masks[frame].any()]
    if not filled:
        source = SourceImageForMeasurementGroup(scan.headers[0].SOPClassUID, scan.headers[0].SOPInstanceUID)
        nothing = [Measurement(LESIONS, 0, codes.UCUM.NoUnits)]
        yield MeasurementsAndQualitativeEvaluations(**common, source_images=[source], measurements=nothing)
        return
    measured = {frame: measure(masks[frame], spacing) for frame in filled}
    if spacing is not None and scan.slice_spacing is not None:
        yield VolumetricROIMeasurementsAndQualitativeEvaluations(
            **common,
            referenced_segment=ReferencedSegment(
                segments.SOPClassUID,
                segments.SOPInstanceUID,
                segment_number=number,
                source_series=SourceSeriesForSegmentation(scan.headers[0].SeriesInstanceUID),
            ),
            measurements=[
                Measurement(codes.SCT.Volume, readable(volume(masks, spacing, scan.slice_spacing)), codes.UCUM.CubicMillimeter),
                longest(max(measured.values(), key=length), codes.UCUM.Millimeter),
            ],
        )
    places = frames_of_segment(segments, scan.headers, number)
    for frame, found in measured.items():
        header, of_many = scan.source(frame)
        yield PlanarROIMeasurementsAndQualitativeEvaluations(
            **common,
            referenced_segment=ReferencedSegmentationFrame(
                segments.SOPClassUID,
                segments.SOPInstanceUID,
                frame_number=places[frame],
                segment_number=number,
                source_image=SourceImageForSegmentation(header.SOPClassUID, header.SOPInstanceUID, None if of_many is None else [of_many]),
            ),
            measurements=[
                Measurement(codes.SCT.Area, readable(found.area), PIXELS if spacing is None else codes.UCUM.SquareMillimeter),
                longest(found, PIXELS if spacing is None else codes.UCUM.Millimeter),
                Measurement(LESIONS, found.parts, codes.UCUM.NoUnits),
            ],
        )


def readable(value: float) -> float:
    """A measure to six digits: more than a pixel is worth, and what a person can read."""
    return float(f"{value:.6g}")


def length(found: Measures) -> float:
    return 0.0 if found.diameter is None else found.diameter.length


def longest(found: Measures, unit: Code) -> Measurement:
    return Measurement(codes.SCT.LongAxis, readable(length(found)), unit)
