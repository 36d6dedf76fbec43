from __future__ import annotations

import os
import threading
import time

import pytest

from tsstore.store.threads import in_threads, in_threads_if_slow, processors


@pytest.mark.parametrize("threads", [0, 1, 3, 20])
def test_results_come_in_the_order_of_the_items(threads):
    def call(item):
        time.sleep(0.002 * (item % 3))
        return -item

    assert list(in_threads(call, iter(range(30)), threads)) == [-item for item in range(30)]
    assert list(in_threads(call, [], threads)) == []


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_comes_in_the_place_of_its_result(threads):
    def call(item):
        if item == 5:
            raise ValueError(item)
        return item

    results = in_threads(call, range(10), threads)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="5"):
        next(results)
    assert list(results) == []


def test_several_are_at_work_and_few_results_wait():
    barrier, taken = threading.Barrier(4, timeout=60), []

    def items():
        for item in range(40):
            taken.append(item)
            yield item

    def call(item):
        if item < 4:
            barrier.wait()
        return item

    for done, result in enumerate(in_threads(call, items(), 4)):
        assert result == done
        assert len(taken) <= done + 8


@pytest.mark.parametrize("slowest", [0, 3])
def test_what_is_quick_is_done_here_until_one_is_slow(slowest, monkeypatch):
    monkeypatch.setattr("tsstore.store.threads.QUICK_SECONDS", float("inf"))
    by = []

    def call(item):
        by.append(threading.current_thread())
        if item == slowest:
            monkeypatch.setattr("tsstore.store.threads.QUICK_SECONDS", -1.0)
        return -item

    assert list(in_threads_if_slow(call, iter(range(40)), 4)) == [-item for item in range(40)]
    here = threading.current_thread()
    assert [thread is here for thread in by] == [item <= slowest for item in range(40)]
    assert list(in_threads_if_slow(call, [], 4)) == []


@pytest.mark.parametrize("quick_seconds", [float("inf"), -1.0])
def test_an_error_of_what_is_quick_comes_in_its_place(quick_seconds, monkeypatch):
    monkeypatch.setattr("tsstore.store.threads.QUICK_SECONDS", quick_seconds)

    def call(item):
        if item == 2:
            raise ValueError(item)
        return item

    results = in_threads_if_slow(call, range(4), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)


def test_who_stops_waits_for_nobody_and_nothing_more_is_begun():
    release, begun = threading.Event(), []

    def call(item):
        begun.append(item)
        if item:
            release.wait(60)
        return item

    before = time.monotonic()
    results = in_threads(call, range(100), 2)
    assert next(results) == 0
    results.close()
    assert time.monotonic() - before < 5
    release.set()
    wait_until(lambda: not any("_work" in thread.name for thread in threading.enumerate()))
    assert len(begun) <= 4


def test_no_thread_is_left():
    before = threading.active_count()
    assert sum(in_threads(int, range(50), 5)) == sum(range(50))
    wait_until(lambda: threading.active_count() <= before)


def wait_until(condition) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError


def test_processors_are_those_that_this_process_may_use(monkeypatch):
    assert 1 <= processors() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert processors() == (os.cpu_count() or 1)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1
