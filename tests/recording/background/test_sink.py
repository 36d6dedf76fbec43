"""What the writer's error does to a job: it is raised, or ends the recording with one warning."""

from __future__ import annotations

import gc
import logging
import threading
import time
import warnings
import weakref
from contextlib import suppress

import pytest
import torch
from torch import nn
from watching import hook_count, logged, writers

import tsstore
from tsstore.errors import CaptureError, TsstoreWarning, WriterError
from tsstore.store.writing.part import PartWriter

WHY = "the writer failed: OSError: [Errno 28] No space left on device"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4))


@pytest.fixture(autouse=True)
def nothing_is_left(model, path):
    """After each test no hook, thread or temporary file of ours is there."""
    threads = writers()
    yield
    assert hook_count(model) == 0
    assert writers() <= threads
    assert list(path.rglob("*.partial")) == []


class Disk:
    """Lets the writer fail from the moment it is full."""

    def __init__(self, monkeypatch):
        self.is_full = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.threads = []
        for name in ("append", "commit"):
            monkeypatch.setattr(PartWriter, name, self.guarded(getattr(PartWriter, name)))

    def guarded(self, method):
        def call(writer, *arguments):
            self.threads.append(threading.current_thread())
            self.may_go_on.wait(60)
            if self.is_full:
                raise OSError(28, "No space left on device")
            return method(writer, *arguments)

        return call


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def capture(model, path, **options):
    options = {"layers": ("0", "2"), "durable": False, "commit_every": 1e6} | options
    return tsstore.capture(model, path, **options)


def values(count=2):
    return torch.randn(count, 3)


def record_then_fill(model, disk, recorder):
    """Record and commit 2 samples, then let the writer fail in the background."""
    with recorder.batch(id=[1, 2]):
        model(values())
    recorder.commit()
    disk.is_full = True
    # The error must not come before the batch has ended.
    disk.may_go_on.clear()
    with recorder.batch(id=[3, 4]):
        model(values())
    disk.may_go_on.set()
    deadline = time.monotonic() + 60
    while recorder.error is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def check_store(path):
    store = tsstore.open(path)
    assert store.column("id").tolist() == [1, 2]
    assert store.parts[0].seal.why == WHY
    assert not store.finished


def use_a_block(model, recorder):
    with recorder.batch(id=[5, 6]):
        raise AssertionError("the block must not be entered")


