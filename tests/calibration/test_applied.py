"""A calibrated model's thresholds, probabilities and review list, as `tpseg predict` gives them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import expit, logit

from tpseg.calibration.applied import Finish, apply_calibration, shift
from tpseg.calibration.calibrate import calibrate
from tpseg.calibration.confidence import Confidence
from tpseg.calibration.expected_dice import Regression
from tpseg.calibration.segmenter import Segmenter
from tpseg.calibration.temperature import Scaling
from tpseg.calibration.thresholding import ShiftedNetwork
from tpseg.calibration.thresholds import Threshold
from tpseg.cli import main
from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.manifest import read_dataset
from tpseg.inference.network import Maps

pytestmark = pytest.mark.usefixtures("miniature_trunk_module")
CUT = 1.5
Predict = Callable[..., Path]


@pytest.fixture(scope="module")
def plain(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder without a record."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def calibrated(plain: Path, discs: Path, tmp_path_factory: pytest.TempPathFactory, miniature_trunk_module: None) -> Path:
    """A calibrated one, whose thresholds are then set to numbers that a test can tell from ½."""
    run = shutil.copytree(plain, tmp_path_factory.mktemp("calibrated") / "run")
    calibrate(str(run), read_dataset(discs), run / "trust")
    record = run / "model" / "trust.json"
    content = json.loads(record.read_text())
    for entry in content["confidence"].values():
        entry["threshold"] = {"cut": CUT, "area": 0.0}
        entry["scaling"] = {"temperature": 2.0, "bias": -0.5}
    record.write_text(json.dumps(content))
    return run


@pytest.fixture
def predict(discs: Path, tmp_path: Path) -> Predict:
    def run(model: Path, name: str, *options: str) -> Path:
        images = sorted(str(path) for path in (discs.parent / "dark_disc").glob("*.png"))[:4]
        assert main(["predict", str(model), *images, "--task", "dark_disc", "--out", str(tmp_path / name), *options]) == 0
        return tmp_path / name

    return run


def masks(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("[0-9][0-9].png"))]


def grey(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{name}_probability.png")) / 65535


def test_calibration_alone_changes_no_byte_of_a_mask_or_probability(plain, calibrated, predict):
    one, other = predict(plain, "plain", "--probability"), predict(calibrated, "calibrated", "--probability")
    names = [path.name for path in sorted(one.glob("*.png"))]
    assert len(names) == 8
    assert [(one / name).read_bytes() for name in names] == [(other / name).read_bytes() for name in names]


def test_review_lists_every_image_and_leaves_the_masks(calibrated, predict, capsys):
    found = predict(calibrated, "out", "--review")
    assert masks(found) == masks(predict(calibrated, "without"))
    table = pd.read_csv(found / "review.csv", keep_default_na=False)
    assert sorted(table["name"].astype(int)) == [0, 1, 2, 3]
    assert (table["threshold"] == 0.5).all()
    assert table["expected_dice"].between(0, 1).all()
    unwarned = table[~table["reasons"].str.contains("unlike|looks like")]
    assert unwarned["expected_dice"].is_monotonic_increasing
    assert "what to look at first" in capsys.readouterr().out
    predict(calibrated, "again", "--review", "--json")
    images = json.loads(capsys.readouterr().out)["images"]
    said = {int(image["name"]): image["tasks"][0]["expected_dice"] for image in images}
    assert said == dict(zip(table["name"].astype(int), table["expected_dice"], strict=True))


def test_masks_at_the_calibrated_threshold_are_those_of_the_probability_and_said_to_be(calibrated, predict, capsys):
    half = predict(calibrated, "half", "--probability")
    capsys.readouterr()
    found = predict(calibrated, "moved", "--probability", "--threshold", "calibrated", "--review")
    assert "dark_disc 0.82" in " ".join(capsys.readouterr().out.split())
    for name in ("00", "01", "02", "03"):
        mask = np.asarray(Image.open(found / f"{name}.png")) > 0
        certain = abs(grey(half, name) - expit(CUT)) > 1e-4
        assert ((grey(half, name) > expit(CUT)) == mask)[certain].all()
        assert np.abs(grey(found, name) - grey(half, name)).max() < 1e-4  # the probability is the network's, as before
    assert (pd.read_csv(found / "review.csv")["threshold"] == round(float(expit(CUT)), 4)).all()
    assert masks(found) != masks(half)


def test_calibrated_probabilities_are_scaled_and_the_masks_stay(calibrated, predict, capsys):
    raw, found = predict(calibrated, "raw", "--probability"), predict(calibrated, "found", "--probability", "--calibrated")
    assert masks(raw) == masks(found)
    with np.errstate(divide="ignore"):
        expected = expit(logit(grey(raw, "00")) / 2 - 0.5)
    inner = (grey(raw, "00") > 0.01) & (grey(raw, "00") < 0.99)
    assert inner.any()
    assert np.abs(grey(found, "00") - expected)[inner].max() < 1e-3
    assert "probability 1/2" in capsys.readouterr().out
    both = predict(calibrated, "both", "--probability", "--calibrated", "--threshold", "calibrated")
    assert np.abs(grey(both, "00") - grey(found, "00")).max() < 1e-3


def test_tiles_are_cut_at_the_threshold_too(calibrated, predict):
    half = predict(calibrated, "half", "--probability", "--tile", "32")
    found = predict(calibrated, "moved", "--threshold", "calibrated", "--tile", "32", "--review")
    mask, certain = np.asarray(Image.open(found / "00.png")) > 0, abs(grey(half, "00") - expit(CUT)) > 1e-4
    assert ((grey(half, "00") > expit(CUT)) == mask)[certain].all()
    assert len(pd.read_csv(found / "review.csv")) == 4


def test_mirror_images_change_the_masks_and_are_calibrated_apart(calibrated, discs, predict, capsys, tmp_path):
    found = predict(calibrated, "tta", "--tta", "--probability")
    assert np.abs(grey(found, "00") - grey(predict(calibrated, "once", "--probability"), "00")).max() > 1e-3
    assert main(["predict", str(calibrated), str(discs.parent / "dark_disc"), "--task", "dark_disc", "--tta", "--review"]) == 2
    assert "calibrated without --tta and is to predict with it" in " ".join(capsys.readouterr().err.split())
    assert Segmenter(calibrated, tta=True).confidence == {}
    again = shutil.copytree(calibrated, tmp_path / "run")
    calibrate(str(again), read_dataset(discs), tmp_path / "trust", augmented=True)
    reviewed = predict(again, "reviewed", "--tta", "--review")
    assert len(pd.read_csv(reviewed / "review.csv")) == 4


def test_a_model_that_was_not_calibrated_says_what_to_do(plain, discs, capsys):
    for option in ("--review", "--threshold=calibrated"):
        assert main(["predict", str(plain), str(discs.parent / "dark_disc"), "--task", "dark_disc", option]) == 2
        assert "tpseg calibrate MODEL --data tasks.yaml" in " ".join(capsys.readouterr().err.split())
    assert main(["predict", str(plain), str(discs.parent / "dark_disc"), "--task", "dark_disc", "--calibrated"]) == 2
    assert "add --probability" in " ".join(capsys.readouterr().err.split())
    assert main(["predict", str(plain), str(discs.parent / "dark_disc"), "--task", "dark_disc", "--engine", "ray", "--tta"]) == 2
    assert "belong to --engine local" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UsageError, match="not calibrated"):
        apply_calibration(Segmenter(plain), threshold=True, probabilities=False, review=False)


def test_in_python_a_prediction_says_what_dice_to_expect(plain, calibrated, discs):
    image = discs.parent / "dark_disc" / "00.png"
    segment = Segmenter(calibrated)
    found = segment(image, task="dark_disc")
    assert 0 < found.expected_dice < 1
    assert (segment.confidence["dark_disc"].calibrate(found.probability) < found.probability + 0.5).all()
    assert Segmenter(plain)(image, task="dark_disc").expected_dice is None


def test_a_shift_moves_each_task_by_its_own_cut():
    class Zeros:
        tasks = TaskSet([Task("a"), Task("b")])
        image_size = 2

        def __call__(self, image, task, rows):
            return Maps(torch.zeros(len(rows), 1, 2, 2), None)

    found = ShiftedNetwork(Zeros(), {"b": Threshold(1.5)})(torch.zeros(1, 3, 2, 2), torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert found.logits[:, 0, 0, 0].tolist() == [0, -1.5]


def test_the_last_step_empties_small_masks_and_undoes_the_shift():
    confidence = Confidence(Scaling(1.0, 1.0), Threshold(), Regression((0.0,) * 5, 0.0), 1, 0, False)
    finish = Finish({"a": Threshold(1.0, 0.5)}, {})
    small = np.array([[True, False], [False, False]])
    assert not finish("a", small, None)[0].any()
    assert finish("a", ~small, None)[0].sum() == 3  # large enough: as it is
    assert finish("b", small, None)[0].any()
    probability = expit(np.array([[-1.0, 2.0]])).astype(np.float32)
    assert finish("a", small, probability)[1] == pytest.approx(expit(np.array([[0.0, 3.0]])), abs=1e-6)
    both = Finish({"a": Threshold(1.0)}, {"a": confidence})
    assert both("a", small, probability)[1] == pytest.approx(expit(np.array([[1.0, 4.0]])), abs=1e-6)
    assert "a 0.73, 50 % of the image or more" in finish.said()
    assert shift(probability, 0.0) is probability
