"""Advice on what is about to be segmented: the task of an image or a scan, and what is wrong with it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from miniature import disc, write_discs

from tpseg.calibration.calibrate import calibrate
from tpseg.calibration.input_check import Adviser, adviser_or_warning, looked_at, required_adviser, spread, write_advice
from tpseg.calibration.segmenter import Segmenter
from tpseg.core.errors import DataError, UsageError
from tpseg.data.manifest import read_dataset
from tpseg.imaging.reading.opening import Found
from tpseg.imaging.reading.scan import Scan

pytestmark = pytest.mark.usefixtures("miniature_trunk_module")


@pytest.fixture(scope="module")
def calibrated(trained: Path, tmp_path_factory: pytest.TempPathFactory, miniature_trunk_module: None) -> Path:
    """A run folder whose model was calibrated on more discs than it was trained on."""
    folder = tmp_path_factory.mktemp("calibrated")
    run = shutil.copytree(trained, folder / "run")
    data = write_discs(folder / "data", train=20, val=20, test=0)
    calibrate(str(run), read_dataset(data), folder / "out")
    return run


@pytest.fixture
def segmenter(calibrated: Path) -> Segmenter:
    return Segmenter(calibrated, device="cpu")


@pytest.fixture
def adviser(segmenter: Segmenter) -> Adviser:
    return required_adviser(segmenter)


def picture(task: str, seed: int = 7) -> np.ndarray:
    """An ordinary disc by seed 7: its distance from the training images is 0.5 to 0.7 of the limit on every processor tried."""
    return disc(task, np.random.default_rng(seed))[0]


class Slices(Scan):
    """A scan of given frames."""

    spacing = None

    def __init__(self, *frames: np.ndarray) -> None:
        self.path, self.name, self.frames, self.size, self._frames = Path("scan.nii.gz"), "scan", len(frames), frames[0].shape[:2], frames

    def frame(self, index: int) -> np.ndarray:
        return self._frames[index]


@pytest.mark.parametrize("task", ["bright_disc", "dark_disc"])
def test_auto_becomes_the_task_of_the_image(adviser, segmenter, task):
    advice = adviser.advise([segmenter.load(picture(task))], ["auto"])
    assert advice.tasks == (task,)
    assert advice.warnings == ()


def test_the_wrong_task_is_warned_of(adviser, segmenter, caplog):
    advice = adviser.advise([segmenter.load(picture("dark_disc"))], ["bright_disc"], "photo.png")
    with caplog.at_level(logging.WARNING):
        advice.log()
    assert advice.tasks == ("bright_disc",)
    (warning,) = advice.warnings
    assert warning.startswith("looks like dark_disc (ultrasound, ")
    assert warning.endswith("not bright_disc (test)")
    assert f"photo.png: {warning}" in caplog.messages


def test_noise_is_unlike_anything_learned(adviser, segmenter):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    advice = adviser.advise([segmenter.load(noise)], ["auto"])
    assert advice.judgement.outlier
    assert "unlike anything" in advice.warnings[0]


def test_a_scan_is_judged_by_most_of_its_frames(adviser):
    blank = np.zeros((48, 64, 3), np.uint8)
    advice = adviser.advise_scan(Slices(picture("dark_disc", 1), picture("dark_disc", 2), blank), ["auto"])
    assert advice.tasks == ("dark_disc",)
    assert not advice.judgement.outlier
    assert advice.name == "scan.nii.gz"


def test_a_long_scan_is_looked_at_in_five_places():
    assert spread(1) == [0]
    assert spread(3) == [0, 1, 2]
    assert spread(100) == [10, 30, 50, 70, 90]
    frames = [np.full((2, 2, 3), number, np.uint8) for number in range(100)]
    assert [int(frame[0, 0, 0]) for frame in looked_at(Slices(*frames))] == [10, 30, 50, 70, 90]


def test_a_frame_that_is_cut_into_tiles_is_judged_by_tiles():
    image = np.random.default_rng(0).integers(0, 256, (64, 300, 3), dtype=np.uint8)
    tiles = list(looked_at(Slices(image), tile=64))
    assert [tile.shape for tile in tiles] == [(64, 64, 3)] * 5
    assert any(np.array_equal(tiles[0], image[:, left : left + 64]) for left in range(300 - 64))


def test_models_without_a_record_have_no_adviser(trained, segmenter):
    assert Adviser.of(Segmenter(trained, device="cpu")) is None
    assert Adviser.of(Segmenter(segmenter.network.model, device="cpu")) is None
    with pytest.raises(UsageError, match=r"'auto'.*: this model was not calibrated.*tpseg calibrate"):
        required_adviser(Segmenter(trained, device="cpu"))


def test_a_record_of_another_model_is_told_and_not_used(calibrated, tmp_path, caplog):
    run = shutil.copytree(calibrated, tmp_path / "run")
    (run / "model" / "trust.json").write_text("{}")
    segmenter = Segmenter(run, device="cpu")
    with pytest.raises(DataError, match="format None"):
        Adviser.of(segmenter)
    assert adviser_or_warning(segmenter) is None
    assert "not checked against what the model knows" in caplog.text


def test_the_table_has_a_line_for_each_file(adviser, segmenter, tmp_path):
    given = {
        Found(path, (path,), path.stem): adviser.advise([segmenter.load(picture(path.stem))], ["bright_disc"], str(path))
        for path in (Path("bright_disc.png"), Path("dark_disc.png"))
    }
    write_advice(given, tmp_path / "judgements.csv")
    table = pd.read_csv(tmp_path / "judgements.csv", keep_default_na=False)
    assert table["name"].tolist() == ["bright_disc", "dark_disc"]
    assert table["file"].tolist() == ["bright_disc.png", "dark_disc.png"]
    assert table["looks_like"].tolist() == ["bright_disc", "dark_disc"]
    assert table["task"].tolist() == ["bright_disc"] * 2
    assert table["warning"][0] == ""
    assert "not bright_disc" in table["warning"][1]
    write_advice({}, tmp_path / "none.csv")
    assert list(pd.read_csv(tmp_path / "none.csv").columns) == list(table.columns)