CALLS = {
    "a block": use_a_block,
    "a forward pass": lambda model, recorder: model(values()),
    "commit": lambda model, recorder: recorder.commit(),
    "close": lambda model, recorder: recorder.close(),
    "the end": lambda model, recorder: recorder.__exit__(None, None, None),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_error_is_raised_with_its_cause_by_whatever_comes_next(model, path, disk, call):
    recorder = capture(model, path)
    record_then_fill(model, disk, recorder)
    with pytest.raises(WriterError, match=r"No space left on device.*run again") as raised:
        CALLS[call](model, recorder)
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__ is recorder.error.__cause__
    if call not in ("close", "the end"):
        with pytest.raises(WriterError, match="No space left"):
            recorder.close()
    assert recorder.closed
    check_store(path)


def test_the_error_reaches_a_running_job_at_one_of_the_next_batches(model, path, disk):
    def run():
        with capture(model, path) as recorder:
            with recorder.batch(id=[1, 2]):
                model(values())
            recorder.commit()
            disk.is_full = True
            for number in range(1000):
                with recorder.batch(id=[number, number]):
                    model(values())
                time.sleep(0.001)

    with pytest.raises(WriterError, match="No space"):
        run()
    check_store(path)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("on_error", ["raise", "detach"])
def test_the_users_own_exception_is_never_masked(model, path, disk, error, on_error):
    """Warnings are errors here: not even one of them takes its place."""
    recorder = capture(model, path, on_error=on_error)

    def run():
        with recorder:
            record_then_fill(model, disk, recorder)
            raise error

    with pytest.raises(type(error)) as raised:
        run()
    assert raised.value is error
    assert error.__notes__.pop().startswith("tsstore: ")
    assert recorder.closed
    check_store(path)


def test_an_exception_in_a_forward_pass_is_never_masked(model, path, disk):
    recorder = capture(model, path)
    record_then_fill(model, disk, recorder)
    disk.is_full = False
    with pytest.raises(WriterError), recorder:
        model(values())
    with pytest.raises(RuntimeError, match="shapes"):
        model(torch.randn(2, 5))
    check_store(path)


@pytest.mark.parametrize("call", CALLS)
def test_detaching_warns_once_and_lets_the_job_go_on(model, path, disk, call):
    recorder = capture(model, path, on_error="detach")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record_then_fill(model, disk, recorder)
        if call == "a block":
            with recorder.batch(id=[5, 6]):
                pass
        else:
            CALLS[call](model, recorder)
        assert hook_count(model) == 0
        for _ in range(2):
            with recorder.batch("anything", nothing=object()) as batch:
                model(values())
                batch.record(nothing="at all")
                batch.record(nothing="at all")
            assert model(values()).shape == (2, 4)
            recorder.commit()
        recorder.close()
        recorder.commit()
        with recorder.batch():
            pass
    (warning,) = caught
    assert warning.category is TsstoreWarning
    message = str(warning.message)
    assert message.startswith("nothing more is recorded, the job goes on: the writer failed: OSErr")
    assert message.endswith(f"{path}/part-00000-00000 holds at least 2 committed samples")
    assert isinstance(recorder.error, WriterError)
    assert isinstance(recorder.error.__cause__, OSError)
    assert recorder.closed
    check_store(path)


@pytest.mark.parametrize("commits", [False, True])
def test_detaching_in_a_block(model, path, disk, commits):
    recorder = capture(model, path, on_error="detach")
    with recorder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with recorder.batch(id=[1, 2]):
            model(values())
        recorder.commit()
        with recorder.batch(id=[3, 4]):
            model(values())
            fail_now(recorder, disk)
            if commits:
                recorder.commit()
            assert (hook_count(model) == 0) is commits
            model(values())
        assert hook_count(model) == 0
    assert len(caught) == 1
    check_store(path)


def test_detaching_in_a_forward_pass(model, path, disk):
    recorder = capture(model, path, on_error="detach")
    model(values())
    recorder.commit()
    handle = model[1].register_forward_hook(lambda *_: fail_now(recorder, disk))
    with pytest.warns(TsstoreWarning, match="nothing more is recorded"):
        assert model(values()).shape == (2, 4)
    handle.remove()
    assert recorder.closed
    assert tsstore.open(path).samples == 2


def fail_now(recorder, disk):
    """Let the writer's thread end by an error."""
    disk.is_full = True
    background = recorder._sink._thread
    with suppress(WriterError):
        background.commit()


def test_a_warning_that_is_an_error_leaves_nothing_half_done(model, path, disk):
    recorder = capture(model, path, on_error="detach")
    record_then_fill(model, disk, recorder)
    with pytest.raises(TsstoreWarning, match="nothing more is recorded"):
        model(values())
    assert hook_count(model) == 0
    assert recorder.closed
    assert model(values()).shape == (2, 4)
    with recorder.batch(id=[9, 9]):
        model(values())
    recorder.close()
    check_store(path)


def test_the_warning_comes_from_the_users_thread(model, path, disk, monkeypatch):
    threads = []
    monkeypatch.setattr(warnings, "warn", lambda *_, **__: threads.append(threading.get_ident()))
    with capture(model, path, on_error="detach") as recorder:
        record_then_fill(model, disk, recorder)
        assert threads == []
    assert threads == [threading.get_ident()]
    assert threading.main_thread() not in disk.threads


def test_detaching_is_for_the_writers_errors_only(model, path):
    recorder = capture(model, path, on_error="detach")
    with pytest.raises(CaptureError, match="nested"), recorder.batch(), recorder.batch():
        pass
    with pytest.raises(WriterError, match="closed"), recorder.batch():
        [model(values()), recorder.close()]
    with pytest.raises(CaptureError, match="closed; open a new one"):
        recorder.commit()
    assert recorder.error is None
    assert tsstore.open(path).finished


def test_without_an_error_both_are_the_same(model, path):
    with capture(model, path, on_error="detach") as recorder, recorder.batch(id=[1, 2]):
        model(values())
    assert recorder.error is None
    assert tsstore.open(path).finished
    assert tsstore.open(path).column("id").tolist() == [1, 2]


def test_a_part_that_cannot_be_sealed_stays_as_it_is(model, path, disk, monkeypatch):
    def refuse(writer, why):
        raise MemoryError

    monkeypatch.setattr(PartWriter, "fail", refuse)
    recorder = capture(model, path)
    record_then_fill(model, disk, recorder)
    with pytest.raises(WriterError, match="No space"):
        recorder.close()
    store = tsstore.open(path)
    assert (store.samples, store.parts[0].seal) == (2, None)


def test_a_recorder_that_nobody_closed_does_not_hide_its_error(path, disk, caplog):
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4))
    recorder = capture(model, path)
    record_then_fill(model, disk, recorder)
    gone = weakref.ref(recorder)
    del recorder, model
    gc.collect()
    assert gone() is None
    (record,) = logged(caplog)
    assert record.levelname == "ERROR"
    assert f"{path}/part-00000-00000 was never closed, and could not be: " in record.getMessage()
    assert "No space left" in record.getMessage()
    check_store(path)


def test_at_its_end_it_says_how_much_there_was_and_how_long_the_job_waited(model, path, caplog):
    with caplog.at_level(logging.INFO, logger="tsstore"):
        with capture(model, path) as recorder:
            for _ in range(30):
                with recorder.batch():
                    model(values(50))
            recorder._sink._thread.writer.waited = 1.25
        recorder.close()
    (record,) = logged(caplog)
    assert (record.name, record.levelname) == ("tsstore", "INFO")
    assert record.getMessage() == (
        f"{path}/part-00000-00000: 1,500 samples, 4.395 KiB of rows, waited 1.2 s for the writer"
    )
    assert tsstore.open(path).parts[0].seal.waited == 1.25
    assert recorder.statistics.waited == 1.25


def test_where_the_writer_has_failed_the_seal_does_not_say_how_long_the_job_waited(
    model, path, disk, caplog
):
    with (
        caplog.at_level(logging.INFO, logger="tsstore"),
        pytest.raises(WriterError),
        capture(model, path) as recorder,
    ):
        record_then_fill(model, disk, recorder)
    assert logged(caplog) == []
    assert tsstore.open(path).parts[0].seal.waited is None
