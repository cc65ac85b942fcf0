"""From cases to batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tpseg.core.errors import DataError
from tpseg.data.dataset import Draw, LesionDataset, collate
from tpseg.data.manifest import read_dataset
from tpseg.data.pairs import read_pair
from tpseg.data.preprocessing import preprocess


@pytest.fixture
def cases(tiny_dataset):
    return read_dataset(tiny_dataset)


def dataset(data, augmentation="full", size=64):
    return LesionDataset(data.cases, data.tasks, size, augmentation)


def test_an_item_is_a_batch_of_one(cases):
    item = dataset(cases)[0]
    assert item.image.shape == (1, 3, 64, 64)
    assert item.image.dtype == torch.float32
    assert item.mask.shape == (1, 1, 64, 64)
    assert item.mask.dtype == torch.float32
    assert set(item.mask.unique().tolist()) == {0.0, 1.0}
    assert item.task.tolist() == [0]
    assert item.task.dtype == torch.int64
    assert item.files == [str(cases.cases[0].image)]


def test_task_ids_are_positions_in_the_task_set(cases):
    items = dataset(cases)
    assert len(items) == 20
    assert [item.task.item() for item in (items[0], items[9], items[10], items[19])] == [0, 0, 1, 1]


def test_a_plain_index_is_preprocessed_as_in_prediction_and_not_augmented(cases):
    pixels, mask = read_pair(cases.cases[3])
    assert pixels.shape == (24, 32, 3)
    assert mask.dtype == np.bool_
    assert mask.sum() == 64
    item = dataset(cases, size=32)[3]
    assert torch.equal(item.image[0], preprocess(pixels, 32))
    assert item.mask.sum() == pytest.approx(64 * 32 / 24, abs=32)  # stretched from 24 rows to 32


def test_the_same_draw_gives_the_same_bytes_and_another_seed_another_picture(cases):
    items = dataset(cases)
    first, again, other = items[Draw(2, 5)], items[Draw(2, 5)], items[Draw(2, 6)]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.mask, again.mask)
    assert not torch.equal(first.image, other.image)


def test_a_draw_does_not_depend_on_what_was_drawn_before(cases):
    items = dataset(cases)
    alone = items[Draw(4, 11)].image
    items[Draw(0, 1)]
    torch.manual_seed(99)
    assert torch.equal(items[Draw(4, 11)].image, alone)


def test_collate_joins_in_order(cases):
    items = dataset(cases)
    batch = collate([items[0], items[12], items[5]])
    assert batch.image.shape == (3, 3, 64, 64)
    assert batch.mask.shape == (3, 1, 64, 64)
    assert batch.task.tolist() == [0, 1, 0]
    assert torch.equal(batch.image[1], items[12].image[0])
    assert batch.files == [str(cases.cases[index].image) for index in (0, 12, 5)]


def test_image_and_mask_of_different_size_names_both_files(cases):
    case = cases.cases[7]
    Image.new("L", (30, 24)).save(case.mask)
    with pytest.raises(DataError) as caught:
        dataset(cases)[7]
    assert str(case.image) in str(caught.value)
    assert str(case.mask) in str(caught.value)
    assert "32x24 against 30x24" in str(caught.value)


def test_a_mask_turned_by_its_exif_tag_fits_an_image_turned_alike(cases):
    case = cases.cases[0]
    tag = Image.Exif()
    tag[0x0112] = 6
    for path in (case.image, case.mask):
        Image.open(path).save(path, exif=tag)
    image, mask = read_pair(case)
    assert image.shape[:2] == mask.shape == (32, 24)
