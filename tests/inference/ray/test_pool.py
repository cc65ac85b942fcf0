"""How processors are shared out: workers never ask for more threads than there are, and decoding always finds a CPU."""

from __future__ import annotations

import pytest

from tpseg.core.errors import UsageError
from tpseg.inference.ray.pool import Node, Pool, plan_pool


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "expected"),
    [
        ([Node(2, 0)], None, None, Pool(1, 1, 0, 1)),
        ([Node(2, 0), Node(2, 0)], None, None, Pool(2, 1, 0, 2)),
        ([Node(16, 0)], None, None, Pool(3, 4, 0, 4)),  # 12 CPUs compute, 4 decode and write
        ([Node(16, 0)], 1, None, Pool(1, 15, 0, 1)),
        ([Node(16, 0), Node(8, 0)], 5, None, Pool(5, 3, 0, 9)),  # 5 of 3 on the first, 2 on the second; of 4 only 3 + 1
        ([Node(16, 2), Node(16, 0)], None, None, Pool(2, 1, 1, 30)),
        ([Node(16, 2)], 1, "cuda", Pool(1, 1, 1, 15)),
        ([Node(16, 2)], None, "cpu", Pool(3, 4, 0, 4)),
    ],
)
def test_the_plan(nodes, workers, device, expected):
    pool = plan_pool(nodes, workers, device)
    assert pool == expected
    assert pool.device == ("cuda" if expected.gpus else "cpu")


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "message"),
    [
        ([Node(1, 0)], None, None, r"can hold 0 \(CPUs of its nodes: 1;.*--engine local"),
        ([Node(4, 0), Node(2, 0)], 5, None, r"--workers 5: the cluster can hold 4"),
        ([Node(8, 2)], 3, None, r"can use 2 GPUs"),
        ([Node(8, 0)], None, "cuda", r"can use 0 GPUs"),
        ([Node(8, 0)], 0, None, r"--workers 0: expected 1 or more"),
        ([Node(8, 0)], None, "mps", r"takes cpu or cuda"),
    ],
)
def test_more_than_there_is_is_refused(nodes, workers, device, message):
    with pytest.raises(UsageError, match=message):
        plan_pool(nodes, workers, device)
