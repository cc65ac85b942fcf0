"""What goes wrong around a run, done for real: each gives one sentence, an exit code, and a run that goes on to the same bits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_control import Command, CommandServer, assert_same, saved_step

from tpseg.checkpoints.model_folder import load_model
from tpseg.core.errors import DataError

pytestmark = pytest.mark.usefixtures("miniature_trunk")


def sentence(server: CommandServer) -> str:
    """What a command said last, which is one line and no stack trace."""
    said = server.said()
    assert "Traceback" not in said, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("tpseg: "), said
    return last


def goes_on(server: CommandServer, command: Command, whole: tuple[Path, float], run: Path, *more: str) -> None:
    assert server.run(command(run, "--resume", *more)) == 0, server.said()
    assert_same(whole[0], run)


# To be stopped


def test_ctrl_c_saves_the_step_that_runs_and_gives_the_command_that_goes_on(server: CommandServer, command: Command, whole, tmp_path):
    words = command(tmp_path / "run", checkpoint_minutes=None)
    assert server.run(words, "interrupt") == 130
    said = sentence(server)
    assert "stopped after step 5 of 8, which is saved in" in said
    assert said.endswith(f"continue with: tpseg {' '.join(words)} --resume")
    assert "Ctrl-C again to stop at once" in server.said()
    assert saved_step(tmp_path / "run") == 5
    goes_on(server, command, whole, tmp_path / "run")


def test_sigterm_to_all_processes_of_a_job_saves_as_well(server: CommandServer, command: Command, whole, tmp_path):
    assert server.run(command(tmp_path / "run", "--sampling.workers", "1", checkpoint_minutes=None), "terminate") == 143
    assert "stopped after step 5 of 8, which is saved in" in sentence(server)
    goes_on(server, command, whole, tmp_path / "run")


def test_signals_to_all_processes_leave_those_that_load_images(server: CommandServer, command: Command, tmp_path):
    """The step that runs still needs images that no process has begun to load: two of its four batches."""
    words = command(tmp_path / "run", "--sampling.workers", "1", "--training.accumulate", "4", checkpoint_minutes=None)
    assert server.run(words, "interrupt_and_terminate") == 143
    assert "stopped after step 1 of 2, which is saved in" in sentence(server)
    assert saved_step(tmp_path / "run") == 1


def test_a_second_ctrl_c_stops_at_once(server: CommandServer, command: Command, whole, tmp_path):
    assert server.run(command(tmp_path / "run", checkpoint_minutes=None), "interrupt_twice") == 130
    assert "interrupted" in sentence(server)
    assert saved_step(tmp_path / "run") == 4  # the epoch before
    goes_on(server, command, whole, tmp_path / "run")


def test_ctrl_c_in_a_validation_saves_after_it(server: CommandServer, command: Command, whole, tmp_path):
    assert server.run(command(tmp_path / "run", checkpoint_minutes=None), "interrupt_validation") == 130
    assert "stopped after step 4 of 8, which is saved in" in sentence(server)
    goes_on(server, command, whole, tmp_path / "run")


# A process that dies


def test_a_loading_process_that_is_killed_loses_no_step(server: CommandServer, command: Command, whole, tmp_path):
    words = command(tmp_path / "run", "--sampling.workers", "1", checkpoint_minutes=None)
    assert server.run(words, "dead_worker") == 1
    said = sentence(server)
    assert "one of the sampling.workers = 1 processes that load images" in said
    assert said.endswith("--resume --sampling.workers 0")
    assert f"the run is saved up to step {saved_step(tmp_path / 'run')};" in said.replace(",", ";")
    assert saved_step(tmp_path / "run") in (2, 3)  # the images of the next never came; no checkpoint was due
    goes_on(server, command, whole, tmp_path / "run")


# A disk that is full, gone, or not ours


def test_files_that_cannot_grow_leave_the_last_checkpoint(server: CommandServer, command: Command, whole, tmp_path):
    assert server.run(command(tmp_path / "run"), "small_files") == 1
    assert "the file may not grow so large here" in sentence(server)
    assert "The run is saved up to step 4: then continue with: tpseg train" in sentence(server)
    assert saved_step(tmp_path / "run") == 4
    goes_on(server, command, whole, tmp_path / "run")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small disk in memory; skips, and says so, where mounting is not allowed: the test above needs no such right."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount a small disk here ({done.stderr.strip()}): the full disk is tested with RLIMIT_FSIZE alone")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_the_last_checkpoint(server: CommandServer, command: Command, whole, tmp_path):
    folder = tmp_path / "disk"
    with mounted(folder, "size=64m"):
        run, ballast = folder / "run", folder / "ballast"
        assert server.run(command(run), "interrupt") == 130
        room = os.statvfs(folder)
        ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - 500_000))  # half a megabyte is left
        assert server.run(command(run, "--resume")) == 1
        said = sentence(server)
        assert "the disk is full, or your quota used up" in said
        assert "MB free" in said
        assert saved_step(run) == 5
        ballast.unlink()
        goes_on(server, command, whole, run)


def test_a_folder_that_may_not_be_written_is_refused_before_anything_is_computed(server: CommandServer, command: Command, tmp_path):
    with mounted(tmp_path / "disk", "size=1m,ro"):
        assert server.run(command(tmp_path / "disk" / "run")) == 1
    assert "may not be written (Read-only file system)" in sentence(server)


def test_a_file_in_the_place_of_a_folder_is_named(server: CommandServer, command: Command, tmp_path):
    (tmp_path / "runs").write_text("")
    assert server.run(command(tmp_path / "runs" / "mine")) == 1
    assert f"{tmp_path / 'runs'}" in sentence(server)


def test_a_run_folder_that_vanishes_is_not_made_anew_in_its_place(server: CommandServer, command: Command, whole, tmp_path):
    assert server.run(command(tmp_path / "run"), "vanish") == 1
    assert "the run folder is gone (no settings.yaml in it any more)" in sentence(server)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run.away").rename(tmp_path / "run")
    assert saved_step(tmp_path / "run") == 4
    goes_on(server, command, whole, tmp_path / "run")


# Memory


def test_out_of_memory_says_which_batch_fits_after_trying(server: CommandServer, command: Command, tmp_path):
    assert server.run(command(tmp_path / "run"), "no_memory") == 1
    said = sentence(server)
    assert "out of memory at training.batch_size 6: a batch of 3 fits, tried just now" in said
    assert "--training.batch_size 3 --training.accumulate 2" in said
    assert "a batch of 6 fits with --training.checkpointing true, tried just now too" in said


def test_out_of_memory_for_real(server: CommandServer, command: Command, tmp_path):
    """An address space that six images do not fit into: PyTorch's own error."""
    assert server.run(command(tmp_path / "run"), "address_space") == 1
    said = sentence(server)
    assert "out of memory at training.batch_size 6: a batch of 3 fits, tried just now" in said
    assert "nothing is saved yet" in said


