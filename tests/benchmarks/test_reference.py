"""The reference works as the released code does and gives the numbers of our model of preset `release`."""

from __future__ import annotations

import copy

import pytest
import torch
from miniature import config
from torch import Tensor, nn
from torch.testing import assert_close

from benchmarks.reference import Reference, plain_state
from tpseg.core.tasks import Task, TaskSet
from tpseg.models.catalogue import create
from tpseg.models.heads.losses import segmentation_loss
from tpseg.models.tpseg.network import TPSeg
from tpseg.models.trunks.hiera import LeanAttention

RELEASE = {"gate": "none", "output": "fused", "momentum": 0.995, "freeze": True}
TASKS = TaskSet([Task(f"task{number}") for number in range(4)])
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture
def model(miniature_trunk: None) -> TPSeg:
    """Preset `release` in miniature, with noise on every parameter: adapters and embeddings start at zero."""
    torch.manual_seed(0)
    built = create(config(model=RELEASE).model, TASKS)
    assert isinstance(built, TPSeg)
    with torch.no_grad():
        for parameter in built.parameters():
            noise = 0.2 * torch.randn_like(parameter)
            parameter.add_(noise if parameter.ndim else parameter * noise)
    return built


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def twins(model: TPSeg) -> tuple[TPSeg, Reference]:
    """The model and a reference with weights of its own."""
    return model, Reference.of(copy.deepcopy(model))


@torch.no_grad()
def test_a_mixed_batch_gets_the_same_logits(model: TPSeg) -> None:
    task = torch.tensor([2, 0, 3, 0])
    ours, reference = twins(model.eval())
    expected = ours(images(4), task).logits
    assert expected.std() > 0.1
    assert_close(reference(images(4), task).logits, expected, **CLOSE)


@torch.no_grad()
def test_every_weight_of_the_release_has_its_place_and_matters(model: TPSeg) -> None:
    ours, reference = twins(model.eval())
    assert sum(one.numel() for one in reference.parameters()) == sum(one.numel() for one in ours.parameters())
    for part in ("trunk", "adapters", "neck", "decoder"):
        changed = copy.deepcopy(ours)
        for parameter in getattr(changed, part).parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        difference = Reference.of(changed)(images(1), torch.tensor([1])).logits - reference(images(1), torch.tensor([1])).logits
        assert difference.abs().max() > 1e-3, part


def test_a_training_step_gives_the_same_loss_gradients_and_prototypes(model: TPSeg) -> None:
    ours, reference = twins(model.train())
    image, task = images(4), torch.tensor([2, 0, 3, 1])
    mask = (image[:, :1] > 0.3).float()
    before = [step.prototypes.clone() for step in reference.steps]
    losses = []
    for one in (ours, reference):
        output = one(image, task)
        losses.append(segmentation_loss(output.supervised, mask).mean())
        losses[-1].backward()
        one.observe(output, mask, task)
        one.move_prototypes()
    assert_close(losses[1], losses[0], **CLOSE)
    ours_moved = list(ours.prototypes().values())
    for step, expected, old in zip(reference.steps, ours_moved, before, strict=True):
        assert_close(step.prototypes, expected, **CLOSE)
        assert not torch.equal(step.prototypes, old)
    expected_gradients = plain_state({name: one.grad for name, one in ours.named_parameters() if one.grad is not None})
    gradients = {name: one.grad for name, one in reference.named_parameters() if one.grad is not None}
    assert gradients.keys() == expected_gradients.keys()
    assert any(name.startswith("adapters") for name in gradients)
    assert not any(name.startswith("trunk") for name in gradients)  # frozen
    assert_close(gradients, expected_gradients, **CLOSE)


@torch.no_grad()
def test_it_works_as_the_release_does(model: TPSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    """One branch after another for the samples of a batch, all tasks' channels, M convolutions, the library's attention."""
    reference = Reference.of(model.eval())
    calls = {"branch": 0, "experts": 0}
    channels = set()

    def count(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        calls["branch"] += 1
        assert len(out) == 1

    for branch in reference.adapters[0].branches:
        branch.register_forward_hook(count)
    for step in reference.steps:
        step.head.output.register_forward_hook(lambda module, given, out: channels.add(out.shape[1]))
    plain = torch.nn.functional.conv2d

    def conv2d(features: Tensor, weight: Tensor, *rest: object, **options: object) -> Tensor:
        calls["experts"] += features.shape[0] == 1 and weight.shape[1] == 1 and options.get("groups") == 3 * 16
        return plain(features, weight, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    reference(images(3), torch.tensor([0, 1, 1]))
    assert calls == {"branch": 3, "experts": model.config.experts}
    assert channels == {len(TASKS)}
    assert not any(isinstance(module, LeanAttention) for module in reference.modules())


@torch.no_grad()
def test_without_the_librarys_dead_product_the_numbers_are_the_same(model: TPSeg) -> None:
    task = torch.tensor([2])
    lean = Reference.of(model.eval(), lean=True)
    assert any(isinstance(module, LeanAttention) for module in lean.modules())
    assert_close(lean(images(1), task).logits, Reference.of(model)(images(1), task).logits, **CLOSE)


def test_another_model_than_the_releases_is_refused(miniature_trunk: None) -> None:
    with pytest.raises(ValueError, match=r"preset 'release'.*cumulative_sigmoid"):
        Reference.of(create(config().model, TASKS))
