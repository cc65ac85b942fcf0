"""The shared prefix: which branches the trunk computes, worked out by hand, and that it computes no others."""

from __future__ import annotations

import pytest
import torch
from miniature_models import miniature_model, noise, perturb

from tpseg.models.adapters.branching import Fork
from tpseg.models.adapters.tca import TCA, Routing

pytestmark = pytest.mark.usefixtures("miniature_trunk")


def adapters_that_split_at(*splits: int) -> TCA:
    tca = perturb(TCA([6] * 4, len(splits), 2, "cumulative_sigmoid", hardened=True))
    tca.gate.settled = [[block >= split for block in range(4)] for split in splits]
    return tca


def fork(splits: tuple[int, ...], task: list[int], rows: list[int], images: int) -> Fork:
    ids = torch.tensor(task)
    return Fork(adapters_that_split_at(*splits), Routing.of(ids, len(splits)), torch.tensor(rows), images)


def test_outputs_of_an_image_share_its_branch_until_their_own_route_starts() -> None:
    """One image, tasks that split at 1, 3 and never: 1 branch, then 2, 2, 3."""
    plan = fork((1, 3, 4), [0, 1, 2], [0, 0, 0], 1).blocks
    assert [one.of.tolist() for one in plan] == [[0, 0, 0], [0, 1, 1], [0, 1, 1], [0, 1, 2]]
    assert [one.parents if one.parents is None else one.parents.tolist() for one in plan] == [[0], [0, 0], None, [0, 1, 1]]


def test_images_that_nobody_asks_for_are_left_out_and_others_never_mix() -> None:
    plan = fork((2, 2), [0, 1, 0], [2, 2, 0], 3).blocks
    assert plan[0].parents is not None
    assert plan[0].parents.tolist() == [2, 0]
    assert [one.of.tolist() for one in plan] == [[0, 0, 1], [0, 0, 1], [0, 1, 2], [0, 1, 2]]


def test_a_route_of_its_own_ends_sharing_for_good() -> None:
    """The gate reading per_block may go back to the shared route: the tokens differ by then."""
    tca = adapters_that_split_at(0, 0)
    tca.gate.settled = [[False, True, False, False], [False] * 4]
    plan = Fork(tca, Routing.of(torch.tensor([0, 1]), 2), torch.tensor([0, 0]), 1).blocks
    assert [one.of.tolist() for one in plan] == [[0, 0], [0, 1], [0, 1], [0, 1]]


def test_blocks_before_the_splits_run_once_an_image() -> None:
    model = miniature_model(hardened=True).eval()
    model.gate.settled = [[block >= split for block in range(6)] for split in (2, 4, 4)]
    seen: list[int] = []
    for block in model.trunk.hiera.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    with torch.no_grad():
        model(noise(2, 3, 64, 64), torch.tensor([0, 1, 2, 0]), torch.tensor([0, 0, 0, 1]))
    assert seen == [2, 2, 3, 3, 4, 4]


def test_a_model_with_one_route_for_all_tasks_runs_its_trunk_once() -> None:
    model = miniature_model(gate="shared_only").eval()
    seen: list[int] = []
    for block in model.trunk.hiera.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    with torch.no_grad():
        model(noise(1, 3, 64, 64), torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0]))
    assert seen == [1] * 6
