from __future__ import annotations

import math
import threading
import time

import pytest

from tsstore.recording.background import thread as module
from tsstore.recording.background.thread import COMMIT_COST_RATIO, HURRY_SECONDS, Schedule


@pytest.fixture
def clock(monkeypatch):
    """Give a clock that stands still until it is told to move."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_a_commit_is_due_by_time(clock):
    schedule = Schedule(10)
    assert (schedule.is_due, schedule.patience) == (False, 10)
    clock(9)
    assert (schedule.is_due, schedule.patience) == (False, 1)
    clock(2)
    assert (schedule.is_due, schedule.patience) == (True, 0)
    schedule.run(lambda: None)
    assert (schedule.is_due, schedule.patience) == (False, 10)


def test_a_costly_commit_makes_the_next_one_wait(clock):
    schedule = Schedule(10)
    schedule.run(lambda: clock(2))
    assert schedule.patience == 2 * COMMIT_COST_RATIO
    schedule.run(lambda: clock(0.1))
    assert schedule.patience == 10


def test_without_an_end_one_may_wait_as_long_as_threads_can(clock):
    schedule = Schedule(math.inf)
    schedule.run(lambda: clock(1))
    assert not schedule.is_due
    assert schedule.patience == threading.TIMEOUT_MAX


def test_in_a_hurry_neither_time_nor_cost_counts(clock):
    hurry = []
    schedule = Schedule(1e6, lambda: bool(hurry))
    assert schedule.patience == HURRY_SECONDS
    schedule.run(lambda: clock(1000))
    assert not schedule.is_due
    hurry.append(True)
    assert not schedule.is_due
    clock(HURRY_SECONDS)
    assert schedule.is_due
    hurry.clear()
    assert not schedule.is_due


def test_a_commit_that_fails_is_passed_on():
    schedule = Schedule(0.001)
    time.sleep(0.002)
    with pytest.raises(ZeroDivisionError):
        schedule.run(lambda: 1 // 0)
    assert schedule.is_due
