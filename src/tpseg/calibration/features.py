"""What an image looks like to a model, whatever the task: one vector, from the first stages of the trunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from tpseg.calibration.thresholding import ShiftedNetwork
from tpseg.core.errors import UsageError
from tpseg.core.hardware import autocast
from tpseg.inference.augmentation import AugmentedNetwork
from tpseg.inference.network import Network, TorchNetwork
from tpseg.models.adapters.plain import PlainAdapters
from tpseg.models.adapters.tca import TCA, Routing
from tpseg.models.base import LesionModel
from tpseg.models.trunks.hiera import Adapt

STAGES = 2
"""Stages of the trunk that are run, at strides 4 and 8. Later ones recognise tasks no better and outliers worse (docs/trust.md)."""


def describe(model: LesionModel, image: Tensor) -> Tensor:
    """Mean and standard deviation of each channel of the first stages, without any task's own route.

    image (B, 3, H, W) normalised; returns (B, 2 (C_1 + C_2)) float32. What else is in the batch changes nothing. For
    models with a trunk, see `describing`.
    """
    assert model.trunk is not None
    stages = model.trunk(model.pad(image), shared_route(model, len(image)), STAGES)
    maps = [stage.float().flatten(2) for stage in stages]  # (B, C_s, h, w) -> (B, C_s, h * w)
    return torch.cat([part for one in maps for part in (one.mean(2), one.std(2, correction=0))], 1)


def shared_route(model: LesionModel, batch: int) -> Adapt | None:
    """The hook before each block of the trunk that no task changes; None where all routes are the tasks' own, or there are none."""
    adapters = getattr(model, "adapters", None)
    if isinstance(adapters, PlainAdapters):
        return adapters
    if not isinstance(adapters, TCA) or adapters.blocks[0].shared is None:
        return None
    routing = Routing([0], torch.zeros(batch, dtype=torch.int64))
    return lambda index, tokens: adapters.adapt_hard(index, tokens, routing, [False])


def describing(network: Network) -> TorchNetwork:
    """The network that describes images for this one; raises UsageError for an exported one, or one without a trunk."""
    if isinstance(network, (AugmentedNetwork, ShiftedNetwork)):
        return describing(network.network)
    if not isinstance(network, TorchNetwork):
        raise UsageError("an exported file does not tell what its trunk sees; recognising images needs the model folder it was made from")
    if network.model.trunk is None:
        raise UsageError(
            f"architecture '{network.model.config.architecture}' has no trunk to describe images by; models that have one can be "
            "calibrated (tpseg, sam2_unet)"
        )
    return network


@torch.inference_mode()
def describe_with(network: Network, pixels: Tensor) -> Tensor:
    """`describe` by the model of a network, on its device and in its precision; pixels (B, 3, S, S), returns (B, D) on the CPU."""
    plain = describing(network)
    with autocast(plain.device):
        return describe(plain.model, pixels.to(plain.device)).cpu()


def describe_all(network: Network, images: Iterable[Tensor], batch_size: int = 8) -> Tensor:
    """One vector for each image (3, S, S), which are read as they are needed; returns (N, D)."""
    return torch.cat([describe_with(network, torch.stack(batch)) for batch in _batches(images, batch_size)])


def _batches(images: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    left = iter(images)
    while batch := list(islice(left, size)):
        yield batch
