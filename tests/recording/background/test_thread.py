from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from contextlib import suppress
from types import SimpleNamespace

import pytest

from tsstore.errors import TsstoreError, WriterError
from tsstore.recording.background import thread as module
from tsstore.recording.background.thread import (
    COMMIT_COST_RATIO,
    HURRY_SECONDS,
    Schedule,
    WriterThread,
)
from tsstore.recording.batches.assembly import FinishedBatch

NEVER = math.inf


class Work:
    """In the writer's place: runs what batches hold, and notes that and commits in order."""

    def __init__(self):
        self.done = []
        self.gate = threading.Event()
        self.gate.set()

    def task(self, name):
        def run():
            self.gate.wait()
            self.done.append(name)

        return run

    def define(self, layers, positions, columns):
        pass

    def append(self, batch):
        batch.run()

    def commit(self):
        self.done.append("commit")

    def seal(self, why):
        if why != "closed":
            self.done.append(why)

    def fail(self, why):
        pass


def give(background, run, size):
    """Queue a batch of so many bytes that runs something where it would be written."""
    background.put(FinishedBatch(SimpleNamespace(run=run, nbytes=size), {}, {}))


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def start(work):
    """Start a background whose thread is ended after the test."""
    started = []

    def begin(commit_every=NEVER, limit=1 << 20, hurry=None, **methods):
        for name, method in methods.items():
            setattr(work, name, method)
        termination = hurry and SimpleNamespace(is_requested=hurry)
        started.append(WriterThread(work, commit_every, limit, termination))
        return started[-1]

    yield begin
    work.gate.set()
    for background in started:
        with suppress(WriterError):
            background.close("closed")
        assert not background._thread.is_alive()


@pytest.fixture
def clock(monkeypatch):
    """Give a clock that stands still until it is told to move."""
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(module, "time", clock)

    def move(seconds):
        now[0] += seconds

    return move


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.002)


def fail(error):
    raise error


def test_tasks_run_in_order(start, work):
    background = start()
    for number in range(200):
        give(background, work.task(number), 1)
    background.commit()
    assert work.done == [*range(200), "commit"]


def test_commit_returns_when_it_is_done(start, work):
    background = start()
    give(background, lambda: time.sleep(0.05), 1)
    give(background, work.task("a"), 1)
    background.commit()
    assert work.done == ["a", "commit"]
    background.commit()
    assert work.done == ["a", "commit", "commit"]


def test_the_thread_is_woken_by_the_first_task_or_by_much(start, work, monkeypatch):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.001)
    background = start(limit=1000)
    wait_until(lambda: background._is_idle)
    monkeypatch.setattr(module, "LINGER_SECONDS", 1e6)
    give(background, work.task("first"), 1)
    wait_until(lambda: work.done == ["first"])
    give(background, work.task("little"), 1)
    time.sleep(0.05)
    assert work.done == ["first"], "it waits for more"
    give(background, work.task("much"), 600)
    wait_until(lambda: work.done == ["first", "little", "much"])


def test_after_a_while_little_is_enough(start, work, monkeypatch):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    background = start(limit=1000)
    for number in range(2):
        give(background, work.task(number), 1)
        wait_until(lambda: len(work.done) == number + 1)  # noqa: B023


@pytest.mark.parametrize("call", ["commit", "close", "put"])
def test_whoever_waits_does_not_wait_for_more_to_come(start, work, monkeypatch, call):
    monkeypatch.setattr(module, "LINGER_SECONDS", 60.0)
    background = start(limit=100)
    give(background, work.task("a"), 30)
    begun = time.monotonic()
    if call == "put":
        give(background, work.task("b"), 90)
        assert work.done == ["a"]
    else:
        getattr(background, call)(*["closed"] * (call == "close"))
        assert work.done[0] == "a"
    assert time.monotonic() - begun < 30


def test_what_lingers_is_there_when_a_commit_comes(start, work, clock, monkeypatch):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    background = start(commit_every=0.1)
    for number in range(5):
        give(background, work.task(number), 1)
    wait_until(lambda: 4 in work.done)
    clock(0.2)
    wait_until(lambda: "commit" in work.done)
    assert work.done == [0, 1, 2, 3, 4, "commit"]


def test_the_queue_is_bounded_in_bytes(start, work):
    held, most = [0], [0]
    lock = threading.Lock()
    background = start(limit=1000)
    work.gate.clear()

    def put(size):
        def run():
            work.gate.wait()
            with lock:
                held[0] -= size

        give(background, run, size)
        with lock:
            held[0] += size
            most[0] = max(most[0], held[0])

    putter = threading.Thread(target=lambda: [put(100 + number) for number in range(60)])
    putter.start()
    wait_until(lambda: background._waiting)
    time.sleep(0.02)
    work.gate.set()
    putter.join()
    background.close("closed")
    assert 800 < most[0] <= 1000
    assert background.waited > 0.01


