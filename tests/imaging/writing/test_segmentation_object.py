"""DICOM in, DICOM SEG out, read back by highdicom and by plain pydicom."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom.data
import pytest
from dicom_factory import PATIENT, dicom, item, write_dicom, write_series
from pydicom import Dataset, dcmread
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    VLPhotographicImageStorage,
)

from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task
from tpseg.imaging.reading.dicom import DicomScan
from tpseg.imaging.writing.geometry import Plane, regular
from tpseg.imaging.writing.identity import ModelIdentity
from tpseg.imaging.writing.segmentation_object import instance_uid, write_segmentation

MODEL = ModelIdentity("ab" * 32, version="1.2.3")
NODULE, CYST = Task("thyroid_nodule", "ultrasound", "Thyroid nodule"), Task("cyst")
TYPE_1 = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "InstanceNumber", "Manufacturer",
    "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "ContentDate", "ContentTime", "ContentLabel", "ImageType",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SegmentationType",
    "SegmentSequence", "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence", "DimensionIndexSequence", "ReferencedSeriesSequence", "LossyImageCompression", "PixelData",
)  # fmt: skip
"""Of the segmentation IOD (PS3.3 A.51): there, and not empty."""
TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
          "ReferringPhysicianName", "ContentDescription", "ContentCreatorName")  # fmt: skip
"""There, and perhaps empty."""


def blobs(frames: int, height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    """Masks (N, H, W): of odd sizes, so that frames do not end at whole bytes; every third frame empty."""
    rng = np.random.default_rng(seed)
    masks = rng.random((frames, height, width)) < 0.3
    masks[::3] = False
    return masks


def write(scan: DicomScan, masks: dict[Task, np.ndarray], folder: Path) -> Path:
    path = folder / "out" / "mask.dcm"
    write_segmentation(scan, masks, path, MODEL)
    return path


def read(path: Path) -> highdicom.seg.Segmentation:
    """By highdicom; beforehand, what every segmentation has is checked with plain pydicom."""
    plain = dcmread(path)
    assert plain.SOPClassUID == SegmentationStorage
    assert [keyword for keyword in TYPE_1 if plain.get(keyword) in (None, "", [])] == []
    assert [keyword for keyword in TYPE_2 if keyword not in plain] == []
    assert len(plain.PerFrameFunctionalGroupsSequence) == plain.NumberOfFrames
    assert len(plain.PixelData) == 2 * -(-plain.NumberOfFrames * plain.Rows * plain.Columns // 16)
    assert plain.file_meta.MediaStorageSOPInstanceUID == plain.SOPInstanceUID
    indices = [tuple(one.FrameContentSequence[0].DimensionIndexValues) for one in plain.PerFrameFunctionalGroupsSequence]
    assert len(set(indices)) == len(indices), "dimension indices tell frames apart"
    assert {len(index) for index in indices} == {len(plain.DimensionIndexSequence)}
    for frame in plain.PerFrameFunctionalGroupsSequence:
        for pointer in plain.DimensionIndexSequence[1:]:
            assert pointer.DimensionIndexPointer in frame[pointer.FunctionalGroupPointer].value[0]
    return highdicom.seg.segread(path)


def by_instance(segmentation: highdicom.seg.Segmentation, scan: DicomScan) -> np.ndarray:
    """(N, H, W, S) bool, frames in the order of the scan's files."""
    uids = [header.SOPInstanceUID for header in scan.headers]
    return segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True, ignore_spatial_locations=True) > 0


def by_frame(segmentation: highdicom.seg.Segmentation, scan: DicomScan) -> np.ndarray:
    return (
        segmentation.get_pixels_by_source_frame(
            scan.headers[0].SOPInstanceUID, range(1, scan.frames + 1), assert_missing_frames_are_empty=True, ignore_spatial_locations=True
        )
        > 0
    )


