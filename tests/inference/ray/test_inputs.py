"""Which images a bulk run segments and what their masks are called: predictable, and never two under one name."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pandas as pd
import pytest

from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.inference.ray.inputs import BY_IMAGE, assign_tasks, find_images, name_masks
from tpseg.inference.ray.store import Folder

TASKS = TaskSet([Task("polyp"), Task("dfu")])


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """in/a.png, in/x/b.jpg, in/x/c.TIF and a text; the working folder is their parent."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "x/b.jpg", "x/c.TIF", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    return tmp_path / "in"


def find(inputs: list[str], out: str = "out") -> pd.DataFrame:
    return find_images(inputs, Folder(out))


def names(inputs: list[str]) -> dict[str, str]:
    found = find(inputs)
    return dict(zip(found["image"], found["name"], strict=True))


def masks(inputs: list[str], out: str = "out", task: str | None = "polyp", endings: tuple[str, ...] = ()) -> list[str]:
    work, tasks = assign_tasks(find(inputs, out), TASKS, task, task is None)
    return name_masks(work, Folder(out), tasks == BY_IMAGE or task is None, endings)["mask"].tolist()


def test_a_folder_is_mirrored(place):
    everything = {str(place / name): name for name in ("a.png", "x/b.jpg", "x/c.TIF")}
    assert names(["in"]) == names([str(place)]) == names([f"file://{place}"]) == everything
    assert masks(["in"]) == ["a.png", "x/b.png", "x/c.png"]


def test_pictures_of_other_formats_are_named(place, caplog):
    (place / "x" / "d.webp").write_bytes(b"")
    assert len(names(["in"])) == 3
    assert [record.getMessage() for record in caplog.records] == [f"in: 1 files of no known kind are left out: {place}/x/d.webp"]


def test_linked_folders_are_searched_and_broken_links_stay_to_be_refused(place, caplog):
    (place.parent / "store").mkdir()
    (place.parent / "store" / "d.png").write_bytes(b"")
    for name, target in (("linked", "../store"), ("round", "."), ("gone.png", "nowhere"), ("patient7", "unmounted")):
        (place / name).symlink_to(target)
    assert list(names(["in"]).values()) == ["a.png", "gone.png", "linked/d.png", "x/b.jpg", "x/c.TIF"]
    assert f"{place}: 1 links lead nowhere: {place}/patient7" in caplog.text
    assert "1 links to folders that are searched anyway" in caplog.text


@pytest.mark.parametrize("store", ["", "memory://macos/"])
def test_what_macos_writes_is_left_out_aloud(tmp_path, caplog, store):
    fs, top = fsspec.url_to_fs(f"{store or tmp_path}/in")
    for name in ("a.png", "._a.png", "__MACOSX/b.png"):
        fs.makedirs(f"{top}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{top}/{name}", b"")
    assert list(names([f"{store or tmp_path}/in"]).values()) == ["a.png"]
    assert "2 " in caplog.text
    assert "that macOS writes beside" in caplog.text


def test_globs_files_and_lists(place):
    assert list(names(["in/x/*"]).values()) == ["b.jpg", "c.TIF"]
    assert list(names(["in/**/*.png"]).values()) == ["a.png"]
    assert names(["in/x/b.jpg"]) == {str(place / "x/b.jpg"): "b.jpg"}
    Path("list.txt").write_text(f"in/x/b.jpg\n\n../{place.parent.name}/in/a.png\nmemory://bucket/d/e.png\n")
    assert names(["@list.txt"]) == {
        str(place / "x/b.jpg"): "in/x/b.jpg",
        str(place / "a.png"): f"{place.parent.name}/in/a.png",
        "memory:///bucket/d/e.png": "bucket/d/e.png",
    }


def test_two_folders_keep_their_names(place):
    (place.parent / "other").mkdir()
    (place.parent / "other" / "a.png").write_bytes(b"")
    assert masks(["in", "other"]) == ["in/a.png", "in/x/b.png", "in/x/c.png", "other/a.png"]


def test_a_store_is_a_folder_too(place):
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pipe_file("/bucket/scans/y/a.png", b"")
    fs.pipe_file("/bucket/scans/list.csv", b"image,split\ny/a.png,test\n")
    for entry in ("memory://bucket/scans", "memory://bucket/scans/list.csv"):
        assert list(names([entry]).values()) == ["y/a.png"]
        assert list(names([entry])) == ["memory:///bucket/scans/y/a.png"]


