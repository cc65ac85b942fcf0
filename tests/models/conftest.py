"""Fixtures of the model tests; their functions are in common.py."""

from __future__ import annotations

import pytest
from common import MINIATURE

from tpseg.models.trunk import TRUNK_SIZES


@pytest.fixture
def miniature_as_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the length of a test the trunk `tiny` is a miniature that runs in milliseconds."""
    monkeypatch.setitem(TRUNK_SIZES, "tiny", MINIATURE)
