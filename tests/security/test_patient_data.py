"""Whatever identifies a patient in a DICOM file stays there: it turns up in no name, message, log, report or picture that tpseg makes.

The one exception is what the standard asks for: a DICOM segmentation or report is an object of the same patient and study.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import item, write_dicom
from miniature import disc
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from tpseg.cli import main

pytestmark = pytest.mark.usefixtures("miniature_trunk")

TEXT = {
    "PatientName": "QXNAME^QXGIVEN", "PatientID": "QXPATID", "OtherPatientNames": "QXOTHER^X", "PatientAddress": "QXSTREET 1",
    "PatientMotherBirthName": "QXMOTHER", "PatientTelephoneNumbers": "QX5550100", "PatientComments": "QXCOMMENT",
    "MedicalRecordLocator": "QXRECORD",
    "EthnicGroup": "QXETHNIC", "Occupation": "QXJOB", "AdditionalPatientHistory": "QXHISTORY", "AccessionNumber": "QXACCESSION",
    "InstitutionName": "QXHOSPITAL", "InstitutionAddress": "QXHOSPSTREET", "InstitutionalDepartmentName": "QXDEPT",
    "ReferringPhysicianName": "QXREFERRER^X", "PerformingPhysicianName": "QXPERFORMER^X", "NameOfPhysiciansReadingStudy": "QXREADER^X",
    "OperatorsName": "QXOPERATOR^X", "RequestingPhysician": "QXREQUESTER^X", "StationName": "QXSTATION", "StudyID": "QXSTUDYID",
    "StudyDescription": "QXSTUDYDESC", "SeriesDescription": "QXSERIESDESC", "ProtocolName": "QXPROTOCOL", "ImageComments": "QXIMAGECOMMENT",
    "RequestedProcedureDescription": "QXREQUEST", "PerformedProcedureStepDescription": "QXSTEP", "DeviceSerialNumber": "QXSERIAL",
    "ContrastBolusAgent": "QXAGENT", "DerivationDescription": "QXDERIVED", "ReasonForTheRequestedProcedure": "QXREASON",
}  # fmt: skip
NUMBERS = {
    "PatientBirthDate": "19310213", "StudyDate": "20170829", "SeriesDate": "20170830", "StudyTime": "131719.233",
    "AcquisitionDate": "20170831",
    "StudyInstanceUID": "1.2.826.77311.1", "SeriesInstanceUID": "1.2.826.77312.2", "FrameOfReferenceUID": "1.2.826.77313.3",
}  # fmt: skip
INSTANCE = "1.2.826.77314"
IN_DAMAGE = {"QXNAM", "QXBADDAY", "QXNOTAJPEG", "QXSLOPE", "QXCHARSET", "QXFRAMES", "QXPHOTO", "QXPLACE", "QXSYN", "1.2.826.77319"}
MARKERS = sorted(
    {word for text in TEXT.values() for word in text.split("^")} - {"X"} | {*NUMBERS.values(), INSTANCE, "QXNESTED"} | IN_DAMAGE
)


def write(path: Path, values: np.ndarray, number: int = 0, **elements: object) -> Path:
    uid = f"{INSTANCE}.{number}"
    nested = item(PatientID="QXNESTED", TypeOfPatientID="TEXT")
    marked = {**TEXT, **NUMBERS, "SOPInstanceUID": uid, "OtherPatientIDsSequence": nested, **elements}
    write_dicom(path, values, syntax=ExplicitVRLittleEndian, **marked)
    made = pydicom.dcmread(path)
    made.file_meta.MediaStorageSOPInstanceUID = uid
    made.save_as(path, enforce_file_format=True)
    return path


def grey(number: int) -> np.ndarray:
    return (disc("bright_disc", np.random.default_rng(number))[0].mean(axis=2) * 10).astype(np.uint16)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Single files, a series, an enhanced file; and of each fault that a message could tell of with the file's own words."""
    folder = tmp_path / "in"
    for number in range(3):
        write(folder / "single" / f"{number}.dcm", grey(number), number, SeriesInstanceUID=f"1.2.826.77312.{number + 5}")
    for number in range(4):
        position = {"ImagePositionPatient": [0, 0, 3.0 * number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
        write(folder / "series" / f"IM{number}", grey(number), 10 + number, InstanceNumber=number + 1, **position)
    write(folder / "enhanced.dcm", np.stack([grey(1), grey(2)]), 20)
    whole = write(folder / "truncated.dcm", grey(0), 21).read_bytes()
    (folder / "truncated.dcm").write_bytes(whole[:-4000])
    (folder / "cut.dcm").write_bytes(whole[:700])
    broken = bytearray(whole)
    broken[200:1200:50] = bytes(20)
    (folder / "damaged.dcm").write_bytes(bytes(broken))
    write(folder / "no_rows.dcm", grey(0), 30, Rows=9999)
    slope = write(folder / "no_slope.dcm", grey(0), 31, RescaleSlope=12345678, RescaleIntercept=0)
    slope.write_bytes(slope.read_bytes().replace(b"12345678", b"QXSLOPE "))  # words where a number should be
    frames = write(folder / "no_frames.dcm", grey(0), 33, NumberOfFrames=12345678)
    frames.write_bytes(frames.read_bytes().replace(b"12345678", b"QXFRAMES"))
    photometric = write(folder / "no_photometric.dcm", grey(0), 34)
    photometric.write_bytes(photometric.read_bytes().replace(b"MONOCHROME2 ", b"QXPHOTO     "))
    syntax = write(folder / "no_syntax.dcm", grey(0), 35)
    syntax.write_bytes(syntax.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.826.77319.1.2.1\0"))
    of_dicom = write(folder / "no_syntax_of_dicom.dcm", grey(0), 36)  # not a private one by its beginning
    of_dicom.write_bytes(of_dicom.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.QXSYN\0"))
    position = {"ImagePositionPatient": [12345678, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    place = write(folder / "no_place.dcm", grey(0), 37, **position)
    place.write_bytes(place.read_bytes().replace(b"12345678", b"QXPLACE "))
    charset = write(folder / "charset.dcm", grey(0), 32, SpecificCharacterSet="ISO_IR 100")
    charset.write_bytes(charset.read_bytes().replace(b"ISO_IR 100", b"QXCHARSET "))  # pydicom logs what it does not know
    made = pydicom.dcmread(folder / "single" / "0.dcm")
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    made["PixelData"].is_undefined_length = True
    made.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8QXNOTAJPEG"])
    made.save_as(folder / "no_jpeg.dcm")
    content = (folder / "single" / "0.dcm").read_bytes()
    (folder / "bad_text.dcm").write_bytes(content.replace(b"QXNAME", b"QXNAM\xff").replace(b"19310213", b"QXBADDAY"))
    return folder


def leaks(content: bytes) -> list[str]:
    return [marker for marker in MARKERS if marker.encode() in content]


def made_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def assert_discreet(out: Path, said: str, *, objects: bool = False) -> None:
    assert leaks(said.encode()) == []
    for path in made_files(out):
        assert leaks(str(path.relative_to(out)).encode()) == []
        if not (objects and path.suffix == ".dcm"):
            assert leaks(path.read_bytes()) == [], path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> object:
    """Run a verb; what it said on stdout, stderr and to any logger."""

    def call(*words: object) -> tuple[int, str]:
        with caplog.at_level(logging.DEBUG):
            code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out + said.err + caplog.text

    return call


def test_the_markers_are_there_to_be_found(scans: Path) -> None:
    content = b"".join(path.read_bytes() for path in made_files(scans))
    assert leaks(content) == MARKERS


@pytest.mark.parametrize("options", [["--format", "png", "--probability", "--overlay"], ["--sr", "--overlay", "--probability"]])
def test_predict(options: list[str], scans: Path, trained: Path, tmp_path: Path, say) -> None:
    out = tmp_path / "out"
    code, said = say("predict", trained, scans, "--task", "bright_disc", "--out", out, "--device", "cpu", *options)
    assert code == 1, "the damaged files are to be told of"
    assert said.count("skipped:") >= 3
    assert len(list(made_files(out))) >= 5
    assert_discreet(out, said, objects=True)
    objects = [path for path in made_files(out) if path.suffix == ".dcm"]
    assert bool(objects) == ("--sr" in options)
    for path in objects:
        assert pydicom.dcmread(path).PatientID == TEXT["PatientID"], "a derived object belongs to its patient"
        assert "QXHOSPITAL" not in str(pydicom.dcmread(path)) or path.name.endswith("_report.dcm")


def test_each_damaged_file_alone(scans: Path, trained: Path, tmp_path: Path, say) -> None:
    for path in sorted(scans.glob("*.dcm")):
        _, said = say("predict", trained, path, "--task", "bright_disc", "--out", tmp_path / "out" / path.stem, "--device", "cpu")
        assert "Traceback" not in said
        assert_discreet(tmp_path / "out", said, objects=True)


def test_preparing_checking_viewing_and_evaluating_a_data_set(scans: Path, trained: Path, tmp_path: Path, say) -> None:
    source = tmp_path / "download"
    for name in ("images", "masks"):
        (source / name).mkdir(parents=True)
    for number in range(6):
        values, mask = disc("bright_disc", np.random.default_rng(number))
        write(source / "images" / f"case{number}.dcm", (values.mean(axis=2) * 10).astype(np.uint16), 40 + number)
        Image.fromarray(mask).save(source / "masks" / f"case{number}.png")
    for name in ("truncated", "no_jpeg", "bad_text", "damaged"):
        (source / "images" / f"{name}.dcm").write_bytes((scans / f"{name}.dcm").read_bytes())
        Image.fromarray(mask).save(source / "masks" / f"{name}.png")
    data, out = tmp_path / "data", tmp_path / "out"
    spoken = []
    prepare = ["folder", "--source", source, "--out", data, "--task", "bright_disc", "--modality", "CT", "--group", "([0-9]|[a-z]+)$"]
    prepare += ["--max-left-out", "0.9"]
    for verb in (
        ["data", "prepare", *prepare],
        ["data", "check", data / "tasks.yaml", "--json"],
        ["data", "stats", data / "tasks.yaml", "--out", out / "stats"],
        ["data", "view", data / "tasks.yaml", "--out", out / "sheet.html"],
        ["evaluate", trained, "--data", data / "tasks.yaml", "--out", out / "scores"],
    ):
        out.mkdir(exist_ok=True)
        code, said = say(*verb)
        assert code in (0, 1)
        assert "Traceback" not in said
        spoken.append(said)
    assert len(list((data / "bright_disc" / "images").iterdir())) >= 6
    assert (out / "scores" / "test.csv").is_file(), "\n".join(spoken)
    assert_discreet(data, "".join(spoken))
    assert_discreet(out, "")
