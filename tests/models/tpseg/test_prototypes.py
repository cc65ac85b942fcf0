"""Prototypes are unit vectors, moved by eqs. (12) and (13) and by nothing else."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from miniature_models import noise
from torch import Tensor

from tpseg.models.tpseg.prototypes import PrototypeMemory, cosine_map, initial_prototypes, region_sums


def halves(height: int = 4, width: int = 8) -> Tensor:
    """A mask whose left half is lesion, (1, 1, height, width)."""
    mask = torch.zeros(1, 1, height, width)
    mask[..., : width // 2] = 1
    return mask


def two_vectors(inside: tuple[float, float], outside: tuple[float, float], height: int = 4, width: int = 8) -> Tensor:
    """Features (1, 2, height, width): one vector on the left half, another on the right."""
    features = torch.empty(1, 2, height, width)
    features[..., : width // 2] = torch.tensor(inside)[:, None, None]
    features[..., width // 2 :] = torch.tensor(outside)[:, None, None]
    return features


def memory(tasks: int = 2, width: int = 2, momentum: float = 0.9) -> PrototypeMemory:
    torch.manual_seed(0)
    return PrototypeMemory(tasks, width, momentum)


def update(bank: PrototypeMemory, features: Tensor, mask: Tensor, task: Tensor) -> None:
    """A step of one forward pass."""
    bank.observe(features, mask, task)
    bank.move()


def assert_unit(prototypes: Tensor) -> None:
    torch.testing.assert_close(prototypes.norm(dim=-1), torch.ones(prototypes.shape[:-1]))


def test_the_first_prototypes_have_unit_length_and_differ() -> None:
    torch.manual_seed(0)
    first = initial_prototypes(3, 16)
    assert first.shape == (3, 2, 16)
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert_unit(first)
    assert (torch.pdist(first.flatten(0, 1)) > 0.1).all()


def test_prototypes_are_a_buffer_and_not_trained() -> None:
    assert [name for name, _ in memory().named_buffers()] == ["prototypes"]
    assert list(memory().parameters()) == []


def test_each_sample_gets_its_tasks_prototypes() -> None:
    bank = memory(tasks=3)
    assert torch.equal(bank(torch.tensor([2, 0, 2])), bank.prototypes[[2, 0, 2]])


# D


def test_the_signed_difference_by_hand() -> None:
    """f = (3, 4): cos 0.6 to (1, 0) and 0.8 to (0, 1)."""
    prototypes = torch.eye(2)[None]
    features = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(cosine_map(features, prototypes), torch.full((1, 1, 1, 1), -0.2))
    torch.testing.assert_close(cosine_map(features, prototypes.flip(1)), torch.full((1, 1, 1, 1), 0.2))


def test_like_the_lesion_is_positive_like_the_background_negative_up_to_2() -> None:
    prototypes = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    similarity = cosine_map(two_vectors((5, 0), (-0.1, 0)), prototypes)
    torch.testing.assert_close(similarity, 2 * (2 * halves() - 1))


def test_the_difference_ignores_length_and_is_finite_at_zero() -> None:
    prototypes, features = initial_prototypes(2, 6), noise(2, 6, 3, 3)
    torch.testing.assert_close(cosine_map(100 * features, prototypes), cosine_map(features, prototypes))
    assert torch.equal(cosine_map(torch.zeros(2, 6, 3, 3), prototypes), torch.zeros(2, 1, 3, 3))


# eq. (13)


def test_sums_and_sizes_inside_and_outside() -> None:
    sums, counts = region_sums(two_vectors((0.6, 0.8), (0, -1)), halves())
    torch.testing.assert_close(sums, torch.tensor([[[16 * 0.6, 16 * 0.8], [0.0, -16.0]]]))
    assert counts.tolist() == [[16, 16]]


def test_the_mask_is_brought_to_the_features_size_and_regions_are_counted_at_its_own() -> None:
    sums, counts = region_sums(two_vectors((1, 0), (0, 1)), halves(32, 64))
    torch.testing.assert_close(sums, torch.tensor([[[16.0, 0.0], [0.0, 16.0]]]))
    assert counts.tolist() == [[1024, 1024]]


def test_a_cell_counts_with_the_share_of_its_area_that_is_covered() -> None:
    """One cell of 4x4 pixels, 5 of them lesion and 3 padding: 5/16 of its vector inside, 8/16 outside."""
    mask = torch.tensor([1.0] * 5 + [-1.0] * 3 + [0.0] * 8).reshape(1, 1, 4, 4)
    sums, counts = region_sums(torch.tensor([16.0, 32.0]).reshape(1, 2, 1, 1), mask)
    torch.testing.assert_close(sums, torch.tensor([[[5.0, 10.0], [8.0, 16.0]]]))
    assert counts.tolist() == [[5, 8]]


def test_a_lesion_smaller_than_a_cell_moves_its_prototype() -> None:
    """12 of 32x32 pixels, all in one of 4x4 cells: at stride 8 no cell is lesion by majority."""
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:11, 8:12] = 1
    features = torch.zeros(1, 2, 4, 4)
    features[:, 0] = 1
    features[0, :, 1, 1] = torch.tensor([0.0, 7.0])
    bank = memory(momentum=0.0)
    update(bank, features, mask, torch.tensor([0]))
    torch.testing.assert_close(bank.prototypes[0, 0], torch.tensor([0.0, 1.0]))


def test_the_mean_is_of_the_features_themselves() -> None:
    """Eq. (13) as printed: half of the vectors (3, 0), half (0, 4), so the mean points along (3, 4) / 5."""
    features = two_vectors((3, 0), (-1, 0))
    features[0, :, :2, :4] = torch.tensor([0.0, 4.0])[:, None, None]
    bank = memory(momentum=0.0)
    update(bank, features, halves(), torch.tensor([0]))
    torch.testing.assert_close(bank.prototypes[0, 0], torch.tensor([0.6, 0.8]))


def test_pixels_outside_the_image_are_neither_lesion_nor_background() -> None:
    """Mask −1 marks padding: the vectors (100, 0) there count for nothing."""
    features = two_vectors((100, 0), (0, 1))
    mask = halves()
    mask[mask == 1] = -1
    bank = memory(momentum=0.0)
    before = bank.prototypes.clone()
    update(bank, features, mask, torch.tensor([0]))
    torch.testing.assert_close(bank.prototypes[0, 0], before[0, 0])
    torch.testing.assert_close(bank.prototypes[0, 1], torch.tensor([0.0, 1.0]))


# eq. (12)


def test_the_moving_average_by_hand() -> None:
    """P_fg = (1, 0) and f̄ = (0, 1) give (0.9, 0.1) / √0.82; P_bg = (0, 1) and f̄ = (−1, 0) give (−0.1, 0.9) / √0.82."""
    bank = memory()
    bank.prototypes[1] = torch.eye(2)
    update(bank, two_vectors((0, 3), (-2, 0)), halves(), torch.tensor([1]))
    expected = torch.tensor([[0.9, 0.1], [-0.1, 0.9]]) / math.sqrt(0.82)
    torch.testing.assert_close(bank.prototypes[1], expected)


def test_prototypes_keep_unit_length_through_many_updates() -> None:
    bank = memory(tasks=3, width=16)
    for number in range(50):
        mask = (noise(4, 1, 8, 8, seed=number) > 0).float()
        update(bank, noise(4, 16, 8, 8, seed=1000 + number), mask, torch.tensor([0, 1, 1, 2]))
    assert_unit(bank.prototypes)


def test_an_absent_task_is_untouched_bit_for_bit() -> None:
    bank = memory(tasks=3, width=16)
    before = bank.prototypes.clone()
    update(bank, noise(3, 16, 8, 8), (noise(3, 1, 8, 8) > 0).float(), torch.tensor([2, 0, 2]))
    assert torch.equal(bank.prototypes[1], before[1])
    assert (bank.prototypes[[0, 2]] != before[[0, 2]]).all()


@pytest.mark.parametrize(("pixels", "moves"), [(0, False), (9, False), (10, True)])
def test_a_region_under_10_pixels_is_left_out(pixels: int, moves: bool) -> None:
    bank = memory()
    before = bank.prototypes.clone()
    mask = torch.zeros(1, 1, 32)
    mask[..., :pixels] = 1
    mask = mask.reshape(1, 1, 4, 8)
    features = noise(1, 2, 4, 8)
    update(bank, features, mask, torch.tensor([0]))
    assert torch.equal(bank.prototypes[0, 0], before[0, 0]) != moves
    assert not torch.equal(bank.prototypes[0, 1], before[0, 1])  # the background is large enough
    bank.prototypes.copy_(before)
    update(bank, features, 1 - mask, torch.tensor([0]))
    assert torch.equal(bank.prototypes[0, 1], before[0, 1]) != moves
    assert not torch.equal(bank.prototypes[0, 0], before[0, 0])


def test_the_order_of_the_batch_does_not_matter() -> None:
    one, two = memory(width=8), memory(width=8)
    features, mask, task = noise(4, 8, 6, 6), (noise(4, 1, 6, 6) > 0).float(), torch.tensor([0, 1, 0, 1])
    update(one, features, mask, task)
    order = [3, 1, 0, 2]
    update(two, features[order], mask[order], task[order])
    torch.testing.assert_close(one.prototypes, two.prototypes)


def test_an_update_carries_no_gradient_and_stays_float32() -> None:
    bank = memory(width=8)
    features = noise(1, 8, 6, 6).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        update(bank, features.bfloat16(), (noise(1, 1, 6, 6) > 0).float(), torch.tensor([0]))
    assert not bank.prototypes.requires_grad
    assert bank.prototypes.dtype == torch.float32
    assert_unit(bank.prototypes)


def test_two_processes_give_what_one_gives_on_the_joined_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process's sums come in through all_reduce; its task 1 is absent here, and its 6 pixels join our 4."""
    features, task = noise(2, 8, 8, 8), torch.tensor([0, 1])
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    few = torch.zeros(2, 1, 8, 8)
    few[0, 0, 0, :4] = few[1, 0, 0, :6] = 1
    for masks, tasks in ((mask, task), (few, torch.tensor([0, 0]))):
        joined, ours = memory(width=8), memory(width=8)
        update(joined, features, masks, tasks)
        sums, counts = region_sums(features[1:], masks[1:])
        theirs = [torch.zeros(2, 2, 8).index_add_(0, tasks[1:], sums), torch.zeros(2, 2).index_add_(0, tasks[1:], counts)]
        with monkeypatch.context() as patch:
            patch.setattr(torch.distributed, "is_initialized", lambda: True)
            patch.setattr(torch.distributed, "all_reduce", lambda total, theirs=theirs: total.add_(theirs.pop(0)))
            update(ours, features[:1], masks[:1], tasks[:1])
        torch.testing.assert_close(ours.prototypes, joined.prototypes)
        assert not torch.equal(ours.prototypes, memory(width=8).prototypes)


