"""A download is one tree of files, however it is packed: folder, archive, archives in a folder or in an archive."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from fake_releases import in_folder, zipped

from tpseg.core.errors import DataError
from tpseg.datasets.release import Release


def names(path: Path) -> list[str]:
    with Release(path) as release:
        return [str(name) for name in release.files]


def zip_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_an_archive_s_members_stand_in_its_folder_without_a_level_of_its_own(tmp_path: Path) -> None:
    put = in_folder(tmp_path / "download")
    put("read me.txt", b"0")
    put("part/inner.zip", zip_bytes({"images/1.png": b"1", "more.zip": zip_bytes({"masks/1.png": b"2"})}))
    assert names(tmp_path / "download") == ["part/images/1.png", "part/masks/1.png", "read me.txt"]
    with Release(tmp_path / "download", tmp_path / "scratch") as release:
        assert release.read("part/masks/1.png") == b"2"
        assert release.read(PurePosixPath("read me.txt")) == b"0"
        assert release.size("part/images/1.png") == 1


def test_a_packed_and_an_unpacked_release_hold_the_same_files(tmp_path: Path) -> None:
    files = {"set/a.txt": b"1", "set/b/c.txt": b"22"}
    put = in_folder(tmp_path / "unpacked")
    for name, content in files.items():
        put(name, content)
    (tmp_path / "set.zip").write_bytes(zip_bytes(files))
    assert names(tmp_path / "unpacked") == names(tmp_path / "set.zip") == sorted(files)


@pytest.mark.parametrize("place", ["set/1.png", "download/set/1.png"])
def test_a_member_that_was_unpacked_beside_its_archive_is_there_once(place: str, tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    put("download.zip", zip_bytes({"set/1.png": b"1", "set/2.png": b"2"}))
    put(place, b"1")
    assert len(names(tmp_path)) == 2


def test_hidden_files_and_litter_are_left_out(tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    for name in ("a/Thumbs.db", "__MACOSX/a/._1.png", ".git/config", "a/.DS_Store", "a/1.png"):
        put(name, b"1")
    put("b.zip", zip_bytes({"__MACOSX/._2.png": b"1", "b/.DS_Store": b"1", "b/2.png": b"1"}))
    assert names(tmp_path) == ["a/1.png", "b/2.png"]


def test_three_levels_of_archives_are_read_and_a_fourth_is_refused(tmp_path: Path) -> None:
    content = {"deep.txt": b"1"}
    for level in (1, 2, 3):
        (tmp_path / f"{level}.zip").write_bytes(zip_bytes(content))
        content = {"inner.zip": (tmp_path / f"{level}.zip").read_bytes()}
    assert names(tmp_path / "3.zip") == ["deep.txt"]
    (tmp_path / "4.zip").write_bytes(zip_bytes(content))
    with pytest.raises(DataError, match="nested deeper than 3"):
        names(tmp_path / "4.zip")


def test_a_linked_folder_is_searched_and_what_cannot_be_followed_is_named(tmp_path: Path) -> None:
    root = tmp_path / "download"
    put = in_folder(root)
    put(".git/annex/1", b"1")
    put(".git/annex/folder/2.txt", b"2")
    (root / "sub").symlink_to(".git/annex/folder")
    (root / "a.txt").symlink_to(".git/annex/1")
    (root / "gone.txt").symlink_to("nowhere.txt")
    (root / "round.txt").symlink_to("round.txt")
    os.mkfifo(root / "pipe")
    with Release(root) as release:
        assert [str(file) for file in release.files] == ["a.txt", "sub/2.txt"]
        assert release.read("sub/2.txt") == b"2"
        assert [(one.name, one.reason, one.detail) for one in release.skipped] == [
            ("gone.txt", "a broken link", "to nowhere.txt"),
            ("pipe", "no file", "neither a file nor a folder"),
            ("round.txt", "a broken link", "to round.txt"),
        ]


@pytest.mark.parametrize("links", [{"a/up": "..", "b/x": "."}, {"a/b": "../b", "b/a": "../a"}])
def test_links_that_lead_round_are_refused(links: dict[str, str], tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    for name, target in links.items():
        put(f"{name.split('/')[0]}/1.txt", b"1")
        (tmp_path / name).symlink_to(target)
    with pytest.raises(DataError, match="a link to a folder that it lies in"):
        names(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_folder(tmp_path)("locked/1.txt", b"1")
    listing = os.scandir

    def scandir(place: str) -> Any:
        if place.endswith("locked"):
            raise PermissionError(13, "Permission denied", place)
        return listing(place)

    monkeypatch.setattr(os, "scandir", scandir)  # root, as whom tests may run, may read everything
    with Release(tmp_path) as release:
        assert [(one.name, one.reason) for one in release.skipped] == [("locked", "a folder that cannot be read")]


def test_a_link_within_the_folder_is_followed_and_one_that_leads_out_is_refused(tmp_path: Path) -> None:
    put = in_folder(tmp_path)
    put("download/a.txt", b"1")
    put("secret.txt", b"2")
    (tmp_path / "download" / "b.txt").symlink_to("a.txt")
    assert names(tmp_path / "download") == ["a.txt", "b.txt"]
    for target in (tmp_path / "secret.txt", tmp_path):
        (tmp_path / "download" / "out").symlink_to(target)
        with pytest.raises(DataError, match="leads out of"):
            names(tmp_path / "download")
        (tmp_path / "download" / "out").unlink()


def test_two_different_files_of_one_name_are_refused_when_asked_for_and_equal_ones_count_once(tmp_path: Path) -> None:
    for name, licence in (("a.zip", b"first"), ("b.zip", b"other"), ("c.zip", b"first")):
        with zipped(tmp_path / name) as put:
            put("LICENSE.txt", licence)
            put("NOTE.txt", b"same")
    with Release(tmp_path) as release:
        assert [str(name) for name in release.files] == ["LICENSE.txt", "NOTE.txt"]
        assert release.read("NOTE.txt") == b"same"
        with pytest.raises(DataError, match=r"LICENSE\.txt is in .*a\.zip and, different, in .*b\.zip"):
            release.read("LICENSE.txt")


def test_a_real_file_is_lent_for_a_member_and_nothing_stays(tmp_path: Path) -> None:
    put = in_folder(tmp_path / "download")
    put("set.zip", zip_bytes({"a/volume.nii.gz": b"1"}))
    put("plain.txt", b"2")
    with Release(tmp_path / "download", tmp_path / "scratch") as release:
        lent = release.path_of("a/volume.nii.gz")
        assert (lent.name, lent.read_bytes()) == ("volume.nii.gz", b"1")
        assert lent.is_relative_to(tmp_path / "scratch")
        assert release.path_of("a/volume.nii.gz") == lent  # unpacked once
        assert release.path_of("plain.txt") == tmp_path / "download" / "plain.txt"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_is_no_download_is_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"1")
    for path, found in ((tmp_path / "picture.png", "a file that is no archive"), (tmp_path / "nowhere", "nothing")):
        with pytest.raises(DataError, match=f"found {found}; expected a download"):
            names(path)


def test_a_missing_file_is_told_the_nearest(tmp_path: Path) -> None:
    in_folder(tmp_path)("training.txt", b"1")
    with Release(tmp_path) as release, pytest.raises(DataError, match=r"has no file trainng\.txt; did you mean 'training\.txt'\?"):
        release.read("trainng.txt")


def test_the_hash_is_the_archive_s_own_or_the_listing_s(tmp_path: Path) -> None:
    import hashlib

    put = in_folder(tmp_path / "download")
    put("a.txt", b"1")
    with Release(tmp_path / "download") as release:
        before = release.sha256()
    put("b.txt", b"1")
    with Release(tmp_path / "download") as release:
        assert release.sha256() != before
    (tmp_path / "set.zip").write_bytes(zip_bytes({"a.txt": b"1"}))
    with Release(tmp_path / "set.zip") as release:
        assert release.sha256() == hashlib.sha256((tmp_path / "set.zip").read_bytes()).hexdigest()
