"""The space that images are compared in: descriptions, scaled so that what varies within every task counts the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DIMENSIONS = 192
"""Of the space, at most: a half of the training images where they are few."""
SHRINKAGE = 0.1
"""Share of a round covariance that is mixed into the measured one."""
NEGLIGIBLE = 1e-6
"""Directions with less than this share of the largest variance are left out: rounding moves along them."""


@dataclass(frozen=True)
class Space:
    """A linear map, in which the training images scatter evenly around the means of their tasks."""

    origin: Tensor
    """(D,) float32: the mean description."""
    axes: Tensor
    """(D, K) float32."""

    def __call__(self, described: Tensor) -> Tensor:
        """Descriptions (N, D) to points (N, K)."""
        return (described - self.origin) @ self.axes


def fit_space(described: Tensor, task: Tensor) -> Space:
    """Standardise, keep the principal axes, and whiten what varies within tasks; described (N, D), task (N,) int64."""
    x = described.double()
    origin, scale = x.mean(0), x.std(0, correction=0)
    scale = scale.clamp_min(1e-3 * float(scale.median()) + 1e-12)
    centred = (x - origin) / scale
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)  # (N, r), (r,), (r, D)
    variance = singular**2 / len(x)
    kept = int((variance > NEGLIGIBLE * variance[0]).sum())
    size = max(1, min(DIMENSIONS, kept, len(x) // 2))
    principal = axes[:size].T / variance[:size].clamp_min(1e-12).sqrt()  # (D, K)
    points = centred @ principal
    inside = points - means(points, task)[task]
    covariance = inside.T @ inside / len(points)
    round_ = torch.eye(size, dtype=torch.float64) * covariance.trace() / size
    mixed = (1 - SHRINKAGE) * covariance + SHRINKAGE * round_ + 1e-9 * torch.eye(size, dtype=torch.float64)
    whiten = torch.linalg.cholesky(torch.linalg.inv(mixed))
    return Space(origin.float(), (principal / scale[:, None] @ whiten).float())


def means(points: Tensor, task: Tensor) -> Tensor:
    """The mean of each task's points: points (N, K), task (N,) of ids 0 to T - 1, each present; returns (T, K)."""
    return torch.stack([points[task == one].mean(0) for one in range(int(task.max()) + 1)])
