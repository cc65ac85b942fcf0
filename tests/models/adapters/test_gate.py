"""The split gate, eq. (3), in its five readings."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from miniature_models import noise, perturb
from torch import Tensor

from tpseg.models.adapters.gate import READINGS, SplitGate


def steps_of(*sizes: float) -> Tensor:
    """Logits whose softplus is the given steps."""
    return torch.tensor([math.log(math.expm1(size)) for size in sizes])


def test_a_new_gate_runs_from_0_to_1_and_crosses_a_half_in_the_middle() -> None:
    """Steps 12/48: σ(0.25 − 6), ..., σ(6 − 6) at the 24th block, ..., σ(12 − 6)."""
    gate = SplitGate(2, 48)
    weights = gate.weights()
    assert weights.shape == (2, 48)
    torch.testing.assert_close(weights[0, [0, 23, 47]], torch.tensor([0.0031727, 0.5, 0.9975274]), atol=1e-5, rtol=0)
    assert torch.equal(weights[0], weights[1])
    assert gate.splits()[0] in (23, 24)  # ½ itself lies within rounding
    for row in gate.steps:
        torch.testing.assert_close(F.softplus(row), torch.full((48,), 0.25))


def test_gate_values_at_given_logits() -> None:
    """Steps 2, 4, 1, 0.5: sums 2, 6, 7, 7.5, less κ = 6: −4, 0, 1, 1.5."""
    gate = SplitGate(1, 4)
    logits = steps_of(2, 4, 1, 0.5)
    torch.testing.assert_close(gate(logits), torch.tensor([0.0179862, 0.5, 0.7310586, 0.8175745]), atol=1e-5, rtol=0)
    gate.temperature.fill_(0.5)  # −8, 0, 2, 3
    torch.testing.assert_close(gate(logits), torch.tensor([0.0003354, 0.5, 0.8807971, 0.9525741]), atol=1e-5, rtol=0)


def test_softplus_of_the_logits_is_the_step() -> None:
    """ℓ = 0 is a step of ln 2: after 9 blocks 6.238 − 6."""
    torch.testing.assert_close(SplitGate(1, 9)(torch.zeros(9))[8], torch.tensor(1 / (1 + math.exp(6 - 9 * math.log(2)))))


@pytest.mark.parametrize("temperature", [1.0, 0.3, 1e-3])
def test_the_gate_rises_for_any_logits_and_stays_between_0_and_1(temperature: float) -> None:
    gate = SplitGate(1, 48)
    gate.temperature.fill_(temperature)
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1, 10, 1e3, 1e10, 1e38):
        logits = scale * torch.randn(500, 48, generator=generator)
        weights = gate(logits)
        assert weights.isfinite().all()
        assert (weights.diff(dim=-1) >= 0).all()
        assert ((weights >= 0) & (weights <= 1)).all()


def test_the_split_by_hand() -> None:
    gate = SplitGate(4, 4)
    for row, steps in zip(gate.steps, [(2, 3, 1.5, 1), (7, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 4)], strict=True):
        row.data = steps_of(*steps)
    # sums: 2, 5, 6.5 | 7 | 4 at the end: never | 7 at the last block only
    assert gate.splits().tolist() == [2, 0, 4, 3]


def test_a_weight_of_just_a_half_is_the_tasks_own_route() -> None:
    """Four equal steps of `cumulative_share`: ¼, ½, ¾, 1, without rounding."""
    gate = SplitGate(1, 4, "cumulative_share")
    assert gate.weights().tolist() == [[0.25, 0.5, 0.75, 1.0]]
    assert gate.splits().tolist() == [1]
    assert gate.table() == [[False, True, True, True]]


def test_the_temperature_does_not_move_the_split() -> None:
    gate = perturb(SplitGate(20, 12), size=2.0)
    before = gate.splits()
    assert before.unique().numel() > 3
    gate.temperature.fill_(0.3)
    assert torch.equal(gate.splits(), before)


def at(reading: str, logits: list[float], temperature: float = 1.0) -> list[float]:
    return READINGS[reading].weights(torch.tensor(logits), torch.tensor(temperature)).tolist()


def test_the_other_readings_by_hand() -> None:
    ln3 = math.log(3)  # σ(ln 3) = 3/4, σ(-ln 3) = 1/4
    assert at("cumulative_share", [ln3, -ln3, 0.0]) == pytest.approx([0.75 / 1.5, 1.0 / 1.5, 1.0])
    assert at("hazard", [ln3, -ln3, 0.0]) == pytest.approx([3 / 4, 1 - 3 / 16, 1 - 3 / 32])
    assert at("cumulative_softmax", [math.log(1), math.log(2), math.log(5)]) == pytest.approx([1 / 8, 3 / 8, 1.0])
    assert at("per_block", [ln3, -ln3, 0.0]) == pytest.approx([3 / 4, 1 / 4, 1 / 2])


def test_temperature_divides_the_logits_of_the_other_readings() -> None:
    for reading in ("cumulative_share", "hazard", "cumulative_softmax", "per_block"):
        assert at(reading, [0.2, -0.4, 0.6], 0.5) == pytest.approx(at(reading, [0.4, -0.8, 1.2]))


@pytest.mark.parametrize("reading", READINGS)
def test_the_logits_of_other_tasks_change_nothing(reading: str) -> None:
    logits, temperature = noise(5, 12) * 3, torch.tensor(0.5)
    alone = torch.stack([READINGS[reading].weights(row, temperature) for row in logits])
    torch.testing.assert_close(READINGS[reading].weights(logits, temperature), alone)


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_starts_with_half_the_blocks_shared(reading: str) -> None:
    """The middle one of 12 blocks is at ½, which rounding may take for less; `per_block` crosses ½ between the 6th and the 7th."""
    gate = SplitGate(1, 12, reading)
    weights = gate.weights()[0]
    assert (weights.diff() > 0).all()
    assert weights[0] < 0.15
    if reading == "per_block":
        assert weights[5] < 0.4
        assert weights[6] > 0.6
    else:
        assert weights[5].item() == pytest.approx(0.5, abs=1e-6)
    assert weights[-1].item() == pytest.approx(0.75 if reading == "hazard" else 1, abs=1e-6 if reading == "hazard" else 0.01)


def test_a_colder_hazard_shares_more() -> None:
    """Each block's share of what is left falls with the temperature, so that a new gate of 12 blocks is at 0.75, then at 0.01."""
    gate = SplitGate(1, 12, "hazard")
    gate.temperature.fill_(0.3)
    assert gate.weights()[0, -1].item() == pytest.approx(0.0109, abs=1e-4)


@pytest.mark.parametrize("reading", [name for name in READINGS if name != "per_block"])
def test_cumulative_readings_rise_for_any_logits(reading: str) -> None:
    weights = READINGS[reading].weights(noise(50, 48) * 5, torch.tensor(0.3))
    assert (weights.diff(dim=-1) >= 0).all()
    assert ((weights >= 0) & (weights <= 1 + 1e-6)).all()
