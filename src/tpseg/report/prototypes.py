"""How far apart prototypes lie: between tasks (the paper's Fig. 7), and foreground from background (Fig. 8)."""

from __future__ import annotations

import numpy as np
from scipy import stats


def foreground_cosines(prototypes: np.ndarray) -> np.ndarray:
    """Cosine similarity between the tasks' foreground prototypes: (T, 2, C) of unit length to (T, T)."""
    return prototypes[:, 0] @ prototypes[:, 0].T


ALIKE = 0.05
"""Separations that differ by less say nothing: prototypes of centred features are opposite by construction."""


def separation(prototypes: np.ndarray) -> np.ndarray:
    """1 − cos(P_fg, P_bg) of each task, from 0 (the same) to 2 (opposite): (T, 2, C) of unit length to (T,)."""
    return 1 - (prototypes[:, 0] * prototypes[:, 1]).sum(axis=1)


def correlation_sentence(separations: np.ndarray, dice: np.ndarray) -> str:
    """Pearson's r of two (n,) arrays with its interval, and a reminder of how few n tasks are."""
    count = len(dice)
    if count < 4:
        return f"n = {count} tasks: too few for a correlation."
    if np.ptp(separations) < ALIKE or np.ptp(dice) < 1e-6:
        return f"n = {count} tasks, all alike: no correlation to speak of."
    result = stats.pearsonr(separations, dice)
    low, high = result.confidence_interval(0.95)
    numbers = f"Pearson r = {result.statistic:.2f} (95 % {low:.2f} to {high:.2f})".replace("-", "−")
    return f"{numbers}, n = {count} tasks: few points, so no more than a hint."
