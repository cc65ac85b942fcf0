"""The record of a data set's files names no file, and finds in another list of cases what is the same picture under any name."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tpseg.core.errors import DataError
from tpseg.data.hashes import CaseHashes, Comparison, compare_with_record, hash_files, read_record, write_record
from tpseg.data.manifest import DataSet, read_dataset


@pytest.fixture
def data(tiny_dataset: Path) -> DataSet:
    return read_dataset(tiny_dataset)


def record(data: DataSet) -> list[CaseHashes]:
    return read_record(write_record(data.cases, data.hashes()))


def image(data: DataSet, number: int, task: str = "skin_lesion", kind: str = "images") -> Path:
    return data.source.parent / task / kind / f"case{number:02d}.png"


def test_each_file_is_hashed_once_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "large").write_bytes(b"x" * 3_000_000)
    found = hash_files([tmp_path / "a", tmp_path / "gone", tmp_path / "large", tmp_path / "a"])
    assert found == {
        tmp_path / "a": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180-2's example
        tmp_path / "gone": "",
        tmp_path / "large": hashlib.sha256(b"x" * 3_000_000).hexdigest(),
    }


def test_the_data_sets_hash_is_what_it_was_before_there_was_a_record(data: DataSet) -> None:
    """Studies are keyed by it."""
    image(data, 3).unlink()
    digest = hashlib.sha256()
    for case in data.cases:
        digest.update(f"{case.task}\0{case.name}\0{case.split}\0".encode())
        for path in (case.image, case.mask):
            digest.update(hashlib.sha256(path.read_bytes()).digest() if path.exists() else b"missing")
    assert data.sha256() == digest.hexdigest()


def test_the_record_has_a_row_per_case_and_no_names(data: DataSet) -> None:
    text = write_record(data.cases, data.hashes())
    first = data.cases[0]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first.image, first.mask)]
    assert text.splitlines()[:2] == ["task,split,image_sha256,mask_sha256", f"skin_lesion,train,{hashes[0]},{hashes[1]}"]
    assert len(text.splitlines()) == 1 + len(data.cases)
    assert "case" not in text
    assert str(data.source.parent) not in text
    assert read_record(text)[0] == CaseHashes("skin_lesion", "train", *hashes)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "task,split,image_sha256,mask_sha256\nx,train\n"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"data\.csv of the model: expected a table"):
        read_record(text)


def test_an_unchanged_split_has_nothing_to_tell(data: DataSet) -> None:
    known = record(data)
    assert compare_with_record(data.split("test"), "test", known) == Comparison({}, [], [])
    one = data.only(["breast_lesion"])
    assert compare_with_record(one.split("test"), "test", known) == Comparison()


def test_an_image_that_was_trained_on_is_found_under_another_name_and_task(data: DataSet) -> None:
    known = record(data)
    shutil.copy(image(data, 0), image(data, 9, "breast_lesion"))  # train to test
    shutil.copy(image(data, 7), image(data, 8))  # val to test
    found = compare_with_record(data.split("test"), "test", known)
    assert found.seen == {"train": ["breast_lesion images/case09.png"], "val": ["skin_lesion images/case08.png"]}
    assert found.warnings == [
        "1 of 4 test images are among those the model was trained on, so these scores are too good: breast_lesion images/case09.png",
        "1 of 4 test images are among those the model was picked by, so these scores are too good: skin_lesion images/case08.png",
    ]
    assert found.notes == ["the test split has changed since training: 2 images are new, 2 images are gone"]


def test_the_split_that_was_trained_on_is_told_of_too(data: DataSet) -> None:
    assert len(compare_with_record(data.split("train"), "train", record(data)).seen["train"]) == 12


def test_another_mask_is_a_change(data: DataSet) -> None:
    known = record(data)
    shutil.copy(image(data, 1, kind="masks"), image(data, 8, kind="masks"))
    shutil.copy(image(data, 3, kind="masks"), image(data, 2, kind="masks"))  # of train: not looked at
    assert compare_with_record(data.split("test"), "test", known).notes == [
        "the test split has changed since training: 1 images have another mask"
    ]


def test_another_data_set_is_said_to_be_one(data: DataSet) -> None:
    known = record(data)
    for number in (8, 9):
        for task in ("skin_lesion", "breast_lesion"):
            with image(data, number, task).open("ab") as file:
                file.write(b"\0")
    notes = compare_with_record(data.split("test"), "test", known).notes
    assert notes == ["another data set than in training: none of these images was in its test split"]


def test_files_that_are_missing_on_both_sides_are_not_the_same_picture(data: DataSet) -> None:
    image(data, 0).unlink()
    known = record(data)
    image(data, 8).unlink()
    assert compare_with_record(data.split("test"), "test", known).seen == {}