def test_a_task_larger_than_the_queue_is_let_in_alone(start, work):
    background = start(limit=10)
    work.gate.clear()
    give(background, work.task("large"), 1000)
    putter = threading.Thread(target=lambda: give(background, work.task("small"), 1))
    putter.start()
    time.sleep(0.03)
    assert putter.is_alive(), "there is no room beside it"
    work.gate.set()
    putter.join(60)
    give(background, work.task("larger"), 5000)
    background.close("closed")
    assert work.done == ["large", "small", "larger"]


def test_a_task_without_bytes_waits_for_nothing(start, work):
    background = start(limit=10)
    work.gate.clear()
    give(background, work.task("a"), 10)
    give(background, work.task("b"), 0)
    assert background.waited == 0
    work.gate.set()
    background.close("closed")
    assert work.done == ["a", "b"]


def test_commits_come_by_time_while_there_is_work(start, work, clock):
    background = start(commit_every=0.02)
    for number in range(30):
        give(background, lambda: clock(0.005), 1)
        give(background, work.task(number), 1)
    wait_until(lambda: 29 in work.done)
    assert 2 <= work.done.count("commit") <= 15
    assert [done for done in work.done if done != "commit"] == list(range(30))


def test_a_commit_comes_by_time_when_there_is_no_work(start, work):
    background = start(commit_every=0.02)
    give(background, work.task("a"), 1)
    wait_until(lambda: {"a", "commit"} <= set(work.done))
    assert work.done[:2] in (["a", "commit"], ["commit", "a"])
    wait_until(lambda: work.done.count("commit") > 1)


def test_costly_commits_come_less_often(start, work, monkeypatch):
    def commit():
        work.done.append("commit")
        time.sleep(0.02)

    monkeypatch.setattr(module, "COMMIT_COST_RATIO", 1000)
    start(commit_every=0.001, commit=commit)
    wait_until(lambda: work.done)
    time.sleep(0.05)
    assert work.done == ["commit"]


def test_stop_works_off_the_queue_and_joins(start, work):
    background = start()
    for number in range(20):
        give(background, work.task(number), 1)
    background.close("last")
    assert work.done == [*range(20), "last"]
    assert not background._thread.is_alive()
    background.close("never")
    assert work.done[-1] == "last"


def test_after_stop_nothing_is_taken(start, work):
    background = start()
    background.close("closed")
    with pytest.raises(WriterError, match="the recorder is closed; open a new one"):
        give(background, work.task("a"), 1)
    with pytest.raises(WriterError, match="closed"):
        background.commit()


def test_a_thread_is_named_and_lets_the_interpreter_end(start):
    thread = start()._thread
    assert thread.daemon
    assert thread.name == "tsstore writer"


@pytest.mark.parametrize("call", ["put", "check", "commit", "close"])
def test_an_error_reaches_the_next_call_with_its_cause(start, work, call):
    background = start()
    error = OSError(28, "no space left")
    give(background, lambda: fail(error), 1)
    wait_until(lambda: not background._thread.is_alive())
    calls = {
        "put": lambda: give(background, work.task("a"), 1),
        "check": background.check,
        "commit": background.commit,
        "close": lambda: background.close("closed"),
    }
    with pytest.raises(WriterError, match=r"the writer failed: OSError: .*no space left") as raised:
        calls[call]()
    assert raised.value.__cause__ is error
    assert work.done == []


def test_an_error_keeps_later_tasks_from_running(start, work):
    background = start()
    work.gate.clear()
    give(background, work.task("before"), 1)
    give(background, lambda: fail(ValueError("broken")), 1)
    give(background, work.task("after"), 1)
    work.gate.set()
    with pytest.raises(WriterError, match="ValueError: broken"):
        background.commit()
    with pytest.raises(WriterError, match="broken"):
        background.close("last")
    assert work.done == ["before"]


def test_an_error_wakes_whoever_waits_for_room(start, work):
    background = start(limit=10)
    work.gate.clear()
    give(background, lambda: (work.gate.wait(), fail(ValueError("broken"))), 10)
    threading.Timer(0.03, work.gate.set).start()
    with pytest.raises(WriterError, match="broken"):
        give(background, work.task("a"), 10)


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError(), KeyboardInterrupt()])
def test_an_error_in_a_commit_by_time_is_kept(start, error):
    background = start(commit_every=0.01, commit=lambda: fail(error))
    wait_until(lambda: not background._thread.is_alive())
    with pytest.raises(WriterError, match=type(error).__name__):
        background.check()


def test_a_commit_asked_for_that_fails(start):
    background = start(commit=lambda: fail(OSError("disk")))
    with pytest.raises(WriterError, match="OSError: disk"):
        background.commit()


def test_a_task_that_is_done_is_not_kept(start):
    class Batch:
        def __call__(self):
            pass

    background = start()
    batch = Batch()
    gone = weakref.ref(batch)
    give(background, batch, 1)
    background.commit()
    del batch
    gc.collect()
    assert gone() is None


