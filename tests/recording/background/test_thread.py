from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from contextlib import suppress

import pytest

from tsstore.errors import TsstoreError, WriterError
from tsstore.recording.background import thread as module
from tsstore.recording.background.thread import Background

NEVER = math.inf


class Work:
    """Notes tasks and commits in the order in which they run."""

    def __init__(self):
        self.done = []
        self.gate = threading.Event()
        self.gate.set()

    def task(self, name):
        def run():
            self.gate.wait()
            self.done.append(name)

        return run

    def commit(self):
        self.done.append("commit")


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def start(work):
    """Start a background whose thread is ended after the test."""
    started = []

    def begin(commit_every=NEVER, limit=1 << 20, commit=work.commit, **options):
        started.append(Background(commit, commit_every, limit, **options))
        return started[-1]

    yield begin
    work.gate.set()
    for background in started:
        with suppress(WriterError):
            background.stop()
        assert not background._thread.is_alive()


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.002)


def fail(error):
    raise error


def test_tasks_run_in_order(start, work):
    background = start()
    for number in range(200):
        background.put(work.task(number), 1)
    background.commit()
    assert work.done == [*range(200), "commit"]


def test_commit_returns_when_it_is_done(start, work):
    background = start()
    background.put(lambda: time.sleep(0.05), 1)
    background.put(work.task("a"), 1)
    background.commit()
    assert work.done == ["a", "commit"]
    background.commit()
    assert work.done == ["a", "commit", "commit"]


def test_the_thread_is_woken_by_the_first_task_by_much_or_after_a_while(start, work, monkeypatch):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.3)
    background = start(limit=1000)
    time.sleep(0.5)
    background.put(work.task("first"), 1)
    wait_until(lambda: work.done == ["first"], seconds=0.2)
    background.put(work.task("little"), 1)
    time.sleep(0.1)
    assert work.done == ["first"], "it waits for more"
    background.put(work.task("much"), 600)
    wait_until(lambda: work.done == ["first", "little", "much"], seconds=0.15)
    background.put(work.task("little"), 1)
    wait_until(lambda: len(work.done) == 4)


@pytest.mark.parametrize("call", ["commit", "stop", "put"])
def test_whoever_waits_does_not_wait_for_more_to_come(start, work, monkeypatch, call):
    monkeypatch.setattr(module, "LINGER_SECONDS", 3.0)
    background = start(limit=100)
    background.put(work.task("a"), 30)
    begun = time.monotonic()
    if call == "put":
        background.put(work.task("b"), 90)
        assert work.done == ["a"]
    else:
        getattr(background, call)()
        assert work.done[0] == "a"
    assert time.monotonic() - begun < 1.5


def test_what_lingers_is_there_when_a_commit_comes(start, work, monkeypatch):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.3)
    background = start(commit_every=0.7)
    for number in range(5):
        background.put(work.task(number), 1)
    wait_until(lambda: "commit" in work.done)
    assert work.done == [0, 1, 2, 3, 4, "commit"]


def test_the_queue_is_bounded_in_bytes(start):
    held, most = [0], [0]
    lock = threading.Lock()
    background = start(limit=1000)

    def put(size):
        def run():
            time.sleep(0.001)
            with lock:
                held[0] -= size

        background.put(run, size)
        with lock:
            held[0] += size
            most[0] = max(most[0], held[0])

    for number in range(60):
        put(100 + number)
    background.stop()
    assert 800 < most[0] <= 1000
    assert background.waited > 0.01


def test_a_task_larger_than_the_queue_is_let_in_alone(start, work):
    background = start(limit=10)
    work.gate.clear()
    background.put(work.task("large"), 1000)
    putter = threading.Thread(target=lambda: background.put(work.task("small"), 1))
    putter.start()
    time.sleep(0.03)
    assert putter.is_alive(), "there is no room beside it"
    work.gate.set()
    putter.join(5)
    background.put(work.task("larger"), 5000)
    background.stop()
    assert work.done == ["large", "small", "larger"]


def test_a_task_without_bytes_waits_for_nothing(start, work):
    background = start(limit=10)
    work.gate.clear()
    background.put(work.task("a"), 10)
    background.put(work.task("b"), 0)
    assert background.waited == 0
    work.gate.set()
    background.stop()
    assert work.done == ["a", "b"]


def test_commits_come_by_time_while_there_is_work(start, work):
    background = start(commit_every=0.02)
    for number in range(30):
        background.put(lambda: time.sleep(0.005), 1)
        background.put(work.task(number), 1)
    wait_until(lambda: 29 in work.done)
    assert 2 <= work.done.count("commit") <= 15
    assert [done for done in work.done if done != "commit"] == list(range(30))


def test_a_commit_comes_by_time_when_there_is_no_work(start, work):
    background = start(commit_every=0.02)
    background.put(work.task("a"), 1)
    wait_until(lambda: "commit" in work.done)
    assert work.done[:2] in (["a", "commit"], ["commit", "a"])
    wait_until(lambda: work.done.count("commit") > 1)


