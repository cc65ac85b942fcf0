"""What lies in a folder and below: links followed, loops not, and nothing left out in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tpseg.core.folder_search import search

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")


def tree(top: Path, *names: str) -> Path:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    return top


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in search(folder).files]


def test_linked_folders_are_searched_as_if_they_lay_there(tmp_path, caplog):
    """In the order of the names as they are seen, whatever the place of their files."""
    store = tree(tmp_path / "store", "s1/a.png", "s1/deep/b.png", "s2/c.png")
    folder = tree(tmp_path / "in", "n.png")
    (folder / "z").symlink_to(store / "s1")
    (folder / "m").symlink_to("../store/s2")
    assert names(folder) == ["m/c.png", "n.png", "z/a.png", "z/deep/b.png"]
    assert not caplog.records
    (tmp_path / "link").symlink_to(folder)
    assert names(tmp_path / "link") == names(folder)


@pytest.mark.parametrize("target", [".", "..", "../..", "../other"])
def test_a_link_to_what_holds_it_or_is_searched_anyway_ends_and_is_told(tmp_path, caplog, target):
    folder = tree(tmp_path / "in", "sub/a.png", "other/b.png")
    (folder / "sub" / "round").symlink_to(target)
    assert names(folder) == ["other/b.png", "sub/a.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: 1 links to folders that are searched anyway, or that hold the link, are not followed: {folder}/sub/round"
    ]


def test_links_that_lead_to_each_other_end(tmp_path, caplog):
    store = tree(tmp_path / "store", "one/a.png", "two/b.png")
    (store / "one" / "next").symlink_to("../two")
    (store / "two" / "next").symlink_to("../one")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "first").symlink_to(store / "one")
    (folder / "second").symlink_to(store / "one")
    assert names(folder) == ["first/a.png", "first/next/b.png"]
    assert "2 links" in caplog.text


def test_links_that_lead_nowhere_are_listed(tmp_path):
    folder = tree(tmp_path / "in", "a.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "sub").symlink_to(tmp_path / "unmounted")
    (folder / "self.png").symlink_to("self.png")
    found = search(folder)
    assert [path.name for path in found.files] == ["a.png"]
    assert [path.name for path in found.broken] == ["gone.png", "self.png", "sub"]


def test_what_macos_writes_is_left_out_aloud(tmp_path, caplog):
    folder = tree(tmp_path / "in", "a.png", "._a.png", "__MACOSX/._a.png", "__MACOSX/sub/b.png", ".hidden.png", "_b.png")
    assert names(folder) == [".hidden.png", "_b.png", "a.png"]
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"{folder}: 2 entries that macOS writes beside the files (._*, __MACOSX) are left out: {folder}/._a.png, ")


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, caplog, monkeypatch):
    folder = tree(tmp_path / "in", "a.png", "shut/b.png")
    scandir = os.scandir

    def refusing(place):
        if str(place).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    assert names(folder) == ["a.png"]
    assert f"1 folders cannot be listed, and nothing in them is found: have their permissions changed: {folder}/shut" in caplog.text
