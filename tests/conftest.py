"""Data sets of a few small files, made anew for each test."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniature import TRUNK, train_miniature, write_discs
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

from tpseg.models.trunks.hiera import TRUNK_SIZES

MakePairs = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    """One thread for each of the processes that run the tests side by side: threads that share a processor wait for each other."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


class ByFile(LoadScopeScheduling):
    """The tests of a file stay in one process, where they share what they have trained; those of exporting in one as well."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "tests/export" if file.startswith("tests/export/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


@pytest.fixture
def make_pairs() -> MakePairs:
    """A function that fills FOLDER/images and FOLDER/masks with `count` pairs of noise and a square, all different."""

    def make(folder: Path, count: int = 4, height: int = 24, width: int = 32, seed: int = 0, mask_ending: str = "") -> Path:
        rng = np.random.default_rng(seed)
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            mask = np.zeros((height, width), np.uint8)
            mask[4:12, 4 + number % 8 : 12 + number % 8] = 255  # 64 pixels
            Image.fromarray(image).save(folder / "images" / f"case{number:02d}.png")
            Image.fromarray(mask).save(folder / "masks" / f"case{number:02d}{mask_ending}.png")
        return folder

    return make


@pytest.fixture
def tiny_dataset(tmp_path: Path, make_pairs: MakePairs) -> Path:
    """A `tasks.yaml` with the tasks `skin_lesion` and `breast_lesion`, each 6 train, 2 val and 2 test cases of 24x32."""
    entries = []
    for seed, (task, modality) in enumerate((("skin_lesion", "dermoscopy"), ("breast_lesion", "ultrasound"))):
        make_pairs(tmp_path / task, count=10, seed=seed)
        rows = [
            f"images/case{number:02d}.png,masks/case{number:02d}.png,{'train' if number < 6 else 'val' if number < 8 else 'test'},"
            for number in range(10)
        ]
        (tmp_path / task / "split.csv").write_text("\n".join(["image,mask,split,group", *rows, ""]))
        entries.append(f"  {task}: {{modality: {modality}, data: {task}/split.csv}}\n")
    path = tmp_path / "tasks.yaml"
    path.write_text("tasks:\n" + "".join(entries))
    return path


@pytest.fixture
def ctrl_c_heeded() -> Iterator[None]:
    """SIGINT ends what it is sent to, here and in the processes that a test starts.

    Where the tests were started in the background it is ignored, and every process hands that down to its children.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def miniature_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the length of a test the trunk `tiny` is a miniature that runs in milliseconds."""
    monkeypatch.setitem(TRUNK_SIZES, "tiny", TRUNK)


@pytest.fixture(scope="module")
def miniature_trunk_module() -> Iterator[None]:
    """The same for a whole module, for fixtures that train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNK_SIZES, "tiny", TRUNK)
        yield


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tasks.yaml` with the easy tasks `bright_disc` and `dark_disc`, each 6 train, 2 val and 3 test cases of 48x64."""
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, discs: Path) -> Path:
    """The run folder of a miniature model that has learned the discs; tests that use it ask for `miniature_trunk` too.

    After 12 epochs every seed tried finds every test disc with a Dice over 0.9 (42 to 44, AVX2); after 8 one seed found none of a task.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNK_SIZES, "tiny", TRUNK)
        recipe = {"epochs": 12, "learning_rate": 4e-3}
        return train_miniature(discs, tmp_path_factory.mktemp("trained") / "run", training=recipe)
