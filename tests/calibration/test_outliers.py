"""Is it anything we know: far from every training image, measured by what is usual around them."""

from __future__ import annotations

import pytest
import torch

from tpseg.calibration.outliers import (
    BANK,
    FOLDS,
    NEIGHBOUR,
    Outliers,
    auroc,
    choose_bank,
    deal,
    fit_outliers,
    gather_bank,
    hold_out,
    limit_of,
)
from tpseg.calibration.space import fit_space


def cloud(count: int, seed: int, spread: float = 1.0) -> torch.Tensor:
    return spread * torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def alone(count: int) -> torch.Tensor:
    """Every image is a group for itself."""
    return torch.arange(count)


def test_the_score_is_the_distance_to_the_nearest_in_units_of_its_reach_and_of_the_limit():
    bank = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    found = Outliers(bank, torch.tensor([0, 1]), reach=torch.tensor([1.0, 4.0]), limit=2.0)
    points = torch.tensor([[1.0, 0.0], [3.0, 0.0], [10.0, 4.0]])  # the second one is nearer to the second image, in units of its reach
    assert found.scores(points).tolist() == [0.5, 7 / 8, 0.5]


def test_the_limit_by_hand():
    scores = torch.arange(1.0, 101.0).flip(0).double()
    assert limit_of(scores, 0.05) == 96  # 0.95 times 101 is 95.95
    assert limit_of(scores, 0.5) == 51
    assert limit_of(scores[-19:], 0.05) == 19  # 19 are the fewest that promise something
    assert limit_of(scores[-3:], 0.05) == 3


def test_one_in_twenty_of_new_images_is_flagged_and_what_is_far_always():
    train = cloud(300, 1)
    found = fit_outliers(train, torch.arange(300) % 2, alone(300), fit_space(train, torch.arange(300) % 2), cloud(40, 2))
    space = fit_space(train, torch.arange(300) % 2)
    assert float((found.scores(space(cloud(2000, 3))) > 1).double().mean()) == pytest.approx(0.05, abs=0.02)
    assert (found.scores(space(cloud(200, 4) + 20)) > 1).all()


def test_patients_who_differ_move_the_limit_though_validation_holds_none_such():
    # ten patients far from each other, twelve images of each: val holds two who happen to lie in the middle of the others
    centres = 3 * cloud(10, 5)
    group = torch.arange(10).repeat_interleave(12)
    train, task = centres[group] + cloud(120, 6, 0.3), torch.zeros(120, dtype=torch.int64)
    space, val = fit_space(train, task), centres[:2].repeat_interleave(12, 0) + cloud(24, 7, 0.3)
    by_patient = fit_outliers(train, task, group, space, val)
    by_image = fit_outliers(train, task, alone(120), space, val)
    new = 3 * cloud(200, 8)
    flagged = [float((found.scores(space(new)) > 1).double().mean()) for found in (by_patient, by_image)]
    assert flagged[0] < 0.25 < 0.75 < flagged[1]


def test_what_is_usual_is_usual_near_the_images_not_everywhere():
    # a tight task and a wide one: a step that is nothing among the wide is far from the tight
    train, task = torch.cat([cloud(100, 1, 0.1), cloud(100, 2, 3.0) + 100]), torch.arange(200) // 100
    bank = gather_bank(train, task, seed=0)
    step = torch.tensor([[2.0, 0, 0, 0, 0]])
    assert bank.scores(step) > 3 * bank.scores(100 + step)


def test_groups_are_dealt_out_whole_and_evenly():
    task = torch.tensor([0] * 40 + [1] * 40)
    group = torch.arange(80) // 2
    part = deal(task, group, seed=0)
    assert torch.equal(part[0::2], part[1::2])
    assert torch.bincount(part, minlength=FOLDS).tolist() == [8] * FOLDS
    assert torch.bincount(part[:40], minlength=FOLDS).tolist() == [4] * FOLDS
    assert not torch.equal(part, deal(task, group, seed=1))


def test_a_task_of_one_patient_cannot_be_held_out():
    train, task = cloud(30, 1), torch.tensor([0] * 20 + [1] * 10)
    group = torch.cat([torch.arange(20), torch.full((10,), 20)])
    assert len(hold_out(train, task, group, seed=0)) == 20


def test_the_bank_is_small_and_holds_every_task():
    task = torch.cat([torch.zeros(1000), torch.ones(7)]).long()
    kept = choose_bank(task, seed=0)
    assert torch.bincount(task[kept]).tolist() == [BANK, 7]
    assert torch.equal(kept, choose_bank(task, seed=0))
    assert not torch.equal(kept, choose_bank(task, seed=1))


def test_copies_of_one_image_do_not_make_everything_else_far():
    train = torch.cat([torch.zeros(20, 5), cloud(100, 1)])
    bank = gather_bank(train, torch.zeros(120, dtype=torch.int64), seed=0)
    assert float(bank.scores(cloud(100, 3)).median()) < 2


def test_auroc_by_hand():
    assert auroc(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0])) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert auroc(torch.tensor([5.0]), torch.tensor([1.0, 2.0])) == 1


def test_one_training_image_is_refused():
    with pytest.raises(ValueError, match="surroundings"):
        gather_bank(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), seed=0)


def test_one_image_that_is_left_has_no_surroundings_to_score_by():
    """Of two images each is held out once, and the other alone makes no bank."""
    assert len(hold_out(cloud(2, 1), torch.zeros(2).long(), alone(2), seed=0)) == 0
    assert len(hold_out(cloud(3, 1), torch.zeros(3).long(), alone(3), seed=0)) == 3


def test_the_reach_of_an_image_is_its_neighbour_s_distance_and_a_fifth_of_the_usual_one():
    """Four points on a line: with so few the neighbour asked is the farthest one."""
    bank = gather_bank(torch.tensor([[0.0], [1.0], [3.0], [10.0]]), torch.zeros(4).long(), seed=0)
    far = {0.0: 10.0, 1.0: 9.0, 3.0: 7.0, 10.0: 10.0}
    usual = 9.0  # the median, of an even number the lower one
    assert NEIGHBOUR >= 3
    assert bank.reach.tolist() == pytest.approx([far[float(point)] + 0.2 * usual for point in bank.bank[:, 0]])
