"""What is said of an image: its ranking, and a warning only where there is reason."""

from __future__ import annotations

import pytest
import torch

from tpseg.calibration.nearest_mean import Recognition
from tpseg.calibration.outliers import Outliers
from tpseg.calibration.record import Trust
from tpseg.calibration.space import Space
from tpseg.calibration.task_recognition import Judgement, judge_together
from tpseg.core.tasks import Task, TaskSet

TASKS = TaskSet([Task("breast_lesion", "ultrasound"), Task("skin_lesion", "dermoscopy")])
CENTRES = torch.tensor([[0.0], [10.0]])
TRUST = Trust(
    ("breast_lesion", "skin_lesion"),
    Space(torch.tensor([1.0]), torch.tensor([[2.0]])),  # point = 2 · (description − 1)
    Recognition(CENTRES, temperature=1.0, doubt=0.3),
    Outliers(CENTRES, torch.tensor([0, 1]), reach=torch.ones(2), limit=4.0),
)


def test_the_most_likely_task_comes_first():
    found = judge_together(TRUST, torch.tensor([[5.8]]))  # the point 9.6
    assert [task for task, _ in found.ranking] == ["skin_lesion", "breast_lesion"]
    assert found.task == "skin_lesion"
    assert found.probability("skin_lesion") > 0.99
    assert found.strangeness == pytest.approx(0.1)


def test_the_wrong_task_is_warned_of_with_modality_and_probability():
    found = judge_together(TRUST, torch.tensor([[5.8]]))
    assert found.warnings(["breast_lesion"], TASKS) == ["looks like skin_lesion (dermoscopy, 100%), not breast_lesion (ultrasound)"]
    assert found.warnings(["skin_lesion"], TASKS) == []
    assert found.warnings(["breast_lesion", "skin_lesion"], TASKS) == []


def test_a_task_that_is_about_as_likely_is_not_warned_of():
    near = Judgement((("skin_lesion", 0.6), ("breast_lesion", 0.4)), strangeness=0.2, doubt=0.3)
    assert near.warnings(["breast_lesion"], TASKS) == []
    assert not near.outlier


def test_an_outlier_is_said_to_be_one_and_no_task_is_guessed():
    found = judge_together(TRUST, torch.tensor([[31.0]]))  # the point 60: 50 from the nearest, 12.5 limits
    assert found.outlier
    for asked in (["breast_lesion"], ["breast_lesion", "skin_lesion"]):
        assert found.warnings(asked, TASKS) == ["unlike anything the model was trained on (12.5 times the limit); do not rely on its mask"]


def test_auto_is_the_most_likely_task_or_none():
    near = Judgement((("skin_lesion", 0.6), ("breast_lesion", 0.4)), strangeness=1.0, doubt=0.3)
    far = Judgement(near.ranking, strangeness=1.1, doubt=0.3)
    assert near.choose(["auto"]) == ("skin_lesion",)
    assert near.choose(["breast_lesion", "auto"]) == ("breast_lesion", "skin_lesion")
    assert far.choose(["auto"]) == ()
    assert far.choose(["breast_lesion"]) == ("breast_lesion",)
    (said,) = far.warnings([], TASKS)
    assert said.startswith("unlike anything the model was trained on (1.1 times the limit): no task is chosen and no mask made")


def test_frames_are_judged_together():
    frames = torch.tensor([[5.8], [6.0], [200.0]])  # one slice at the end of a volume is strange
    found = judge_together(TRUST, frames)
    assert found.task == "skin_lesion"
    assert not found.outlier
    assert sum(probability for _, probability in found.ranking) == pytest.approx(1)
