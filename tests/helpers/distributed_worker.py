"""What the processes of test_distributed.py run: training with the miniature trunk, and whatever is to go wrong in one of them.

The patches of a test do not reach processes that a server starts, so they are made here.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed.fsdp.fully_sharded_data_parallel as fsdp
from miniature import TRUNK, Stopped
from PIL import Image
from torch import Tensor

import tpseg.training.callbacks
import tpseg.training.distributed
import tpseg.training.module
import tpseg.training.run
from tpseg.core.progress import console
from tpseg.data.dataset import LesionDataset
from tpseg.models.heads.losses import segmentation_loss
from tpseg.models.trunks.hiera import TRUNK_SIZES
from tpseg.training.module import LesionModule
from tpseg.training.run import Run, train_started


def miniature(run: Run) -> None:
    TRUNK_SIZES["tiny"] = TRUNK
    torch.set_num_threads(1)
    train_started(run)


def speak() -> None:
    """A line and a warning of each process."""
    console.print(f"process {os.environ['RANK']} speaks")
    logging.getLogger("tpseg.training.run").warning(f"process {os.environ['RANK']} warns")


def sgd(groups: Any, lr: float, fused: bool) -> torch.optim.Optimizer:
    """Linear in the gradient, unlike Adam, whose first steps are signs: there a gradient of 1e-9 moves a weight as far as one of 1."""
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=fused)


def with_sgd(run: Run) -> None:
    torch.optim.AdamW = sgd  # type: ignore[assignment, misc]
    miniature(run)


def killed_in_epoch_2(run: Run) -> None:
    """With SGD, until the second epoch begins."""

    def stop(self: LesionModule, batch: Any, index: int) -> None:
        if self.current_epoch == 1:
            raise Stopped

    LesionModule.on_train_batch_start = stop  # type: ignore[assignment, method-assign]
    with_sgd(run)


def every_epoch_kept(run: Run) -> None:
    """A checkpoint of each epoch, as epoch0.ckpt and so on."""
    save = tpseg.training.callbacks.WholeCheckpoints.save_checkpoint

    def keep(self: Any, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        torch.save(checkpoint, run.out / f"epoch{checkpoint['epoch']}.ckpt")
        save(self, checkpoint, path, storage_options)

    tpseg.training.callbacks.WholeCheckpoints.save_checkpoint = keep  # type: ignore[method-assign]
    miniature(run)


def lost_in_process_1(run: Run) -> None:
    """The second process's loss is NaN in its fourth step, the first of the second epoch."""
    spoil_loss(lambda: 4)
    miniature(run)


def spoil_loss(step: Callable[[], int]) -> None:
    calls = 0

    def loss(supervised: list[Tensor], mask: Tensor) -> Tensor:
        nonlocal calls
        calls += supervised[0].requires_grad
        losses = segmentation_loss(supervised, mask)
        bad = supervised[0].requires_grad and calls == step() and os.environ["RANK"] == "1"
        return losses * torch.nan if bad else losses

    tpseg.training.module.segmentation_loss = loss


def bad_image_in_process_1(run: Run) -> None:
    """An image that only the second process meets, once training has begun."""
    read = LesionDataset.__getitem__

    def spoil(self: LesionDataset, item: Any) -> Any:
        if os.environ["RANK"] == "1" and self.augmentation != "none":
            Image.new("L", (3, 3)).save(self.cases[item.index].mask)
        return read(self, item)

    LesionDataset.__getitem__ = spoil  # type: ignore[method-assign]
    miniature(run)


def process_1_is_killed(run: Run) -> None:
    def kill(self: LesionModule, batch: Any, index: int) -> None:
        if os.environ["RANK"] == "1" and index == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    LesionModule.on_train_batch_start = kill  # type: ignore[assignment, method-assign]
    miniature(run)


def shard() -> None:
    """FSDP, which wants a GPU, on CPUs: for its arithmetic and its checkpoints."""
    tpseg.training.run.choose_strategy = lambda name, crew, model: tpseg.training.distributed.ShardedTrunk(model, model.trunk)
    init = fsdp._init_device_handle
    fsdp._init_device_handle = lambda state, module, ignored, device: init(state, module, ignored, torch.device("cpu"))


def sharded_with_sgd(run: Run) -> None:
    shard()
    with_sgd(run)


def sharded_killed_in_epoch_2(run: Run) -> None:
    shard()
    killed_in_epoch_2(run)
