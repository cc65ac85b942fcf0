"""Archives are looked at before anything of them is unpacked: bombs, names that lead out, links, passwords and damage are refused."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_releases import rar, zipped

from tpseg.core.errors import DataError
from tpseg.datasets.archives import archive_stem, is_archive
from tpseg.datasets.release import Release

CONTENT = {"set/a.txt": b"first", "set/b (1).txt": b"second"}


def tarred(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def as_zip(folder: Path, files: dict[str, bytes]) -> Path:
    with zipped(folder / "set.zip") as put:
        for name, content in files.items():
            put(name, content)
    return folder / "set.zip"


def as_rar(folder: Path, files: dict[str, bytes]) -> Path:
    (folder / "set.rar").write_bytes(rar(files))
    return folder / "set.rar"


def as_tar_gz(folder: Path, files: dict[str, bytes]) -> Path:
    return tarred(folder / "set.tar.gz", files)


def as_tar(folder: Path, files: dict[str, bytes]) -> Path:
    return tarred(folder / "set.tar", files, "w")


Archived = Callable[[Path, dict[str, bytes]], Path]
KINDS = pytest.mark.parametrize("archived", [as_zip, as_rar, as_tar_gz, as_tar])


def refusal(path: Path, scratch: Path) -> str:
    with pytest.raises(DataError) as caught, Release(path, scratch):
        pass
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


@KINDS
def test_every_kind_of_archive_is_read_alike(archived: Archived, tmp_path: Path) -> None:
    with Release(archived(tmp_path, CONTENT), tmp_path / "scratch") as release:
        assert [str(name) for name in release.files] == list(CONTENT)
        assert {str(name): release.read(name) for name in release.files} == CONTENT


@KINDS
@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", "C:/out.txt", "..\\out.txt"])
def test_names_that_lead_out_are_refused(archived: Archived, name: str, tmp_path: Path) -> None:
    if archived is as_rar and name.startswith("/"):
        name = f"\\{name[1:]}"  # rarfile takes a leading / off by itself
    assert "leads out of the folder" in refusal(archived(tmp_path, {"good.txt": b"1", name: b"2"}), tmp_path / "scratch")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [next(tmp_path.glob("set.*")).name]


def test_a_member_that_unpacks_to_over_100_times_its_size_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bin", bytes(12_000_000))
    assert "unpacks from" in refusal(tmp_path / "bomb.zip", tmp_path / "scratch")


def test_many_members_that_together_unpack_to_over_100_times_the_archive_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.bin", bytes(5_000_000))
    assert "more than 100 times its size" in refusal(tmp_path / "bomb.zip", tmp_path / "scratch")


def test_a_bomb_in_archives_in_an_archive_is_refused_by_the_sum_of_all(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.bin", bytes(5_000_000))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.zip", inner.getvalue())
    assert "more than 100 times its size" in refusal(tmp_path / "bomb.zip", tmp_path / "scratch")


def test_a_compressed_tar_that_is_a_bomb_is_not_unpacked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tarred(tmp_path / "bomb.tar.gz", {"zeros.bin": bytes(40_000_000)})
    written: list[int] = []
    monkeypatch.setattr("tempfile._TemporaryFileWrapper.write", lambda self, data: written.append(len(data)), raising=False)
    assert "more than 100 times its size" in refusal(tmp_path / "bomb.tar.gz", tmp_path / "scratch")
    assert 0 < sum(written) <= 10_000_000


def test_a_small_file_may_shrink_as_much_as_it_likes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("empty mask.bin", bytes(2_000_000))
    with Release(tmp_path / "set.zip") as release:
        assert release.read("empty mask.bin") == bytes(2_000_000)


def test_links_and_passwords_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "link is a link" in refusal(tmp_path / "link.zip", tmp_path / "scratch")
    with tarfile.open(tmp_path / "link.tar", "w") as archive_of_tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive_of_tar.addfile(info)
    assert "link is a link" in refusal(tmp_path / "link.tar", tmp_path / "scratch")
    content = bytearray(as_zip(tmp_path, {"secret.txt": b"1"}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # the flag of an encrypted member
    (tmp_path / "secret.zip").write_bytes(content)
    assert "secret.txt is encrypted" in refusal(tmp_path / "secret.zip", tmp_path / "scratch")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_tar_holds_plain_files_only(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("plain"))
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "plain" if kind == tarfile.LNKTYPE else "/etc/passwd"
        archive.addfile(info)
    assert "odd is a link or a device; unpack" in refusal(tmp_path / "set.tar", tmp_path / "scratch")


def test_a_link_in_a_rar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.rar").write_bytes(rar({"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777))
    assert "link is a link; unpack" in refusal(tmp_path / "set.rar", tmp_path / "scratch")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_a_zip_could_unpack_without_a_bound_is_refused(kind: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", kind) as archive:
        archive.writestr("a.txt", b"first")
    assert "a.txt is packed with bzip2, LZMA or the like, not deflated; unpack" in refusal(tmp_path / "set.zip", tmp_path / "scratch")


@pytest.mark.parametrize("suffix", [".zip", ".rar", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("content", [b"", b"no archive at all", os.urandom(3000)])
def test_what_is_no_archive_is_refused_by_name(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"broken{suffix}").write_bytes(content)
    assert "damaged or no archive" in refusal(tmp_path / f"broken{suffix}", tmp_path / "scratch")


@KINDS
def test_an_archive_cut_short_is_damaged_when_opened_or_when_read(archived: Archived, tmp_path: Path) -> None:
    path = archived(tmp_path, {"a.bin": os.urandom(20_000), "b.bin": os.urandom(20_000)})
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(DataError, match="damaged"), Release(path, tmp_path / "scratch") as release:
        assert len(release.files) > 0
        for name in release.files:
            release.read(name)
        release.read("b.bin")


def test_a_changed_byte_in_a_zip_is_noticed_when_the_member_is_read(tmp_path: Path) -> None:
    path = as_zip(tmp_path, CONTENT)
    path.write_bytes(path.read_bytes().replace(b"first", b"firsT"))
    with Release(path) as release:
        assert release.read("set/b (1).txt") == b"second"
        with pytest.raises(DataError, match=r"set/a\.txt: damaged"):
            release.read("set/a.txt")


def test_a_compressed_rar_without_a_program_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rarfile

    (tmp_path / "set.rar").write_bytes(rar(CONTENT, method=0x33))
    monkeypatch.setattr(rarfile, "tool_setup", lambda *a, **k: (_ for _ in ()).throw(rarfile.RarCannotExec("no tool")))
    with Release(tmp_path / "set.rar") as release, pytest.raises(DataError, match="install unrar, unar or bsdtar, or unpack it yourself"):
        release.read("set/a.txt")


def test_archives_are_told_by_their_names() -> None:
    assert [name for name in ("a.ZIP", "a.tar.gz", "a.tgz", "a.gz", "a.7z", "zip") if is_archive(name)] == ["a.ZIP", "a.tar.gz", "a.tgz"]
    assert [archive_stem(name) for name in ("a.b.zip", "a.tar.gz", "a.TGZ")] == ["a.b", "a", "a"]
