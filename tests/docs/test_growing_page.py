"""docs/growing.md does what it says: its commands are run as they are printed."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import miniature
import pytest
import yaml
from miniature import stopped, train_miniature, write_discs

from tpseg.checkpoints.model_folder import load_model
from tpseg.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "growing.md"


def commands(places: dict[str, Path], folder: Path) -> list[list[list[str]]]:
    """The page's `tpseg` commands in words, block by block, its example files replaced by those of the test."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        lines = [shlex.split(line) for line in block.splitlines()]
        assert all(words[0] == "tpseg" for words in lines)
        found.append(
            [[str(places.get(word, folder / word if word.startswith("runs/") else word)) for word in words[1:]] for words in lines]
        )
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("miniature_trunk")
def test_the_commands_of_the_page(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {"epochs": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(miniature, "TASKS", {"blue_disc": ("endoscopy", (60, 90, 220)), "green_disc": ("OCT", (60, 200, 80))})
        new = write_discs(tmp_path / "new")
    entries = {
        name: {**entry, "data": str(place.parent / entry["data"])}
        for place in (discs, new)
        for name, entry in yaml.safe_load(place.read_text())["tasks"].items()
        if name != "green_disc"
    }
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"tasks": entries}, sort_keys=False))
    train_miniature(discs, tmp_path / "runs" / "mine", training=recipe)
    train_miniature(tmp_path / "all.yaml", tmp_path / "runs" / "joint", training=recipe)
    photo = shutil.copy(new.parent / "blue_disc" / "00.png", tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    first, resumed, *others = commands({"tasks.yaml": discs, "new.yaml": new, "photo.png": photo, "masks": tmp_path / "masks"}, tmp_path)
    with stopped(epoch=1):
        main(first[0])
    assert main(resumed[0]) == 0
    for command in [*first[1:], *(command for block in others for command in block)]:
        assert main(command) == 0, command
    tasks = {folder.name: load_model(folder).tasks.names for folder in (tmp_path / "runs").iterdir()}
    assert tasks["grown"] == tasks["like_dark"] == tasks["anew"] == tasks["compared"] == ["bright_disc", "dark_disc", "blue_disc"]
    assert tasks["less"] == ["bright_disc", "blue_disc"]
    assert tasks["renamed"] == ["bright_disc", "night_disc", "blue_disc"]
    assert tasks["merged"] == ["bright_disc", "dark_disc", "blue_disc", "green_disc"]
    assert (tmp_path / "masks" / "photo.png").is_file()
