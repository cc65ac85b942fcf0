"""What is tried after a step ran out of memory is tried in the memory that a new run would have."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from miniature import config
from torch import Tensor

import tpseg.training.memory_probe
from tpseg.training.memory_probe import advice, drop_failed_backward


class Held:
    """Something that a graph holds, as it does activations."""


def holding(kept: list[weakref.ref[Held]]) -> Callable[[Tensor], Tensor]:
    class Holding(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: Tensor) -> Tensor:
            context.held = Held()
            kept.append(weakref.ref(context.held))
            return value.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:
            return gradient

    return Holding.apply


class NoMemory(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return torch.empty(10**15)


@contextmanager
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def failing_step(hold: Callable[[Tensor], Tensor]) -> None:
    """Two outputs, as PGTDs give them; the backward pass fails on the younger one."""
    value = torch.ones(3, requires_grad=True)
    (hold(value).sum() + NoMemory.apply(hold(value)).sum()).backward()


def test_a_backward_pass_that_failed_leaves_nothing_behind():
    kept: list[weakref.ref[Held]] = []
    with no_collector():
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            failing_step(holding(kept))
        assert [one() is not None for one in kept] == [True, False]  # what PyTorch keeps; if not, the defence is not needed any more
        drop_failed_backward()
        assert [one() for one in kept] == [None, None]


@pytest.mark.parametrize(
    ("images", "processes", "limit", "said"),
    [
        (8, 1, 4, "--training.batch_size 4 --training.accumulate 4 "),
        (8, 2, 3, "--training.batch_size 4 --training.accumulate 4 "),
        (6, 1, 4, "--training.batch_size 3 --training.accumulate 4 "),  # of data that have no more: not 4 and then 2
        (7, 1, 4, "--training.batch_size 1 --training.accumulate 14 "),
    ],
)
def test_the_batch_that_is_advised_makes_steps_of_as_many_images(monkeypatch, images, processes, limit, said):
    """Of a batch of 8 in two passes, over one process or two, of which no more than so many images fit."""
    monkeypatch.setattr(tpseg.training.memory_probe, "try_step", lambda module, trainer, config, part: part <= limit)
    module = SimpleNamespace(model=SimpleNamespace(trunk=None))
    asked = config(training={"batch_size": 8, "accumulate": 2})
    assert said in advice(module, None, asked, images, processes)
