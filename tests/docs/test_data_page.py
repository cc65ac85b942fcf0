"""docs/data.md does what it says: every command in it is run as it is printed, on made-up releases."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from fake_releases import case, encode, grey_mask, in_folder, rgb, write_release
from miniature import settings_file

from tpseg.cli import main
from tpseg.data.manifest import read_dataset
from tpseg.data.quality.check import check_dataset
from tpseg.datasets import PUBLIC, SOURCES

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
PLACES = {"polyps": "polyps", "covid-19": "covid", "isic2018": "isic"}
"""Downloads of several files, which the page puts into a folder."""


def commands() -> list[list[str]]:
    """Every command of the page, in words; where one sends what it prints is the shell's."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = [shlex.split(line.partition(" > ")[0]) for line in ["tpseg data list", *"".join(blocks).splitlines()]]
    assert {program for program, *_ in found} == {"tpseg"}
    return [words for _, *words in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the downloads and the own data that the page speaks of."""
    folder = tmp_path_factory.mktemp("page")
    for name in PUBLIC:
        write_release(name, folder / "downloads" / PLACES.get(name, ""))
    write_own(folder / "own")
    return folder


def write_own(folder: Path) -> None:
    """Your own data, in each of the four layouts."""
    put = in_folder(folder)
    for number in range(12):
        image, mask = case(number)
        put(f"pictures/images/p{number // 2}_{number}.png", encode(rgb(image)))
        put(f"pictures/masks/p{number // 2}_{number}_mask.png", encode(grey_mask(mask)))
        put(f"other/scans/{number}.png", encode(case(100 + number)[0]))
        put(f"other/contours/{number}.png", encode(grey_mask(case(100 + number)[1])))
    ids = np.zeros((40, 48, 6), np.uint8)
    ids[8:30, 8:40, 1:5] = 1
    ids[12:20, 12:24, 2:4] = 2
    labels = {"background": 0, "liver": 1, "tumour": 2}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 8, "file_ending": ".nii.gz"}
    put("Dataset042_Liver/dataset.json", json.dumps(description).encode())
    for number in range(8):
        values = np.random.default_rng(number).normal(60, 10, ids.shape).astype(np.float32) + 40 * ids
        for path, volume in ((f"imagesTr/liver_{number:03d}_0000", values), (f"labelsTr/liver_{number:03d}", ids)):
            put(f"Dataset042_Liver/{path}.nii.gz", gzip.compress(nib.Nifti1Image(volume, np.eye(4)).to_bytes()))
    images, annotations = [], []
    for number in range(10):
        put(f"coco/pictures/{number}.jpg", encode(rgb(case(200 + number)[0]), "JPEG"))
        put(f"labelme/{number}.png", encode(rgb(case(300 + number)[0])))
        square = [[8, 8], [30, 8], [30, 24], [8, 24]]
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 48, "height": 40})
        polygon = [float(value) for point in square for value in point]
        annotations.append({"id": number, "image_id": number, "category_id": 1 + number % 2, "segmentation": [polygon], "iscrowd": 0})
        shape = {"label": "mole", "points": square, "shape_type": "polygon"}
        drawn = {"imagePath": f"{number}.png", "imageData": None, "imageHeight": 40, "imageWidth": 48, "shapes": [shape]}
        put(f"labelme/{number}.json", json.dumps(drawn).encode())
    categories = [{"id": 1, "name": "polyp"}, {"id": 2, "name": "instrument"}]
    put("coco/annotations/instances.json", json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode())


def test_the_page_has_a_command_for_every_source_and_every_verb_about_data() -> None:
    listed = commands()
    assert {words[2] for words in listed if words[:2] == ["data", "prepare"]} == set(SOURCES)
    assert {words[1] for words in listed if words[0] == "data"} >= {"list", "prepare", "check", "stats", "view"}


def test_the_page_names_every_set_s_page(place: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for kind in PUBLIC.values():
        assert kind.facts is not None
        assert f"({kind.facts.page.split(' ')[0]})" in text


@pytest.mark.slow
@pytest.mark.usefixtures("miniature_trunk")
def test_every_command_of_the_page_runs_in_its_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    small = f"small,{settings_file(place / 'miniature.yaml', training={'epochs': 1})}"
    for words in commands():
        made_up = words[:2] == ["data", "prepare"] and words[2] in PUBLIC  # with as many oddities as the real ones, and few images
        oddities = ["--max-left-out", "1"] if made_up else []
        assert main([small if word == "small" else word for word in [*words, *oddities]]) == 0, " ".join(words)
    eight = read_dataset(place / "data" / "tasks.yaml")
    assert sorted(eight.tasks.names) == sorted(kind.task.name for kind in PUBLIC.values())
    assert check_dataset(eight).ok
    scores = json.loads((place / "runs" / "eight" / "evaluation" / "test.json").read_text())
    assert set(scores["default"]["tasks"]) == set(eight.tasks.names)
    assert read_dataset(place / "mine" / "tasks.yaml").tasks.names == ["wound", "burn", "liver_tumour", "polyp", "mole"]
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []
