"""The model as a whole: its size, what a training step touches, and how the parts answer to settings."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from miniature_models import TASKS, miniature_config, miniature_model, noise, perturb, predict
from torch import Tensor

from tpseg.core.config import load_config
from tpseg.core.tasks import Task, TaskSet
from tpseg.models.heads.losses import segmentation_loss
from tpseg.models.tpseg.network import TPSeg

miniature = pytest.mark.usefixtures("miniature_trunk")


def count_parameters(preset: str, tasks: int) -> int:
    with torch.device("meta"):
        model = TPSeg(load_config([preset]).model, TaskSet([Task(f"task{number}") for number in range(tasks)]))
    return sum(parameter.numel() for parameter in model.parameters())


def square(count: int, size: int = 64) -> Tensor:
    mask = torch.zeros(count, 1, size, size)
    mask[..., 16:48, 16:48] = 1
    return mask


# parameters: the paper's Table 5


@pytest.mark.parametrize(("tasks", "published"), [(1, 264.84e6), (8, 288.46e6)])
def test_release_has_the_parameters_of_table_5(tasks: int, published: float) -> None:
    assert count_parameters("release", tasks) == pytest.approx(published, rel=0.005)


def test_a_task_more_costs_at_most_3_38_million() -> None:
    sizes = [count_parameters("paper", tasks) for tasks in (1, 2, 8)]
    assert 3_373_056 <= sizes[1] - sizes[0] <= 3.38e6
    assert sizes[2] - sizes[0] == 7 * (sizes[1] - sizes[0])


def test_the_papers_model_is_the_releases_with_a_shared_route_and_a_gate() -> None:
    """3,373,056 weights of the shared route and 48 gate steps more; the release's fuser less: its head on stage 4 and the mixes."""
    fuser = 9 * 512 + 2 * 512 + 8 * (512 + 1 + 4)
    assert count_parameters("paper", 8) - count_parameters("release", 8) == 3_373_056 + 8 * 48 - fuser


# a training step


def parts_of(task: int) -> tuple[str, ...]:
    """What marks the names of the parameters that belong to one task: route, gate row, heads and mix."""
    return (f"tasks.{task}.", f"gate.steps.{task}", f"outputs.{task}.", f"fuser.mix.{task}")


def owned_by(model: TPSeg, task: int) -> dict[str, Tensor]:
    """All that belongs to one task: its parameters and its prototypes."""
    owned = {name: value for name, value in model.named_parameters() if any(part in name for part in parts_of(task))}
    assert all(any(part in name for name in owned) for part in parts_of(task))
    return owned | {name: value[task] for name, value in model.prototypes().items()}


@miniature
@pytest.mark.parametrize("frozen", [False, True])
def test_a_step_on_one_task_leaves_the_others_untouched_bit_for_bit(frozen: bool) -> None:
    model = miniature_model(freeze=frozen, output="fused")
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)

    def step(tasks: list[int]) -> None:
        task, mask = torch.tensor(tasks), square(len(tasks))
        output = model(noise(len(tasks), 3, 64, 64), task)
        optimiser.zero_grad()
        segmentation_loss(output.supervised, mask).mean().backward()
        optimiser.step()
        model.observe(output, mask, task)
        model.move_prototypes()

    def snapshot() -> list[dict[str, Tensor]]:
        return [{name: value.detach().clone() for name, value in owned_by(model, task).items()} for task in range(3)]

    step([0, 1, 2, 1])  # fills AdamW's moments for all tasks
    before = snapshot()
    step([0, 2])
    after = snapshot()
    assert all(torch.equal(before[1][name], after[1][name]) for name in before[1])
    for task in (0, 2):
        moved = {name for name in before[task] if not torch.equal(before[task][name], after[task][name])}
        assert all(any(part in name for name in moved) for part in (*parts_of(task), "pgtd1"))


@miniature
def test_nothing_in_a_frozen_trunk_gets_a_gradient_and_everything_else_does() -> None:
    model = miniature_model(freeze=True)
    assert model.trunk.frozen
    segmentation_loss(model(noise(3, 3, 64, 64), torch.tensor([0, 1, 2])).supervised, square(3)).mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("trunk."), name
        assert parameter.grad is None or parameter.grad.any(), name


