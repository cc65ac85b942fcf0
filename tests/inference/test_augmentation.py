"""Test-time augmentation: mirrored there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tpseg.core.tasks import Task, TaskSet
from tpseg.inference.augmentation import FLIPS, AugmentedNetwork
from tpseg.inference.network import Maps
from tpseg.inference.open_network import open_network

TASKS = TaskSet([Task("a")])


class Pixelwise:
    """Each pixel's answer depends on that pixel alone: equivariant to mirroring."""

    tasks = TASKS
    image_size = 8
    calls = 0

    def __call__(self, image: torch.Tensor, task: torch.Tensor, rows: torch.Tensor) -> Maps:
        self.calls += 1
        value = image[rows].mean(1, keepdim=True)
        return Maps(value, value.tanh())


class LeftOnly(Pixelwise):
    """Says 4 in the left half, whatever the image."""

    def __call__(self, image: torch.Tensor, task: torch.Tensor, rows: torch.Tensor) -> Maps:
        logits = torch.zeros(len(rows), 1, *image.shape[2:])
        logits[..., : image.shape[3] // 2] = 4
        return Maps(logits, None)


IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ONE_EACH = (torch.zeros(2, dtype=torch.int64), torch.arange(2))


def test_an_equivariant_network_gives_the_same_answer():
    plain = Pixelwise()
    augmented = AugmentedNetwork(plain)
    found = augmented(IMAGE, *ONE_EACH)
    assert plain.calls == len(FLIPS) == 4
    assert torch.equal(found.logits, Pixelwise()(IMAGE, *ONE_EACH).logits)
    assert found.similarity is not None
    assert torch.allclose(found.similarity, Pixelwise()(IMAGE, *ONE_EACH).similarity)
    assert (augmented.tasks, augmented.image_size) == (TASKS, 8)


def test_answers_are_turned_back_and_averaged():
    found = AugmentedNetwork(LeftOnly())(IMAGE, *ONE_EACH)
    assert found.similarity is None
    assert (found.logits == 2).all()  # 4 in the left half of two views, in the right half of the other two


def test_a_mirrored_image_gets_the_mirrored_answer(trained: Path, miniature_trunk: None):
    network = open_network(trained, "cpu")
    image, task, rows = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([1]), torch.tensor([0])
    augmented = AugmentedNetwork(network)
    there = augmented(image, task, rows).logits
    back = augmented(image.flip(-1), task, rows).logits.flip(-1)
    assert torch.allclose(there, back, atol=1e-5)
    assert not torch.allclose(network(image, task, rows).logits, there, atol=1e-3)


@pytest.mark.usefixtures("miniature_trunk")
def test_several_tasks_on_one_image(trained: Path):
    network = open_network(trained, "cpu")
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    found = AugmentedNetwork(network)(image, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    assert found.logits.shape == (3, 1, 64, 64)
