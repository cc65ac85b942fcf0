"""Finding scans of all kinds among inputs, and opening each with the reader it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_factory import write_dicom, write_nifti, write_series
from PIL import Image
from pydicom.uid import ImplicitVRLittleEndian, SegmentationStorage

from tpseg.core import extras
from tpseg.core.errors import DataError, UsageError
from tpseg.imaging.reading.dicom import DicomScan
from tpseg.imaging.reading.nifti import NiftiScan
from tpseg.imaging.reading.opening import Found, find_scans, name_of, open_scan
from tpseg.imaging.reading.picture import PictureScan

SLICE = np.zeros((4, 6), np.int16)


def picture(path: Path, height: int = 4, width: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 77, np.uint8)).save(path)
    return path


def names(found: list[Found]) -> list[str]:
    return [one.name for one in found]


def test_a_folder_of_everything(tmp_path: Path) -> None:
    """In the order of names, a series as one; what no reader knows, and DICOM without an image, is passed over."""
    picture(tmp_path / "b.png")
    write_nifti(tmp_path / "c.nii.gz", np.zeros((2, 3, 4), np.int16))
    write_series(tmp_path / "sub" / "ct", np.zeros((3, 4, 6), np.int16))
    write_dicom(tmp_path / "sub" / "xray", SLICE)
    write_dicom(tmp_path / "sub" / "report.dcm", SLICE, PixelData=None, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "sub" / "README").write_text("none")
    found = find_scans([str(tmp_path)])
    assert names(found) == ["b", "c", "xray", "ct"]
    assert [len(one.files) for one in found] == [1, 1, 1, 3]
    assert found[3].path == tmp_path / "sub" / "ct"
    assert [type(open_scan(one)) for one in found] == [PictureScan, NiftiScan, DicomScan, DicomScan]
    assert [open_scan(one).frames for one in found] == [1, 4, 1, 3]
    assert [open_scan(one).name for one in found] == names(found)


def test_what_a_folder_holds_besides_scans_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A picture of another format is a picture without a mask; a document, or a hidden file, is not worth a word."""
    picture(tmp_path / "a.png")
    for name in ("b.heic", "sub/C.WEBP", "notes.txt", "sub/.cache", "Table.XLSX"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("none")
    write_dicom(tmp_path / "report", SLICE, PixelData=None, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    write_dicom(tmp_path / "x.dcm", SLICE)
    assert names(find_scans([str(tmp_path)])) == ["a", "x"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 2 files of no known kind are left out: {tmp_path}/b.heic, {tmp_path}/sub/C.WEBP",
        f"{tmp_path}: 1 DICOM files without an image, or with masks, are left out: {tmp_path}/report",
    ]


def test_several_series_in_a_folder(tmp_path: Path) -> None:
    """One scan each, numbered in the order of the series' numbers."""
    write_series(tmp_path / "exam", np.zeros((3, 4, 6), np.int16), SeriesInstanceUID="1.2.3", SeriesNumber=7)
    for number, file in enumerate(write_series(tmp_path / "other", np.zeros((2, 4, 6), np.int16), SeriesNumber=2)):
        file.rename(tmp_path / "exam" / f"A{number}")
    found = find_scans([str(tmp_path / "exam")])
    assert [(one.name, one.path, len(one.files)) for one in found] == [("exam_1", tmp_path / "exam", 2), ("exam_2", tmp_path / "exam", 3)]
    with pytest.raises(UsageError, match="2 scans in this folder"):
        open_scan(tmp_path / "exam")


def test_a_localiser_in_a_series_is_by_itself(tmp_path: Path) -> None:
    """Another size or orientation cannot be a slice of the stack."""
    write_series(tmp_path / "ct", np.zeros((4, 4, 6), np.int16))
    write_dicom(tmp_path / "ct" / "large", np.zeros((8, 6), np.int16), seed="large")
    write_series(tmp_path / "turned", np.zeros((1, 4, 6), np.int16), orientation=(1, 0, 0, 0, 0, -1))[0].rename(tmp_path / "ct" / "turned")
    found = find_scans([str(tmp_path / "ct")])
    assert sorted((one.name, len(one.files)) for one in found) == [("ct", 4), ("large", 1), ("turned", 1)]


def test_a_multi_frame_file_is_one_scan_even_in_a_series(tmp_path: Path) -> None:
    for number in range(2):
        write_dicom(tmp_path / f"{number}.dcm", np.zeros((3, 4, 6), np.int16), seed=str(number))
    found = find_scans([str(tmp_path)])
    assert [(one.name, open_scan(one).frames) for one in found] == [("0", 3), ("1", 3)]


def test_a_broken_file_in_a_folder_is_found_and_refused_on_opening(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "a.dcm", SLICE).read_bytes()
    (tmp_path / "a.dcm").write_bytes(whole[:-20])
    (tmp_path / "b.dcm").write_bytes(b"no dicom")
    found = find_scans([str(tmp_path)])
    assert sorted(names(found)) == ["a", "b"]
    for one in found:
        with pytest.raises(DataError, match=str(one.path)):
            open_scan(one)


def test_an_image_cut_off_before_its_size_is_named_and_not_passed_over(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "folder" / "a.dcm", np.zeros((8, 8), np.uint16))
    content = whole.read_bytes()
    whole.write_bytes(content[: content.index(b"\x28\x00\x02\x00")])  # (0028,0002), what stands before Rows
    (found,) = find_scans([str(tmp_path / "folder")])
    with pytest.raises(DataError, match=r"a\.dcm"):
        open_scan(found).frame(0)


def test_globs_lists_and_files(tmp_path: Path) -> None:
    """A file that is named, by whatever means, is a scan for itself."""
    files = [picture(tmp_path / f"{number}.png") for number in range(3)]
    slices = sorted(write_series(tmp_path / "ct", np.zeros((2, 4, 6), np.int16)))
    (tmp_path / "list.txt").write_text(f"{files[2]}\n\n{files[0]}\n")
    assert names(find_scans([str(tmp_path / "*.png")])) == ["0", "1", "2"]
    assert names(find_scans([f"@{tmp_path / 'list.txt'}", str(files[1]), str(files[0])])) == ["2", "0", "1"]
    assert [one.files for one in find_scans([str(slices[1])])] == [(slices[1],)]
    assert len(find_scans([str(tmp_path / "ct" / "*")])) == 2
    with pytest.raises(UsageError, match="cannot be read"):
        find_scans(["@gone.txt"])
    with pytest.raises(UsageError, match=r"no images in .*expected \.png"):
        find_scans([str(tmp_path / "*.bmp")])


def test_a_linked_folder_is_searched_and_a_series_in_it_has_the_links_name(tmp_path: Path) -> None:
    """As DVC and datalad lay cohorts out: the names here, the files elsewhere, under names that are numbers."""
    write_series(tmp_path / "store" / "4f3a", np.zeros((3, 4, 6), np.int16))
    picture(tmp_path / "store" / "99" / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "case1").symlink_to("../store/4f3a")
    (tmp_path / "in" / "case2").symlink_to("../store/99")
    found = find_scans([str(tmp_path / "in")])
    assert [(one.name, len(one.files)) for one in found] == [("case1", 3), ("a", 1)]
    assert open_scan(found[0]).frames == 3


def test_a_link_that_leads_nowhere_is_found_and_refused_on_opening(tmp_path: Path) -> None:
    """It may have been a scan, a folder of them or a DICOM file without a suffix; of a text nothing is missed."""
    picture(tmp_path / "a.png")
    for name in ("gone.png", "patient7", "1.2.840.17", "notes.txt"):
        (tmp_path / name).symlink_to("nowhere")
    found = find_scans([str(tmp_path)])
    assert [one.path.name for one in found] == ["a.png", "1.2.840.17", "gone.png", "patient7"]
    for one in found[1:]:
        with pytest.raises(DataError, match=f"{one.path}: a link to nowhere, where nothing is"):
            open_scan(one)


def test_a_missing_file_is_found_and_refused_on_opening(tmp_path: Path) -> None:
    (found,) = find_scans([str(tmp_path / "gone.png")])
    with pytest.raises(DataError, match="no such file"):
        open_scan(found)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("scan.nii.gz", "scan"),
        ("scan.nii", "scan"),
        ("a.b.PNG", "a.b"),
        ("1.2.840.17", "1.2.840.17"),
        ("1.2.840.17.dcm", "1.2.840.17"),
        ("IM0001", "IM0001"),
    ],
)
def test_names(file: str, name: str) -> None:
    assert name_of(Path(file)) == name


