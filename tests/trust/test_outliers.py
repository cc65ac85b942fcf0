"""Is it anything we know: far from every training image, measured by what is usual around them."""

from __future__ import annotations

import pytest
import torch

from tpseg.trust.outliers import BANK, Outliers, auroc, choose_bank, fit_outliers


def cloud(count: int, seed: int, spread: float = 1.0) -> torch.Tensor:
    return spread * torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def test_the_score_is_the_distance_to_the_nearest_in_units_of_its_reach_and_of_the_limit():
    bank = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    found = Outliers(bank, torch.tensor([0, 1]), reach=torch.tensor([1.0, 4.0]), limit=2.0)
    points = torch.tensor([[3.0, 0.0], [10.0, 4.0]])
    assert found.by_task(points).tolist() == [pytest.approx([1.5, 7 / 8]), pytest.approx([(116**0.5) / 2, 0.5])]
    assert found.scores(points).tolist() == pytest.approx([7 / 8, 0.5])


def test_the_limit_flags_one_in_twenty_of_the_validation_images():
    val = cloud(400, 2)
    found = fit_outliers(cloud(300, 1), torch.arange(300) % 2, val)
    assert float((found.scores(val) > 1).double().mean()) == pytest.approx(0.05, abs=0.005)
    assert (found.scores(cloud(200, 3) + 20) > 1).all()


def test_what_is_usual_is_usual_near_the_images_not_everywhere():
    # a tight task and a wide one: a step that is nothing among the wide is far from the tight
    train = torch.cat([cloud(100, 1, 0.1), cloud(100, 2, 3.0) + 100])
    task = torch.arange(200) // 100
    found = fit_outliers(train, task, torch.cat([cloud(50, 3, 0.1), cloud(50, 4, 3.0) + 100]))
    step = torch.tensor([[2.0, 0, 0, 0, 0]])
    assert found.scores(step) > 1 > found.scores(100 + step)


def test_the_bank_is_small_and_holds_every_task():
    task = torch.cat([torch.zeros(1000), torch.ones(7)]).long()
    kept = choose_bank(task, seed=0)
    assert torch.bincount(task[kept]).tolist() == [BANK, 7]
    assert torch.equal(kept, choose_bank(task, seed=0))
    assert not torch.equal(kept, choose_bank(task, seed=1))


def test_copies_of_one_image_do_not_make_everything_else_far():
    train = torch.cat([torch.zeros(20, 5), cloud(100, 1)])
    found = fit_outliers(train, torch.zeros(120, dtype=torch.int64), cloud(100, 2))
    assert float((found.scores(cloud(100, 3)) > 1).double().mean()) < 0.2


def test_auroc_by_hand():
    assert auroc(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0])) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert auroc(torch.tensor([5.0]), torch.tensor([1.0, 2.0])) == 1


def test_one_training_image_is_refused():
    with pytest.raises(ValueError, match="surroundings"):
        fit_outliers(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 2))
