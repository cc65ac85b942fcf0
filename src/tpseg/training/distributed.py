"""What the processes of a run have in common: sums over all of them, and Lightning's strategies for their gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, MixedPrecision, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from tpseg.core.errors import UsageError
from tpseg.models.base import LesionModel
from tpseg.models.catalogue import create_without_memory
from tpseg.models.trunks.hiera import Trunk
from tpseg.training.process_group import Crew

StrategyName = Literal["auto", "ddp", "fsdp"]
FSDP_PREFIX = "_fsdp_wrapped_module."
"""What FSDP puts into the names of what it wraps."""


def processes() -> int:
    """How many train together; 1 outside of a run."""
    return torch.distributed.get_world_size() if _joined() else 1


def rank() -> int:
    return torch.distributed.get_rank() if _joined() else 0


def add_up(values: Tensor) -> Tensor:
    """The sum over all processes, the same in each, without waiting for the device."""
    if processes() == 1:
        return values
    total = values.clone()
    torch.distributed.all_reduce(total)
    return total


def gather(items: list[Any]) -> list[Any]:
    """The lists of all processes, joined in the order of ranks. To be called by all of them or by none."""
    if processes() == 1:
        return items
    lists: list[Any] = [None] * processes()
    torch.distributed.all_gather_object(lists, items)
    return [item for one in lists for item in one]


def _joined() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def environment(crew: Crew) -> ClusterEnvironment:
    """Who has started the processes, in Lightning's words. Named rather than left to Lightning to find out: in a SLURM job
    without srun it takes one process for many. What a job that is requeued runs again is its script's affair."""
    if crew.started_by == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if crew.started_by == "torchrun" else LightningEnvironment()


def choose_strategy(name: StrategyName, crew: Crew, model: LesionModel) -> Any:
    """Lightning's strategy for `--strategy`: ddp for more than one process, fsdp on request.

    Raises UsageError for fsdp without GPUs or without a trunk.
    """
    if name == "fsdp":
        if not torch.cuda.is_available():
            raise UsageError("--strategy: found fsdp, which needs GPUs; expected auto or ddp on this machine")
        if model.trunk is None:
            raise UsageError(f"--strategy: found fsdp, which shards a trunk; architecture {model.config.architecture} has none, take ddp")
        return ShardedTrunk(model, model.trunk)
    if name == "auto" and crew.size == 1:
        return "auto"
    # Tasks come and go: a task that is absent here takes its gradient from the processes where it is present, and one that
    # is absent everywhere has none, so that the optimiser leaves it alone. Prototypes and temperatures are the same in all
    # processes by construction: there is nothing to send before a step.
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True)


class ShardedTrunk(FSDPStrategy):
    """FSDP over the trunk's blocks: weights, gradients and moments of each are in parts, and whole while it runs.

    Everything else is whole in every process, and its gradients are averaged by `average_gradients`: FSDP joins parameters to
    long vectors, in which a task that is absent would have a gradient of zeros, on which an optimiser with momentum acts.
    """

    def __init__(self, model: LesionModel, trunk: Trunk) -> None:
        in_blocks = {id(parameter) for parameter in trunk.hiera.blocks.parameters()}
        whole = [parameter for parameter in model.parameters() if id(parameter) not in in_blocks]
        super().__init__(
            auto_wrap_policy={type(block) for block in trunk.hiera.blocks},
            mixed_precision=MixedPrecision(),  # autocast alone: prototypes are buffers, and stay in 32 bit
            ignored_states=whole,
        )
        self.lesion_model = model

    def setup(self, trainer: lightning.Trainer) -> None:
        self.lesion_model.to(self.root_device)  # FSDP moves what it shards
        super().setup(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.model is not None
        with _whole_state(self.model, rank0_only=True):
            return self.model.state_dict()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """In the form of an optimiser without FSDP: parameters numbered in the order of its groups."""
        assert self.model is not None
        with _whole_state(self.model, rank0_only=True):
            named = FSDP.optim_state_dict(self.model, optimizer)
        order = {name: number for number, name in enumerate(_names(self.model, optimizer))}
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if not named:  # the state is on rank 0 only
            return {}
        state = {order[name]: entry for name, entry in named["state"].items()}
        return {"state": state, "param_groups": _numbered(named["param_groups"], sizes)}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        assert self.model is not None
        assert self.lightning_module is not None
        checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
        with _whole_state(self.model, rank0_only=False):
            self.model.load_state_dict(checkpoint.pop("state_dict"), strict=self.lightning_module.strict_loading)
            for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
                names = _names(self.model, optimizer)
                numbers = [number for group in saved["param_groups"] for number in group["params"]]
                by_number = dict(zip(numbers, names, strict=True))
                state = {by_number[number]: entry for number, entry in saved["state"].items()}
                groups = [{**group, "params": [by_number[number] for number in group["params"]]} for group in saved["param_groups"]]
                flat = FSDP.optim_state_dict_to_load(self.model, optimizer, {"state": state, "param_groups": groups})
                optimizer.load_state_dict(flat)
        return checkpoint


def whole_model(model: LesionModel, wrapped: nn.Module | None) -> LesionModel | None:
    """The model with all its weights, in the first process; None in the others. wrapped: what Lightning's strategy made of it.

    To be called by all processes: a sharded model is put together from them.
    """
    if not isinstance(wrapped, FSDP):
        return model if rank() == 0 else None
    with _whole_state(wrapped, rank0_only=True):
        state = wrapped.state_dict()
    if rank() > 0:
        return None
    whole = create_without_memory(model.config, model.tasks)
    whole.load_state_dict({key.removeprefix("model."): value for key, value in state.items()}, assign=True)
    return whole


def _whole_state(model: nn.Module, rank0_only: bool) -> Any:
    """Within it the state of a sharded model and of its optimiser is that of the whole one."""
    offload = {"offload_to_cpu": rank0_only and torch.cuda.is_available(), "rank0_only": rank0_only}
    return FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT, FullStateDictConfig(**offload), FullOptimStateDictConfig(**offload))


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of an optimiser's parameters, group by group, as they are without FSDP."""
    names = {id(parameter): name.replace(FSDP_PREFIX, "") for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _numbered(groups: list[dict[str, Any]], sizes: list[int]) -> list[dict[str, Any]]:
    starts = [sum(sizes[:position]) for position in range(len(sizes))]
    return [{**group, "params": list(range(start, start + size))} for group, start, size in zip(groups, starts, sizes, strict=True)]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their average over all processes, as DDP does; a parameter without one anywhere keeps none.

    A process without a gradient that others have counts as zeros.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    has = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.float32, device=trained[0].device)
    present = [parameter for parameter, number in zip(trained, add_up(has).tolist(), strict=True) if number]
    flat = torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in present])
    parts = (add_up(flat) / processes()).split([one.numel() for one in present])
    for parameter, part in zip(present, parts, strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))  # of its strides: fused optimisers go by memory


def clip_gradients(model: nn.Module, norm: float) -> Tensor:
    """Scale the gradients to a norm of at most `norm`, over the whole batch; returns the norm that they had.

    DDP has averaged them over the processes already; of what FSDP leaves alone that is done here.
    """
    if not isinstance(model, FSDP):
        return nn.utils.clip_grad_norm_(model.parameters(), norm)
    average_gradients(parameter for parameter in model.parameters() if parameter in model._ignored_params)
    return model.clip_grad_norm_(norm)
