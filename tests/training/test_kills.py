"""A run that is killed, at any moment and in the midst of a write, goes on to the bits of one that is not."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path

import pytest
from run_control import Command, CommandServer, assert_same, saved_step

from tpseg.training.checkpoints import newest

pytestmark = pytest.mark.usefixtures("miniature_trunk")
STEPS = 8
logger = logging.getLogger(__name__)  # the figures: pytest -m long --log-cli-level=INFO


def resumed(server: CommandServer, command: Command, run: Path) -> None:
    """Go on with a killed run, if it was not killed before it had begun or after it had ended."""
    begun, place = (run / "settings.yaml").is_file(), newest(run / "checkpoints")
    if place is not None and place[1].finished:
        assert server.run(command(run, "--resume")) == 2
        assert "is finished, all 8 steps are done" in server.said()
        return
    assert server.run(command(run, *(["--resume"] if begun else []))) == 0, server.said()


def kill_and_resume(server: CommandServer, command: Command, whole: tuple[Path, float], folder: Path, kills: int, seed: int) -> list[int]:
    """Kill runs at moments drawn evenly from their length, resume each, compare; returns the steps that were saved."""
    rng = random.Random(seed)
    steps = []
    for number in range(kills):
        run = folder / f"run{number}"
        server.kill_after(rng.uniform(0, 1.05 * whole[1]), command(run))
        steps.append(saved_step(run))
        resumed(server, command, run)
        assert_same(whole[0], run)
    return steps


def kill_in_writes(server: CommandServer, command: Command, whole: tuple[Path, float], folder: Path, kills: int, seed: int) -> list[int]:
    """Kill runs while they write a checkpoint, resume each, compare; returns how many steps each had lost."""
    rng = random.Random(seed)
    lost = []
    for number in range(kills):
        run, wanted = folder / f"run{number}", rng.randint(1, STEPS)
        mark = Path(f"{run}.writing")
        pid = server.begin(command(run), ("slow_writes",))
        deadline = time.monotonic() + 1200
        while not mark.exists() or mark.read_text() != str(wanted):
            assert time.monotonic() < deadline, server.said()
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.25))
        assert server.kill(pid) == -9
        begun = int(mark.read_text())  # checkpoint number n is of step n: one is written after every step
        lost.append(begun - saved_step(run))
        resumed(server, command, run)
        assert_same(whole[0], run)
    return lost


def test_a_run_that_nothing_happens_to_is_the_same_twice(server: CommandServer, command: Command, whole, tmp_path):
    assert server.run(command(tmp_path / "again")) == 0
    assert_same(whole[0], tmp_path / "again")


def test_killed_at_three_random_moments(server: CommandServer, command: Command, whole, tmp_path):
    kill_and_resume(server, command, whole, tmp_path, kills=3, seed=1)


def test_killed_in_the_midst_of_writing_a_checkpoint_no_more_than_one_step_is_lost(
    server: CommandServer, command: Command, whole, tmp_path
):
    assert max(kill_in_writes(server, command, whole, tmp_path, kills=2, seed=2)) <= 1


def test_what_a_checkpoint_knows_tensorboard_has(server: CommandServer, command: Command, whole, tmp_path):
    """Killed as soon as a checkpoint is written: the curves up to there are not drawn again. Lightning flushes what it logs."""
    assert server.run(command(tmp_path / "run"), "killed_after_epoch") == -9
    assert saved_step(tmp_path / "run") == 4
    resumed(server, command, tmp_path / "run")
    assert_same(whole[0], tmp_path / "run")


@pytest.mark.long
def test_fifty_kills_and_fifty_resumes(server: CommandServer, command: Command, whole, tmp_path):
    steps = kill_and_resume(server, command, whole, tmp_path, kills=50, seed=3)
    logger.info("steps saved when killed: %s", steps)
    assert len(set(steps)) >= 5  # all over the run, not before it began or after it ended


@pytest.mark.long
def test_twenty_kills_in_the_midst_of_a_write(server: CommandServer, command: Command, whole, tmp_path):
    lost = kill_in_writes(server, command, whole, tmp_path, kills=20, seed=4)
    logger.info("steps lost when killed in a write: %s", lost)
    assert max(lost) <= 1
    assert 1 in lost  # the kill did hit the write
