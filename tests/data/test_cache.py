"""The decoded cache gives the batches that decoding gives, is filled once, and notices what has changed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from miniature import assert_same_run, config, stopped, train_miniature
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.data import cache as room
from tpseg.data.cache import INDEX, DecodedCache
from tpseg.data.dataset import Draw, LesionDataset
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.data.pairs import read_square
from tpseg.studies.plan import Cell

SIZE = 36
CACHED = 16
"""Train and val cases of `tiny_dataset`."""


@pytest.fixture
def data(tiny_dataset: Path) -> DataSet:
    return read_dataset(tiny_dataset)


def filled(data: DataSet, place: Path, size: int = SIZE) -> DecodedCache:
    cache = DecodedCache(place, data, size)
    cache.fill()
    return cache


def refill(data: DataSet, place: Path) -> tuple[DecodedCache, int]:
    """A cache as a later run opens it, and how many images it decoded."""
    cache = DecodedCache(place, data, SIZE)
    return cache, cache.fill()


def assert_right(cache: DecodedCache, data: DataSet) -> None:
    for case in data.split("train") + data.split("val"):
        for kept, fresh in zip(cache.read(case), read_square(case, cache.size), strict=True):
            assert np.array_equal(kept, fresh)
            assert kept.dtype == fresh.dtype


def change(path: Path) -> None:
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


@pytest.mark.parametrize("size", [35, 64])
def test_batches_are_the_same_bits_with_and_without(data: DataSet, tmp_path: Path, size: int) -> None:
    cache = filled(data, tmp_path / "cache", size)
    cases = data.split("train") + data.split("val")
    decoded, kept = (LesionDataset(cases, data.tasks, size, "full", one) for one in (None, cache))
    for number in range(len(cases)):
        for item in (number, Draw(number, 7 * number)):
            assert torch.equal(decoded[item].image, kept[item].image)
            assert torch.equal(decoded[item].mask, kept[item].mask)
            assert decoded[item].files == kept[item].files


def test_only_the_first_fill_decodes(data: DataSet, tmp_path: Path) -> None:
    assert [refill(data, tmp_path / "cache")[1] for _ in range(3)] == [CACHED, 0, 0]
    cache, decoded = refill(data.only(["breast_lesion"]), tmp_path / "cache")
    assert decoded == 0  # a model for one task reads what a model for all has left
    assert_right(cache, data.only(["breast_lesion"]))


def test_after_the_first_fill_no_file_is_read_unless_it_is_new(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SETTLED", 0)
    filled(data, tmp_path / "cache")
    monkeypatch.setattr(room, "hash_files", lambda paths: pytest.fail(f"read {paths}"))
    assert refill(data, tmp_path / "cache")[1] == 0


@pytest.mark.parametrize("which", ["image", "mask"])
def test_an_edited_file_is_noticed_and_nothing_else_decoded(data: DataSet, tmp_path: Path, which: str) -> None:
    filled(data, tmp_path / "cache")
    change(getattr(data.cases[3], which))
    cache, decoded = refill(data, tmp_path / "cache")
    assert decoded == 1
    assert_right(cache, data)


def test_the_same_bytes_under_another_suffix_are_read_anew(data: DataSet, tmp_path: Path) -> None:
    """Whether a mask's grey values are soft edges is told by its suffix, too."""
    filled(data, tmp_path / "cache")
    case = data.cases[3]
    renamed = replace(case, image=Path(shutil.copy(case.image, case.image.with_suffix(".jpg"))))
    assert refill(replace(data, cases=(*data.cases[:3], renamed, *data.cases[4:])), tmp_path / "cache")[1] == 1


