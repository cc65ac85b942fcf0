"""An image's description by the model: the same for every task and in every batch, made by the first blocks alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from miniature import config
from torch import Tensor

from tpseg.calibration.features import describe, describe_all, describe_with
from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.inference.augmentation import AugmentedNetwork
from tpseg.inference.network import TorchNetwork
from tpseg.models.catalogue import create

pytestmark = pytest.mark.usefixtures("miniature_trunk")

TASKS = TaskSet([Task("one"), Task("two")])


def model(**changes: Any) -> Any:
    torch.manual_seed(0)
    made = create(config(model=changes).model, TASKS).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(".up") or ".tasks." in name:  # routes that start at zero would change nothing
                parameter.normal_(0, 0.1)
    return made


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_it_is_the_mean_and_deviation_of_each_channel_of_the_first_two_stages(images):
    made = model(gate="none")  # without a shared route there is only the trunk
    first, second, *_ = made.trunk(images)
    by_hand = torch.cat([first.mean((2, 3)), first.std((2, 3), correction=0), second.mean((2, 3)), second.std((2, 3), correction=0)], 1)
    assert describe(made, images).shape == (3, 2 * (16 + 32))
    torch.testing.assert_close(describe(made, images), by_hand)


@torch.no_grad()
def test_the_shared_route_changes_it_and_the_tasks_own_routes_do_not(images):
    made = model()
    before = describe(made, images)
    for block in made.adapters.blocks:
        for route in block.tasks:
            route.up.add_(1.0)
    assert torch.equal(describe(made, images), before)
    for block in made.adapters.blocks:
        block.shared.up.add_(1.0)
    assert not torch.allclose(describe(made, images), before)


@torch.no_grad()
def test_later_blocks_are_not_run(images):
    made = model()
    run = []
    for index, block in enumerate(made.trunk.hiera.blocks):
        block.register_forward_hook(lambda *_, index=index: run.append(index))
    describe(made, images)
    assert run == [0, 1]


@torch.no_grad()
def test_what_else_is_in_the_batch_changes_nothing(images):
    made = model()
    torch.testing.assert_close(describe(made, images)[1:2], describe(made, images[1:2]))


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"architecture": "sam2_unet"}, {"adapter": "lora"}, {"adapter": "none"}, {"hardened": True}])
def test_every_model_with_a_trunk_can_describe_images(images, changes):
    described = describe(model(**changes), images)
    assert described.shape == (3, 2 * (16 + 32))
    assert not torch.allclose(described[0], described[1])


def test_a_model_without_a_trunk_says_so(images):
    with pytest.raises(UsageError, match="'monai_unet' has no trunk"):
        describe_with(TorchNetwork(model(architecture="monai_unet", width=4), "cpu"), images)


def test_an_exported_network_says_so(images):
    class Exported:
        tasks, image_size = TASKS, 64

    with pytest.raises(UsageError, match="exported file"):
        describe_with(Exported(), images)  # type: ignore[arg-type]


def test_a_network_that_is_asked_for_mirror_images_describes_the_image_itself(images):
    network = TorchNetwork(model(), "cpu")
    assert torch.equal(describe_with(AugmentedNetwork(network), images), describe_with(network, images))


def test_many_images_are_described_batch_by_batch(images):
    network = TorchNetwork(model(), "cpu")
    together = describe_all(network, iter(images), batch_size=2)
    torch.testing.assert_close(together, describe_with(network, images), rtol=0.02, atol=0.02)  # bfloat16 where it is native
