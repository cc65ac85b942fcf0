"""The recipe: one step of training and of validation, the optimiser and its schedules, as a Lightning module."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NoReturn

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from tpseg.checkpoints.model_folder import is_trunk
from tpseg.core.config import Config
from tpseg.core.errors import TPSegError
from tpseg.data.dataset import Batch
from tpseg.data.sampling import Share
from tpseg.models.base import LesionModel
from tpseg.models.heads.losses import segmentation_loss
from tpseg.training.distributed import FSDP_PREFIX, add_up, clip_gradients, gather


class NonFiniteLoss(TPSegError):
    """The loss became NaN or infinite: the run stops, the last good checkpoint stays."""


@dataclass
class Watched:
    """What has to be finite in a step, for a look that does not make the host wait for the device."""

    step: int
    files: list[str]
    losses: Tensor
    """Of this process's images, (B,)."""
    loss: Tensor
    """Of the whole batch, the same in every process."""
    norm: Tensor | None = None
    """Of the gradient, where the step had one; the same in every process."""


class LesionModule(lightning.LightningModule):
    """One step of training and validation, the optimiser and the schedules.

    With W processes a batch is shared by them: sums over images, and what is decided on them, are those of the whole batch.
    """

    def __init__(self, config: Config, model: LesionModel, total_steps: int) -> None:
        super().__init__()
        self.settings = config.training
        self.model = model
        self.total_steps = total_steps
        self.matrices = matrices(model)
        self.strict_loading = model.trunk is None or not model.trunk.frozen  # on_save_checkpoint leaves a frozen one out
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self.plateau_state: dict[str, Any] | None = None
        self.watched: Watched | None = None
        self.validated: list[tuple[Tensor, Tensor, Tensor, list[str]]] = []  # Dice, loss and task id of each image, and its file
        self.epoch_loss = torch.zeros(())  # sum over the epoch's images, kept here: Lightning's own is not in its checkpoints
        self.epoch_images = 0

    def on_train_epoch_start(self) -> None:
        self.epoch_loss, self.epoch_images = torch.zeros((), device=self.device), 0

    def training_step(self, batch: Batch, index: int) -> Tensor:
        self.check_finite()
        progress = self.global_step / max(self.total_steps - 1, 1)
        start, end = self.settings.gate_temperature
        self.model.set_gate_temperature(start + (end - start) * min(progress, 1.0))
        cost = self.model.split_cost(batch.task) if self.settings.gate_cost else None  # before the model, which keeps a GPU busy
        output = self.model(batch.image, batch.task)
        losses = segmentation_loss(output.supervised, batch.mask)  # (B,)
        if cost is not None:
            losses = losses + self.settings.gate_cost * cost
        images = self.batch_images()
        loss = losses.sum() / (images / self.trainer.world_size)  # the mean of all processes' is the batch's mean
        mean = add_up(losses.detach().sum()) / images
        self.watched = Watched(self.global_step, batch.files, losses.detach(), mean)
        self.model.observe(output, batch.mask, batch.task)
        self.epoch_loss = self.epoch_loss.to(mean.device) + mean * images
        self.epoch_images += images
        self.log("train/loss_step", mean, batch_size=images, on_step=True, on_epoch=False)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Once for all forward passes that share the step: they move the prototypes as one pass over all of their images would."""
        self.model.move_prototypes()

    def batch_images(self) -> int:
        """Images of a training batch, over all processes."""
        share = self.trainer.train_dataloader.sampler  # type: ignore[union-attr]
        assert isinstance(share, Share)
        return min(self.settings.batch_size, share.total)

    def check_finite(self) -> None:
        """Raise NonFiniteLoss if the step before lost its loss or its gradient.

        A step later, because to read a number at once is to wait for the device: here the next step begins, which reads its
        task ids and waits anyway. Before a validation, after which the weights are saved, it is called too.
        """
        watched, self.watched = self.watched, None
        if watched is None:
            return
        if not torch.isfinite(watched.loss):
            lost = [file for file, good in zip(watched.files, torch.isfinite(watched.losses).tolist(), strict=True) if not good]
            report_non_finite("loss", watched.step, lost)
        if watched.norm is not None and not torch.isfinite(watched.norm):
            report_non_finite("gradient", watched.step, watched.files)

    def on_validation_start(self) -> None:
        self.check_finite()

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True  # makes Lightning validate before it ends, unlike max_steps

    def validation_step(self, batch: Batch, index: int) -> None:
        output = self.model(batch.image, batch.task)
        losses = segmentation_loss(output.supervised, batch.mask)
        self.validated.append((hard_dice(output.logits, batch.mask), losses, batch.task, batch.files))

    def on_validation_epoch_end(self) -> None:
        """Mean Dice per task and over tasks, hard at ½ and at the model's input size; every image counts once."""
        share = self.trainer.val_dataloaders.sampler  # type: ignore[union-attr]
        own = share.own  # what comes after is an image repeated
        dice, losses, task = (torch.cat([entry[part] for entry in self.validated])[:own] for part in range(3))  # type: ignore[misc]
        files = [file for entry in self.validated for file in entry[3]][:own]
        self.validated.clear()
        tasks = len(self.model.tasks)
        sums = torch.zeros(tasks + 1, 2, device=dice.device)  # a row for each task and one for the loss; sum and number
        sums.index_add_(0, task, torch.stack([dice, torch.ones_like(dice)], 1))
        sums[tasks] = torch.stack([losses.sum(), losses.new_tensor(len(losses))])
        means = [total / number if number else None for total, number in add_up(sums).tolist()]
        loss = means.pop()
        assert loss is not None
        if not math.isfinite(loss):  # before these weights are saved
            lost = [file for file, good in zip(files, torch.isfinite(losses).tolist(), strict=True) if not good]
            report_non_finite("validation loss", self.global_step, lost)
        found = {name: mean for name, mean in zip(self.model.tasks.names, means, strict=True) if mean is not None}
        dice_of_all = sum(found.values()) / len(found)
        if self.epoch_images:
            self.log("train/loss_epoch", self.epoch_loss / self.epoch_images)
        self.log_dict({"val/loss": loss, **{f"val/dice/{name}": mean for name, mean in found.items()}, "val/dice": dice_of_all})
        if self.plateau is not None:  # stepped here, not by Lightning, which does so after it has written the checkpoint
            self.plateau.step(dice_of_all)
        self.log_dict({f"split/{name}": float(split) for name, split in self.model.splits().items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        settings = self.settings
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
        optimiser = kind(parameter_groups(self.model, settings, self.matrices), lr=settings.learning_rate, fused=True)
        if settings.schedule == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.1, patience=6, min_lr=1e-7)
            if self.plateau_state is not None:
                self.plateau.load_state_dict(self.plateau_state)
            return {"optimizer": optimiser}
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: rate_factor(step, self.total_steps, settings.warmup, settings.schedule == "cosine")
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        """Clip here: Lightning refuses to for fused optimisers, though without a gradient scaler it is right.

        The gradient is the average over all processes already.
        """
        assert self.trainer.model is not None
        assert self.watched is not None
        norm = clip_gradients(self.trainer.model, self.settings.clip or math.inf)
        self.watched.norm = norm

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A frozen trunk is not stored again; the plateau's state is."""
        if self.model.trunk is not None and self.model.trunk.frozen:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {key: value for key, value in state.items() if not is_trunk(key.removeprefix("model."))}
        if self.plateau is not None:
            checkpoint["plateau"] = self.plateau.state_dict()
        checkpoint["epoch_loss"], checkpoint["epoch_images"] = self.epoch_loss.cpu(), self.epoch_images

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.plateau_state = checkpoint.get("plateau")
        if "epoch_loss" in checkpoint:  # an older tpseg had none, and saved at the end of epochs only
            self.epoch_loss, self.epoch_images = checkpoint["epoch_loss"], checkpoint["epoch_images"]


def report_non_finite(what: str, step: int, files: list[str]) -> NoReturn:
    """Raise NonFiniteLoss with the files of all processes; all of them call this, for all saw the same numbers."""
    raise NonFiniteLoss(
        f"the {what} became NaN or infinite at step {step}, on: {', '.join(gather(files))}. "
        "Look at these files with 'tpseg data check', or lower training.learning_rate; the last good checkpoint is kept"
    )


def hard_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Dice of each image, cut at ½, both empty 1; (B, 1, H, W) twice in, (B,) out."""
    found, true = (logits > 0).flatten(1), mask.flatten(1) > 0.5
    total = found.sum(1) + true.sum(1)
    return torch.where(total > 0, 2 * (found & true).sum(1) / total.clamp_min(1), 1.0)


def rate_factor(step: int, total: int, warmup: float, cosine: bool) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a half cosine to 0, or constant."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min((step - rise) / max(total - rise, 1), 1.0))) if cosine else 1.0


def matrices(model: LesionModel) -> set[str]:
    """Names of the parameters of two and more dimensions: to be asked before FSDP cuts them to vectors."""
    return {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}


def parameter_groups(model: LesionModel, settings: Any, decayed: Collection[str]) -> list[dict[str, Any]]:
    """Trained parameters by learning rate and decay: trunk, gate and the rest."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.learning_rate
        if name.startswith("trunk.") and settings.trunk_learning_rate is not None:
            rate = settings.trunk_learning_rate
        if name.startswith("adapters.gate.") and settings.gate_learning_rate is not None:
            rate = settings.gate_learning_rate
        decay = settings.weight_decay if name.replace(FSDP_PREFIX, "") in decayed else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]
