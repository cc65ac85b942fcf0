"""Test-time augmentation: an image and its mirror images are segmented, the answers turned back and averaged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tpseg.inference.network import Maps, Network

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
"""Axes that are mirrored: none, left to right, top to bottom, both. Other sizes of the image cost Dice (docs/trust.md)."""


class AugmentedNetwork:
    """A network that is asked four times, called like the one it wraps; logits and similarities are means over the four."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.tasks = network.tasks
        self.image_size = network.image_size

    def __call__(self, image: Tensor, task: Tensor, rows: Tensor) -> Maps:
        """As Network.__call__; one view at a time, so that no more memory is needed."""
        views = [self._view(image, task, rows, flip) for flip in FLIPS]
        similarities = [view.similarity for view in views if view.similarity is not None]
        return Maps(_mean([view.logits for view in views]), _mean(similarities) if similarities else None)

    def _view(self, image: Tensor, task: Tensor, rows: Tensor, flip: tuple[int, ...]) -> Maps:
        found = self.network(image.flip(flip), task, rows)
        return Maps(found.logits.flip(flip), None if found.similarity is None else found.similarity.flip(flip))


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(maps)).mean(0)
