"""`tpseg calibrate`: fitted on train and val, stated on test, saved with the model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tpseg.calibration.calibrate import calibrate, group_numbers, measure, some_of_each
from tpseg.calibration.confidence import read_confidence
from tpseg.calibration.nearest_mean import Recognition
from tpseg.calibration.outliers import Outliers
from tpseg.calibration.record import Trust, load_trust
from tpseg.calibration.space import Space
from tpseg.cli import main
from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import TaskSet
from tpseg.data.manifest import Case, DataSet, read_dataset

pytestmark = pytest.mark.usefixtures("miniature_trunk")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run folder of its own."""
    return shutil.copytree(trained, tmp_path / "run")


def test_the_verb_writes_the_record_the_numbers_and_a_figure(run, discs, capsys):
    assert main(["calibrate", str(run), "--data", str(discs)]) == 0
    trust = load_trust(run / "model")
    assert trust is not None
    assert trust.tasks == ("bright_disc", "dark_disc")
    found = json.loads((run / "trust" / "calibration.json").read_text())
    assert found == trust.provenance
    assert found["measured"]["test"]["images"] == {"bright_disc": 3, "dark_disc": 3}
    assert found["measured"]["test"]["accuracy"] == 1
    assert found["data_sha256"] == read_dataset(discs).sha256()
    assert (run / "trust" / "confusion_test.png").stat().st_size > 1000
    tables = (run / "trust" / "tables_test.txt").read_text()
    assert all(words in tables for words in ("Which task, and is it known? (test)", "100.0", "Mistaken: none", "How sure? (test)"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Which task: 100.0 % of 6 test images are recognised."
    assert [line.split(":")[0] for line in printed[1:4]] == ["Unlike anything known", "How sure", "Review"]
    assert len(printed) == 5  # and where the tables are
    assert (run / "trust" / "verdict_test.txt").read_text().splitlines() == printed[:4]


def test_how_sure_masks_are_is_kept_with_the_record_for_each_task(run, discs, tmp_path):
    assert main(["calibrate", str(run), "--data", str(discs), "--out", str(tmp_path / "plain")]) == 0
    assert "How sure? (test)" in (tmp_path / "plain" / "tables_test.txt").read_text()
    for name in ("reliability_test", "expected_dice_test", "review_test"):
        assert (tmp_path / "plain" / f"{name}.png").stat().st_size > 1000
    trust = load_trust(run / "model")
    assert trust is not None
    plain = read_confidence(trust.confidence)
    assert list(plain) == ["bright_disc", "dark_disc"]
    assert not plain["bright_disc"].augmented
    augmented = calibrate(str(run), read_dataset(discs), tmp_path / "tta", augmented=True)
    assert augmented.confidence["bright_disc"].augmented
    assert torch.equal(augmented.trust.space.axes, trust.space.axes)  # images are described as they are


def test_twice_the_same_record(run, discs, tmp_path):
    data = read_dataset(discs)
    first = calibrate(str(run), data, tmp_path / "one", images=4).trust
    second = calibrate(str(run), data, tmp_path / "two", images=4).trust
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name
    assert first.provenance["training_images"] == 8


def test_test_images_decide_nothing(run, discs, tmp_path):
    """Not the tasks' means and temperature, not the outliers' limit, not how sure masks are: scaling, threshold, regression."""
    data = read_dataset(discs)
    without = DataSet(data.source, data.tasks, tuple(case for case in data.cases if case.split != "test"))
    one, other = calibrate(str(run), data, tmp_path / "one").trust, calibrate(str(run), without, tmp_path / "two").trust
    assert list(one.provenance["measured"]) == ["val", "test"]
    assert list(other.provenance["measured"]) == ["val"]
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name
    assert (one.recognition.temperature, one.recognition.doubt) == (other.recognition.temperature, other.recognition.doubt)
    assert (one.outliers.limit, one.outliers.false_alarms) == (other.outliers.limit, other.outliers.false_alarms)
    assert one.confidence == other.confidence
    for entry in one.confidence.values():
        assert {"scaling", "threshold", "regression"} <= entry.keys()
        assert entry["images"] == 2  # those of val; test has 3


def test_data_without_one_of_the_models_tasks_or_with_another_is_refused(run, discs, tmp_path):
    data = read_dataset(discs)
    with pytest.raises(DataError, match="no training images of task dark_disc"):
        calibrate(str(run), data.only(["bright_disc"]), tmp_path)
    renamed = TaskSet.from_mapping({"bright_disc": {}, "liver": {}})
    with pytest.raises(UsageError, match="does not know task liver"):
        calibrate(str(run), DataSet(data.source, renamed, data.cases), tmp_path)


def test_what_cannot_be_calibrated_says_so(discs, tmp_path):
    with pytest.raises(UsageError, match="expected one on this machine"):
        calibrate("someone/model", read_dataset(discs), tmp_path)
    assert load_or_none(tmp_path) is None


def test_one_training_image_is_refused_in_a_sentence(run, discs, tmp_path):
    data = read_dataset(discs)
    first = next(case for case in data.cases if case.split == "train")
    few = DataSet(data.source, data.tasks, (first, *(case for case in data.cases if case.split != "train")))
    with pytest.raises(DataError, match="one training image; calibrating compares images with each other"):
        calibrate(str(run), few, tmp_path)


def load_or_none(folder: Path) -> Trust | None:
    return load_trust(folder) if (folder / "trust.json").exists() else None


def test_at_most_so_many_of_each_task_are_looked_at(discs):
    cases = read_dataset(discs).split("train")
    drawn = some_of_each(cases, 4, seed=0)
    assert [case.task for case in drawn] == ["bright_disc"] * 4 + ["dark_disc"] * 4
    assert drawn == some_of_each(cases, 4, seed=0) != some_of_each(cases, 4, seed=5)
    assert some_of_each(cases, 100, seed=0) == cases
    with pytest.raises(UsageError, match="--images 1: expected 2"):
        some_of_each(cases, 1, seed=0)


def test_groups_are_those_of_a_task_and_an_image_without_one_is_alone():
    named = [("one", "p1", "a"), ("one", "p1", "b"), ("two", "p1", "a"), ("one", "", "a"), ("one", "", "b"), ("one", "p2", "c")]
    cases = [Case(task, Path(name), Path(name), "train", group, name) for task, group, name in named]
    assert group_numbers(cases).tolist() == [0, 0, 1, 2, 3, 4]


def test_what_is_stated_of_a_split_by_hand():
    centres = torch.tensor([[0.0], [10.0]])
    trust = Trust(
        ("one", "two"),
        Space(torch.zeros(1), torch.ones(1, 1)),
        Recognition(centres, temperature=1.0, doubt=0.5),
        Outliers(centres, torch.tensor([0, 1]), torch.ones(2), limit=3.0),
    )
    # of `one`: two where they belong, one at the other's centre, one far from both (but nearer to its own)
    found = measure(trust, torch.tensor([[0.0], [1.0], [10.0], [-9.0], [10.0]]), torch.tensor([0, 0, 0, 0, 1]), "test")
    assert found.confusion == [[3, 1], [0, 1]]
    assert found.accuracy == 0.8
    assert found.false_warnings == {"one": 0.25, "two": 0.0}
    assert found.missed == {"one": 0.0, "two": 0.25}
    assert found.false_alarms == {"one": 0.25, "two": 0.0}


ROOT = Path(__file__).resolve().parents[2]
REAL8 = Path(os.environ.get("TPSEG_REAL8", ROOT.parent / "shared" / "data" / "real8"))
TRAINED = sorted((ROOT / "runs" / "study" / "cells").glob("A4-seed42-*/run"))


@pytest.mark.slow
@pytest.mark.skipif(not (REAL8.is_dir() and TRAINED), reason="needs real8 and a model trained on it")
def test_on_real_images_nineteen_tasks_of_twenty_are_recognised(tmp_path, monkeypatch):
    monkeypatch.undo()  # the trunk is the real one
    run = shutil.copytree(TRAINED[0], tmp_path / "run")
    names = json.loads((run / "model" / "tasks.json").read_text())["tasks"]
    entries = "".join(f"  {task['name']}: {{data: {REAL8 / task['name'] / 'split.csv'}}}\n" for task in names)
    (tmp_path / "tasks.yaml").write_text(f"tasks:\n{entries}")
    data = read_dataset(tmp_path / "tasks.yaml")
    some = DataSet(data.source, data.tasks, tuple(case for position, case in enumerate(data.cases) if position % 3 == 0))
    found = calibrate(str(run), some, tmp_path / "out", images=60)
    assert [one.accuracy >= 0.95 for one in found.measured] == [True, True]
