"""Working ahead in threads: what comes next is read while the processor computes, what is done is written meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 4
"""That read and write files while the network computes."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], limit: int) -> Iterator[Result]:
    """`map(work, items)`, in order, with at most `limit` results that nobody has taken yet; raises what `work` raises."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
