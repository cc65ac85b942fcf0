"""What every model must pass, whatever it is made of. A new model joins the suite with one line in MODELS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from miniature_models import MODELS, TASKS, noise, predict
from torch import Tensor, nn

from tpseg.checkpoints.model_folder import load_model, save_model
from tpseg.models.base import LesionModel, Output
from tpseg.models.heads.losses import segmentation_loss

pytestmark = [pytest.mark.usefixtures("miniature_trunk"), pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)]


def assert_same(one: Output, two: Output) -> None:
    assert all(torch.equal(first, second) for first, second in zip(one.supervised, two.supervised, strict=True))


def lets_rounding_grow(model: LesionModel) -> bool:
    """TransUNet's 16 bottlenecks do before they are trained: an image changed by 1 in 512, bfloat16's precision, and computed in
    float32 leaves features at stride 16 that correlate with the unchanged ones by 0.96 only (full width, 128 px)."""
    return model.config.architecture == "transunet"


def test_forward_gives_one_logit_a_pixel_and_the_prediction_is_supervised_first(make: Callable[..., LesionModel]) -> None:
    output = predict(make(), noise(3, 3, 64, 64), [0, 2, 1])
    assert output.logits.shape == (3, 1, 64, 64)
    assert output.logits.dtype == torch.float32
    assert output.supervised[0] is output.logits
    assert output.supervised[1:] or output.similarity is None  # what has prototypes has steps to supervise
    assert {one.shape for one in output.supervised} == {output.logits.shape}
    assert all(one.isfinite().all() for one in output.supervised)
    assert output.logits.std() > 1e-3
    if output.similarity is not None:
        assert output.similarity.shape == (3, 1, 64, 64)
        assert (output.similarity.abs() <= 2).all()


def test_backward_reaches_every_parameter(make: Callable[..., LesionModel]) -> None:
    model = make()
    output = model(noise(3, 3, 64, 64), torch.tensor([0, 1, 2]))
    segmentation_loss(output.supervised, (noise(3, 1, 64, 64) > 0).float()).mean().backward()
    silent = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    if model.config.hardened:  # a step has no gradient, and blocks beyond a split use one route
        silent = {name for name in silent if not name.startswith("adapters.")}
    assert not silent
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("size", [(50, 70), (1, 1), (33, 32), (16, 300), (257, 31)])
def test_any_size_in_gives_the_same_size_out(make: Callable[..., LesionModel], size: tuple[int, int]) -> None:
    output = predict(make(), noise(2, 3, *size), [1, 0])
    assert output.logits.shape == (2, 1, *size)
    assert all(one.shape == output.logits.shape and one.isfinite().all() for one in output.supervised)


def test_a_step_down_the_gradient_lowers_the_loss(make: Callable[..., LesionModel]) -> None:
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


def test_the_same_seed_gives_the_same_model_and_another_another(make: Callable[..., LesionModel]) -> None:
    image = noise(2, 3, 64, 64)
    first = predict(make(7), image, [0, 1])
    assert_same(first, predict(make(7), image, [0, 1]))
    assert not torch.equal(first.logits, predict(make(8), image, [0, 1]).logits)


def test_a_sample_does_not_depend_on_the_rest_of_its_batch(make: Callable[..., LesionModel]) -> None:
    """Exact in float64. In float32 batched products round differently, which the gain λ_p / temp = 50 of eq. (11) lifts to 1e-4 or so.

    As a share of the largest logit: nothing in an untrained network bounds them, and one image is loud.
    """
    model, image, task = make(), noise(4, 3, 64, 64), [2, 0, 1, 2]
    image[3] *= 50  # a loud neighbour
    for dtype, tolerance in (
        (torch.float32, 1e-3 if model.prototypes() else 1e-4 if lets_rounding_grow(model) else 1e-5),
        (torch.float64, 1e-6),
    ):
        model.to(dtype)
        together = predict(model, image.to(dtype), task)
        for i in range(4):
            alone = predict(model, image[i : i + 1].to(dtype), task[i : i + 1])
            for one, batch in zip(alone.supervised, together.supervised, strict=True):
                torch.testing.assert_close(one, batch[i : i + 1], atol=tolerance * max(1.0, one.abs().max().item()), rtol=0)


def test_permuting_the_batch_permutes_the_outputs(make: Callable[..., LesionModel]) -> None:
    model, image, task, order = make(), noise(4, 3, 64, 64), [2, 0, 1, 2], [3, 1, 0, 2]
    straight, permuted = predict(model, image, task), predict(model, image[order], [task[i] for i in order])
    for one, two in zip(straight.supervised, permuted.supervised, strict=True):
        torch.testing.assert_close(one[order], two, atol=1e-5, rtol=1e-5)


def test_several_tasks_on_one_image_give_what_each_gives_alone(make: Callable[..., LesionModel]) -> None:
    """Images 1 and 2 only, unequally often, tasks in no order, one pair twice."""
    model, image = make().eval(), noise(3, 3, 64, 64)
    rows, task = torch.tensor([1, 2, 1, 1, 1]), torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        together, alone = model(image, task, rows), model(image[rows], task)
    tolerance = 1e-3 if model.prototypes() else 1e-5
    for one, two in zip(together.supervised, alone.supervised, strict=True):
        torch.testing.assert_close(one, two, atol=tolerance, rtol=0)


def test_bfloat16_stays_finite_and_near_float32(make: Callable[..., LesionModel]) -> None:
    model, image, task = make(), noise(2, 3, 64, 64), torch.tensor([0, 1])
    exact = predict(model, image, [0, 1]).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(image, task)
        model.observe(output, (noise(2, 1, 64, 64) > 0).float(), task)
        model.move_prototypes()
    assert output.logits.dtype == torch.float32
    segmentation_loss(output.supervised, torch.ones(2, 1, 64, 64)).mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    near = 0.9 if lets_rounding_grow(model) else 0.98
    assert torch.corrcoef(torch.stack([output.logits.detach().flatten(), exact.flatten()]))[0, 1] > near


def test_saving_and_loading_gives_the_same_outputs_bit_for_bit(make: Callable[..., LesionModel], tmp_path: Path) -> None:
    model, image = make(), noise(2, 3, 64, 64)
    output = model(image, torch.tensor([0, 2]))
    model.observe(output, (noise(2, 1, 64, 64) > 0).float(), torch.tensor([0, 2]))
    model.move_prototypes()
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


class OfTasks(nn.Module):
    """A model with the tasks of a batch fixed, as it is exported: which weights a task owns is decided on the host."""

    def __init__(self, model: LesionModel, task: list[int]) -> None:
        super().__init__()
        model.settle()
        self.model = model
        self.task = torch.tensor(task)  # no buffer: an exported program takes it for a constant

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.model(image, self.task).supervised


def test_it_exports_to_one_graph_with_the_same_outputs(make: Callable[..., LesionModel]) -> None:
    """In float64: in float32 the graph's products round differently, which the gain of eq. (11) lifts, by how much is the processor's."""
    fixed, image = OfTasks(make().double().eval(), [2, 0]).eval(), noise(2, 3, 64, 64).double()
    with torch.no_grad():
        program = torch.export.export(fixed, (image,))
        outputs = program.module()(image)
        for one, two in zip(outputs, fixed(image), strict=True):
            torch.testing.assert_close(one, two, atol=1e-6 * max(1.0, two.abs().max().item()), rtol=0)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in targets
    assert not any("_native_multi_head" in name or "_transformer_encoder" in name for name in targets)  # no ONNX operator has them
