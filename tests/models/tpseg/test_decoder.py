"""The decoder: three steps from coarse to fine, PGTDs or plain, and the release's mix of their outputs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from miniature_models import noise, perturb
from torch import nn

from tpseg.models.adapters.tca import Routing
from tpseg.models.tpseg.decoder import Decoder, LogitFuser, PlainStep
from tpseg.models.tpseg.pgtd import PGTD


def decoder(pgtds: Sequence[int]) -> Decoder:
    def make(low: int, high: int, width: int) -> PGTD:
        return PGTD(low, high, width, 3, heads=4, experts=6, modulation=0.5, reinforcement=5.0, momentum=0.9)

    torch.manual_seed(0)
    return perturb(Decoder((4, 6, 8, 10), (16, 8, 8), pgtds, make, None))


FEATURES = [noise(2, width, 32 // 2**stage, 48 // 2**stage) for stage, width in enumerate((4, 6, 8, 10))]
TASK = torch.tensor([1, 2])


@pytest.mark.parametrize("pgtds", [(3, 2, 1), (), (3, 1)])
def test_it_runs_from_coarse_to_fine(pgtds: Sequence[int]) -> None:
    chain, routing = decoder(pgtds), Routing.of(TASK, 3)
    logits, steps = chain(FEATURES, TASK, routing)
    assert [tuple(step.refined.shape) for step in steps] == [(2, 16, 8, 12), (2, 8, 16, 24), (2, 8, 32, 48)]
    assert [tuple(step.logits.shape) for step in steps] == [(2, 1, 8, 12), (2, 1, 16, 24), (2, 1, 32, 48)]
    assert logits is steps[-1].logits
    step3, step2, step1 = chain.steps
    y3 = step3(FEATURES[2], FEATURES[3], TASK, routing).refined
    y2 = step2(FEATURES[1], y3, TASK, routing).refined
    torch.testing.assert_close(step1(FEATURES[0], y2, TASK, routing).logits, logits)


@pytest.mark.parametrize("pgtds", [(3, 2, 1), (), (2, 1), (3, 1), (3, 2)])
def test_the_named_steps_are_pgtds_and_the_others_know_no_task(pgtds: Sequence[int]) -> None:
    chain = decoder(pgtds)
    assert [name for name, _ in chain.pgtds()] == [f"pgtd{number}" for number in sorted(pgtds, reverse=True)]
    for number, step in zip((3, 2, 1), chain.steps, strict=True):
        assert isinstance(step, PGTD if number in pgtds else PlainStep)
    _, steps = chain(FEATURES, TASK, Routing.of(TASK, 3))
    _, others = chain(FEATURES, TASK.flip(0), Routing.of(TASK.flip(0), 3))
    assert all(torch.equal(one.logits, other.logits) for one, other in zip(steps, others, strict=True)) == (not pgtds)


def test_only_pgtds_have_prototypes_to_update() -> None:
    chain = decoder((3, 1))
    before = {name: step.memory.prototypes.clone() for name, step in chain.pgtds()}
    _, steps = chain(FEATURES, TASK, Routing.of(TASK, 3))
    chain.observe(steps, (noise(2, 1, 128, 192) > 0).float(), TASK)
    chain.move_prototypes()
    for name, step in chain.pgtds():
        moved = (step.memory.prototypes != before[name]).flatten(1).any(1)
        assert moved.tolist() == [False, True, True]


def test_the_fuser_starts_as_a_softmax_of_2_0_0_0() -> None:
    """Shares e²/(e² + 3) = 0.71123 for PGTD1 and 0.09626 for each of the others."""
    fuser = LogitFuser(2, 2)
    fuser.head.stem = nn.Identity()
    for output in fuser.head.outputs:
        output.weight.data.zero_()
        output.bias.data.fill_(1000.0)
    logits = [torch.full((1, 1, size, size), value) for size, value in ((8, 1.0), (4, 10.0), (2, 100.0))]
    out = fuser(logits, torch.zeros(1, 2, 1, 1), Routing.of(torch.tensor([1]), 3))
    torch.testing.assert_close(out, torch.full((1, 1, 8, 8), 0.7112346 + 0.0962551 * 1110), atol=1e-3, rtol=0)


def test_the_fuser_is_given_pgtd1_first_and_the_mix_has_its_size() -> None:
    chain, routing = decoder((3, 2, 1)), Routing.of(TASK, 3)
    chain.fuser = perturb(LogitFuser(10, 3))
    logits, (step3, step2, step1) = chain(FEATURES, TASK, routing)
    assert logits.shape == (2, 1, 32, 48)
    torch.testing.assert_close(logits, chain.fuser([step1.logits, step2.logits, step3.logits], FEATURES[3], routing))


def test_the_mix_is_learned_for_each_task() -> None:
    fuser = LogitFuser(2, 2)
    fuser.mix[1].data = torch.tensor([0.0, 0.0, 100.0, 0.0])  # PGTD3 alone
    logits = [torch.full((2, 1, 4, 4), value) for value in (1.0, 2.0, 3.0)]
    out = fuser(logits, noise(2, 2, 1, 1), Routing.of(torch.tensor([1, 0]), 3))
    torch.testing.assert_close(out[0], torch.full((1, 4, 4), 3.0))
    assert out[1].mean() < 2.9
