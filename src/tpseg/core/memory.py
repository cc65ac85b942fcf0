"""Memory that ran out: how every library says so, and the largest batch that fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch

from tpseg.core.errors import TPSegError

NO_MEMORY = re.compile(
    r"not enough memory|can't allocate memory|out of memory|bad_alloc|[Cc]annot allocate memory"
    r"|[Ff]ailed to allocate memory|CUBLAS_STATUS_ALLOC_FAILED|could not (create|execute) a primitive"
)
"""What PyTorch, the system, cuBLAS, oneDNN and onnxruntime say when there is no memory left, in errors that have no class of their own."""


class OutOfMemory(TPSegError):
    """A step of training or prediction needs more memory than there is."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a GPU, here or in a loading process."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return NO_MEMORY.search(str(error)) is not None and not isinstance(error, TPSegError)


def largest_that_fits(fits: Callable[[int], bool], sizes: Iterable[int]) -> int:
    """The largest of these batch sizes, smallest first, that fits; 0 if none does.

    Tried from the smallest on: what does not fit leaves a heap in pieces, in which less fits than before, and may wake the
    system's own killer.
    """
    found = 0
    for images in sizes:
        if not fits(images):
            break
        found = images
    return found


def divisors(batch: int) -> list[int]:
    """What a batch can be cut into so that accumulated passes come to the same, smallest first, itself left out."""
    return [images for images in range(1, batch // 2 + 1) if batch % images == 0]


def halves(batch: int) -> list[int]:
    """A batch halved again and again, smallest first, itself left out."""
    return [batch >> times for times in reversed(range(1, batch.bit_length()))]
