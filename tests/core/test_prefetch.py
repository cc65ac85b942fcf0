"""Working ahead: order, errors, and how much may lie about."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tpseg.core.prefetch import ahead


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as threads:
        yield threads


def test_results_come_in_order_whatever_each_takes(pool):
    first = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert first.wait(600)  # done only when a later one is
        if number == 1:
            first.set()
        return number * number

    assert list(ahead(pool, work, range(10), 4)) == [number * number for number in range(10)]


def test_no_more_is_begun_than_the_limit(pool):
    begun = []
    results = ahead(pool, begun.append, iter(range(100)), 3)
    next(results)
    assert len(begun) <= 3


def test_an_error_comes_where_its_result_would(pool):
    def work(number: int) -> float:
        return 1 / number

    results = ahead(pool, work, [1, 2, 0, 4], 4)
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