def test_repeated_updates_lead_to_the_mean_direction() -> None:
    bank = memory(width=8)
    features, mask = F.normalize(noise(1, 8, 8, 8), dim=1), halves(8, 8)
    for _ in range(300):
        update(bank, features, mask, torch.tensor([1]))
    inside = features[0, :, :, :4].mean((1, 2))
    torch.testing.assert_close(bank.prototypes[1, 0], F.normalize(inside, dim=0), atol=1e-5, rtol=0)


# Accumulated steps


def test_two_passes_of_four_move_as_far_as_one_of_eight() -> None:
    """Task 1 is in the second pass only, and its 6 pixels of lesion in each of two images are enough together."""
    features, task = noise(8, 8, 8, 8), torch.tensor([0, 2, 0, 0, 1, 0, 1, 2])
    mask = (noise(8, 1, 8, 8) > 0).float()
    mask[task == 1] = 0
    mask[task == 1, :, 0, :6] = 1
    whole, halves_of_it = memory(tasks=4, width=8), memory(tasks=4, width=8)
    before = whole.prototypes.clone()
    update(whole, features, mask, task)
    for half in (slice(4), slice(4, 8)):
        halves_of_it.observe(features[half], mask[half], task[half])
        assert torch.equal(halves_of_it.prototypes, before)  # both passes see the same prototypes
    halves_of_it.move()
    torch.testing.assert_close(halves_of_it.prototypes, whole.prototypes, rtol=0, atol=1e-6)
    assert [torch.equal(before[one], whole.prototypes[one]) for one in range(4)] == [False, False, False, True]


def test_what_was_observed_moves_them_once() -> None:
    bank = memory(width=8)
    update(bank, noise(1, 8, 6, 6), (noise(1, 1, 6, 6) > 0).float(), torch.tensor([0]))
    moved = bank.prototypes.clone()
    bank.move()
    assert torch.equal(bank.prototypes, moved)
