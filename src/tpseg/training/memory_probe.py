"""Which batch would fit: found by trying, after a step ran out of memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import lightning
import torch
from torch import Tensor

from tpseg.core.config import Config
from tpseg.core.memory import divisors, is_out_of_memory, largest_that_fits
from tpseg.models.heads.losses import segmentation_loss
from tpseg.training.module import LesionModule


def advice(module: LesionModule, trainer: lightning.Trainer, config: Config, images: int, processes: int) -> str:
    """What to change so that a step fits, tried here and now, not computed: a clause for the message.

    images: of the pass that failed, over all processes; fewer than the batch asked for where the data have no more. To be called when
    nothing holds the failed step any more, neither its tensors nor its error.
    """
    batch, accumulate = config.training.batch_size, config.training.accumulate
    share = images // processes
    fits = largest_that_fits(lambda part: try_step(module, trainer, config, part), divisors(share))
    found = []
    if fits:
        same = images * accumulate // (fits * processes)
        found.append(
            f"a batch of {fits * processes} fits, tried just now: --training.batch_size {fits * processes} --training.accumulate {same} "
            "(as many images in an optimiser step)"
        )
    trunk = module.model.trunk
    if trunk is not None and not trunk.checkpointing:
        trunk.checkpointing = True
        try:
            fits_recomputing = try_step(module, trainer, config, share)
        finally:
            trunk.checkpointing = False
        if fits_recomputing:
            found.append(f"a batch of {batch} fits with --training.checkpointing true, tried just now too (about a third more time)")
    if not found:
        return "not even one image at a time fits: take a smaller model.image_size or model.trunk, or a machine with more memory"
    return "; or ".join(found)


def drop_failed_backward() -> None:
    """Let go of the graph of a backward pass that failed in this thread, and with it of the step's activations.

    What PyTorch had not come to stays in the thread's queue, ordered by the age of the nodes, and passes over newer graphs never reach it.
    A pass over a graph that another thread made, where nodes are counted from 0 again, clears the queue before it ends.
    """
    with ThreadPoolExecutor(1) as pool:
        oldest = pool.submit(lambda: torch.zeros(1, requires_grad=True).sum()).result()
    oldest.backward()


def try_step(module: LesionModule, trainer: lightning.Trainer, config: Config, images: int) -> bool:
    """Whether a forward and backward pass of so many images fits beside the weights, their gradients and the optimiser's moments."""
    device = trainer.strategy.root_device
    ballast: list[Tensor] = []
    drop_failed_backward()
    try:
        model = module.model.to(device).train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        ballast = [torch.zeros_like(parameter) for parameter in trained for _ in range(2)]
        size = config.model.image_size
        task = torch.arange(images, device=device) % len(model.tasks)
        mask = torch.zeros(images, 1, size, size, device=device)
        mask[..., : size // 2] = 1.0
        with trainer.precision_plugin.forward_context():
            output = model(torch.zeros(images, 3, size, size, device=device), task)
            loss = segmentation_loss(output.supervised, mask).mean()
        loss.backward()
        return True
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        ballast.clear()
        module.model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
