"""Which images are drawn: balanced over tasks, from seed and epoch alone."""

from __future__ import annotations

from collections import Counter

import pytest

from tpseg.core.errors import UsageError
from tpseg.data.sampling import TrainingSampler, balanced_weights, share_of_training, share_of_validation

UNBALANCED = [0] * 90 + [1] * 9 + [2]


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


def test_a_samples_weight_is_one_over_its_tasks_count():
    assert balanced_weights([0, 0, 1, 0, 2, 2]) == [1 / 3, 1 / 3, 1.0, 1 / 3, 0.5, 0.5]


def test_tasks_come_up_equally_often_however_many_images_they_have():
    counts = Counter(UNBALANCED[draw.index] for draw in TrainingSampler(UNBALANCED, 0, True, draws=3000))
    assert sum(counts.values()) == 3000
    assert all(870 < counts[task] < 1130 for task in (0, 1, 2))  # 1000 expected, 5 standard deviations of 26


def test_within_a_task_images_come_up_equally_often():
    counts = Counter(draw.index for draw in TrainingSampler(UNBALANCED, 0, True, draws=30000))
    assert all(60 < counts[index] < 165 for index in range(90))  # 111 expected, standard deviation 10.5


def test_without_balance_every_image_comes_once():
    sampler = TrainingSampler(UNBALANCED, 3, False)
    drawn = [draw.index for draw in sampler]
    assert sorted(drawn) == list(range(100))
    assert drawn != list(range(100))


@pytest.mark.parametrize("balance", [True, False])
def test_an_epoch_is_the_same_after_others_and_alone(balance):
    long, fresh = TrainingSampler(UNBALANCED, 5, balance), TrainingSampler(UNBALANCED, 5, balance)
    epochs = [epoch(long, number) for number in range(4)]
    assert epochs[3] == epoch(fresh, 3)
    assert len({tuple(draws) for draws in epochs}) == 4


def test_another_seed_draws_otherwise():
    assert epoch(TrainingSampler(UNBALANCED, 1, True), 0) != epoch(TrainingSampler(UNBALANCED, 2, True), 0)


def test_every_draw_has_an_augmentation_of_its_own():
    draws = list(TrainingSampler([0], 0, True, draws=200))
    assert len({draw.seed for draw in draws}) == 200
    assert not {draw.seed for draw in draws} & {draw.seed for draw in epoch(TrainingSampler([0], 0, True, draws=200), 1)}


def test_length_is_the_number_of_draws():
    assert len(TrainingSampler(UNBALANCED, 0, True)) == 100
    assert len(TrainingSampler(UNBALANCED, 0, True, draws=7)) == len(list(TrainingSampler(UNBALANCED, 0, True, draws=7))) == 7


# Shared by several processes


def batches(draws, size):
    return [draws[start : start + size] for start in range(0, len(draws), size)]


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("balance", [True, False])
def test_the_processes_batches_are_together_the_batches_of_one(processes, balance):
    """100 draws in batches of 8: 12 whole batches, whoever draws them; the 4 that are left over come in none."""
    alone = batches(epoch(TrainingSampler(UNBALANCED, 3, balance), 2), 8)[:12]
    shares = [share_of_training(TrainingSampler(UNBALANCED, 3, balance), 8, 1, rank, processes) for rank in range(processes)]
    locals_ = [batches(epoch(share, 2), 8 // processes) for share in shares]
    assert [len(share) for share in shares] == [96 // processes] * processes
    for number, batch in enumerate(alone):
        joined = [draw for one in locals_ for draw in one[number]]
        assert sorted(joined, key=lambda draw: draw.seed) == sorted(batch, key=lambda draw: draw.seed)


def test_an_epoch_of_less_than_a_batch_is_one_batch_shared_as_it_comes():
    shares = [share_of_training(TrainingSampler(UNBALANCED, 0, True, draws=5), 8, 1, rank, 4) for rank in range(4)]
    assert [len(share) for share in shares] == [len(list(share)) for share in shares] == [2, 1, 1, 1]
    assert len({draw.seed for share in shares for draw in share}) == 5


@pytest.mark.parametrize(("draws", "batches_drawn"), [(100, 24), (17, 4), (15, 3), (3, 1)])
def test_an_epoch_is_whole_steps_of_several_batches(draws, batches_drawn):
    """Steps of 4 batches of 4: of 100 draws 96, as with one batch of 16; for less than a step whole batches, else what there is."""
    share = share_of_training(TrainingSampler(UNBALANCED, 0, True, draws=draws), 4, 4, 0, 1)
    assert len(batches(list(share), 4)) == batches_drawn
    whole = share_of_training(TrainingSampler(UNBALANCED, 0, True, draws=draws), 16, 1, 0, 1)
    assert draws < 16 or list(share) == list(whole)


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(UsageError, match="4 processes would share 3 training images"):
        share_of_training(TrainingSampler([0, 0, 1], 0, True), 8, 1, 0, 4)


@pytest.mark.parametrize(("images", "processes"), [(7, 1), (7, 2), (8, 4), (5, 4), (2, 4)])
def test_every_validation_image_counts_once_and_all_processes_have_as_many(images, processes):
    shares = [share_of_validation(images, rank, processes) for rank in range(processes)]
    assert {len(share) for share in shares} == {len(list(share)) for share in shares} == {-(-images // processes)}
    counted = [index for share in shares for index in list(share)[: share.own]]
    assert sorted(counted) == list(range(images))


def test_a_run_that_goes_on_inside_an_epoch_leaves_out_what_it_has_seen_of_that_one_only() -> None:
    shares = [share_of_training(TrainingSampler(range(24), seed=0, balance=False), 4, 1, rank, 2) for rank in (0, 1)]
    for share in shares:
        share.resume_at(1, 8)
    for epoch in (0, 1, 2):
        whole = TrainingSampler(range(24), seed=0, balance=False)
        whole.set_epoch(epoch)
        draws = list(whole)[8 if epoch == 1 else 0 :]
        for share in shares:
            share.set_epoch(epoch)
            assert list(share) == draws[share.rank :: 2]


def test_no_seed_draws_what_another_draws_an_epoch_later() -> None:
    assert epoch(TrainingSampler(UNBALANCED, 1, True), 0) != epoch(TrainingSampler(UNBALANCED, 0, True), 1)
