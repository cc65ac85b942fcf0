"""Folders on any store: a file is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from tpseg.core.errors import UsageError
from tpseg.inference.ray.store import Folder, local_copy


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path / "out"))
    fsspec.filesystem("memory").store.clear()
    return Folder("memory://bucket/out")


def test_what_is_put_is_got_and_listed_with_its_size(folder):
    assert folder.get("a/b.txt") is None
    assert folder.sizes() == {}
    folder.put("a/b.txt", b"old")
    folder.put("a/b.txt", b"newer", durable=True)
    folder.put("c.txt", b"")
    assert folder.get("a/b.txt") == b"newer"
    assert folder.sizes() == {"a/b.txt": 5, "c.txt": 0}
    assert folder.sizes("a") == {"a/b.txt": 5}
    folder.put("a/c.png", b"x")
    assert folder.get_all("a", ".txt") == {"a/b.txt": b"newer"}


def test_an_address_means_the_same_in_every_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Folder("out/").address("a.png") == str(tmp_path / "out" / "a.png")
    assert Folder(f"file://{tmp_path}/out").address() == str(tmp_path / "out")
    assert Folder("memory://bucket/out").address("a.png") == "memory:///bucket/out/a.png"


def test_a_file_on_disk_takes_its_name_only_when_it_is_whole(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path))
    folder.put("mask.png", b"old")
    seen = []

    def full(source: Path, target: Path) -> None:
        seen.append((Path(source).read_bytes(), Path(target).read_bytes()))
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        folder.put("mask.png", b"new")
    assert seen == [(b"new", b"old")]  # the old one stood until the new one was complete
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]
    assert folder.get("mask.png") == b"old"


@pytest.mark.parametrize(
    ("url", "message"),
    [("https://example.org/out", "no way is known to write whole files to http"), ("nosuch://x", "cannot be opened")],
)
def test_a_store_without_whole_files_is_refused(url, message):
    with pytest.raises(UsageError, match=message):
        Folder(url)


def test_a_remote_file_is_a_local_one_for_a_while(tmp_path):
    fsspec.filesystem("memory").pipe_file("/bucket/a.png", b"content")
    with local_copy("memory://bucket/a.png") as path:
        assert path.name == "a.png"
        assert path.read_bytes() == b"content"
    assert not path.exists()
    (tmp_path / "b.png").write_bytes(b"x")
    with local_copy(str(tmp_path / "b.png")) as path:
        assert path == tmp_path / "b.png"  # no copy
    with pytest.raises(FileNotFoundError), local_copy("memory://bucket/nowhere.png"):
        pass
