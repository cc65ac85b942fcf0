"""What the tests of faults share: a process to give orders to, a small data set, and a run that nothing happened to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from miniature import settings_file
from run_control import Command, CommandServer

from tpseg.datasets.phantoms import write_phantoms


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    one = CommandServer(tmp_path_factory.mktemp("server"))
    yield one
    assert one.process.stdin is not None
    one.process.stdin.close()
    one.process.kill()
    one.process.wait()
    assert one.process.stdout is not None
    one.process.stdout.close()


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tasks.yaml of the eight phantom tasks, ten small pictures each."""
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "data", cases=10, size=64)


@pytest.fixture(scope="session")
def command(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A function that gives the words of `tpseg train --out OUT` with the miniature model and a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("settings")

    def words(out: Path, *more: str, **training: Any) -> list[str]:
        recipe = {"epochs": 2, "batch_size": 6, "checkpoint_minutes": 0, "early_stopping": 5, **training}
        name = "-".join(f"{key}{value}" for key, value in sorted(training.items())) or "plain"
        path = settings_file(folder / f"{name}.yaml", model={"image_size": 32}, sampling={"epoch_images": 24}, training=recipe)
        return ["train", "--config", path, "--data", str(phantoms), "--out", str(out), *more]

    return words


@pytest.fixture(scope="session")
def whole(server: CommandServer, command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing happens to, and the seconds it takes."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert server.run(command(out.with_name("warm"))) == 0, server.said()
    begun = time.monotonic()
    assert server.run(command(out)) == 0, server.said()
    return out, time.monotonic() - begun