# Files that are damaged


def damage(path: Path) -> None:
    """Turn over a byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("spoil", [damage, truncate])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_it(server: CommandServer, command: Command, whole, tmp_path, spoil):
    assert server.run(command(tmp_path / "run"), "interrupt") == 130
    spoil(tmp_path / "run" / "checkpoints" / "last.ckpt")
    goes_on(server, command, whole, tmp_path / "run")
    assert "last.ckpt is damaged" in server.said()
    assert "going on from the checkpoint before it, of step 4" in server.said()


def test_two_damaged_checkpoints_are_refused(server: CommandServer, command: Command, tmp_path):
    assert server.run(command(tmp_path / "run"), "interrupt") == 130
    for name in ("last", "previous"):
        damage(tmp_path / "run" / "checkpoints" / f"{name}.ckpt")
    assert server.run(command(tmp_path / "run", "--resume")) == 1
    said = sentence(server)
    assert "last.ckpt is damaged" in said
    assert "previous.ckpt is damaged" in said


def test_sha256sum_agrees_with_the_sums(whole):
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=whole[0] / "checkpoints", check=True)


def test_damaged_weights_are_not_used(server: CommandServer, command: Command, tmp_path):
    assert server.run(command(tmp_path / "run", "--steps", "1")) == 0
    damage(tmp_path / "run" / "model" / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors: damaged: its SHA-256 is not the one in config\.json"):
        load_model(tmp_path / "run")