def test_no_name_is_a_patients(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.zeros((2, 4, 6), np.int16))
    write_dicom(tmp_path / "single" / "IM1", np.zeros((4, 6), np.int16))
    found = find_scans([str(tmp_path)])
    assert [one.name for one in found] == ["ct", "IM1"]
    assert [open_scan(one).name for one in found] == ["ct", "IM1"]


@pytest.mark.parametrize("name", ["1.2.840.17", "IM1", "x.dcm", "scan.IMA"])
def test_dicom_of_any_name(tmp_path: Path, name: str) -> None:
    write_dicom(tmp_path / name, SLICE, syntax=ImplicitVRLittleEndian)
    assert isinstance(open_scan(tmp_path / name), DicomScan)
    assert len(find_scans([str(tmp_path)])) == 1


def test_masks_of_an_earlier_run_are_no_input(tmp_path: Path) -> None:
    """A DICOM SEG beside the images."""
    write_dicom(tmp_path / "a.dcm", SLICE)
    write_dicom(tmp_path / "a_seg.dcm", SLICE.astype(np.uint8), SOPClassUID=SegmentationStorage)
    assert names(find_scans([str(tmp_path)])) == ["a"]


def test_an_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("hello")
    with pytest.raises(DataError, match=r"a\.xyz: neither DICOM nor a file of a known suffix; expected \.png"):
        open_scan(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("name", "library", "extra"), [("a.dcm", "pydicom", "dicom"), ("a.mha", "SimpleITK", "itk"), ("a.mp4", "av", "video")]
)
def test_a_missing_extra_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(extras, "find_spec", lambda asked: None if asked == library else object())
    with pytest.raises(
        UsageError, match=rf"{library} is not installed; install it with: pip install '\.\[{extra}\]' in a checkout of tpseg"
    ):
        open_scan(tmp_path / name)


