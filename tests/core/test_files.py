"""Files and folders written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tpseg.core.files import ends_all, replacing, replacing_folder, tidy, why_not_written, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "new" / "notes.txt"
    write_atomically(path, "Größe α\n")
    write_atomically(path, "second\n")
    assert path.read_text(encoding="utf-8") == "second\n"
    assert names(path.parent) == ["notes.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # others may read it, unlike a temporary file


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"), replacing(path) as new:
        new.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["scores.csv"]


def test_the_temporary_file_has_the_suffix_that_writers_go_by(tmp_path):
    with replacing(tmp_path / "mask.png") as new:
        new.touch()
        assert new.suffix == ".png"
        assert new.parent == tmp_path  # the same disk: the last step is a rename
        assert not (tmp_path / "mask.png").exists()
        new.write_bytes(b"")


@pytest.mark.parametrize("letter", ["x", "字"])
def test_a_name_as_long_as_may_be_is_written(tmp_path, letter):
    """255 bytes: there is no room beside them for the number of a process."""
    path = tmp_path / f"{letter * (251 // len(letter.encode()))}.png"
    with replacing(path) as new:
        new.write_text("mask")
        assert new.suffix == ".png"
    assert names(tmp_path) == [path.name]


def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path):
    with pytest.raises(OSError, match="too long"), replacing(tmp_path / ("x" * 256)):
        pytest.fail("the block began")


@pytest.mark.skipif(os.name == "nt", reason="files have no such permissions there")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_a_file_is_what_the_umask_says_whatever_wrote_it(tmp_path, umask, mode):
    """safetensors makes files that are their owner's alone."""
    old = os.umask(umask)
    try:
        with replacing_folder(tmp_path / "model") as new:
            save_file({"one": torch.ones(1)}, new / "model.safetensors")
        with replacing(tmp_path / "alone") as new:
            new.touch(0o600)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "model" / "model.safetensors").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "alone").stat().st_mode) == mode
    assert names(tmp_path) == ["alone", "model"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "model"
    for content in ("first", "second"):
        with replacing_folder(folder) as new:
            (new / content).write_text(content)
            assert new.parent == tmp_path
    assert names(folder) == ["second"]
    assert names(tmp_path) == ["model"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_an_error_leaves_the_old_folder_and_no_rest(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("good")
    with pytest.raises(OSError, match="No space left"), replacing_folder(folder) as new:
        (new / "weights").write_text("ba")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (folder / "weights").read_text() == "good"
    assert names(tmp_path) == ["model"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("good")
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if Path(target) == folder and not str(source).endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="Input/output"), replacing_folder(folder) as new:
        (new / "weights").write_text("new")
    assert (folder / "weights").read_text() == "good"
    assert names(tmp_path) == ["model"]


def test_tidying_clears_what_is_half_written_and_puts_back_what_was_about_to_be_replaced(tmp_path):
    for name in (".12.notes.txt", ".12.model.new/weights", ".12.model.old/weights", ".profile", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    tidy(tmp_path)
    assert names(tmp_path) == [".profile", "model", "notes.txt"]
    assert (tmp_path / "model" / "weights").read_text() == ".12.model.old/weights"


def test_tidying_never_replaces_what_is_there(tmp_path):
    for name in (".12.model.old", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    tidy(tmp_path)
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "model"


def test_what_is_durable_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """The file is synced before the rename, its folder after it."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("renamed"), replace(*names))[1])
    with replacing(tmp_path / "last.ckpt", durable=True) as new:
        new.write_text("new")
    assert done == [str(new), "renamed", str(tmp_path)]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "your quota used up"),
        (errno.EROFS, "may not be written"),
        (errno.ESTALE, "is a network share or a disk gone"),
        (errno.EFBIG, "may not grow so large"),
        (errno.EINVAL, "this disk does not take the name"),
    ],
)
def test_the_system_s_errors_are_said_in_words(number, words):
    said = why_not_written(OSError(number, os.strerror(number), "/data/run/last.ckpt"))
    assert said.startswith("/data/run/last.ckpt: ")
    assert words in said


def test_of_a_rename_the_name_that_was_meant_is_said():
    said = why_not_written(OSError(errno.EACCES, "Permission denied", "/data/run/.4711.last.ckpt", None, "/data/run/last.ckpt"))
    assert said.startswith("/data/run/last.ckpt: may not be written")


def test_a_long_name_is_said_in_words_and_not_repeated():
    said = why_not_written(OSError(errno.ENAMETOOLONG, "File name too long", f"/out/{'字' * 90}.png"))
    assert "the name is too long for this disk" in said
    assert "274 bytes; shorten it" in said
    assert len(said) < 160


def test_which_errors_the_next_file_would_meet_too():
    assert all(ends_all(OSError(number, "")) for number in (errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.EACCES))
    assert not any(ends_all(OSError(number, "")) for number in (errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.EFBIG))


def test_an_interrupt_is_no_excuse(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as new:
        new.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["scores.csv"]
