"""DICOM in, a structured report out, read back by highdicom: the numbers, their units, and what they refer to."""

from __future__ import annotations

import math
from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicom_factory import item, write_dicom, write_series
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import ComprehensiveSRStorage, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from tpseg.core.errors import DataError
from tpseg.core.tasks import Task
from tpseg.imaging.reading.dicom import DicomScan
from tpseg.imaging.writing.identity import ModelIdentity
from tpseg.imaging.writing.measurement_report import write_report
from tpseg.imaging.writing.segmentation_object import write_segmentation

MODEL = ModelIdentity("cd" * 32, version="1.2.3")
NODULE, CYST = Task("thyroid_nodule", "ultrasound", "Thyroid nodule"), Task("cyst")


def write(
    scan: DicomScan, masks: dict[Task, np.ndarray], folder: Path
) -> tuple[highdicom.sr.MeasurementReport, highdicom.seg.Segmentation]:
    """The report, and the segmentation of the same masks, both written and read back."""
    write_segmentation(scan, masks, folder / "out.dcm", MODEL)
    write_report(scan, masks, folder / "out_report.dcm", MODEL)
    return highdicom.sr.srread(folder / "out_report.dcm").content, highdicom.seg.segread(folder / "out.dcm")


def numbers(group) -> dict[str, tuple[float, str]]:
    """Name of each measurement: value and unit."""
    return {one.name.meaning: (float(one.value), one.unit.value) for one in group.get_measurements()}


def box(frames: int, height: int = 20, width: int = 30) -> np.ndarray:
    """In frames 1 and 2 a box of 3 rows and 10 columns, in frame 2 also a part of one pixel; frame 0 is empty."""
    masks = np.zeros((frames, height, width), bool)
    masks[1:3, 4:7, 5:15] = True
    masks[2:3, 15, 20] = True
    return masks


@pytest.fixture
def series(tmp_path: Path) -> DicomScan:
    """Five slices, 2.5 mm apart, with rows 0.5 mm and columns 0.25 mm apart."""
    files = write_series(tmp_path / "series", np.zeros((5, 20, 30), np.int16), spacing=(2.5, 0.5, 0.25))
    return DicomScan(files, tmp_path / "series", "series")


def test_area_and_longest_diameter_of_each_slice_in_millimetres(series, tmp_path):
    report, _ = write(series, {NODULE: box(5)}, tmp_path)
    first, second = report.get_planar_roi_measurement_groups()
    assert numbers(first)["Area"] == (30 * 0.125, "mm2")
    length, unit = numbers(first)["Long axis"]
    assert unit == "mm"
    assert length == pytest.approx(math.hypot(3 * 0.5, 9 * 0.25), rel=1e-5)  # longer than hypot(2 * 0.5, 10 * 0.25)
    assert numbers(first)["Number of lesions"] == (1, "1")
    assert numbers(second)["Area"] == (31 * 0.125, "mm2")
    assert numbers(second)["Number of lesions"] == (2, "1")


def test_volume_of_a_stack(series, tmp_path):
    report, segmentation = write(series, {NODULE: box(5)}, tmp_path)
    (group,) = report.get_volumetric_roi_measurement_groups()
    assert numbers(group)["Volume"] == (61 * 0.125 * 2.5, "mm3")
    assert numbers(group)["Long axis"][0] == pytest.approx(math.hypot(1.5, 2.25), rel=1e-5)
    assert group.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
    assert group.referenced_segment.referenced_segment_numbers == [1]
    assert group.referenced_segment.source_series_for_segmentation.value == series.headers[0].SeriesInstanceUID


def test_the_diameter_of_a_stack_is_the_longest_of_any_slice_not_that_of_the_largest(series, tmp_path):
    masks = np.zeros((5, 20, 30), bool)
    masks[1, 4:12, 5:13] = True  # 64 pixels, 4 by 2 mm
    masks[2, 10, :] = True  # 30 pixels of 0.25 mm in a row
    (group,) = write(series, {NODULE: masks}, tmp_path)[0].get_volumetric_roi_measurement_groups()
    assert numbers(group)["Long axis"] == (7.5, "mm")


