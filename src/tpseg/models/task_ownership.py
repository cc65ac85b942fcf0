"""Which tensors of a model are one task's own and which are shared; models that gain and lose tasks, nothing else changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.models.adapters.gate import SplitGate
from tpseg.models.adapters.tca import TCA, TaskConditionedAdapter
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import create
from tpseg.models.tpseg.decoder import LogitFuser
from tpseg.models.tpseg.pgtd import TaskHead
from tpseg.models.tpseg.prototypes import PrototypeMemory

LISTS: dict[type[nn.Module], str] = {
    TaskConditionedAdapter: "tasks",
    SplitGate: "steps",
    TaskHead: "outputs",
    LogitFuser: "mix",
}
"""Modules that hold a list with an entry for each task, and the name of the list. An empty one belongs to no task."""
ROWS: dict[type[nn.Module], str] = {PrototypeMemory: "prototypes"}
"""Modules that hold a buffer (T, ...) with a row for each task, and its name."""


def holders(model: nn.Module, kinds: dict[type[nn.Module], str]) -> Iterator[tuple[str, nn.Module, str]]:
    """Each module of these kinds: its name in the model, itself, and the attribute that holds what tasks own."""
    for name, module in model.named_modules():
        for kind, attribute in kinds.items():
            if isinstance(module, kind):
                yield name, module, attribute


def own_keys(model: nn.Module) -> set[str]:
    """The keys of the state dict whose tensors belong to tasks; all others are shared."""
    keys = {f"{name}.{attribute}" for name, _, attribute in holders(model, ROWS)}
    lists = tuple(f"{name}.{attribute}." for name, _, attribute in holders(model, LISTS))
    return keys | {key for key in model.state_dict() if key.startswith(lists)}


def own_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that belong to tasks: what training a task may change, beside its prototypes."""
    keys = own_keys(model)
    return [parameter for name, parameter in model.named_parameters() if name in keys]


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that belong to tasks, by key; shares their memory."""
    keys = own_keys(model)
    return {key: value for key, value in model.state_dict().items() if key in keys}


def shared_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that all tasks share, by key: trunk, neck, shared routes, decoder, gate temperature; shares their memory."""
    keys = own_keys(model)
    return {key: value for key, value in model.state_dict().items() if key not in keys}


def check_growable(model: LesionModel) -> None:
    """Raise UsageError for a model in which a task owns nothing that could be learned."""
    if own_parameters(model):
        return
    config = model.config
    what = f"architecture {config.architecture}"
    if config.architecture == "tpseg":
        what += f" with model.adapter {config.adapter} and no PGTD"
    raise UsageError(
        f"{what}: a task owns no part of this model, so that none can be added without changing the others; models that grow are "
        "those of model.architecture tpseg with model.adapter tca or with PGTDs (model.pgtds)"
    )


def extract(model: LesionModel, tasks: Sequence[str]) -> LesionModel:
    """A copy that knows only these tasks, in the model's order, and holds no other's tensors; what they are asked is answered as before.

    Raises UsageError for a name that is not there, or none.
    """
    wanted = {model.tasks.id(name) for name in tasks}
    ids = [one for one in range(len(model.tasks)) if one in wanted]
    part = copy.deepcopy(model)
    part.tasks = TaskSet([model.tasks[one] for one in ids])
    for _, module, attribute in holders(part, LISTS):
        entries = getattr(module, attribute)
        if len(entries):
            setattr(module, attribute, type(entries)([entries[one] for one in ids]))
    for _, module, attribute in holders(part, ROWS):
        setattr(module, attribute, getattr(module, attribute)[ids])
    return unsettled(part)