def test_a_manifest_names_images_relative_to_itself_and_their_tasks(place):
    (place / "todo.csv").write_text(f"task,image\npolyp,x/b.jpg\ndfu,x/b.jpg\ndfu,{place}/a.png\ndfu,x/b.jpg\n")
    work, tasks = assign_tasks(find(["in/todo.csv"]), TASKS, None, False)
    assert tasks == BY_IMAGE
    assert list(zip(work["image"], work["task"], strict=True)) == [
        (str(place / "x/b.jpg"), "polyp"),
        (str(place / "x/b.jpg"), "dfu"),
        (str(place / "a.png"), "dfu"),
    ]
    named = name_masks(work, Folder("out"), True, [])["mask"].tolist()
    assert named == ["polyp/x/b.png", "dfu/x/b.png", f"dfu{place}/a.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.png\n", r"no column 'image'; expected image\[,task\]"),
        ("image,task\na.png,dfu\nb.png,\n", "line 3 names no task"),
        ("", "cannot be read as a CSV file"),
    ],
)
def test_a_manifest_that_is_none_is_refused(place, text, message):
    (place / "todo.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        find(["in/todo.csv"])


def test_tasks_come_from_one_place(place):
    (place / "todo.csv").write_text("image,task\na.png,dfu\n")
    for inputs, task in ((["in/todo.csv"], "polyp"), (["in/todo.csv", "in"], None)):
        with pytest.raises(UsageError, match="a manifest names a task for each image"):
            assign_tasks(find(inputs), TASKS, task, False)
    (place / "todo.csv").write_text("image,task\na.png,dfv\n")
    with pytest.raises(UsageError, match="'dfv'; did you mean 'dfu'"):
        assign_tasks(find(["in/todo.csv"]), TASKS, None, False)
    with pytest.raises(UsageError, match=r"which task\?"):
        assign_tasks(find(["in"]), TASKS, None, False)
    assert masks(["in/a.png"], task=None) == ["polyp/a.png", "dfu/a.png"]


def test_images_that_differ_in_their_suffix_keep_it(place):
    (place / "a.jpg").write_bytes(b"")
    assert masks(["in"]) == ["a.jpg.png", "a.png.png", "x/b.png", "x/c.png"]


def test_two_images_never_share_a_mask(place):
    (place / "x" / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"in/a\.png, .*in/x/a\.png: would share the mask a\.png\.png"):
        masks(["in/a.png", "in/x/a.png"])
    (place / "a_overlay.png").write_bytes(b"")
    assert len(masks(["in"])) == 5
    with pytest.raises(UsageError, match=r"a_overlay\.png, .*in/a\.png: would share the mask a_overlay\.png"):
        masks(["in"], endings=("_overlay",))


def test_masks_never_land_among_the_images(place):
    Path("link").symlink_to("in", target_is_directory=True)
    for inputs, out in (("in", "in"), ("in", "in/x"), ("in", "in/new"), (".", "in"), ("link", "in/x"), ("in", "link")):
        with pytest.raises(UsageError, match="would take masks for images"):
            masks([inputs], out=out)
    for out in ("in", "link", "."):
        with pytest.raises(UsageError, match=r"a\.png: lies in --out"):
            masks(["in/a.png"], out=out)
    assert masks(["in"], out="in2") == ["a.png", "x/b.png", "x/c.png"]


@pytest.mark.parametrize("inputs", [["empty"], ["nothing*.png"]])
def test_inputs_without_images_are_refused(place, inputs):
    Path("empty").mkdir()
    with pytest.raises(UsageError, match="no images in"):
        find(inputs)
    with pytest.raises(UsageError, match=r"nowhere\.txt: the list of images cannot be read"):
        find(["@nowhere.txt"])


@pytest.mark.parametrize("inputs", [["in"], ["in/x/scan.nii.gz"], ["in/x/*"], ["@list.txt"]])
def test_a_clinical_file_is_refused_in_one_sentence(place, inputs):
    (place / "x" / "scan.nii.gz").write_bytes(b"")
    Path("list.txt").write_text("in/a.png\nin/x/scan.nii.gz\n")
    with pytest.raises(UsageError, match=r"scan\.nii\.gz: --engine ray segments pictures only .* leave --engine ray out"):
        find(inputs)