def test_an_edit_within_a_tick_of_the_clock_is_noticed(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and times are those of before: a file that was new when it was hashed is hashed again."""
    monkeypatch.setattr(room, "_stamp", lambda path: (1, now, now))
    now = time.time_ns()
    filled(data, tmp_path / "cache")
    change(data.cases[3].image)
    cache, decoded = refill(data, tmp_path / "cache")
    assert decoded == 1
    assert_right(cache, data)


def test_files_that_are_touched_or_copied_are_not_decoded_again(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SETTLED", 0)
    filled(data, tmp_path / "cache")
    for case in data.cases:
        shutil.copy(case.image, tmp_path / "copy.png")
        os.replace(tmp_path / "copy.png", case.image)
    cache, decoded = refill(data, tmp_path / "cache")
    assert decoded == 0
    assert_right(cache, data)
    monkeypatch.setattr(room, "hash_files", lambda paths: pytest.fail(f"the new times were not kept: {paths}"))
    assert refill(data, tmp_path / "cache")[1] == 0


def test_a_new_split_decodes_what_is_new_in_it(data: DataSet, tmp_path: Path) -> None:
    filled(data, tmp_path / "cache")
    test = next(position for position, case in enumerate(data.cases) if case.split == "test")
    cases = list(data.cases[::-1])
    cases[-1 - test] = replace(data.cases[test], split="train")
    changed = DataSet(data.source, data.tasks, tuple(cases))
    cache, decoded = refill(changed, tmp_path / "cache")
    assert decoded == 1
    assert_right(cache, changed)


def test_another_pillow_or_format_decodes_all_again(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(data, tmp_path / "cache")
    monkeypatch.setattr(room.PIL, "__version__", "99.0")
    assert refill(data, tmp_path / "cache")[1] == CACHED
    monkeypatch.setattr(room, "FORMAT", 99)
    assert refill(data, tmp_path / "cache")[1] == CACHED


def test_sizes_and_data_sets_have_folders_of_their_own(data: DataSet, tmp_path: Path) -> None:
    moved = DataSet(tmp_path / "other.yaml", data.tasks, data.cases)
    caches = [filled(data, tmp_path / "cache"), filled(data, tmp_path / "cache", 64), filled(moved, tmp_path / "cache")]
    assert len({folder for cache in caches for folder in cache.folders.values()}) == 6
    assert [refill(data, tmp_path / "cache")[1], refill(moved, tmp_path / "cache")[1]] == [0, 0]


def test_a_file_that_cannot_be_read_is_named_and_nothing_half_done_is_left(data: DataSet, tmp_path: Path) -> None:
    good = data.cases[5].image.read_bytes()
    data.cases[5].image.write_bytes(good[:50])
    with pytest.raises(DataError, match=r"case05\.png: cannot be decoded"):
        filled(data, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]
    data.cases[5].image.write_bytes(good)
    assert_right(filled(data, tmp_path / "cache"), data)


def test_a_failed_fill_leaves_the_old_one(data: DataSet, tmp_path: Path) -> None:
    filled(data, tmp_path / "cache")
    good = data.cases[5].image.read_bytes()
    data.cases[5].image.write_bytes(good[:50])
    with pytest.raises(DataError, match="cannot be decoded"):
        filled(data, tmp_path / "cache")
    data.cases[5].image.write_bytes(good)
    assert refill(data, tmp_path / "cache")[1] == 0


def test_what_a_killed_process_left_is_removed_and_not_used(data: DataSet, tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path / "cache", data, SIZE)
    left = tmp_path / "cache" / f".123.{cache.folders['skin_lesion'].name}.new"
    left.mkdir(parents=True)
    (left / "images-0123.npy").write_bytes(b"half")
    assert cache.fill() == CACHED
    assert not left.exists()
    assert_right(cache, data)


@pytest.mark.parametrize("damage", ["cut short", "removed", "no index", "not JSON", "other keys"])
def test_a_damaged_cache_is_filled_anew(data: DataSet, tmp_path: Path, damage: str) -> None:
    folder = filled(data, tmp_path / "cache").folders["skin_lesion"]
    images = next(folder.glob("images-*.npy"))
    if damage == "cut short":
        os.truncate(images, images.stat().st_size - 1)
    elif damage == "removed":
        images.unlink()
    elif damage == "no index":
        (folder / INDEX).unlink()
    else:
        (folder / INDEX).write_text('{"key":' if damage == "not JSON" else '{"files": 3}')
    cache, decoded = refill(data, tmp_path / "cache")
    assert decoded == CACHED / 2
    assert_right(cache, data)


def test_a_reader_whose_files_were_replaced_gets_an_error_and_not_other_images(data: DataSet, tmp_path: Path) -> None:
    early = filled(data, tmp_path / "cache")
    early = pickle.loads(pickle.dumps(early))  # as a worker process gets it, nothing opened
    change(data.cases[0].image)
    filled(data, tmp_path / "cache")
    with pytest.raises(DataError, match=r"was replaced or removed while in use.*--resume"):
        early.read(data.cases[1])


def test_a_disk_that_is_too_small_is_said_before_anything_is_decoded(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = CACHED // 2 * (3 * SIZE * SIZE + SIZE * SIZE // 8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    monkeypatch.setattr(room, "read_square", lambda *given: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"skin_lesion-36-\w+ takes 0\.00 GB, and 0\.00 GB are free there; choose a folder on another disk"):
        filled(data, tmp_path / "cache")
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    assert refill(data, tmp_path / "cache")[1] == CACHED


def test_a_place_that_is_a_file_is_one_sentence(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match=r"sampling\.cache .*cache: cannot be used"):
        filled(data, tmp_path / "cache")


def test_a_file_that_changes_while_it_is_read_stops_the_fill(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_and_change(case, size):
        found = read_square(case, size)
        change(case.image)
        return found

    monkeypatch.setattr(room, "read_square", read_and_change)
    with pytest.raises(DataError, match=r"case00\.png: changed while it was read into the cache"):
        filled(data, tmp_path / "cache")


def fill_in_process(source: Path, place: Path) -> int:
    return refill(read_dataset(source), place)[1]


def test_processes_share_one_fill(tiny_dataset: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        decoded = pool.starmap(fill_in_process, [(tiny_dataset, tmp_path / "cache")] * 4, chunksize=1)
    assert sum(decoded) == CACHED
    assert_right(filled(read_dataset(tiny_dataset), tmp_path / "cache"), read_dataset(tiny_dataset))


def test_a_process_gets_the_place_of_the_images_not_the_images(data: DataSet, tmp_path: Path) -> None:
    cache = filled(data, tmp_path / "cache", 256)
    cache.read(data.cases[0])
    assert sum(shelf.bytes for shelf in cache.shelves.values()) > 3_000_000
    assert len(pickle.dumps(cache)) < 50_000
    assert_right(pickle.loads(pickle.dumps(cache)), data)


def test_memory_does_not_grow_with_the_data(tmp_path: Path, make_pairs: Callable[..., Path]) -> None:
    make_pairs(tmp_path / "many", count=150)
    rows = [f"images/case{n:02d}.png,masks/case{n:02d}.png,train," for n in range(150)]
    (tmp_path / "many" / "split.csv").write_text("\n".join(["image,mask,split,group", *rows, ""]))
    (tmp_path / "tasks.yaml").write_text("tasks:\n  t: {data: many/split.csv}\n")
    cache = DecodedCache(tmp_path / "cache", read_dataset(tmp_path), 256)
    tracemalloc.start()
    cache.fill()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < sum(shelf.bytes for shelf in cache.shelves.values()) / 2


def test_the_bar_counts_images(data: DataSet, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def watch(description: str) -> Iterator[Callable[[int, int], None]]:
        seen[description] = []
        yield lambda done, total: seen[description].append((done, total))

    DecodedCache(tmp_path / "cache", data, SIZE).fill(watch)
    assert seen["decoding skin_lesion"] == [(number, 8) for number in range(1, 9)]
    assert seen["reading breast_lesion"] == [(16, 16)]


@pytest.mark.usefixtures("miniature_trunk")
def test_a_run_with_a_cache_ends_where_one_without_does(discs: Path, tmp_path: Path) -> None:
    plain = train_miniature(discs, tmp_path / "plain")
    with stopped(epoch=1):
        train_miniature(discs, tmp_path / "kept", sampling={"cache": str(tmp_path / "one")})
    kept = train_miniature(discs, tmp_path / "kept", sampling={"cache": str(tmp_path / "two"), "workers": 0}, resume=True)
    assert_same_run(plain, kept)
    for place in ("one", "two"):
        assert sorted(path.name.split("-")[0] for path in (tmp_path / place).glob("*-64-*")) == ["bright_disc", "dark_disc"]


def test_a_studys_cell_is_the_same_model_with_a_cache() -> None:
    cells = [Cell("A1", 0, ("t",), config(sampling=settings), "sha") for settings in ({}, {"cache": "some/place"})]
    assert cells[0].key == cells[1].key
