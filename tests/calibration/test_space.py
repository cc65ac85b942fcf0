"""The space: the training images of every task scatter evenly around their mean, whatever the units of the descriptions."""

from __future__ import annotations

import torch

from tpseg.calibration.space import DIMENSIONS, fit_space, means


def clouds(count: int = 300, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tasks, far apart in the first number, with very different spreads in the others."""
    generator = torch.Generator().manual_seed(0)
    task = torch.arange(count) % 2
    points = torch.randn(count, size, generator=generator) * torch.logspace(-2, 3, size)
    points[:, 0] += task
    return points, task


def test_within_tasks_the_points_scatter_alike_in_all_directions():
    described, task = clouds()
    points = fit_space(described, task)(described)
    inside = points - means(points, task)[task]
    spread = inside.std(0)
    assert described.std(0).max() / described.std(0).min() > 1e3
    assert spread.max() / spread.min() < 2


def test_a_change_of_units_changes_no_distance():
    described, task = clouds()
    units = torch.tensor([1e-3, 1.0, 1.0, 7.0, 1.0, 0.5])
    one = fit_space(described, task)(described)
    other = fit_space(described * units, task)(described * units)
    torch.testing.assert_close(torch.cdist(one, one), torch.cdist(other, other), rtol=1e-2, atol=1e-2)


def test_a_channel_that_never_varies_does_not_blow_up():
    described, task = clouds()
    described[:, 2] = 5.0
    space = fit_space(described, task)
    shifted = described.clone()
    shifted[:, 2] += 1e-6  # rounding
    torch.testing.assert_close(space(shifted), space(described), rtol=0, atol=0.1)


def test_few_images_give_a_small_space():
    described = torch.randn(10, 600)
    assert fit_space(described, torch.arange(10) % 2).axes.shape == (600, 5)
    assert fit_space(torch.randn(500, 600), torch.arange(500) % 2).axes.shape == (600, DIMENSIONS)
