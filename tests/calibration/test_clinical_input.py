"""`--task auto`, `--review` and `report` where the images are DICOM: they work, and what identifies a patient turns up nowhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dicom_factory import write_dicom, write_nifti, write_series
from miniature import disc, settings_file
from PIL import Image

from tpseg.calibration.input_check import Adviser
from tpseg.calibration.task_recognition import Judgement
from tpseg.cli import main

pytestmark = pytest.mark.usefixtures("miniature_trunk_module")

PATIENT = {
    "PatientName": "QXNAME^QXGIVEN", "PatientID": "QXPATID", "PatientBirthDate": "19310213", "AccessionNumber": "QXACCESS",
    "StudyDate": "20170829", "StudyDescription": "QXSTUDY", "SeriesDescription": "QXSERIES", "InstitutionName": "QXHOSPITAL",
    "StudyInstanceUID": "1.2.826.77311.1",
}  # fmt: skip
SERIES = "1.2.826.77312"
MARKERS = [word for text in (*PATIENT.values(), SERIES) for word in text.split("^")]
Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Say:
    """Run a verb that must succeed; what it said on stdout, stderr and to any logger."""

    def call(*words: object) -> str:
        with caplog.at_level(logging.DEBUG):
            code = main([str(word) for word in words])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out + said.err + caplog.text

    return call


def assert_discreet(said: str, *folders: Path) -> None:
    """No marker in what was said, nor in any name or file below the folders."""
    assert [marker for marker in MARKERS if marker in said] == []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            assert [marker for marker in MARKERS if marker in path.name or marker.encode() in content] == [], path


def test_a_series_and_a_file_are_recognised_flagged_and_listed_by_the_names_of_their_files(calibrated, tmp_path, say):
    source, out = tmp_path / "in", tmp_path / "out"
    for number, task in enumerate(("dark_disc", "bright_disc")):
        volume = np.stack([disc(task, np.random.default_rng(10 * number + frame))[0] for frame in range(3)])
        write_series(source / "study", volume, SeriesInstanceUID=f"{SERIES}.{number}", **PATIENT)
        for file in (source / "study").glob("IM*"):
            file.rename(file.with_name(f"{task}_{file.name[2:]}"))
    strange = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    write_dicom(source / "strange.dcm", strange, SeriesInstanceUID=f"{SERIES}.9", **PATIENT)

    said = say("predict", calibrated, source, "--task", "auto", "--review", "--format", "png", "--out", out, "--device", "cpu")

    judged = pd.read_csv(out / "judgements.csv", keep_default_na=False).set_index("name")
    assert judged["task"].to_dict() == {"strange": "", "study_1": "bright_disc", "study_2": "dark_disc"}
    assert judged["outlier"].to_dict() == {"strange": True, "study_1": False, "study_2": False}
    assert judged["file"]["study_1"] == str(source / "study")
    review = pd.read_csv(out / "review.csv", keep_default_na=False)
    assert review["name"].tolist()[0] == "strange"
    assert sorted(review["name"]) == ["strange", "study_1", "study_2"]
    assert "strange.dcm: unlike anything the model was trained on" in " ".join(said.split())
    assert_discreet(said, out)


@pytest.mark.parametrize("task", ["bright_disc", "dark_disc"])
def test_auto_gives_a_volume_the_mask_of_its_task(calibrated, tmp_path, say, monkeypatch, task):
    monkeypatch.setattr(Adviser, "judge", lambda self, images: Judgement(((task, 1.0),), strangeness=0.5, doubt=0.5))
    frames = [disc(task, np.random.default_rng(number))[0].mean(axis=2).astype(np.int16) for number in range(3)]
    volume = write_nifti(tmp_path / "scan.nii.gz", np.stack(frames, axis=2))
    for name in ("auto", task):
        say("predict", calibrated, volume, "--task", name, "--out", tmp_path / name, "--device", "cpu")
    masks = [np.asarray(nib.load(tmp_path / name / "scan.nii.gz").dataobj) for name in ("auto", task)]
    assert masks[0].any()
    assert np.array_equal(*masks)


def test_the_series_of_a_folder_are_told_apart_in_warnings(calibrated, tmp_path, say):
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
        write_series(tmp_path / "study" / str(number), noise, SeriesInstanceUID=f"{SERIES}.{number}")
        for file in (tmp_path / "study" / str(number)).iterdir():
            file.rename(tmp_path / "study" / f"{number}{file.name}")
    said = say(
        "predict", calibrated, tmp_path / "study", "--task", "bright_disc", "--format", "png", "--out", tmp_path / "out", "--device", "cpu"
    )
    assert [f"(study_{number}): unlike anything" in " ".join(said.split()) for number in (1, 2)] == [True, True]


def test_a_run_on_dicom_reports_calibrates_and_shows_no_patient(tmp_path, say):
    source, data, run = tmp_path / "download", tmp_path / "data", tmp_path / "run"
    (source / "masks").mkdir(parents=True)
    for number in range(10):
        values, mask = disc("bright_disc", np.random.default_rng(number))
        grey = (values.mean(axis=2) * 10).astype(np.uint16)
        write_dicom(source / "images" / f"case{number}.dcm", grey, SeriesInstanceUID=f"{SERIES}.{number}", **PATIENT)
        Image.fromarray(mask).save(source / "masks" / f"case{number}.png")
    settings = settings_file(tmp_path / "settings.yaml")
    prepare = ["folder", "--source", source, "--out", data, "--task", "bright_disc", "--modality", "CT", "--group", "([0-9]+)$"]
    said = say("data", "prepare", *prepare)
    said += say("train", "--data", data / "tasks.yaml", "--out", run, "--config", settings, "--steps", 2)
    said += say("evaluate", run, "--data", data / "tasks.yaml")
    said += say("calibrate", run, "--data", data / "tasks.yaml")
    said += say("report", run)
    assert (run / "report.html").stat().st_size > 10_000
    assert (run / "trust" / "review_test.png").is_file()
    assert_discreet(said, data, run)