def test_numbers_have_as_many_digits_as_a_person_reads(tmp_path):
    """Of spacings as scanners write them, whose products have 17 digits."""
    files = write_series(tmp_path / "series", np.zeros((5, 20, 30), np.int16), spacing=(2.0, 0.683594, 0.683594))
    scan = DicomScan(files, tmp_path / "series", "series")
    write(scan, {NODULE: box(5)}, tmp_path)
    texts = [str(one.value) for one in dcmread(tmp_path / "out_report.dcm").iterall() if one.keyword == "NumericValue"]
    assert len(texts) == 2 + 2 * 3
    assert max(map(len, texts)) <= 8
    assert f"{61 * 0.683594**2 * 2:.6g}" in [f"{float(text):.6g}" for text in texts]


def test_each_group_refers_to_the_frame_of_the_segmentation_that_it_measures(series, tmp_path):
    """Of two tasks; the pixels of the frame referred to are those measured, and so is the source image."""
    masks = {CYST: np.roll(box(5), 2, axis=0), NODULE: box(5)}
    report, segmentation = write(series, masks, tmp_path)
    uids = [header.SOPInstanceUID for header in series.headers]
    groups = report.get_planar_roi_measurement_groups()
    assert len(groups) == 4
    for group in groups:
        reference = group.referenced_segmentation_frame
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        (frame,), (number,) = reference.referenced_frame_numbers, reference.referenced_segment_numbers
        source = uids.index(reference.source_image_for_segmentation.referenced_sop_instance_uid)
        expected = list(masks.values())[number - 1][source]
        np.testing.assert_array_equal(segmentation.get_stored_frame(frame).astype(bool), expected)
        assert numbers(group)["Area"][0] == pytest.approx(expected.sum() * 0.125)


def test_says_what_was_found_where_and_by_what(series, tmp_path):
    report, segmentation = write(series, {NODULE: box(5)}, tmp_path)
    group = report.get_planar_roi_measurement_groups()[0]
    assert group.finding_type.value == "237495005"
    assert group.finding_category == codes.SCT.MorphologicallyAbnormalStructure
    assert [site.topographical_modifier for site in group.finding_sites] == [None]
    assert group.finding_sites[0].value.meaning == "Thyroid"
    assert group.tracking_identifier == "thyroid_nodule"
    assert group.tracking_uid == segmentation.SegmentSequence[0].TrackingUID
    (observer,) = report.get_observer_contexts(observer_type=codes.DCM.Device)
    assert observer.observer_identifying_attributes.name == "tpseg"
    assert observer.observer_identifying_attributes.serial_number == MODEL.sha256


def test_patient_and_study_are_the_sources(series, tmp_path):
    write(series, {NODULE: box(5)}, tmp_path)
    plain, source = dcmread(tmp_path / "out_report.dcm"), series.headers[0]
    assert plain.SOPClassUID == ComprehensiveSRStorage
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"):
        assert plain[keyword].value == source[keyword].value, keyword
    for keyword in ("SeriesNumber", "InstanceNumber", "ContentDate", "ContentTime", "CompletionFlag", "VerificationFlag", "ValueType"):
        assert plain.get(keyword), keyword
    evidence = plain.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.StudyInstanceUID == source.StudyInstanceUID
    listed = {one.ReferencedSOPInstanceUID for of in evidence.ReferencedSeriesSequence for one in of.ReferencedSOPSequence}
    seg = dcmread(tmp_path / "out.dcm").SOPInstanceUID
    assert listed == {seg, *(header.SOPInstanceUID for header in series.headers)}


def test_the_same_again_is_the_same_report(series, tmp_path):
    uids = []
    for _ in range(2):
        write(series, {NODULE: box(5)}, tmp_path)
        uids.append(dcmread(tmp_path / "out_report.dcm").SOPInstanceUID)
    assert uids[0] == uids[1] != dcmread(tmp_path / "out.dcm").SOPInstanceUID


