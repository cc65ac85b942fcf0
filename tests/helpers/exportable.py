"""What the tests of exporting share: miniature models whose trunk has windows that do not fit, pooling and global attention."""

from __future__ import annotations

from typing import Any

import miniature_models
import pytest
import torch
from miniature_models import miniature_model, noise

from tpseg.models.trunks.hiera import TRUNK_SIZES, TrunkSize

__all__ = ["LIGHT", "TRUNK", "make_model", "noise"]

TRUNK = TrunkSize(16, 1, (1, 1, 3, 1), (3, 3, 3), (8, 4, 14, 7), 7)
LIGHT: dict[str, Any] = {"neck": "linear", "pgtds": (1,)}
"""Settings of a model that is exported in half the time."""


def make_model(**changes: Any) -> Any:
    """A model of three tasks, whose gates split at blocks 4, 3 and 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNK_SIZES, "tiny", TRUNK)
        patch.setattr(miniature_models, "TRUNK", TRUNK)
        model = miniature_model(**changes).eval()
    with torch.no_grad():
        for steps, start in zip(model.gate.steps, (1.0, 1.5, 2.4), strict=True):
            steps.fill_(start)
    assert list(model.splits().values()) == [4, 3, 2]
    return model
