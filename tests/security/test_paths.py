"""Names in files of others lead nowhere outside: paths in split files, links in the place of results."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tpseg.cli import main
from tpseg.core.errors import DataError
from tpseg.data.manifest import read_dataset
from tpseg.datasets.release import Release

HEAD = "image,mask,split,group\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """DATA/set/tasks.yaml, DATA/set/task/split.csv with a picture, and a picture outside of DATA/set."""
    for name in ("data/set/task/a.png", "data/set/shared/a.png", "data/secret/a.png", "data/set2/a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    (tmp_path / "data/set/tasks.yaml").write_text("tasks: {lesion: {modality: CT, data: task/split.csv}}\n")
    return tmp_path / "data" / "set"


def listed(data: Path, image: str, mask: str = "a.png", root: str = "") -> Path:
    (data / "task" / "split.csv").write_text(f"{HEAD}{image},{mask},train,\n")
    if root:
        (data / "tasks.yaml").write_text(f"tasks: {{lesion: {{modality: CT, data: task/split.csv, root: '{root}'}}}}\n")
    return read_dataset(data).cases[0].image


def test_paths_below_the_split_file_and_below_tasks_yaml_are_read(data: Path) -> None:
    assert listed(data, "a.png").samefile(data / "task" / "a.png")
    assert listed(data, "../shared/a.png").samefile(data / "shared" / "a.png")
    assert listed(data, str(data / "shared" / "a.png")).samefile(data / "shared" / "a.png")


@pytest.mark.parametrize(
    "name", ["../../secret/a.png", "/etc/passwd", "x/../../../secret/a.png", "../../set2/a.png", "//etc/passwd", "../.."]
)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_path_that_leads_out_is_refused_with_the_way_to_allow_it(name: str, column: str, data: Path) -> None:
    with pytest.raises(DataError, match=r"split\.csv: line 2: .* leads out of the folders.*'root: FOLDER'"):
        listed(data, **{"image": "a.png", column: name})


@pytest.mark.parametrize("name", ["a\0.png", "1" * 256, "d/" * 2048 + "a.png", "../shared/" + "ä" * 128])
@pytest.mark.parametrize("column", ["image", "mask"])
def test_what_no_disk_takes_for_a_path_is_refused(name: str, column: str, data: Path) -> None:
    with pytest.raises(DataError, match=r"split\.csv: line 2: .* is no path") as caught:
        listed(data, **{"image": "a.png", column: name})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["data", "root", "description"])
def test_a_null_character_in_tasks_yaml_is_refused(key: str, data: Path) -> None:
    entry = {"modality": "CT", "data": "task/split.csv"} | {key: "x\0"}
    (data / "tasks.yaml").write_text(yaml.safe_dump({"tasks": {"lesion": entry}}))
    with pytest.raises(DataError, match=f"task 'lesion': '{key}' .* null character"):
        read_dataset(data)


@pytest.mark.parametrize(
    "text",
    ['"image\n",mask,split\na.png,a.png,train\n', HEAD + 'a.png,a.png,"tr\nain",\n', HEAD + '"../../x\ny.png",a.png,train,\n'],
    ids=["heading", "split", "path"],
)
def test_line_breaks_in_cells_break_no_message(text: str, data: Path) -> None:
    (data / "task" / "split.csv").write_text(text)
    with pytest.raises(DataError, match=r"split\.csv: ") as caught:
        read_dataset(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("root", ["..", "../secret", "ABSOLUTE"])
def test_the_user_may_allow_a_folder_in_tasks_yaml(root: str, data: Path) -> None:
    secret = data.parent / "secret"
    assert listed(data, "../../secret/a.png", root=str(secret) if root == "ABSOLUTE" else root).samefile(secret / "a.png")


def test_what_is_checked_is_what_is_opened(data: Path) -> None:
    """`link/../a.png` is a path within the folder as it is written, but not where the link leads."""
    (data / "task" / "link").symlink_to(data.parent / "secret")
    assert listed(data, "link/../a.png") == data / "task" / "a.png"


def test_the_command_line_says_so_in_one_line(data: Path, capsys) -> None:
    (data / "task" / "split.csv").write_text(f"{HEAD}/etc/passwd,a.png,train,\n")
    assert main(["data", "check", str(data / "tasks.yaml")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("miniature_trunk")
@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_link_in_the_place_of_a_result_is_replaced_not_followed(kind: str, trained: Path, discs: Path, tmp_path: Path, capsys) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("00.png", "00_probability.png", "00_overlay.png"):
        (out / name).symlink_to(precious) if kind == "symbolic" else os.link(precious, out / name)
    picture = str(discs.parent / "bright_disc" / "00.png")
    options = ["--task", "bright_disc", "--out", str(out), "--probability", "--overlay", "--device", "cpu"]
    assert main(["predict", str(trained), picture, *options]) == 0
    assert precious.read_bytes() == b"mine"
    assert not (out / "00.png").is_symlink()
    assert np.asarray(Image.open(out / "00.png")).shape == (48, 64)
    capsys.readouterr()


def test_a_link_out_of_a_download_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "set" / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="a link that leads out"), Release(tmp_path / "set"):
        pass


@pytest.mark.usefixtures("miniature_trunk")
def test_a_name_in_tasks_json_cannot_be_a_path(trained: Path, tmp_path: Path) -> None:
    """With --all-tasks a task's name is the name of a folder."""
    shutil.copytree(trained / "model", tmp_path / "model")
    text = (tmp_path / "model" / "tasks.json").read_text()
    for name in ("../out", "/tmp/out", "a/b", "..", "a\\\\b"):
        (tmp_path / "model" / "tasks.json").write_text(text.replace("bright_disc", name, 1))
        with pytest.raises(DataError, match="not a task list"):
            from tpseg.checkpoints.model_folder import load_model

            load_model(tmp_path / "model")
