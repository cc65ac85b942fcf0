"""A model gains and loses tasks: what belongs to a task is known, and nothing else changes, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import pytest
import torch
from miniature_models import TASKS, miniature_config, miniature_model, noise, perturb, save_meta_file
from torch import Tensor

from tpseg.checkpoints.model_folder import load_model, save_model
from tpseg.checkpoints.trunk_weights import load_trunk_weights
from tpseg.core.config import ModelConfig, load_config
from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.models.adapters.gate import READINGS
from tpseg.models.catalogue import MODELS, create, create_without_memory
from tpseg.models.task_ownership import check_same_shared, extract, join, own_keys, own_state, same_bits, seedling, shared_state
from tpseg.models.trunks.hiera import Trunk

pytestmark = pytest.mark.usefixtures("miniature_trunk")

NEW = Task("kidney_tumour", "CT", "Kidney tumour", window="abdomen", finding="SCT:126880001:Neoplasm of kidney")
KINDS: dict[str, dict[str, Any]] = {
    **{reading: {"gate": reading} for reading in READINGS},
    "task route only": {"gate": "none"},
    "shared route only": {"gate": "shared_only"},
    "fused": {"output": "fused"},
    "plain adapters": {"adapter": "plain"},
    "lora": {"adapter": "lora"},
    "no adapters": {"adapter": "none"},
    "two PGTDs": {"pgtds": (3, 1)},
    "no PGTD": {"pgtds": ()},
    "linear, centred": {"neck": "linear", "prototype_features": "centred"},
}
"""Every way a task may have a part of its own."""
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def parent_of(kind: str = "cumulative_sigmoid") -> Any:
    """A model of three tasks, made once; tests leave it as it is."""
    return miniature_model(**KINDS[kind])


def grown(parent: Any) -> Any:
    """The parent with one more task, whose part is not what it started from."""
    child = seedling(parent, NEW, None, seed=1)
    with torch.no_grad():
        for key, value in own_state(child).items():
            value.add_(0.1 * noise(*value.shape, seed=len(key)))
    return join(parent, child)


@cache
def grown_of(kind: str = "cumulative_sigmoid") -> Any:
    """`parent_of` the kind, grown; made once."""
    return grown(parent_of(kind))


@contextmanager
def precision(name: str) -> Iterator[None]:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
        yield


def answers(model: Any, image: Tensor, task: list[int], rows: list[int] | None = None) -> list[Tensor]:
    """All that a model says: logits of every output and the similarity."""
    output = model.eval()(image, torch.tensor(task), None if rows is None else torch.tensor(rows))
    return [*output.supervised, *([] if output.similarity is None else [output.similarity])]


def assert_same_bits(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second) > 0
    assert all(same_bits(one, other) for one, other in zip(first, second, strict=True))


def tasks(number: int) -> TaskSet:
    return TaskSet([Task(f"task{one}") for one in range(number)])


@every_kind
def test_all_that_grows_with_the_number_of_tasks_is_known_as_a_task_s_own(kind: str) -> None:
    """Fails for a new parameter or buffer with an axis of tasks that models/grow.py was not told of."""
    config = miniature_config(**KINDS[kind])
    two, three = (create_without_memory(config, tasks(number)) for number in (2, 3))
    shared = [{key: value.shape for key, value in shared_state(model).items()} for model in (two, three)]
    assert shared[0] == shared[1]
    buffers = {name for name, buffer in three.named_buffers() if name in own_keys(three)}
    for key in buffers:
        assert three.get_buffer(key).shape[0] == 3
    sizes = [sum(value.numel() for value in own_state(model).values()) for model in (two, three)]
    assert sizes[0] * 3 == sizes[1] * 2 > 0


@pytest.mark.parametrize("architecture", [name for name in MODELS if name != "tpseg"])
def test_other_systems_own_nothing_per_task_and_refuse_to_grow(architecture: str) -> None:
    model = create_without_memory(ModelConfig(**{**asdict(miniature_config()), "architecture": architecture, "width": None}), TASKS)
    assert not own_keys(model)
    with pytest.raises(UsageError, match=rf"^architecture {architecture}: a task owns no part .* models that grow are"):
        seedling(model, NEW, None, seed=0)


def test_a_model_whose_tasks_differ_in_nothing_refuses_to_grow() -> None:
    with pytest.raises(UsageError, match=r"model\.adapter plain and no PGTD: a task owns no part"):
        seedling(miniature_model(adapter="plain", pgtds=()), NEW, None, seed=0)


@every_kind
@pytest.mark.parametrize("number", ["fp32", "bf16"])
def test_old_tasks_answer_as_before_bit_for_bit(kind: str, number: str) -> None:
    parent, after = parent_of(kind), grown_of(kind)
    assert after.tasks.names == [*TASKS.names, "kidney_tumour"]
    assert after.tasks[3] == NEW
    image = noise(6, 3, 24, 40)
    with precision(number):
        assert_same_bits(answers(parent, image, [0, 1, 2, 2, 0, 1]), answers(after, image, [0, 1, 2, 2, 0, 1]))
        for task in range(3):  # alone, a batch takes another way
            assert_same_bits(answers(parent, image[:2], [task] * 2), answers(after, image[:2], [task] * 2))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("number", ["fp32", "bf16"])
def test_hardened_models_answer_as_before_also_where_tasks_share_the_first_blocks(reading: str, number: str) -> None:
    parent, after = deepcopy(parent_of(reading)), deepcopy(grown_of(reading))
    for model in (parent, after):
        model.harden()
    image = noise(2, 3, 64, 64)
    with precision(number):
        assert_same_bits(answers(parent, image, [0, 2]), answers(after, image, [0, 2]))
        pairs = ([0, 1, 2, 0, 2], [0, 0, 0, 1, 1])
        assert_same_bits(answers(parent, image, *pairs), answers(after, image, *pairs))
    assert parent.splits() == {name: split for name, split in after.splits().items() if name != "kidney_tumour"}


def test_the_hardened_gate_of_a_task_does_not_depend_on_how_many_others_there_are() -> None:
    """Vectorised and scalar arithmetic differ in the last bit, and which of them a number meets depends on the table's size."""
    torch.manual_seed(0)
    gate = create(miniature_config(), tasks(11)).adapters.gate
    with torch.no_grad():
        gate.temperature.fill_(0.3)
        for steps in gate.steps:
            steps.copy_(2 * torch.randn(len(steps)))
    whole = gate.weights()
    for number in range(1, 11):
        few = create(miniature_config(), tasks(number)).adapters.gate
        few.temperature.fill_(0.3)
        few.load_state_dict({key: value for key, value in gate.state_dict().items() if key in few.state_dict()})
        assert same_bits(few.weights(), whole[:number])