@miniature
def test_adapters_start_by_changing_nothing() -> None:
    """The same numbers without adapters give the same logits: `up` is zero at the start."""
    torch.manual_seed(0)
    model, bare = TPSeg(miniature_config(), TASKS), TPSeg(miniature_config(adapter="none"), TASKS)
    for part in ("trunk", "neck", "decoder"):
        perturb(getattr(model, part))
    bare.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("adapters.")})
    image = noise(2, 3, 64, 64)
    assert torch.equal(predict(model, image, [0, 1]).logits, predict(bare, image, [0, 1]).logits)


@miniature
def test_activation_checkpointing_changes_neither_loss_nor_gradient() -> None:
    def run(checkpointing: bool) -> list[Tensor]:
        model = miniature_model()
        model.trunk.checkpointing = checkpointing
        loss = segmentation_loss(model(noise(2, 3, 64, 64), torch.tensor([0, 2])).supervised, square(2)).mean()
        loss.backward()
        return [loss.detach(), *(torch.zeros(()) if p.grad is None else p.grad for p in model.parameters())]

    for plain, recomputed in zip(run(False), run(True), strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-7, rtol=1e-6)


# tasks, gate, prototypes


@miniature
@pytest.mark.parametrize("settings", [{}, {"gate": "none"}, {"gate": "shared_only"}, {"output": "fused"}])
def test_the_task_matters(settings: dict[str, str]) -> None:
    model, image = miniature_model(**settings), noise(1, 3, 64, 64).expand(3, -1, -1, -1)
    logits = predict(model, image, [0, 1, 2]).logits
    assert (torch.pdist(logits.flatten(1)) > 1).all()


@miniature
def test_the_plain_baseline_is_blind_to_the_task() -> None:
    model, image = miniature_model(adapter="none", pgtds=()), noise(1, 3, 64, 64).expand(2, -1, -1, -1)
    first, second = predict(model, image, [0, 1]).logits
    assert torch.equal(first, second)
    assert model.prototypes() == {}
    assert model.gate_weights() is None
    assert model.splits() == {}


@miniature
@pytest.mark.parametrize("task", [-1, 3])
def test_a_task_id_that_does_not_exist_is_an_error(task: int) -> None:
    with pytest.raises((IndexError, ValueError)):
        predict(miniature_model(), noise(2, 3, 32, 32), [0, task])


@miniature
def test_gate_weights_and_splits_are_given_by_task() -> None:
    model = miniature_model()
    weights = model.gate_weights()
    assert weights is not None
    assert weights.shape == (3, 6)
    splits = model.splits()
    assert list(splits) == TASKS.names
    for row, split in zip(weights, splits.values(), strict=True):
        assert (row[:split] < 0.5).all()
        assert (row[split:] >= 0.5).all()


@miniature
def test_the_gate_temperature_is_part_of_the_model() -> None:
    model = miniature_model()
    warm = model.gate_weights()
    model.set_gate_temperature(0.3)
    cold = model.gate_weights()
    assert warm is not None
    assert cold is not None
    torch.testing.assert_close(cold, (warm.logit() / 0.3).sigmoid(), atol=1e-4, rtol=0)
    assert not torch.allclose(cold, warm, atol=1e-2)
    assert "adapters.gate.temperature" in model.state_dict()


