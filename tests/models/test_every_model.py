"""What every model must pass, whatever it is made of. A new model joins the suite with one line in MODELS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from common import TASKS, miniature_model, noise, predict

from tpseg.losses import segmentation_loss
from tpseg.models.checkpoint import load_model, save_model
from tpseg.models.tpseg import Output, TPSeg

MODELS: dict[str, Callable[..., TPSeg]] = {
    "default": miniature_model,
    "hardened": partial(miniature_model, hardened=True),
    "gate none": partial(miniature_model, gate="none"),
    "gate shared_only": partial(miniature_model, gate="shared_only"),
    "no adapters": partial(miniature_model, adapter="none"),
    "linear neck": partial(miniature_model, neck="linear"),
    "fused": partial(miniature_model, output="fused"),
    "release": partial(miniature_model, gate="none", output="fused"),
    "unet": partial(miniature_model, decoder="unet"),
    "baseline": partial(miniature_model, adapter="none", decoder="unet"),
}
"""Name to a function from a seed to a model; `model(image, task)` returns an Output."""

pytestmark = [pytest.mark.usefixtures("miniature_as_tiny"), pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)]


def assert_same(one: Output, two: Output) -> None:
    assert all(torch.equal(first, second) for first, second in zip(one.supervised, two.supervised, strict=True))


def test_forward_gives_one_logit_a_pixel_and_the_prediction_is_supervised_first(make: Callable[..., TPSeg]) -> None:
    output = predict(make(), noise(3, 3, 64, 64), [0, 2, 1])
    assert output.logits.shape == (3, 1, 64, 64)
    assert output.logits.dtype == torch.float32
    assert output.supervised[0] is output.logits
    assert len(output.supervised) >= 3
    assert {one.shape for one in output.supervised} == {output.logits.shape}
    assert all(one.isfinite().all() for one in output.supervised)
    assert output.logits.std() > 1e-3
    if output.similarity is not None:
        assert output.similarity.shape == (3, 1, 64, 64)
        assert (output.similarity.abs() <= 2).all()


def test_backward_reaches_every_parameter(make: Callable[..., TPSeg]) -> None:
    model = make()
    output = model(noise(3, 3, 64, 64), torch.tensor([0, 1, 2]))
    segmentation_loss(output.supervised, (noise(3, 1, 64, 64) > 0).float()).mean().backward()
    silent = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    if model.adapters is not None and model.adapters.hardened:  # a step has no gradient, and blocks beyond a split use one route
        silent = {name for name in silent if not name.startswith("adapters.")}
    assert not silent
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("size", [(50, 70), (1, 1), (33, 32), (16, 300), (257, 31)])
def test_any_size_in_gives_the_same_size_out(make: Callable[..., TPSeg], size: tuple[int, int]) -> None:
    output = predict(make(), noise(2, 3, *size), [1, 0])
    assert output.logits.shape == (2, 1, *size)
    assert all(one.shape == output.logits.shape and one.isfinite().all() for one in output.supervised)


def test_a_step_down_the_gradient_lowers_the_loss(make: Callable[..., TPSeg]) -> None:
    model, image, task = make(), noise(3, 3, 64, 64), torch.tensor([0, 1, 2])
    mask = torch.zeros(3, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = segmentation_loss(model(image, task).supervised, mask).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_model_and_another_another(make: Callable[..., TPSeg]) -> None:
    image = noise(2, 3, 64, 64)
    first = predict(make(7), image, [0, 1])
    assert_same(first, predict(make(7), image, [0, 1]))
    assert not torch.equal(first.logits, predict(make(8), image, [0, 1]).logits)


def test_a_sample_does_not_depend_on_the_rest_of_its_batch(make: Callable[..., TPSeg]) -> None:
    """Exact in float64. In float32 batched products round differently, which the gain λ_p / temp = 50 of eq. (11) lifts to 1e-4 or so."""
    model, image, task = make(), noise(4, 3, 64, 64), [2, 0, 1, 2]
    image[3] *= 50  # a loud neighbour
    for dtype, tolerance in ((torch.float32, 1e-3 if model.prototypes() else 1e-5), (torch.float64, 1e-6)):
        model.to(dtype)
        together = predict(model, image.to(dtype), task)
        for i in range(4):
            alone = predict(model, image[i : i + 1].to(dtype), task[i : i + 1])
            for one, batch in zip(alone.supervised, together.supervised, strict=True):
                torch.testing.assert_close(one, batch[i : i + 1], atol=tolerance, rtol=0)


def test_permuting_the_batch_permutes_the_outputs(make: Callable[..., TPSeg]) -> None:
    model, image, task, order = make(), noise(4, 3, 64, 64), [2, 0, 1, 2], [3, 1, 0, 2]
    straight, permuted = predict(model, image, task), predict(model, image[order], [task[i] for i in order])
    for one, two in zip(straight.supervised, permuted.supervised, strict=True):
        torch.testing.assert_close(one[order], two, atol=1e-5, rtol=1e-5)


def test_bfloat16_stays_finite_and_near_float32(make: Callable[..., TPSeg]) -> None:
    model, image, task = make(), noise(2, 3, 64, 64), torch.tensor([0, 1])
    exact = predict(model, image, [0, 1]).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(image, task)
        model.update_prototypes(output, (noise(2, 1, 64, 64) > 0).float(), task)
    assert output.logits.dtype == torch.float32
    segmentation_loss(output.supervised, torch.ones(2, 1, 64, 64)).mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert torch.corrcoef(torch.stack([output.logits.detach().flatten(), exact.flatten()]))[0, 1] > 0.98


def test_saving_and_loading_gives_the_same_outputs_bit_for_bit(make: Callable[..., TPSeg], tmp_path: Path) -> None:
    model, image = make(), noise(2, 3, 64, 64)
    output = model(image, torch.tensor([0, 2]))
    model.update_prototypes(output, (noise(2, 1, 64, 64) > 0).float(), torch.tensor([0, 2]))
    model.set_gate_temperature(0.37)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert not loaded.training
    assert loaded.tasks == TASKS
    assert loaded.config == model.config
    state, again = model.state_dict(), loaded.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in state.items())
    assert_same(predict(loaded, image, [1, 2]), predict(model, image, [1, 2]))
