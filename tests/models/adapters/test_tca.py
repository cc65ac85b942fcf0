"""Task-conditioned adapters and the split gate: eqs. (1) to (3) with numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from miniature_models import noise, perturb
from torch import Tensor

from tpseg.models.adapters.tca import TCA, Routing, TaskConditionedAdapter
from tpseg.models.trunks.hiera import Trunk

GELU_1 = 0.8413447  # GELU(1) = Φ(1)


def steps_of(*sizes: float) -> Tensor:
    """Logits whose softplus is the given steps."""
    return torch.tensor([math.log(math.expm1(size)) for size in sizes])


def adapter(width: int = 2, rank: int = 1, tasks: int = 2, shared: bool = True, task_routes: bool = True) -> TaskConditionedAdapter:
    return TaskConditionedAdapter(width, rank, tasks, shared=shared, task_routes=task_routes)


def set_route(route, down: list[list[float]], up: list[list[float]]) -> None:
    route.down.data = torch.tensor(down)
    route.up.data = torch.tensor(up)


# routing


def test_routing_knows_who_is_present_and_in_which_row() -> None:
    routing = Routing.of(torch.tensor([5, 2, 5, 0]), 8)
    assert routing.present == [0, 2, 5]
    assert routing.row.tolist() == [2, 1, 2, 0]
    per_task = [torch.tensor([10.0 * task]) for task in range(6)]
    assert routing.gather(per_task).flatten().tolist() == [50, 20, 50, 0]


# eqs. (1) and (2)


def normalise(module: TaskConditionedAdapter, tokens: Tensor) -> Tensor:
    """GroupNorm with one group, channels last."""
    return F.group_norm(tokens.permute(0, 3, 1, 2), 1, module.scale, module.shift).permute(0, 2, 3, 1)


def test_the_norm_is_over_all_positions_and_channels_of_a_sample() -> None:
    """Tokens (0, 0) and (2, 2): mean 1, deviation 1, so −1 and 1. A norm over each token alone would give zeros."""
    module, tokens = adapter(), torch.tensor([[[[0.0, 0.0], [2.0, 2.0]]]])
    down, up = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0], [0.0]]])
    expected = torch.tensor([[[[GELU_1 - 1, 0.0], [2 + GELU_1, 2.0]]]])
    torch.testing.assert_close(module(tokens, down, up), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("routes", [1, 3])
def test_scale_and_shift_of_the_norm_are_each_channels(routes: int) -> None:
    module = adapter(width=6)
    module.scale.data, module.shift.data = noise(6, seed=1), noise(6, seed=2)
    tokens, down, up = noise(3, 4, 5, 6) * 7 + 2, noise(routes, 2, 6, seed=3), noise(routes, 6, 2, seed=4)
    x = normalise(module, tokens).flatten(1, 2)
    expected = tokens + (F.gelu(x @ down.transpose(1, 2)) @ up.transpose(1, 2)).reshape(tokens.shape)
    torch.testing.assert_close(module(tokens, down, up), expected, atol=1e-4, rtol=1e-5)


def test_both_routes_and_their_mix_by_hand() -> None:
    """h = (1, 3) has norm (−1, 1). Shared: Down picks the second, GELU(1), Up (1, 2). Task 1: twice the first, GELU(−2), Up (0, 1)."""
    module = adapter()
    set_route(module.shared, [[0.0, 1.0]], [[1.0], [2.0]])
    set_route(module.tasks[1], [[2.0, 0.0]], [[0.0], [1.0]])
    tokens, routing = torch.tensor([[[[1.0, 3.0]]]]), Routing.of(torch.tensor([1]), 3)
    gelu_minus_2 = -2 * 0.0227501
    for weight in (0.0, 0.25, 1.0):
        expected = [1 + (1 - weight) * GELU_1, 3 + (1 - weight) * 2 * GELU_1 + weight * gelu_minus_2]
        out = module(tokens, *module.both_routes(routing, torch.tensor([weight])))
        torch.testing.assert_close(out, torch.tensor([[[expected]]]), atol=2e-5, rtol=0)


def test_the_mix_is_what_two_separate_routes_give() -> None:
    module = perturb(adapter(width=6, rank=3))
    tokens, weight, task = noise(4, 2, 5, 6), torch.tensor([0.0, 0.2, 0.7, 1.0]), [1, 0, 1, 0]

    def one_route(route, x: Tensor) -> Tensor:
        return F.linear(F.gelu(F.linear(normalise(module, x), route.down)), route.up)

    expected = torch.cat(
        [
            tokens[i : i + 1]
            + (1 - weight[i]) * one_route(module.shared, tokens[i : i + 1])
            + weight[i] * one_route(module.tasks[task[i]], tokens[i : i + 1])
            for i in range(4)
        ]
    )
    routes = module.both_routes(Routing.of(torch.tensor(task), 3), weight)
    torch.testing.assert_close(module(tokens, *routes), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("started", [[False, False], [False, True], [True, True]])
def test_with_one_route_each_sample_runs_its_tasks_if_that_has_started(started: list[bool]) -> None:
    module, task = perturb(adapter(width=6, rank=3)), [1, 0, 1, 0]
    tokens, routing = noise(4, 2, 5, 6), Routing.of(torch.tensor(task), 3)
    weight = torch.tensor([float(started[one]) for one in task])
    hard = module(tokens, *module.one_route(routing, started))
    torch.testing.assert_close(hard, module(tokens, *module.both_routes(routing, weight)), atol=1e-6, rtol=1e-5)


def test_gate_none_has_task_routes_only_and_shared_only_has_no_others() -> None:
    tokens, task = noise(2, 3, 3, 6), torch.tensor([1, 0])
    both = perturb(adapter(width=6, rank=3))
    only_tasks, only_shared = adapter(width=6, rank=3, shared=False), adapter(width=6, rank=3, task_routes=False)
    only_tasks.load_state_dict({key: value for key, value in both.state_dict().items() if not key.startswith("shared")})
    only_shared.load_state_dict({key: value for key, value in both.state_dict().items() if not key.startswith("tasks")})
    routing = Routing.of(task, 3)
    for module, weight in ((only_tasks, torch.ones(2)), (only_shared, torch.zeros(2))):
        one = module(tokens, *module.one_route(routing, [module is only_tasks] * 2))
        torch.testing.assert_close(one, both(tokens, *both.both_routes(routing, weight)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("gate", ["cumulative_sigmoid", "none", "shared_only"])
@pytest.mark.parametrize("hardened", [False, True])
def test_a_fresh_adapter_changes_nothing(gate: str, hardened: bool) -> None:
    hook = TCA([6, 8], 2, 3, gate, hardened).bind(Routing.of(torch.tensor([0, 1, 1]), 3))
    for index, width in enumerate((6, 8)):
        tokens = noise(3, 4, 4, width)
        assert torch.equal(hook(index, tokens), tokens)


@pytest.mark.parametrize("gate", ["cumulative_sigmoid", "none", "shared_only"])
def test_a_sample_does_not_depend_on_the_others(gate: str) -> None:
    tca = perturb(TCA([6], 3, 3, gate), size=0.5)
    tokens, task = noise(4, 3, 3, 6), torch.tensor([2, 0, 2, 1])
    together = tca.bind(Routing.of(task, 3))(0, tokens)
    for i in range(4):
        alone = tca.bind(Routing.of(task[i : i + 1], 3))(0, tokens[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=1e-5)


def test_one_route_of_hiera_large_is_the_papers_3_37_million() -> None:
    with torch.device("meta"):
        tca = TCA(Trunk("large").block_widths, 2, 64, "cumulative_sigmoid")

    def count(part: str) -> int:
        return sum(value.numel() for key, value in tca.named_parameters() if part in key)

    assert count(".shared.") == 3_373_056
    assert count(".tasks.0.") == count(".tasks.1.") == 3_373_056
    assert count("scale") == count("shift") == 26_352  # one norm for both routes
    assert sum(value.numel() for value in tca.parameters()) == 3 * 3_373_056 + 2 * 26_352 + 2 * 48


def test_the_gate_learns_only_from_the_tasks_present() -> None:
    tca = perturb(TCA([6, 6], 3, 2, "cumulative_sigmoid"))
    hook = tca.bind(Routing.of(torch.tensor([2, 0]), 3))
    tokens = noise(2, 3, 3, 6)
    hook(1, hook(0, tokens)).square().sum().backward()
    assert tca.gate is not None
    assert [row.grad is None for row in tca.gate.steps] == [False, True, False]
    assert (tca.gate.steps[0].grad != 0).all()
    assert all((parameter.grad is None) == (".tasks.1." in name) for name, parameter in tca.blocks.named_parameters())


def test_hardening_is_the_limit_of_a_cold_gate() -> None:
    tca = perturb(TCA([6] * 8, 3, 3, "cumulative_sigmoid"), size=0.7)
    routing, tokens = Routing.of(torch.tensor([2, 0, 1]), 3), noise(3, 3, 3, 6)

    def run() -> Tensor:
        hook, x = tca.bind(routing), tokens
        for index in range(8):
            x = hook(index, x)
        return x

    assert tca.gate is not None
    gaps = []
    for temperature in (1.0, 0.1, 1e-4):
        tca.gate.temperature.fill_(temperature)
        tca.hardened = False
        soft = run()
        tca.hardened = True
        gaps.append((soft - run()).abs().max().item())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[0] > 1e-2
    assert gaps[2] < 1e-5


def test_hardened_weights_are_0_before_the_split_and_1_from_it_on() -> None:
    tca = perturb(TCA([6] * 8, 2, 3, "cumulative_sigmoid", hardened=True), size=0.7)
    assert tca.gate is not None
    for task in (0, 1):
        hook, split = tca.bind(Routing.of(torch.tensor([task]), 3)), int(tca.gate.splits()[task])
        assert 0 < split < 8
        for index in range(8):
            tokens, block = noise(1, 2, 2, 6, seed=index), tca.blocks[index]
            route = block.tasks[task] if index >= split else block.shared
            expected = tokens + F.linear(F.gelu(F.linear(normalise(block, tokens), route.down)), route.up)
            torch.testing.assert_close(hook(index, tokens), expected, atol=1e-6, rtol=1e-5)


def test_gradients_are_the_same_bit_for_bit_with_several_threads() -> None:
    """Gathering the tasks' weights must not add their gradients up in an order that depends on the threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        routes = [torch.nn.Parameter(torch.randn(384, 64)) for _ in range(8)]
        routing = Routing.of(torch.arange(64) % 8, 8)
        weight = torch.randn(64, 384, 64)
        found = []
        for _ in range(5):
            gradients = torch.autograd.grad((routing.gather(routes) * weight).sum(), routes)
            found.append(torch.stack(gradients))
        assert all(torch.equal(found[0], other) for other in found)
    finally:
        torch.set_num_threads(threads)