def test_the_new_task_answers_as_it_did_before_it_was_joined() -> None:
    parent = parent_of()
    child = perturb(seedling(parent, NEW, "polyp", seed=0))
    child.load_state_dict(shared_state(parent), strict=False)
    child.requires_grad_(True)  # PyTorch's attention has another last bit where no weight wants a gradient
    image = noise(2, 3, 64, 64)
    with torch.no_grad():
        assert_same_bits(answers(child, image, [0, 0]), answers(join(parent, child), image, [3, 3]))


@pytest.mark.parametrize("kind", ["cumulative_sigmoid", "fused", "lora"])
def test_training_changes_a_seedling_s_own_tensors_and_no_other(kind: str) -> None:
    child = seedling(parent_of(kind), NEW, None, seed=0)
    before = {key: value.clone() for key, value in child.state_dict().items()}
    optimiser = torch.optim.AdamW([one for one in child.parameters() if one.requires_grad], lr=0.1, weight_decay=0.5)
    for seed in range(2):  # `up` starts at zero, so that `down` has a gradient from the second step on
        output = child(noise(2, 3, 32, 32, seed=seed), torch.zeros(2, dtype=torch.int64))
        sum(one.sigmoid().mean() for one in output.supervised).backward()
        child.observe(output, (noise(2, 1, 32, 32) > 0).float(), torch.zeros(2, dtype=torch.int64))
        child.move_prototypes()
        optimiser.step()
    moved = {key for key, value in child.state_dict().items() if not same_bits(value, before[key])}
    assert moved == own_keys(child)