@miniature
def test_hardening_equals_a_cold_gate_and_leaves_the_splits() -> None:
    model, image = miniature_model(), noise(3, 3, 64, 64)
    splits = model.splits()
    soft = predict(model, image, [0, 1, 2]).logits
    model.set_gate_temperature(1e-5)
    cold = predict(model, image, [0, 1, 2]).logits
    model.harden()
    hard = predict(model, image, [0, 1, 2]).logits
    assert model.config.hardened
    assert model.splits() == splits
    torch.testing.assert_close(hard, cold, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(hard, soft, atol=1e-3)


@miniature
def test_prototypes_are_named_from_coarse_to_fine_with_the_lesion_first() -> None:
    model, task = miniature_model(momentum=0.9), torch.tensor([0, 0])
    assert {name: tuple(value.shape) for name, value in model.prototypes().items()} == {
        "pgtd3": (3, 2, 16),
        "pgtd2": (3, 2, 8),
        "pgtd1": (3, 2, 8),
    }
    image, mask = noise(2, 3, 128, 128), torch.zeros(2, 1, 128, 128)
    mask[..., :64] = 1
    image[..., 64:] += 4.0  # lesion and background look different
    for _ in range(20):  # 0.9²⁰ = 0.12 is left of the first prototypes
        output = predict(model, image, [0, 0])
        model.observe(output, mask, task)
        model.move_prototypes()
    for prototypes in model.prototypes().values():
        torch.testing.assert_close(prototypes.norm(dim=-1), torch.ones(3, 2))
    similarity = output.similarity
    assert similarity is not None
    assert similarity[mask == 1].mean() > 0 > similarity[mask == 0].mean()


@miniature
def test_prototypes_move_only_when_they_are_told_to() -> None:
    model = miniature_model()
    before = {name: value.clone() for name, value in model.prototypes().items()}
    model.train()
    output = model(noise(2, 3, 64, 64), torch.tensor([0, 1]))
    output.logits.sum().backward()
    assert all(torch.equal(before[name], value) for name, value in model.prototypes().items())
    model.observe(output, square(2), torch.tensor([0, 1]))
    model.move_prototypes()
    assert not torch.equal(model.prototypes()["pgtd1"][0], before["pgtd1"][0])
    assert all(torch.equal(before[name][2], value[2]) for name, value in model.prototypes().items())


@miniature
def test_what_lies_beside_the_image_moves_no_prototype() -> None:
    """48 × 48 is padded to 64 × 64: a quarter of the cells of every PGTD is no image, neither lesion nor background."""
    moved = []
    for beside in (0.0, 100.0):
        model = miniature_model(momentum=0.5)
        before = {name: value.clone() for name, value in model.prototypes().items()}
        output = model(noise(1, 3, 48, 48), torch.tensor([0]))
        with torch.no_grad():
            for step in output.steps:
                inside = step.features.shape[-1] * 3 // 4
                step.features[..., inside:] = beside
                step.features[..., inside:, :] = beside
        model.observe(output, square(1, 48), torch.tensor([0]))
        model.move_prototypes()
        moved.append(model.prototypes())
        assert all((moved[-1][name][0] != before[name][0]).any(-1).all() for name in before)  # lesion and background
    for name, prototypes in moved[0].items():
        assert torch.equal(prototypes, moved[1][name]), name


@miniature
@pytest.mark.parametrize(("pgtds", "finest"), [((3, 2, 1), 2), ((3, 2), 1)])
def test_similarity_is_that_of_the_finest_pgtd(pgtds: tuple[int, ...], finest: int) -> None:
    output = predict(miniature_model(pgtds=pgtds), noise(1, 3, 64, 64), [0])
    assert [step.similarity is not None for step in output.steps].count(True) == finest + 1
    similarity = F.interpolate(output.steps[finest].similarity, (64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(output.similarity, similarity)


@miniature
def test_supervised_are_the_prediction_and_every_pgtd() -> None:
    image, task = noise(1, 3, 64, 64), [0]
    assert len(predict(miniature_model(), image, task).supervised) == 3
    fused = predict(miniature_model(output="fused"), image, task)
    assert len(fused.supervised) == 4
    assert not torch.equal(fused.supervised[0], fused.supervised[1])


@miniature
def test_the_image_is_padded_not_stretched() -> None:
    """48 × 40 in a 64 × 64 frame of zeros gives the logits of the frame, cut."""
    model, image = miniature_model(), noise(1, 3, 48, 40)
    frame = torch.zeros(1, 3, 64, 64)
    frame[..., :48, :40] = image
    assert torch.equal(predict(model, image, [0]).logits, predict(model, frame, [0]).logits[..., :48, :40])