def test_a_task_without_a_lesion_is_reported_as_such(series, tmp_path):
    report, _ = write(series, {NODULE: box(5), CYST: np.zeros((5, 20, 30), bool)}, tmp_path)
    (nothing,) = report.get_image_measurement_groups()
    assert nothing.tracking_identifier == "cyst"
    assert numbers(nothing) == {"Number of lesions": (0, "1")}


def test_no_lesion_at_all_is_a_report_too(series, tmp_path):
    report, _ = write(series, {NODULE: np.zeros((5, 20, 30), bool)}, tmp_path)
    assert [numbers(group) for group in report.get_image_measurement_groups()] == [{"Number of lesions": (0, "1")}]


def photo(folder: Path, **elements: object) -> DicomScan:
    path = write_dicom(folder / "photo.dcm", np.zeros((20, 30), np.uint8), FrameOfReferenceUID=None, **elements)
    return DicomScan([path], path, "photo")


@pytest.mark.parametrize("elements", [{}, {"ImagerPixelSpacing": [0.2, 0.2]}], ids=["no spacing", "spacing at the detector"])
def test_pixels_where_the_file_does_not_say_how_large_they_are_in_the_patient(tmp_path, elements):
    report, _ = write(photo(tmp_path, **elements), {NODULE: box(2)[1:]}, tmp_path)
    (group,) = report.get_planar_roi_measurement_groups()
    assert numbers(group)["Area"] == (30, "{pixels}")
    assert numbers(group)["Long axis"] == (pytest.approx(math.hypot(2, 10), rel=1e-5), "{pixels}")
    assert report.get_volumetric_roi_measurement_groups() == []


def test_millimetres_of_an_ultrasound_region(tmp_path):
    region = item(RegionSpatialFormat=1, PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3, PhysicalDeltaX=0.02, PhysicalDeltaY=0.03)
    scan = photo(tmp_path, SOPClassUID=UltrasoundImageStorage, SequenceOfUltrasoundRegions=region)
    report, _ = write(scan, {NODULE: box(2)[1:]}, tmp_path)
    found = numbers(report.get_planar_roi_measurement_groups()[0])
    assert found["Area"] == (pytest.approx(30 * 0.3 * 0.2), "mm2")
    assert found["Long axis"] == (pytest.approx(math.hypot(2 * 0.3, 10 * 0.2), rel=1e-5), "mm")


def test_a_clip_is_measured_frame_by_frame_and_has_no_volume(tmp_path):
    path = write_dicom(tmp_path / "clip.dcm", np.zeros((4, 20, 30, 3), np.uint8), FrameOfReferenceUID=None, PixelSpacing=[0.5, 0.25],
                       SOPClassUID=UltrasoundMultiFrameImageStorage)  # fmt: skip
    report, segmentation = write(DicomScan([path], path, "clip"), {NODULE: box(4)}, tmp_path)
    assert report.get_volumetric_roi_measurement_groups() == []
    groups = report.get_planar_roi_measurement_groups()
    assert [group.referenced_segmentation_frame.source_image_for_segmentation.referenced_frame_numbers for group in groups] == [[2], [3]]
    assert [group.referenced_segmentation_frame.referenced_frame_numbers for group in groups] == [[1], [2]]
    np.testing.assert_array_equal(segmentation.get_stored_frame(2).astype(bool), box(4)[2])


def test_an_image_of_an_unknown_kind(tmp_path):
    report, _ = write(photo(tmp_path, SOPClassUID="1.2.840.99999.1"), {NODULE: box(2)[1:]}, tmp_path)
    assert len(report.get_planar_roi_measurement_groups()) == 1


def test_an_image_that_nothing_can_refer_to_is_refused_by_name(tmp_path):
    scan = photo(tmp_path)
    del scan.headers[0]["StudyInstanceUID"]
    with pytest.raises(DataError, match=r"photo\.dcm: has no StudyInstanceUID"):
        write_report(scan, {NODULE: box(2)[1:]}, tmp_path / "out_report.dcm", MODEL)
    assert not (tmp_path / "out_report.dcm").exists()