def test_a_seedling_starts_as_the_task_it_is_told_to() -> None:
    parent = parent_of()
    child = seedling(parent, NEW, "breast_lesion", seed=0, own_routes=False)
    assert child.tasks == TaskSet([NEW])
    image = noise(1, 3, 64, 64)
    with torch.no_grad():
        assert_same_bits(answers(parent, image, [1]), answers(child, image, [0]))


def test_without_a_source_a_seedling_starts_as_a_new_model_does() -> None:
    parent = parent_of()
    state = torch.random.get_rng_state()
    first, again, other = (own_state(seedling(parent, NEW, None, seed, own_routes=False)) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(same_bits(first[key], again[key]) for key in first)
    down, up = "adapters.blocks.0.tasks.0.down", "adapters.blocks.0.tasks.0.up"
    assert not same_bits(first[down], other[down])
    assert not first[up].any()
    for key, value in first.items():
        if key.endswith("prototypes"):
            torch.testing.assert_close(value.norm(dim=-1), torch.ones(1, 2))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_own_routes_begin_at_the_first_block_in_every_reading_of_the_gate(reading: str, temperature: float) -> None:
    parent = deepcopy(parent_of(reading))
    parent.set_gate_temperature(temperature)
    child = seedling(parent, NEW, "polyp", seed=0)
    assert child.splits() == {"kidney_tumour": 0}
    assert child.gate_weights().min() > 0.99


@pytest.mark.parametrize("reading", READINGS)
def test_own_routes_begin_as_the_routes_that_the_start_took(reading: str) -> None:
    """Where the parent's gate is near 0 or 1, the seedling answers as its start does."""
    parent = deepcopy(parent_of(reading))
    parent.set_gate_temperature(0.01)
    with torch.no_grad():
        parent.adapters.gate.steps[2].copy_(torch.tensor([-1.0, -1.0, -1.0, 9.0, -1.0, -1.0]))
    assert 0 < parent.splits()["polyp"] < 6
    kept, own = (seedling(parent, NEW, "polyp", seed=0, own_routes=own) for own in (False, True))
    image = noise(2, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(answers(kept, image, [0, 0]), answers(own, image, [0, 0]), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_own_routes_that_start_from_nothing_are_copies_of_the_shared_ones() -> None:
    child = seedling(parent_of(), NEW, None, seed=0)
    for block in child.adapters.blocks:
        assert same_bits(block.tasks[0].down, block.shared.down)
        assert same_bits(block.tasks[0].up, block.shared.up)
        assert block.tasks[0].up.data_ptr() != block.shared.up.data_ptr()


@every_kind
def test_extract_keeps_the_answers_and_drops_the_others_tensors(kind: str) -> None:
    model = parent_of(kind)
    part = extract(model, ["polyp", "skin_lesion"])
    assert part.tasks.names == ["skin_lesion", "polyp"]  # the model's order
    assert {key: value.shape for key, value in part.state_dict().items()} == {
        key: value.shape for key, value in create_without_memory(model.config, tasks(2)).state_dict().items()
    }
    image = noise(4, 3, 64, 64)
    with torch.no_grad():
        assert_same_bits(answers(model, image, [0, 2, 2, 0]), answers(part, image, [0, 1, 1, 0]))
    with pytest.raises(UsageError, match="unknown task 'polypp'; did you mean 'polyp'"):
        extract(model, ["polypp"])


def test_what_was_grown_and_taken_away_again_is_the_parent() -> None:
    parent = parent_of()
    back = extract(grown_of(), TASKS.names)
    before = parent.state_dict()
    assert all(same_bits(value, before[key]) for key, value in back.state_dict().items())
    assert back.tasks == TASKS


def test_two_models_grown_from_one_parent_join() -> None:
    parent = parent_of()
    other = Task("wet_amd", "OCT")
    sisters = [perturb(seedling(parent, task, None, seed=0), 9) for task in (NEW, other)]
    for sister in sisters:
        sister.load_state_dict(shared_state(parent), strict=False)
    one, two = (join(parent, sister) for sister in sisters)
    both = join(one, extract(two, ["wet_amd"]))
    assert both.tasks.names == [*TASKS.names, "kidney_tumour", "wet_amd"]
    image = noise(5, 3, 64, 64)
    with torch.no_grad():
        assert_same_bits(answers(one, image, [3, 0, 1, 2, 3]), answers(both, image, [3, 0, 1, 2, 3]))
        assert_same_bits(answers(two, image, [3, 3, 3, 3, 3]), answers(both, image, [4, 4, 4, 4, 4]))


def test_join_refuses_what_does_not_fit_and_says_why() -> None:
    parent = parent_of()
    with pytest.raises(UsageError, match=r"task 'polyp' is in both models; .* 'tpseg rename-task'"):
        join(parent, extract(parent, ["polyp"]))
    with pytest.raises(UsageError, match="task 'polyp': the model knows a task of this name"):
        seedling(parent, Task("polyp"), None, seed=0)
    stranger = miniature_model(seed=1)
    stranger.tasks = TaskSet([Task("a"), Task("b"), Task("c")])
    with pytest.raises(UsageError, match=r"differ in \d+ tensors that all tasks share \(first: .*grown from one parent"):
        join(parent, stranger)
    with pytest.raises(UsageError, match=r"differ in model\.momentum: 0\.99 and 0\.5"):
        check_same_shared(parent, miniature_model(momentum=0.5))
    child = seedling(parent, NEW, None, seed=0)
    with torch.no_grad():
        child.get_buffer("adapters.gate.temperature").mul_(1 + 1e-7)  # one bit: another temperature is another model for all
    with pytest.raises(UsageError, match=r"differ in 1 tensors .* adapters.gate.temperature"):
        join(parent, child)


def test_where_the_trunk_s_file_lay_is_no_difference() -> None:
    """The trunk itself is compared, and a model read on another machine names another file."""
    parent = miniature_model()
    child = seedling(parent, NEW, None, seed=0)
    child.config = replace(child.config, weights="elsewhere/sam2.pt")
    assert join(parent, child).tasks.names == [*parent.tasks.names, NEW.name]


def test_a_trunk_that_is_named_by_its_hash_stays_named_and_fits_again(tmp_path) -> None:
    weights = save_meta_file(perturb(Trunk("tiny")), tmp_path / "sam2.pt")
    torch.manual_seed(0)
    parent = create(miniature_config(weights=str(weights), freeze=True), TASKS)
    load_trunk_weights(parent.trunk, str(weights))
    after = grown(parent)
    save_model(after, tmp_path / "grown")
    again = load_model(tmp_path / "grown", weights=str(weights))
    assert not [key for key in torch.load(weights, weights_only=True)["model"] if key in again.state_dict()]
    assert (tmp_path / "grown" / "model.safetensors").stat().st_size < sum(4 * one.numel() for one in after.parameters())
    image = noise(2, 3, 64, 64)
    with torch.no_grad():
        assert_same_bits(answers(parent, image, [0, 2]), answers(again, image, [0, 2]))
        assert_same_bits(answers(after, image, [3, 3]), answers(again, image, [3, 3]))


def test_a_trunk_that_was_trained_from_weights_is_stored_with_the_grown_model(tmp_path) -> None:
    parent = miniature_model(weights="somewhere/sam2.pt", freeze=False)
    save_model(grown(parent), tmp_path / "grown")
    image = noise(2, 3, 64, 64)
    with torch.no_grad():
        assert_same_bits(answers(parent, image, [0, 2]), answers(load_model(tmp_path / "grown"), image, [0, 2]))


def test_one_more_task_adds_at_most_3_38_million_parameters_to_the_large_model() -> None:
    """The issue's bound; the paper's figure for the routes alone is 3.37 M."""
    config = load_config(["default"]).model
    eight, nine = (create_without_memory(config, tasks(number)) for number in (8, 9))
    sizes = [sum(value.numel() for value in model.state_dict().values()) for model in (eight, nine)]
    own = sum(value.numel() for value in own_state(nine).values()) // 9
    assert sizes[1] - sizes[0] == own
    routes, gate, heads, prototypes = 3_373_056, 48, 256 + 128 + 128 + 3 * 2, 2 * (256 + 128 + 128)
    assert own == routes + gate + heads + prototypes == 3_374_646
    assert own <= 3_380_000