def sources(path: Path) -> list[tuple[str, int | None]]:
    """The source instance, and frame, that each frame of a segmentation names."""
    found = [one.DerivationImageSequence[0].SourceImageSequence[0] for one in dcmread(path).PerFrameFunctionalGroupsSequence]
    return [(source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")) for source in found]


def keywords(dataset: Dataset) -> set[str]:
    """Of all elements, at every depth."""
    return {element.keyword for element in dataset.iterall()}


@pytest.fixture
def series(tmp_path: Path) -> DicomScan:
    files = write_series(tmp_path / "series", np.zeros((7, 20, 30), np.int16), spacing=(2.5, 0.5, 0.75), orientation=(1, 0, 0, 0, 0, -1))
    return DicomScan(files, tmp_path / "series", "series")


class TestSeries:
    def test_masks_come_back_slice_by_slice(self, series, tmp_path):
        masks = blobs(7)
        found = by_instance(read(write(series, {NODULE: masks}, tmp_path)), series)
        np.testing.assert_array_equal(found[..., 0], masks)

    def test_pydicom_alone_reads_the_same(self, series, tmp_path):
        masks = blobs(7)
        path = write(series, {NODULE: masks}, tmp_path)
        slices = {header.SOPInstanceUID: mask for header, mask in zip(series.headers, masks, strict=True)}
        pixels = dcmread(path).pixel_array
        assert len(pixels) == 4
        for frame, (uid, _) in zip(pixels, sources(path), strict=True):
            np.testing.assert_array_equal(frame, slices[uid])

    def test_lies_where_the_source_lies(self, series, tmp_path):
        plain = dcmread(write(series, {NODULE: blobs(7)}, tmp_path))
        headers = {header.SOPInstanceUID: header for header in series.headers}
        shared = plain.SharedFunctionalGroupsSequence[0]
        assert plain.FrameOfReferenceUID == series.headers[0].FrameOfReferenceUID
        assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.5, 0.75]
        assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 2.5
        assert shared.PixelMeasuresSequence[0].SliceThickness == 2.5
        assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 0, -1]
        assert plain.NumberOfFrames == 4  # of seven, three are empty
        for one in plain.PerFrameFunctionalGroupsSequence:
            source = headers[one.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
            assert list(one.PlanePositionSequence[0].ImagePositionPatient) == list(source.ImagePositionPatient)

    def test_volume_as_highdicom_builds_it(self, series, tmp_path):
        masks = blobs(7)
        volume = read(write(series, {NODULE: masks}, tmp_path)).get_volume(combine_segments=True, allow_missing_positions=True)
        assert volume.spacing == pytest.approx((2.5, 0.5, 0.75))
        filled = masks[1:6]
        assert sorted(volume.array.reshape(len(volume.array), -1).sum(axis=1)) == sorted(filled.reshape(5, -1).sum(axis=1))

    def test_refers_to_every_source_image_and_to_no_frame_number(self, series, tmp_path):
        path = write(series, {NODULE: blobs(7)}, tmp_path)
        plain = dcmread(path)
        uids = [header.SOPInstanceUID for header in series.headers]
        listed = plain.ReferencedSeriesSequence[0]
        assert listed.SeriesInstanceUID == series.headers[0].SeriesInstanceUID
        assert [one.ReferencedSOPInstanceUID for one in listed.ReferencedInstanceSequence] == uids
        assert {one.ReferencedSOPClassUID for one in listed.ReferencedInstanceSequence} == {series.headers[0].SOPClassUID}
        assert sorted(sources(path)) == sorted((uids[n], None) for n in (1, 2, 4, 5))

    def test_patient_and_study_are_the_sources_and_the_series_is_new(self, series, tmp_path):
        plain, source = dcmread(write(series, {NODULE: blobs(7)}, tmp_path)), series.headers[0]
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"):
            assert plain[keyword].value == source[keyword].value, keyword
        assert plain.SeriesInstanceUID != source.SeriesInstanceUID
        assert plain.Modality == "SEG"

    def test_says_what_and_where_and_by_what(self, series, tmp_path):
        (segment,) = dcmread(write(series, {NODULE: blobs(7)}, tmp_path)).SegmentSequence
        assert segment.SegmentLabel == "Thyroid nodule"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "237495005"
        assert segment.AnatomicRegionSequence[0].CodeMeaning == "Thyroid"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("tpseg", "1.2.3")
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
        assert algorithm.AlgorithmParameters == f"task=thyroid_nodule,model_sha256={MODEL.sha256}"

    def test_tasks_are_segments_that_may_overlap(self, series, tmp_path):
        masks = {NODULE: blobs(7), CYST: blobs(7, seed=1)}
        segmentation = read(write(series, masks, tmp_path))
        found = by_instance(segmentation, series)
        np.testing.assert_array_equal(found[..., 0], masks[NODULE])
        np.testing.assert_array_equal(found[..., 1], masks[CYST])
        assert [segment.SegmentLabel for segment in segmentation.SegmentSequence] == ["Thyroid nodule", "cyst"]
        assert segmentation.SegmentsOverlap == "YES"
        assert "AnatomicRegionSequence" not in segmentation.SegmentSequence[1]

    def test_a_task_without_lesions_is_a_segment_without_frames(self, series, tmp_path):
        masks = {NODULE: blobs(7), CYST: np.zeros((7, 20, 30), bool)}
        segmentation = read(write(series, masks, tmp_path))
        assert len(segmentation.SegmentSequence) == 2
        assert segmentation.NumberOfFrames == 4

    def test_no_lesion_at_all_is_a_valid_file_with_all_its_frames(self, series, tmp_path):
        segmentation = read(write(series, {NODULE: np.zeros((7, 20, 30), bool)}, tmp_path))
        assert segmentation.NumberOfFrames == 7
        assert not by_instance(segmentation, series).any()

    def test_the_same_again_is_the_same_object_and_another_is_not(self, series, tmp_path):
        masks = blobs(7)
        first, again = (dcmread(write(series, {NODULE: masks}, tmp_path)) for _ in range(2))
        for plain in (first, again):
            for keyword in ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributingEquipmentSequence"):
                del plain[keyword]
        assert first == again
        masks[1, 0, 0] ^= True
        other = dcmread(write(series, {NODULE: masks}, tmp_path))
        assert other.SOPInstanceUID != first.SOPInstanceUID
        assert other.SeriesInstanceUID == first.SeriesInstanceUID

    def test_two_slices_in_one_place_keep_their_places(self, tmp_path):
        """A time series: highdicom's own order by position would not know them apart."""
        positions = [[0.0, 0.0, 3.0 * (n % 2)] for n in range(4)]
        files = [
            write_dicom(tmp_path / f"{n}", np.zeros((9, 11), np.int16), seed=str(n), InstanceNumber=n + 1, ImagePositionPatient=position,
                        ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[2, 2], SliceThickness="")
            for n, position in enumerate(positions)
        ]  # fmt: skip
        scan = DicomScan(files, tmp_path, "twice")
        masks = np.random.default_rng(0).random((4, 9, 11)) < 0.5
        path = write(scan, {NODULE: masks}, tmp_path)
        np.testing.assert_array_equal(by_instance(read(path), scan)[..., 0], masks)
        plain = dcmread(path)
        assert plain.FrameOfReferenceUID == scan.headers[0].FrameOfReferenceUID
        for one, header in zip(plain.PerFrameFunctionalGroupsSequence, scan.headers, strict=True):
            assert one.PlanePositionSequence[0].ImagePositionPatient == header.ImagePositionPatient
            assert one.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
            assert one.PixelMeasuresSequence[0].PixelSpacing == [2, 2]


def enhanced(path: Path, frames: int, orientations: list[list[float]]) -> DicomScan:
    """An enhanced MR file whose frames carry their groups one by one."""
    groups = []
    for n in range(frames):
        group = Dataset()
        group.PlanePositionSequence = item(ImagePositionPatient=[1.5, -2.25, 4.0 * n])
        group.PlaneOrientationSequence = item(ImageOrientationPatient=orientations[n % len(orientations)])
        group.PixelMeasuresSequence = item(PixelSpacing=[0.9, 1.1], SliceThickness=4.0)
        groups.append(group)
    values = np.zeros((frames, 20, 30), np.uint16)
    write_dicom(
        path,
        values,
        SOPClassUID=EnhancedMRImageStorage,
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=[Dataset()],
    )
    return DicomScan([path], path, path.stem)


@pytest.mark.parametrize(
    ("other", "so"),
    [
        (Plane((0, 0, 5), (1, 0, 0, 0, 1, 0), (0.5, 0.7), 3), True),
        (Plane((0, 0, 5), (1, 0, 0, 0, 1, 0), (0.5, 0.7), 4), False),
        (Plane((0, 0, 5), (1, 0, 0, 0, 1, 0), (0.5, 0.7), None), False),
        (Plane((0, 0, 5), (1, 0, 0, 0, 1, 0), (0.5, 0.8), 3), False),
        (Plane((0, 0, 5), (0, 1, 0, 1, 0, 0), (0.5, 0.7), 3), False),
        (Plane((8, 0, 0), (1, 0, 0, 0, 1, 0), (0.5, 0.7), 3), False),
    ],
)
def test_planes_are_regular_that_differ_in_their_place_along_the_normal_alone(other: Plane, so: bool):
    assert regular([Plane((0, 0, 0), (1, 0, 0, 0, 1, 0), (0.5, 0.7), 3), other]) is so


class TestManyFrames:
    def test_enhanced_file_gives_planes_spacing_and_frame_numbers(self, tmp_path):
        scan = enhanced(tmp_path / "enhanced.dcm", 7, [[1, 0, 0, 0, 1, 0]])
        masks = {NODULE: blobs(7), CYST: blobs(7, seed=3)}
        path = write(scan, masks, tmp_path)
        found = by_frame(read(path), scan)
        np.testing.assert_array_equal(found[..., 0], masks[NODULE])
        np.testing.assert_array_equal(found[..., 1], masks[CYST])
        plain = dcmread(path)
        shared = plain.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert (list(shared.PixelSpacing), shared.SpacingBetweenSlices) == ([0.9, 1.1], 4)
        for one, (uid, frame) in zip(plain.PerFrameFunctionalGroupsSequence, sources(path), strict=True):
            assert uid == scan.headers[0].SOPInstanceUID
            assert list(one.PlanePositionSequence[0].ImagePositionPatient) == [1.5, -2.25, 4.0 * (frame - 1)]
        assert len(plain.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1

    def test_frames_of_several_orientations_keep_each_its_own(self, tmp_path):
        orientations = [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]]
        scan = enhanced(tmp_path / "localiser.dcm", 3, orientations)
        masks = np.ones((3, 20, 30), bool)
        path = write(scan, {NODULE: masks}, tmp_path)
        np.testing.assert_array_equal(by_frame(read(path), scan)[..., 0], masks)
        plain = dcmread(path)
        assert "PlaneOrientationSequence" not in plain.SharedFunctionalGroupsSequence[0]
        for one, orientation in zip(plain.PerFrameFunctionalGroupsSequence, orientations, strict=True):
            assert list(one.PlaneOrientationSequence[0].ImageOrientationPatient) == orientation

    @pytest.mark.parametrize("frames", [1, 5])
    def test_ultrasound_clip_is_referred_to_frame_by_frame_and_nothing_is_invented(self, tmp_path, frames):
        path = write_dicom(tmp_path / "clip.dcm", np.zeros((frames, 20, 30, 3), np.uint8), FrameOfReferenceUID=None,
                           SOPClassUID=UltrasoundMultiFrameImageStorage, Modality="US")  # fmt: skip
        scan = DicomScan([path], path, "clip")
        masks = blobs(frames + 1)[1:]
        out = write(scan, {NODULE: masks, CYST: ~masks}, tmp_path)
        found = by_frame(read(out), scan)
        np.testing.assert_array_equal(found[..., 0], masks)
        np.testing.assert_array_equal(found[..., 1], ~masks)
        assert {frame for _, frame in sources(out)} == set(range(1, frames + 1))
        places = [one.FrameContentSequence[0].InStackPositionNumber for one in dcmread(out).PerFrameFunctionalGroupsSequence]
        assert places == [frame for _, frame in sources(out)]  # both count from 1
        invented = {"FrameOfReferenceUID", "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "PixelSpacing",
                    "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices", "DimensionOrganizationType"}  # fmt: skip
        assert not keywords(dcmread(out)) & invented


class TestSingleImages:
    @pytest.mark.parametrize("kind", [SecondaryCaptureImageStorage, UltrasoundImageStorage, VLPhotographicImageStorage, "1.2.840.99999.1"])
    def test_image_outside_any_frame_of_reference(self, tmp_path, kind):
        path = write_dicom(tmp_path / "photo.dcm", np.zeros((20, 30, 3), np.uint8), SOPClassUID=kind, FrameOfReferenceUID=None)
        scan = DicomScan([path], path, "photo")
        masks = blobs(2)[1:]
        out = write(scan, {NODULE: masks}, tmp_path)
        np.testing.assert_array_equal(by_instance(read(out), scan)[..., 0], masks)
        assert sources(out) == [(scan.headers[0].SOPInstanceUID, None)]
        assert not keywords(dcmread(out)) & {"FrameOfReferenceUID", "PixelSpacing", "ImagePositionPatient"}

    def test_frame_of_reference_without_a_position_is_none(self, tmp_path):
        path = write_dicom(tmp_path / "us.dcm", np.zeros((20, 30), np.uint8), SOPClassUID=UltrasoundImageStorage)
        assert "FrameOfReferenceUID" not in dcmread(write(DicomScan([path], path, "us"), {NODULE: blobs(2)[1:]}, tmp_path))

    def test_spacing_at_the_detector_is_not_taken_for_the_patients(self, tmp_path):
        path = write_dicom(tmp_path / "cr.dcm", np.zeros((20, 30), np.uint16), FrameOfReferenceUID=None, ImagerPixelSpacing=[0.2, 0.2])
        scan = DicomScan([path], path, "cr")
        assert scan.spacing == (0.2, 0.2)
        assert "PixelMeasuresSequence" not in keywords(dcmread(write(scan, {NODULE: blobs(2)[1:]}, tmp_path)))

    def test_several_photographs_of_one_series(self, tmp_path):
        files = [write_dicom(tmp_path / f"{n}.dcm", np.zeros((20, 30, 3), np.uint8), SOPClassUID=VLPhotographicImageStorage, seed=str(n),
                             FrameOfReferenceUID=None, InstanceNumber=n + 1) for n in range(3)]  # fmt: skip
        scan = DicomScan(files, tmp_path, "photos")
        masks = blobs(3)
        np.testing.assert_array_equal(by_instance(read(write(scan, {NODULE: masks}, tmp_path)), scan)[..., 0], masks)

    def test_masks_of_lossy_images_say_so(self, tmp_path):
        path = write_dicom(tmp_path / "lossy.dcm", np.zeros((20, 30), np.uint8), FrameOfReferenceUID=None, LossyImageCompression="01",
                           LossyImageCompressionRatio=12.5, LossyImageCompressionMethod="ISO_10918_1")  # fmt: skip
        plain = dcmread(write(DicomScan([path], path, "lossy"), {NODULE: blobs(2)[1:]}, tmp_path))
        assert (plain.LossyImageCompression, plain.LossyImageCompressionRatio) == ("01", 12.5)
        assert JPEGBaseline8Bit != plain.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


class TestOddHeaders:
    def scan(self, folder: Path, **elements: object) -> DicomScan:
        path = folder / "odd.dcm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_dicom(path, np.zeros((20, 30), np.uint8), FrameOfReferenceUID=None, **elements)
        return DicomScan([path], path, "odd")

    def test_what_the_standard_demands_and_the_source_lacks_is_there_and_empty(self, tmp_path):
        scan = self.scan(tmp_path, **dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
                                                    "StudyID", "AccessionNumber", "SeriesNumber", "InstanceNumber")))  # fmt: skip
        read(write(scan, {NODULE: blobs(2)[1:]}, tmp_path))

    @pytest.mark.filterwarnings("ignore:Invalid value")
    def test_odd_values_are_taken_over_as_they_are_and_nobody_is_quoted(self, tmp_path, caplog, capfd):
        scan = self.scan(tmp_path, PatientName="Doe", PatientSex="X", PatientBirthDate="unknown")
        path = write(scan, {NODULE: blobs(2)[1:]}, tmp_path)
        read(path)
        assert dcmread(path).PatientName == "Doe"
        assert "Doe" not in caplog.text + "".join(capfd.readouterr())

    def test_names_in_any_alphabet_survive_beside_a_tasks_own_words(self, tmp_path):
        scan = self.scan(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen")
        plain = dcmread(write(scan, {Task("t", description="病変 " + "x" * 80): blobs(2)[1:]}, tmp_path))
        assert plain.PatientName == "Müller^Jürgen"
        assert plain.SegmentSequence[0].SegmentLabel == "病変 " + "x" * 61

    def test_private_elements_stay_behind(self, tmp_path):
        data = dicom(np.zeros((20, 30), np.uint8), FrameOfReferenceUID=None)
        data.private_block(0x0011, "ACME", create=True).add_new(1, "LO", "secret")
        data.save_as(tmp_path / "p.dcm", enforce_file_format=True)
        plain = dcmread(write(DicomScan([tmp_path / "p.dcm"], tmp_path / "p.dcm", "p"), {NODULE: blobs(2)[1:]}, tmp_path))
        assert not [element.tag for element in plain.iterall() if element.tag.is_private]

    @pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
    def test_an_image_that_nothing_can_refer_to_is_refused_by_name(self, tmp_path, keyword):
        scan = self.scan(tmp_path)
        del scan.headers[0][keyword]
        with pytest.raises(DataError, match=rf"odd\.dcm: has no {keyword}, so that nothing can refer to it; export it again"):
            write(scan, {NODULE: blobs(2)[1:]}, tmp_path)
        assert not (tmp_path / "out" / "mask.dcm").exists()

    def test_a_header_that_nothing_can_be_derived_from_is_one_sentence_that_quotes_nobody(self, tmp_path):
        scan = self.scan(tmp_path)
        scan.headers[0].Rows = 21
        with pytest.raises(DataError, match=r"odd\.dcm: no DICOM object can be derived from its header \(ValueError\)$"):
            write(scan, {NODULE: blobs(2)[1:]}, tmp_path)

    def test_a_wrong_code_is_the_users_error(self, tmp_path):
        with pytest.raises(UsageError, match="expected scheme:value:meaning"):
            write(self.scan(tmp_path), {Task("t", finding="Tumour"): blobs(2)[1:]}, tmp_path)

    def test_the_files_name_is_nobodys(self, series, tmp_path):
        write(series, {NODULE: blobs(7)}, tmp_path)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mask.dcm"]
        assert PATIENT.split("^")[0] not in str(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_image_that_comes_with_pydicom_gets_a_segmentation_or_one_sentence(tmp_path):
    """Of all modalities, single and multi-frame, many of them odd; those that the reader opens."""
    root = Path(pydicom.data.__file__).parent
    done, refused = 0, []
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            scan = DicomScan([file], file, "scan")
        except DataError:
            continue
        rng = np.random.default_rng(0)
        masks = {task: rng.random((scan.frames, *scan.size)) < 0.01 for task in (NODULE, CYST)}
        try:
            segmentation = highdicom.seg.segread(write(scan, masks, tmp_path))
        except DataError as error:
            refused.append(str(error))
            continue
        found = by_frame(segmentation, scan) if scan.multi_frame else by_instance(segmentation, scan)
        assert segmentation.PatientName == scan.headers[0].get("PatientName", "")  # in many alphabets
        for number, mask in enumerate(masks.values()):
            np.testing.assert_array_equal(found[..., number], mask)
        done += 1
    assert done >= 90
    assert all("has no StudyInstanceUID, so that nothing can refer to it" in sentence for sentence in refused)


def test_the_name_of_a_segmentation_is_decided_by_what_its_segments_are_called(series, tmp_path):
    """A viewer that holds one would take another of the same name for the same, and not show it."""
    masks = blobs(7)
    names = {instance_uid(series.headers, {task: masks}, MODEL) for task in (NODULE, CYST, replace(NODULE, finding="SCT:1:x"))}
    assert len(names) == 3
    assert instance_uid(series.headers, {NODULE: masks}, MODEL) == instance_uid(series.headers, {NODULE: masks.copy()}, MODEL)
    assert instance_uid(series.headers, {NODULE: masks.swapaxes(1, 2)}, MODEL) not in names
