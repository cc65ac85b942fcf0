"""A calibrated model, for the tests of what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from miniature import write_discs

from tpseg.calibration.calibrate import calibrate
from tpseg.data.manifest import read_dataset


@pytest.fixture(scope="module")
def calibrated(trained: Path, tmp_path_factory: pytest.TempPathFactory, miniature_trunk_module: None) -> Path:
    """A run folder, anew for each file of tests."""
    folder = tmp_path_factory.mktemp("calibrated")
    run = shutil.copytree(trained, folder / "run")
    calibrate(str(run), read_dataset(write_discs(folder / "data", train=20, val=20, test=0)), folder / "out")
    return run
