"""Damaged files of every format that predict reads: a frame or one sentence, within 10 seconds and 2 GiB, and the process lives."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_running import GOOD, SECONDS, fuzz

FORMATS = ("dicom", "nifti", "nrrd", "metaimage", "png", "jpeg", "tiff", "bmp", "video")
INPUTS = 520
"""Of each format."""
MEMORY = 2 * 2**20
"""KiB."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    tally = fuzz(name, tmp_path, INPUTS, None)
    assert set(tally.outcomes) <= set(GOOD), f"{tally}\n{(tmp_path / 'stderr').read_text()[-3000:]}"
    assert tally.inputs == INPUTS
    assert tally.outcomes["shown"] >= 5, "seeds that were never shown would make the test empty"  # few PNG survive: they carry checksums
    assert tally.outcomes["refused"] >= 10
    assert tally.peak < MEMORY, tally
    assert tally.slowest < SECONDS, tally