def test_stop_on_its_own_thread_does_not_wait_for_itself(start, work):
    """Garbage collection may end a recorder on any thread."""
    background = start()
    give(background, lambda: background.close("last"), 1)
    background._thread.join(60)
    assert not background._thread.is_alive()
    assert work.done == ["last"]


def test_the_error_is_there_to_be_looked_at(start):
    background = start()
    assert background.error is None
    give(background, lambda: fail(TsstoreError("x is 1; expected 2: do that")), 1)
    wait_until(lambda: background.error)
    assert str(background.error) == "the writer failed: TsstoreError: x is 1; expected 2: do that"
    assert isinstance(background.error.__cause__, TsstoreError)


def test_an_error_is_told_on_the_thread_once_it_is_known(start):
    told = []

    def failed(why):
        told.append((why, threading.current_thread(), background.error.__cause__))
        raise MemoryError

    background = start(fail=failed)
    error = OSError("disk")
    give(background, lambda: fail(error), 1)
    background._thread.join(60)
    assert told == [("the writer failed: OSError: disk", background._thread, error)]


def test_a_task_that_failed_is_not_kept(start):
    class Batch:
        def __call__(self):
            raise OSError("disk")

    background = start()
    batch = Batch()
    gone = weakref.ref(batch)
    give(background, batch, 1)
    background._thread.join(60)
    del batch
    gc.collect()
    assert gone() is None
    assert isinstance(background.error, WriterError)


def test_in_a_hurry_what_is_queued_is_committed_soon(start, work, monkeypatch):
    monkeypatch.setattr(module, "HURRY_SECONDS", 0.02)
    hurry = threading.Event()
    background = start(hurry=hurry.is_set)
    give(background, work.task("a"), 1)
    wait_until(lambda: work.done)
    time.sleep(0.05)
    assert work.done == ["a"]
    hurry.set()
    wait_until(lambda: work.done == ["a", "commit"])


def test_a_hurry_does_not_wait_for_a_long_queue_nor_commit_after_each_task(
    start, work, clock, monkeypatch
):
    monkeypatch.setattr(module, "HURRY_SECONDS", 0.05)
    background = start(hurry=lambda: True)
    for number in range(40):
        give(background, lambda: clock(0.005), 1)
        give(background, work.task(number), 1)
    wait_until(lambda: 39 in work.done)
    assert 1 <= work.done.index("commit") < 30
    assert work.done.count("commit") <= 10


def test_a_writer_slowed_to_a_crawl_holds_the_queue_at_its_bound(start):
    """The bound counts what waits and what runs; whoever puts waits, and never for ever."""
    gate = threading.Semaphore(0)
    background = start(limit=1000)
    held = []

    def put():
        for _ in range(30):
            give(background, gate.acquire, 300)
            held.append(background._bytes)

    putter = threading.Thread(target=put)
    putter.start()
    wait_until(lambda: len(held) == 3)
    time.sleep(0.05)
    assert held == [300, 600, 900], "the fourth waits"
    for done in range(1, 28):
        gate.release()
        wait_until(lambda done=done: len(held) == 3 + done)
        assert held[-1] == 900
    for _ in range(3):
        gate.release()
    putter.join()
    background.close("closed")
    assert max(held) == 900
    assert background._bytes == 0


def writer(commit):
    return SimpleNamespace(commit=commit)


def test_a_commit_is_due_by_time(clock):
    schedule = Schedule(10)
    assert (schedule.is_due, schedule.patience) == (False, 10)
    clock(9)
    assert (schedule.is_due, schedule.patience) == (False, 1)
    clock(2)
    assert (schedule.is_due, schedule.patience) == (True, 0)
    schedule.commit(writer(lambda: None))
    assert (schedule.is_due, schedule.patience) == (False, 10)


def test_a_costly_commit_makes_the_next_one_wait(clock):
    schedule = Schedule(10)
    schedule.commit(writer(lambda: clock(2)))
    assert schedule.patience == 2 * COMMIT_COST_RATIO
    schedule.commit(writer(lambda: clock(0.1)))
    assert schedule.patience == 10


def test_without_an_end_one_may_wait_as_long_as_threads_can(clock):
    schedule = Schedule(math.inf)
    schedule.commit(writer(lambda: clock(1)))
    assert not schedule.is_due
    assert schedule.patience == threading.TIMEOUT_MAX


def test_in_a_hurry_neither_time_nor_cost_counts(clock):
    hurry = []
    schedule = Schedule(1e6, SimpleNamespace(is_requested=lambda: bool(hurry)))
    assert schedule.patience == HURRY_SECONDS
    schedule.commit(writer(lambda: clock(1000)))
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
        schedule.commit(writer(lambda: 1 // 0))
    assert schedule.is_due
