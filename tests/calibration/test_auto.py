"""`--task auto` and warnings, as users meet them: in Python and through `tpseg predict`."""

from __future__ import annotations

import json
import logging
import shutil
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from miniature import disc
from PIL import Image

from tpseg.calibration.segmenter import Segmenter
from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("miniature_trunk_module")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with an ordinary disc of each task (0.5 to 0.7 of the limit on every processor tried), and noise."""
    folder = tmp_path / "images"
    folder.mkdir()
    for task in ("bright_disc", "dark_disc"):
        Image.fromarray(disc(task, np.random.default_rng(7))[0]).save(folder / f"{task}.png")
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


def test_in_python_auto_finds_the_task_and_says_how_sure(calibrated, images):
    segment = Segmenter(calibrated, device="cpu")
    prediction = segment(images / "dark_disc.png", task="auto")
    assert prediction.task == "dark_disc"
    assert np.array_equal(prediction.mask, segment(images / "dark_disc.png", task="dark_disc").mask)
    assert prediction.advice.judgement.ranking == tuple(segment.rank(images / "dark_disc.png"))
    (first, probability), (second, _) = segment.rank(images / "bright_disc.png")
    assert (first, second) == ("bright_disc", "dark_disc")
    assert probability > 0.9
    assert segment.scan(images / "dark_disc.png", task="auto").task == "dark_disc"


def test_in_python_a_doubtful_image_is_logged_and_segmented_all_the_same(calibrated, images, caplog):
    segment = Segmenter(calibrated, device="cpu")
    with caplog.at_level(logging.WARNING):
        prediction = segment(images / "noise.png", task="bright_disc")
    assert prediction.mask.shape == (48, 64)
    assert "noise.png: unlike anything the model was trained on" in caplog.text
    caplog.clear()
    assert segment(images / "bright_disc.png", task="bright_disc").advice.warnings == ()
    assert caplog.text == ""


def test_masks_are_the_same_with_and_without_a_record(calibrated, trained, images):
    for task in ("bright_disc", "dark_disc"):
        with_record = Segmenter(calibrated, device="cpu")(images / "bright_disc.png", task)
        without = Segmenter(trained, device="cpu")(images / "bright_disc.png", task)
        assert np.array_equal(with_record.probability, without.probability)
        assert without.advice is None


def test_the_verb_segments_each_image_for_its_own_task_and_lists_what_is_strange(calibrated, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(calibrated), str(images), "--task", "auto", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["bright_disc.png", "dark_disc.png", "judgements.csv"]
    by_file = pd.read_csv(out / "judgements.csv", keep_default_na=False)
    by_file.index = [Path(file).name for file in by_file["file"]]
    assert by_file["task"]["bright_disc.png"] == "bright_disc"
    assert by_file["task"]["dark_disc.png"] == "dark_disc"
    assert by_file["task"]["noise.png"] == ""
    assert by_file["outlier"].tolist() == [False, False, True]
    said = capsys.readouterr()
    errors = " ".join(said.err.split())
    assert "noise.png: unlike anything the model was trained on" in errors
    assert "no mask of 1 of 3 images, which look like no task: " in errors
    assert errors.endswith("noise.png")
    assert "skipped" not in errors
    assert "segmented 2 of 3 images" in said.out
    assert "dark_disc.png:" not in errors
    expected = tmp_path / "expected"
    main(["predict", str(calibrated), str(images / "dark_disc.png"), "--task", "dark_disc", "--out", str(expected)])
    assert (out / "dark_disc.png").read_bytes() == (expected / "dark_disc.png").read_bytes()


def test_auto_declines_what_looks_like_no_task(calibrated, images, tmp_path, capsys):
    """Noise is no disc of either task: in Python an error, by the verb no mask and, where nothing else is left, exit code 1."""
    segment = Segmenter(calibrated, device="cpu")
    for ask in (segment, segment.scan):
        with pytest.raises(
            DataError, match=r"noise\.png: unlike anything .* times the limit\): no task is chosen and no mask made; name a"
        ):
            ask(images / "noise.png", task="auto")
    with pytest.raises(DataError, match="no task is chosen"):
        segment.tasks_of(images / "noise.png", ["dark_disc", "auto"])
    assert segment(images / "noise.png", task="dark_disc").expected_dice is None  # a named task is segmented, but nothing is expected of it
    assert segment(images / "dark_disc.png", task="bright_disc").expected_dice is None
    assert segment(images / "dark_disc.png", task="dark_disc").expected_dice is not None
    words = ["predict", str(calibrated), str(images / "noise.png"), "--review", "--json", "--out", str(tmp_path / "out")]
    assert main([*words, "--task", "dark_disc"]) == 0
    ((image,), declined) = itemgetter("images", "declined")(json.loads(capsys.readouterr().out))
    assert (image["tasks"][0]["expected_dice"], declined) == (None, [])
    shutil.rmtree(tmp_path / "out")
    assert main([*words, "--task", "auto"]) == 1
    (images_made, (declined,)) = itemgetter("images", "declined")(json.loads(capsys.readouterr().out))
    assert (images_made, Path(declined["file"]).name) == ([], "noise.png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["judgements.csv", "review.csv"]
    (row,) = pd.read_csv(tmp_path / "out" / "review.csv", keep_default_na=False).to_dict("records")
    assert (row["name"], row["task"], row["expected_dice"], row["share_of_image"]) == ("noise", "", "", "")
    assert "no task is chosen" in row["reasons"]


def test_the_verb_warns_of_the_wrong_task_and_exits_with_0(calibrated, images, tmp_path, capsys):
    arguments = ["predict", str(calibrated), str(images / "dark_disc.png"), "--task", "bright_disc", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "dark_disc.png: looks like dark_disc (ultrasound, " in capsys.readouterr().err


def test_without_calibration_auto_says_what_to_do_and_nothing_else_changes(trained, images, tmp_path, capsys):
    assert main(["predict", str(trained), str(images), "--task", "auto", "--out", str(tmp_path / "out")]) == 2
    assert "tpseg calibrate" in capsys.readouterr().err
    assert main(["predict", str(trained), str(images), "--task", "dark_disc", "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "judgements.csv").exists()
    with pytest.raises(UsageError, match="not calibrated"):
        Segmenter(trained, device="cpu").rank(images / "noise.png")


def test_a_damaged_record_stops_auto_but_not_a_named_task(calibrated, images, tmp_path, capsys, caplog):
    run = shutil.copytree(calibrated, tmp_path / "run")
    (run / "model" / "trust.safetensors").write_bytes(b"nothing")
    assert main(["predict", str(run), str(images), "--task", "auto", "--out", str(tmp_path / "out")]) == 1
    assert "trust.json: damaged" in capsys.readouterr().err
    assert main(["predict", str(run), str(images), "--task", "dark_disc", "--out", str(tmp_path / "out")]) == 0
    assert "not checked against what the model knows" in caplog.text
