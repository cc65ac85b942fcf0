"""What a Segmenter runs: lower weights give the numbers that autocast gives, and several tasks on an image those of each."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from miniature_models import miniature_model, noise
from torch import nn

from tpseg.inference.network import TorchNetwork, lower_weights
from tpseg.models.base import LesionModel

pytestmark = pytest.mark.usefixtures("miniature_trunk")

MODELS = {
    "soft gate": {},
    "hardened": {"hardened": True},
    "release": {"gate": "none", "output": "fused"},
    "lora": {"adapter": "lora"},
    "plain": {"adapter": "plain"},
    "transunet": {"architecture": "transunet", "width": 8},
    "monai_unet": {"architecture": "monai_unet", "width": 8},
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request) -> LesionModel:
    return miniature_model(**request.param).eval()


def run_in_bf16(model: LesionModel) -> torch.Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return model(noise(2, 3, 64, 64), torch.tensor([2, 0])).logits


def test_lower_weights_change_no_number_that_autocast_would_give(model):
    expected = run_in_bf16(model)
    low = copy.deepcopy(model)
    lower_weights(low)
    assert torch.equal(run_in_bf16(low), expected)
    if model.config.architecture == "tpseg":
        assert low.trunk.hiera.blocks[0].mlp.proj_in.weight.dtype == torch.bfloat16


def test_lower_weights_leave_norms_gates_and_prototypes_alone():
    model = miniature_model()
    lower_weights(model)
    for name, module in model.named_modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            assert {parameter.dtype for parameter in module.parameters()} <= {torch.float32}, name
    assert {value.dtype for value in model.prototypes().values()} == {torch.float32}
    assert model.gate.steps[0].dtype == torch.float32


def test_several_tasks_on_one_image_are_asked_for_by_rows(model):
    network = TorchNetwork(model, "cpu")
    image, task, rows = noise(2, 3, 64, 64), torch.tensor([0, 1, 2, 1]), torch.tensor([0, 0, 0, 1])
    together, alone = network(image, task, rows), network(image[rows], task, torch.arange(4))
    assert together.logits.shape == (4, 1, 64, 64)
    scale = alone.logits.abs().max().item()
    torch.testing.assert_close(together.logits, alone.logits, atol=0.05 * scale, rtol=0)  # bfloat16, where there is some
    if model.prototypes():
        assert together.similarity.shape == (4, 1, 64, 64)
    else:
        assert together.similarity is None


def test_with_one_task_an_image_the_model_is_called_without_rows(monkeypatch: pytest.MonkeyPatch):
    """That path takes mixed batches without a plan of branches."""
    model = miniature_model(hardened=True)
    seen: list[object] = []
    forward: Callable[..., object] = model.forward

    def spy(image, task, rows=None):
        seen.append(rows)
        return forward(image, task, rows)

    monkeypatch.setattr(model, "forward", spy)
    network = TorchNetwork(model, "cpu")
    network(noise(2, 3, 64, 64), torch.tensor([0, 1]), torch.tensor([0, 1]))
    network(noise(2, 3, 64, 64), torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert seen[0] is None
    assert seen[1] is not None
