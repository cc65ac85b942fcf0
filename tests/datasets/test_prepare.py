"""Preparing is all or resumable: nothing is mixed, nothing is written elsewhere, what is wrong is named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fake_releases import case, encode, grey_mask, in_folder, rgb, write_release
from filelock import FileLock

from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task
from tpseg.datasets import PUBLIC, Pair, Source, make_source
from tpseg.datasets import prepare as making
from tpseg.datasets.folder import FolderSource
from tpseg.datasets.release import Release

prepare = partial(making.prepare, most_left_out=1.0)
"""The made-up releases have as many oddities as the real ones, and few images."""


class Named(Source):
    """Pairs with the names given, which are files of no release."""

    name = "named"
    task = Task("dots", "test")

    def __init__(self, *names: str) -> None:
        self.names = names

    def pairs(self, release: Release) -> Iterator[Pair]:
        for number, name in enumerate(self.names):
            yield Pair(name, lambda number=number: case(number)[0], lambda number=number: case(number)[1])


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but SOURCE.md, which has the date in it."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: content for name, content in files.items() if not name.endswith("SOURCE.md")}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release("busi", tmp_path / "download")


# names


def test_names_become_safe_and_stay_apart(tmp_path: Path) -> None:
    in_folder(tmp_path / "download")("any.txt", b"")
    hostile = ["../../out", "/etc/passwd", "a b (1)", "a_b_1", "A B (1)", "C:\\x", "..", "漢" * 300, "漢" * 301, "𝒳" * 300]
    done = prepare(Named(*hostile), tmp_path / "download", tmp_path / "out")
    names = sorted(path.name for path in (done.folder / "images").iterdir())
    assert len({name.casefold() for name in names}) == len(hostile)
    assert {"out.png", "etc_passwd.png", "a_b_1.png", "a_b_1_2.png", "A_B_1_3.png", "C_x.png", "case.png"} <= set(names)
    assert max(len(name.encode()) for name in names) < 255
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download", "out"]


# continuing


class Killed(BaseException):
    """Stands for a kill: nothing may handle it."""


def test_what_was_interrupted_is_completed_by_the_same_call_and_whole_files_are_kept(release: Path, tmp_path: Path) -> None:
    whole = prepare(PUBLIC["busi"](), release, tmp_path / "whole")

    def interrupted(items: Iterator, total: int, description: str) -> Iterator:
        for number, item in enumerate(items):
            if number == 6:
                raise Killed
            yield item

    with pytest.raises(Killed):
        prepare(PUBLIC["busi"](), release, tmp_path / "halves", watch=interrupted)
    folder = tmp_path / "halves" / "breast_lesion"
    assert not (folder / "split.csv").exists()
    assert not (tmp_path / "halves" / "tasks.yaml").exists()
    first = next((folder / "images").glob("*.png"))
    (folder / "images" / f".1234.{first.name}").write_bytes(b"half")  # as a killed writer leaves it
    before = first.stat().st_mtime_ns
    done = prepare(PUBLIC["busi"](), release, tmp_path / "halves")
    assert first.stat().st_mtime_ns == before
    assert done.anew
    assert tree(done.folder) == tree(whole.folder)
    assert done.left_out == whole.left_out


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_same_command_completes(tmp_path: Path) -> None:
    put = in_folder(tmp_path / "download")
    for number in range(1, 400):
        image, mask = case(number, 120, 160)
        put(f"benign ({number}).png", encode(rgb(image)))
        put(f"benign ({number})_mask.png", encode(grey_mask(mask)))
    command = [sys.executable, "-m", "tpseg.cli", "data", "prepare", "busi", "--source", "download", "--out", "killed"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    images = tmp_path / "killed" / "breast_lesion" / "images"
    deadline = time.monotonic() + 600
    while not (images.exists() and len(list(images.iterdir())) > 20):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 20 < len(list(images.iterdir())) < 399
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    whole = prepare(PUBLIC["busi"](), tmp_path / "download", tmp_path / "whole")
    assert tree(tmp_path / "killed" / "breast_lesion") == tree(whole.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download", "killed", "whole"]


def test_a_second_call_finds_it_done_and_changes_nothing(release: Path, tmp_path: Path) -> None:
    first = prepare(PUBLIC["busi"](), release, tmp_path / "out")
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*") if path.is_file()}
    second = prepare(PUBLIC["busi"](), release, tmp_path / "out")
    assert (first.anew, second.anew) == (True, False)
    assert (second.counts, second.left_out) == (first.counts, first.left_out)
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*") if path.is_file()} == stamps


@pytest.mark.parametrize("change", ["seed", "protocol", "release", "source"])
def test_other_settings_or_another_download_are_refused_not_mixed(change: str, release: Path, tmp_path: Path) -> None:
    done = prepare(PUBLIC["busi"](), release, tmp_path / "out")
    before = tree(tmp_path / "out")
    source: Source = PUBLIC["busi"]()
    if change == "release":
        release.write_bytes(release.read_bytes() + b" ")
    if change == "source":
        release, source = write_release("isic2018", tmp_path / "other"), make_source("isic2018", task=done.folder.name)
    options = {"seed": {"seed": 1}, "protocol": {"protocol": "paper"}}.get(change, {})
    with pytest.raises(UsageError, match=f"other settings .*{change}"):
        prepare(source, release, tmp_path / "out", **options)
    assert tree(tmp_path / "out") == before


def test_a_folder_of_something_else_is_refused(release: Path, tmp_path: Path) -> None:
    in_folder(tmp_path / "out")("breast_lesion/mine.txt", b"1")
    with pytest.raises(UsageError, match="holds files that tpseg data prepare has not made"):
        prepare(PUBLIC["busi"](), release, tmp_path / "out")
    assert list(tree(tmp_path / "out")) == ["breast_lesion/mine.txt"]


def test_a_tasks_file_that_has_another_task_of_this_name_is_left_as_it_is(release: Path, tmp_path: Path) -> None:
    text = "tasks:\n  breast_lesion: {modality: ultrasound, data: mine/split.csv}  # mine\n"
    in_folder(tmp_path / "out")("tasks.yaml", text.encode())
    with pytest.raises(UsageError, match="has a task 'breast_lesion'"):
        prepare(PUBLIC["busi"](), release, tmp_path / "out")
    assert tree(tmp_path / "out") == {"tasks.yaml": text.encode()}
    done = prepare(make_source("busi", task="busi_lesion"), release, tmp_path / "out")
    assert done.folder == tmp_path / "out" / "busi_lesion"
    assert "# mine" in (tmp_path / "out" / "tasks.yaml").read_text()
    assert "busi_lesion" in (tmp_path / "out" / "tasks.yaml").read_text()


def test_two_at_work_in_one_folder_are_kept_apart(release: Path, tmp_path: Path) -> None:
    working = tmp_path / "out" / "breast_lesion" / ".preparing"
    working.mkdir(parents=True)
    with FileLock(working / "lock"), pytest.raises(UsageError, match="another tpseg data prepare is at work"):
        prepare(PUBLIC["busi"](), release, tmp_path / "out")
    assert prepare(PUBLIC["busi"](), release, tmp_path / "out").anew


# what is wrong


@pytest.mark.parametrize("given", [name for name in PUBLIC if name != "busi"])
def test_a_wrong_download_is_told_what_was_expected_found_and_meant(given: str, tmp_path: Path) -> None:
    path = write_release(given, tmp_path / "download")
    with pytest.raises(DataError) as caught:
        prepare(PUBLIC["busi"](), path, tmp_path / "out", others=[kind() for kind in PUBLIC.values()])
    message = str(caught.value)
    assert "not a release of 'busi'; expected Dataset_BUSI.zip with Dataset_BUSI_with_GT/{benign,malignant,normal}/; found " in message
    assert f"this looks like {given}: tpseg data prepare {given}" in message
    assert not (tmp_path / "out").exists()


def test_an_empty_download_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "download").mkdir()
    with pytest.raises(DataError, match="found no files"):
        prepare(PUBLIC["busi"](), tmp_path / "download", tmp_path / "out", others=[kind() for kind in PUBLIC.values()])
    assert not (tmp_path / "out").exists()


def test_a_download_of_which_nothing_can_be_used_is_an_error(tmp_path: Path) -> None:
    put = in_folder(tmp_path / "download")
    put("benign (1).png", b"no picture")
    put("benign (1)_mask.png", encode(grey_mask(case(1)[1])))
    with pytest.raises(DataError, match=r"nothing in it can be used: 1 left out, cannot be used: benign_001 .*cannot be decoded"):
        prepare(PUBLIC["busi"](), tmp_path / "download", tmp_path / "new" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["download"]  # nothing is left behind


def broken_release(folder: Path, whole: int, broken: int) -> Path:
    put = in_folder(folder)
    for number in range(whole + broken):
        put(f"images/{number}.png", encode(case(number)[0]) if number < whole else b"no picture")
        put(f"masks/{number}.png", encode(grey_mask(case(number)[1])))
    return folder


def test_more_than_a_few_percent_lost_are_refused_unless_they_are_accepted(tmp_path: Path) -> None:
    release = broken_release(tmp_path / "download", 18, 2)
    words = r"2 of 20 would be left out, more than 5%; mend them, or accept it with --max-left-out 0\.1: 2 left out, cannot be used: 18 "
    with pytest.raises(DataError, match=words):
        making.prepare(FolderSource(), release, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["download"]  # nothing is left behind, mended files may be other ones
    done = making.prepare(FolderSource(), release, tmp_path / "out", most_left_out=0.1)
    assert [one.name for one in done.left_out] == ["18", "19"]
    assert "- Lost: 2 that should have been cases" in (done.folder / "SOURCE.md").read_text()
    with pytest.raises(UsageError, match="max left out: found 5, expected a share"):
        making.prepare(FolderSource(), release, tmp_path / "out", most_left_out=5)


def test_names_like_patients_are_pointed_out_where_no_groups_are_given(tmp_path: Path) -> None:
    put = in_folder(tmp_path / "download")
    for number in range(12):
        put(f"images/p{number // 3}_{number}.png", encode(case(number)[0]))
        put(f"masks/p{number // 3}_{number}.png", encode(grey_mask(case(number)[1])))
    for _ in range(2):  # the second time from the record
        done = making.prepare(FolderSource(), tmp_path / "download", tmp_path / "out")
        assert "12 images of 4 (p0, p1, p2 and 1 more)" in done.hint
    assert "- Warning: no groups, though names look like" in (done.folder / "SOURCE.md").read_text()
    assert making.prepare(FolderSource(task="grouped", group="p[0-9]+"), tmp_path / "download", tmp_path / "out").hint == ""


def test_a_few_percent_lost_are_named(tmp_path: Path) -> None:
    done = making.prepare(FolderSource(), broken_release(tmp_path / "download", 19, 1), tmp_path / "out")
    assert [one.name for one in done.left_out] == ["19"]


def test_a_refusal_discards_what_an_interrupted_call_had_begun(tmp_path: Path) -> None:
    release = broken_release(tmp_path / "download", 4, 4)

    def interrupted(items: Iterator, total: int, description: str) -> Iterator:
        yield next(items)
        raise Killed

    with pytest.raises(Killed):
        making.prepare(FolderSource(), release, tmp_path / "out", watch=interrupted)
    assert (tmp_path / "out" / "lesion" / "prepared.json").exists()
    with pytest.raises(DataError, match="4 of 8 would be left out"):
        making.prepare(FolderSource(), release, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_files_that_no_case_is_made_of_and_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    release = broken_release(tmp_path / "download", 4, 0)
    for name in ("photo.png", "images/x.webp", "volume.npy", "README.md", "list.csv"):
        (release / name).write_bytes(b"1")
    (release / "images" / "gone.png").symlink_to("nowhere.png")
    done = making.prepare(FolderSource(), release, tmp_path / "out", most_left_out=0.2)
    assert {(one.name, one.reason, one.meant) for one in done.left_out} == {
        ("images/gone.png", "a broken link", False), ("images/x.webp", "in no case", True), ("photo.png", "in no case", True),
        ("volume.npy", "in no case", True),
    }  # fmt: skip
    assert "images/gone.png (to nowhere.png)" in (done.folder / "SOURCE.md").read_text()


def test_an_output_folder_within_the_download_is_refused(tmp_path: Path) -> None:
    write_release("covid-19", tmp_path)
    with pytest.raises(UsageError, match="lies in the download"):
        prepare(PUBLIC["covid-19"](), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_protocol_that_is_none_or_that_has_no_paper_is_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="protocol 'papr': expected tpseg or paper; did you mean 'paper'"):
        prepare(PUBLIC["busi"](), release, tmp_path / "out", protocol="papr")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the paper has no split of a source like 'named'"):
        prepare(Named("a"), tmp_path / "download", tmp_path / "out", protocol="paper")


def test_a_full_disk_is_no_fault_of_a_case(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(PUBLIC["busi"](), release, tmp_path / "out")
    monkeypatch.undo()
    assert prepare(PUBLIC["busi"](), release, tmp_path / "out").anew


# choosing a source


def test_an_option_that_a_source_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--annotations: 'busi' has no such option; it is for coco"):
        make_source("busi", annotations="a.json")
    with pytest.raises(UsageError, match=r"unknown source 'bussi'; did you mean 'busi'\?"):
        make_source("bussi")
    assert make_source("coco", task="mine", labels=["a"]).task.name == "mine"
    assert make_source("busi", task="mine", labels=None).task == Task("mine", "ultrasound", "Breast lesion")


def test_the_record_tells_what_a_folder_is_made_of(release: Path, tmp_path: Path) -> None:
    done = prepare(PUBLIC["busi"](), release, tmp_path / "out", seed=3)
    record = json.loads((done.folder / "prepared.json").read_text())
    assert record["complete"]
    assert {key: record["settings"][key] for key in ("source", "protocol", "seed")} == {"source": "busi", "protocol": "tpseg", "seed": 3}
    assert str(tmp_path) not in (done.folder / "prepared.json").read_text() + (done.folder / "SOURCE.md").read_text()
