"""Images and masks in sister folders are paired at any depth, and nothing is dropped without a word."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tpseg.datasets.source import LeftOut
from tpseg.datasets.tree import FilePair, file_pairs, part_of


def found(*files: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Pairs as (parent, stem, mask), and the names left out."""
    listed = list(file_pairs([PurePosixPath(file) for file in sorted(files)]))
    pairs = [(str(one.parent), one.stem, str(one.mask)) for one in listed if isinstance(one, FilePair)]
    return pairs, [one.name for one in listed if isinstance(one, LeftOut)]


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("image", "label"), ("Images", "Mask"), ("IMAGE", "Labels")])
def test_singular_plural_and_capitals_are_all_right(images: str, masks: str) -> None:
    assert found(f"a/{images}/1.jpg", f"a/{masks}/1.png") == ([("a", "1", f"a/{masks}/1.png")], [])


def test_any_depth_with_folders_below() -> None:
    assert found("x/y/images/p1/1.png", "x/y/masks/p1/1.png", "images/1.png", "masks/1_segmentation.png")[0] == [
        (".", "1", "masks/1_segmentation.png"),
        ("x/y", "p1/1", "x/y/masks/p1/1.png"),
    ]


def test_what_has_no_partner_or_a_second_file_is_named() -> None:
    pairs, left_out = found("images/1.png", "images/2.png", "images/3.jpg", "images/3.png", "masks/1.png", "masks/3.png", "masks/4.png")
    assert [stem for _, stem, _ in pairs] == ["1", "3"]
    assert sorted(left_out) == ["images/2.png", "images/3.png", "masks/4.png"]


def test_folders_without_a_sister_and_files_that_are_no_pictures_are_not_spoken_of() -> None:
    assert found("a/images/1.png", "b/masks/1.png", "images/read.txt", "masks/1.png", "photo.png") == ([], [])


def test_the_innermost_folder_that_says_so_names_the_part() -> None:
    parts = {"train": ("train", "trainset"), "test": ("test",)}
    assert [part_of(PurePosixPath(path), parts) for path in ("TEST/a/Train", "test/b", "trainset", "a/b")] == ["train", "test", "train", ""]