def seedling(parent: LesionModel, task: Task, source: str | None, seed: int, *, own_routes: bool = True) -> LesionModel:
    """A model of one new task on the parent's shared parts, which are frozen; to be trained, then joined to the parent.

    source: the task whose part the new one starts from; None: from random numbers, as drawn by `seed`. own_routes: see
    `give_own_routes`. Raises UsageError for a model that cannot grow, a name the parent knows already, or a source that it does
    not know.
    """
    check_growable(parent)
    if task.name in parent.tasks.names:
        raise UsageError(f"task '{task.name}': the model knows a task of this name already; 'tpseg rename-task' gives one another name")
    child = extract(parent, [parent.tasks.names[0] if source is None else source])
    child.tasks = TaskSet([task])
    if source is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn = create(parent.config, child.tasks)
        child.load_state_dict(own_state(drawn), strict=False)
    if own_routes:
        give_own_routes(child, shared_everywhere=source is None)
    child.requires_grad_(False)
    for parameter in own_parameters(child):
        parameter.requires_grad_(True)
    return child.train()


@torch.no_grad()
def give_own_routes(child: LesionModel, shared_everywhere: bool) -> None:
    """Let a model's only task run its own route from the first block on, in place, where it has a gate to choose.

    Where it took the shared route, which is frozen, its own starts as a copy of that: what the model answers changes by no more
    than what a gate near 0 or 1 still let through of the other route. shared_everywhere: at every block, for routes that were
    never trained. Blocks before a split cannot be trained for a new task else: the shared route is frozen, and the gate's
    gradient there is next to nothing.
    """
    adapters = getattr(child, "adapters", None)
    if not isinstance(adapters, TCA) or adapters.gate is None:
        return
    for block, own in zip(adapters.blocks, adapters.gate.table()[0], strict=True):
        if block.shared is not None and (shared_everywhere or not own):
            block.tasks[0].load_state_dict(block.shared.state_dict())
    steps = adapters.gate.steps[0]
    steps.copy_(adapters.gate.reading.open(len(steps)))


def join(parent: LesionModel, child: LesionModel) -> LesionModel:
    """A copy of the parent that knows the child's tasks too, after its own; the parent's answers stay as they are, bit for bit.

    Raises UsageError if a name is in both, or if what tasks share is not the same, bit for bit, in both models.
    """
    both = [name for name in child.tasks.names if name in parent.tasks.names]
    if both:
        raise UsageError(f"task '{both[0]}' is in both models; give one of them another name with 'tpseg rename-task'")
    check_same_shared(parent, child)
    joined = copy.deepcopy(parent)
    joined.tasks = TaskSet([*parent.tasks, *child.tasks])
    device = next(parent.parameters()).device
    added = dict(copy.deepcopy(child).to(device).named_modules())
    for name, module, attribute in list(holders(joined, LISTS)):
        entries = getattr(module, attribute)
        setattr(module, attribute, type(entries)([*entries, *getattr(added[name], attribute)]))
    for name, module, attribute in holders(joined, ROWS):
        setattr(module, attribute, torch.cat([getattr(module, attribute), getattr(added[name], attribute)]))
    return unsettled(joined)


def check_same_shared(one: LesionModel, other: LesionModel) -> None:
    """Raise UsageError that names the first setting or shared tensor in which two models differ."""
    advice = "only models that were grown from one parent fit together"
    settings, others = (asdict(replace(model.config, weights=None)) for model in (one, other))  # the trunk itself is compared
    for key, value in settings.items():
        if value != others[key]:
            raise UsageError(f"the models differ in model.{key}: {value} and {others[key]}; {advice}")
    first, second = shared_state(one), shared_state(other)
    different = sorted(first.keys() ^ second.keys()) or [key for key in first if not same_bits(first[key], second[key])]
    if different:
        raise UsageError(f"the models differ in {len(different)} tensors that all tasks share (first: {different[0]}); {advice}")


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bytes; unlike torch.equal this tells 0 from -0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(*(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))


def unsettled(model: LesionModel) -> LesionModel:
    """The model without the hardened gate that was fixed for other tasks."""
    for module in model.modules():
        if isinstance(module, SplitGate):
            module.settled = None
    return model
