"""Which task: the nearest mean, a probability that can be taken at its word, a limit for doubt."""

from __future__ import annotations

import math

import pytest
import torch

from tpseg.calibration.nearest_mean import (
    Recognition,
    choose_doubt,
    confusion,
    expected_calibration_error,
    fit_recognition,
    fit_temperature,
)

CENTRES = torch.tensor([[0.0, 0.0], [2.0, 0.0]])


def test_the_probability_is_that_of_two_gaussians_of_unit_variance():
    # log p1/p0 at x = (½·d0² − ½·d1²) = ½·1.5² − ½·0.5² = 1
    found = Recognition(CENTRES, temperature=1.0, doubt=0.5).probabilities(torch.tensor([[1.5, 0.0], [1.0, 3.0]]))
    assert found[0, 1] == pytest.approx(1 / (1 + math.exp(-1)))
    assert found[1].tolist() == pytest.approx([0.5, 0.5])


def test_temperature_divides_the_logits():
    found = Recognition(CENTRES, temperature=2.0, doubt=0.5).probabilities(torch.tensor([[1.5, 0.0]]))
    assert found[0, 1] == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_a_temperature_that_was_hidden_is_found():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 3, generator=generator, dtype=torch.float64) * 2
    task = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(4 * logits, task) == pytest.approx(4, rel=0.05)


def test_when_all_are_recognised_the_probability_still_admits_one_error_in_the_number_of_images_seen():
    logits = torch.tensor([[5.0, -5.0]] * 98 + [[-5.0, 5.0]] * 0, dtype=torch.float64)
    temperature = fit_temperature(logits, torch.zeros(98, dtype=torch.int64))
    assert (logits / temperature).softmax(1)[0, 0] == pytest.approx(99 / 100, abs=1e-3)


def test_a_single_task_is_certain():
    found = fit_recognition(torch.randn(4, 2), torch.zeros(4, dtype=torch.int64), torch.randn(2, 2), torch.zeros(2, dtype=torch.int64))
    assert found.probabilities(torch.randn(3, 2)).tolist() == [[1.0]] * 3


def test_fitted_on_two_clouds_it_tells_them_apart():
    generator = torch.Generator().manual_seed(0)
    task = torch.arange(400) % 2
    points = torch.randn(400, 2, generator=generator) + 6 * task[:, None]
    found = fit_recognition(points[:300], task[:300], points[300:], task[300:])
    probabilities = found.probabilities(points[300:])
    assert (probabilities.argmax(1) == task[300:]).all()
    assert probabilities.max(1).values.mean() > 0.98
    assert found.doubt == 0.5


def test_the_limit_of_doubt_warns_of_one_in_a_hundred_at_most_and_never_above_one_half():
    asked = torch.linspace(0.001, 0.4, 200)  # all lower than ½
    limit = choose_doubt(asked)
    assert int((asked < limit).sum()) == 2
    assert choose_doubt(torch.full((200,), 0.9)) == 0.5
    assert choose_doubt(torch.tensor([0.2, 0.9])) == pytest.approx(0.2)  # of two images none may be warned of


def test_the_calibration_error_by_hand():
    # two images at 0.9, one of them right: gap 0.4; two at 0.6, both right: gap 0.4
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert expected_calibration_error(probabilities, torch.tensor([0, 1, 0, 0])) == pytest.approx(0.4)
    assert expected_calibration_error(torch.tensor([[1.0, 0.0]]), torch.tensor([0])) == 0


def test_confusion_has_the_true_task_in_rows():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    assert confusion(probabilities, torch.tensor([0, 0, 1])).tolist() == [[1, 1], [0, 1]]