def test_costly_commits_come_less_often(start, work, monkeypatch):
    def commit():
        work.commit()
        time.sleep(0.02)

    monkeypatch.setattr(module, "COMMIT_COST_RATIO", 1000)
    start(commit_every=0.001, commit=commit)
    time.sleep(0.15)
    assert work.done == ["commit"]


def test_stop_works_off_the_queue_and_joins(start, work):
    background = start()
    for number in range(20):
        background.put(work.task(number), 1)
    background.stop(last=work.task("last"))
    assert work.done == [*range(20), "last"]
    assert not background._thread.is_alive()
    background.stop(last=work.task("never"))
    assert work.done[-1] == "last"


def test_after_stop_nothing_is_taken(start, work):
    background = start()
    background.stop()
    with pytest.raises(WriterError, match="the recorder is closed; open a new one"):
        background.put(work.task("a"), 1)
    with pytest.raises(WriterError, match="closed"):
        background.commit()


def test_a_thread_is_named_and_lets_the_interpreter_end(start):
    thread = start()._thread
    assert thread.daemon
    assert thread.name == "tsstore writer"


@pytest.mark.parametrize("call", ["put", "check", "commit", "stop"])
def test_an_error_reaches_the_next_call_with_its_cause(start, work, call):
    background = start()
    error = OSError(28, "no space left")
    background.put(lambda: fail(error), 1)
    wait_until(lambda: not background._thread.is_alive())
    arguments = (work.task("a"), 1) if call == "put" else ()
    with pytest.raises(WriterError, match=r"the writer failed: OSError: .*no space left") as raised:
        getattr(background, call)(*arguments)
    assert raised.value.__cause__ is error
    assert work.done == []


def test_an_error_keeps_later_tasks_from_running(start, work):
    background = start()
    work.gate.clear()
    background.put(work.task("before"), 1)
    background.put(lambda: fail(ValueError("broken")), 1)
    background.put(work.task("after"), 1)
    work.gate.set()
    with pytest.raises(WriterError, match="ValueError: broken"):
        background.commit()
    with pytest.raises(WriterError, match="broken"):
        background.stop(last=work.task("last"))
    assert work.done == ["before"]


def test_an_error_wakes_whoever_waits_for_room(start, work):
    background = start(limit=10)
    work.gate.clear()
    background.put(lambda: (work.gate.wait(), fail(ValueError("broken"))), 10)
    threading.Timer(0.03, work.gate.set).start()
    with pytest.raises(WriterError, match="broken"):
        background.put(work.task("a"), 10)


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
    background.put(batch, 1)
    background.commit()
    del batch
    gc.collect()
    assert gone() is None


def test_stop_on_its_own_thread_does_not_wait_for_itself(start, work):
    """Garbage collection may end a recorder on any thread."""
    background = start()
    background.put(lambda: background.stop(last=work.task("last")), 1)
    background._thread.join(5)
    assert not background._thread.is_alive()
    assert work.done == ["last"]


def test_the_error_is_there_to_be_looked_at(start):
    background = start()
    assert background.error is None
    background.put(lambda: fail(TsstoreError("x is 1; expected 2: do that")), 1)
    wait_until(lambda: background.error)
    assert str(background.error) == "the writer failed: TsstoreError: x is 1; expected 2: do that"
    assert isinstance(background.error.__cause__, TsstoreError)


def test_an_error_is_told_on_the_thread_once_it_is_known(start):
    told = []

    def failed(error):
        told.append((error, threading.current_thread(), background.error.__cause__))
        raise MemoryError

    background = start(failed=failed)
    error = OSError("disk")
    background.put(lambda: fail(error), 1)
    background._thread.join(5)
    assert told == [(error, background._thread, error)]


def test_a_task_that_failed_is_not_kept(start):
    class Batch:
        def __call__(self):
            raise OSError("disk")

    background = start()
    batch = Batch()
    gone = weakref.ref(batch)
    background.put(batch, 1)
    background._thread.join(5)
    del batch
    gc.collect()
    assert gone() is None
    assert isinstance(background.error, WriterError)


def test_in_a_hurry_what_is_queued_is_committed_soon(start, work, monkeypatch):
    monkeypatch.setattr(module, "HURRY_SECONDS", 0.02)
    hurry = threading.Event()
    background = start(in_a_hurry=hurry.is_set)
    background.put(work.task("a"), 1)
    time.sleep(0.1)
    assert work.done == ["a"]
    hurry.set()
    wait_until(lambda: work.done == ["a", "commit"])


def test_a_hurry_does_not_wait_for_a_long_queue_nor_commit_after_each_task(
    start, work, monkeypatch
):
    monkeypatch.setattr(module, "HURRY_SECONDS", 0.05)
    background = start(in_a_hurry=lambda: True)
    for number in range(40):
        background.put(lambda: time.sleep(0.005), 1)
        background.put(work.task(number), 1)
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
            background.put(gate.acquire, 300)
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
    background.stop()
    assert max(held) == 900
    assert background._bytes == 0
