"""Releases with bytes changed and cut off: what cannot be used is refused or left out, in a sentence; nothing crashes or hangs."""

from __future__ import annotations

import random
import tarfile
import time
from pathlib import Path, PurePosixPath

import pytest
from fake_releases import matlab, slice16, write_release

from tpseg.core.errors import DataError
from tpseg.datasets import PUBLIC
from tpseg.datasets.btd import read_array, read_facts
from tpseg.datasets.release import Release
from tpseg.datasets.source import Pair

pytestmark = pytest.mark.slow


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Some bytes changed; of one in three the end cut off."""
    changed = bytearray(content)
    if rng.random() < 0.33:
        del changed[rng.randrange(1, len(changed)) :]
    for _ in range(rng.choice((1, 3, 20))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def look(name: str, path: Path, scratch: Path) -> str:
    """Everything that preparing reads of a release: 'whole', 'in part', or the sentence that refuses it."""
    verdict = "whole"
    try:
        with Release(path, scratch) as release:
            for one in PUBLIC[name]().pairs(release):
                if isinstance(one, Pair):
                    try:
                        one.image()
                        one.mask()
                    except DataError:
                        verdict = "in part"
    except DataError as error:
        return str(error)
    return verdict


@pytest.mark.parametrize(
    ("name", "suffix"), [("busi", ".zip"), ("ebhi-seg", ".rar"), ("busi", ".tar"), ("busi", ".tar.gz"), ("btd", ".zip")]
)
def test_damaged_archives(name: str, suffix: str, tmp_path: Path) -> None:
    path = write_release(name, tmp_path / "made")
    if suffix.startswith(".tar"):
        with tarfile.open(tmp_path / f"made{suffix}", "w:gz" if suffix.endswith("gz") else "w") as archive:
            archive.add(path.parent, "made")
        path = tmp_path / f"made{suffix}"
    rng, content, verdicts = random.Random(0), path.read_bytes(), set()
    for _ in range(100):
        (tmp_path / f"damaged{suffix}").write_bytes(damaged(content, rng))
        start = time.process_time()  # which no other process adds to
        verdicts.add(look(name, tmp_path / f"damaged{suffix}", tmp_path / "scratch"))
        assert time.process_time() - start < 10
    assert verdicts - {"whole"}
    assert not any("\n" in verdict for verdict in verdicts)
    assert list((tmp_path / "scratch").iterdir() if (tmp_path / "scratch").exists() else []) == []


class OneFile:
    """A release of one file."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, name: PurePosixPath) -> bytes:
        return self.content


def test_damaged_matlab_files() -> None:
    rng, content, refusals = random.Random(1), matlab(*slice16(3), "100360"), []
    for _ in range(500):
        release, name = OneFile(damaged(content, rng)), PurePosixPath("1.mat")
        start = time.process_time()  # which no other process adds to
        try:
            read_facts(release, name)  # type: ignore[arg-type]
            assert read_array(release, name, "image").ndim == 2  # type: ignore[arg-type]
            assert read_array(release, name, "tumorMask").ndim == 2  # type: ignore[arg-type]
        except DataError as error:
            refusals.append(str(error))
        assert time.process_time() - start < 10
    assert 100 < len(refusals) < 500
    assert all(refusal.startswith("1.mat: ") for refusal in refusals)