def test_a_picture(tmp_path: Path) -> None:
    scan = open_scan(picture(tmp_path / "a.png"))
    assert (scan.frames, scan.size, scan.spacing, scan.name) == (1, (4, 6), None, "a")
    assert (scan.frame(0) == 77).all()


def test_a_picture_turned_by_its_exif_tag(tmp_path: Path) -> None:
    """Size and frame are of the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    scan = open_scan(tmp_path / "a.jpg")
    assert scan.size == (6, 4) == scan.frame(0).shape[:2]


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_no_picture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    scan = open_scan(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png"):
        scan.frame(0)
    with pytest.raises(DataError, match=r"a\.png"):
        _ = scan.size


def test_a_picture_that_promises_more_than_its_file_can_hold(tmp_path: Path) -> None:
    """Refused before memory is taken: 30,000 x 10,000 pixels of 3 bytes in a file of 200 bytes."""
    content = bytearray(picture(tmp_path / "a.bmp").read_bytes())
    content[18:26] = (30_000).to_bytes(4, "little") + (10_000).to_bytes(4, "little")
    (tmp_path / "a.bmp").write_bytes(content)
    with pytest.raises(DataError, match=r"30000x10000 pixels, more than .* bytes can hold"):
        open_scan(tmp_path / "a.bmp").frame(0)
