"""SIGTERM, held back until what was recorded is on disk; in real processes where it ends them."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from children import run, start

import tsstore
from tsstore.errors import CaptureError
from tsstore.recording.background.sigterm import Termination, check_can_hold


@pytest.fixture(autouse=True)
def handler():
    """Set a handler that notes signals; after the test it must be in its place again."""
    seen = []

    def note(number, frame):
        seen.append(number)

    before = signal.signal(signal.SIGTERM, note)
    yield seen
    assert signal.signal(signal.SIGTERM, before) is note


def send():
    signal.raise_signal(signal.SIGTERM)


def test_a_signal_is_noted_and_passed_on_to_python_code(handler):
    termination = Termination()
    assert not termination.is_requested()
    send()
    assert termination.is_requested()
    assert handler == [signal.SIGTERM]
    termination.release()
    assert not termination.is_requested()


def test_obeying_commits_once_and_gives_the_signal_back(handler):
    termination, commits = Termination(), []
    termination.obey(lambda: commits.append("too early"))
    assert commits == []
    send()
    for _ in range(2):
        termination.obey(lambda: commits.append("now"))
    assert commits == ["now"]
    send()
    assert len(handler) == 2
    termination.release()


def test_a_commit_that_fails_leaves_the_signal_held_back(handler):
    termination = Termination()
    send()
    with pytest.raises(ZeroDivisionError):
        termination.obey(lambda: 1 // 0)
    assert termination.is_requested()
    termination.release()
    termination.release()
    assert handler == [signal.SIGTERM]


def test_a_later_handler_stays(handler):
    termination = Termination()
    later = []
    ours = signal.signal(signal.SIGTERM, lambda *_: later.append(1))
    send()
    termination.release()
    send()
    assert later == [1, 1]
    signal.signal(signal.SIGTERM, ours)
    send()
    assert handler == [signal.SIGTERM], "ours passes signals on once it is released"
    signal.signal(signal.SIGTERM, termination._previous)


def test_two_may_hold_it_at_the_same_time(handler):
    outer, inner = Termination(), Termination()
    send()
    assert outer.is_requested()
    assert inner.is_requested()
    outer.obey(lambda: None)
    assert outer.is_requested(), "the inner one decides"
    inner.release()
    outer.release()
    assert handler == [signal.SIGTERM]


def test_another_thread_cannot_hold_it():
    raised = []

    def hold():
        for refused in (check_can_hold, Termination):
            try:
                refused()
            except CaptureError as error:
                raised.append(str(error))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert len(raised) == 2
    assert "in the main thread only" in raised[0]


def test_capture_refuses_it_in_another_thread_before_anything_is_written(tmp_path):
    model = torch.nn.Linear(2, 3)
    with ThreadPoolExecutor() as pool:
        options = {"layers": "*", "commit_on_sigterm": True}
        refused = pool.submit(tsstore.capture, model, tmp_path / "run.zarr", **options).exception()
    assert isinstance(refused, CaptureError)
    assert "in the main thread only" in str(refused)
    assert not list(tmp_path.iterdir())


def test_a_handler_that_is_not_pythons_cannot_be_restored(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    with pytest.raises(CaptureError, match="was not set from Python"):
        Termination()


def test_another_thread_can_obey_only_by_releasing():
    termination, commits = Termination(), []
    send()
    thread = threading.Thread(target=lambda: termination.obey(lambda: commits.append(1)))
    thread.start()
    thread.join()
    assert commits == []
    assert termination.is_requested()
    termination.release()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("termination.release(); print('survived')", -signal.SIGTERM),
        ("termination.obey(lambda: print('commit')); print('survived')", -signal.SIGTERM),
        (
            "thread = threading.Thread(target=termination.release); thread.start(); "
            "thread.join(); time.sleep(1); print('survived')",
            -signal.SIGTERM,
        ),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN); termination.release()", 0),
    ],
)
def test_the_default_ends_the_process_afterwards(end, code):
    script = f"""
    import signal, threading, time
    from tsstore.recording.background.sigterm import Termination
    termination = Termination()
    signal.raise_signal(signal.SIGTERM)
    print("goes on", flush=True)
    {end}
    """
    done = run(script, strict=True)
    assert done.returncode == code
    assert done.stdout.startswith("goes on")
    assert "survived" not in done.stdout


def test_who_ignores_it_goes_on_ignoring_it():
    script = """
    import signal
    from tsstore.recording.background.sigterm import Termination
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    termination = Termination()
    signal.raise_signal(signal.SIGTERM)
    termination.obey(lambda: print("commit"))
    signal.raise_signal(signal.SIGTERM)
    print("survived")
    """
    assert run(script, strict=True).stdout == "commit\nsurvived\n"


def test_a_forked_child_ends_as_it_would_have():
    script = """
    import os, signal, time
    from tsstore.recording.background.sigterm import Termination
    termination = Termination()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        # Python drops what comes before it is done with forking.
        os.write(write, b"ready")
        time.sleep(30)
        os._exit(7)
    os.read(read, 5)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), termination.is_requested())
    """
    assert run(script, strict=True).stdout == f"{-signal.SIGTERM} False\n"


LOOP = """
import sys, time, torch, tsstore
model = torch.nn.Sequential(torch.nn.Linear(3, 9))
recorder = tsstore.capture(
    model, sys.argv[1], layers="0", durable=False, commit_every=1e6, commit_on_sigterm=True
)
with recorder:
    for number in range(10**9):
        with recorder.batch(id=[2 * number, 2 * number + 1]):
            model(torch.ones(2, 3))
        print(number, flush=True)
        {pause}
"""


def start_loop(path, pause):
    process = start(LOOP.format(pause=pause), path, pipes=["stdout"])
    for _ in range(5):
        assert process.stdout.readline()
    return process


def test_a_loop_ends_by_the_signal_with_every_finished_batch_committed(tmp_path):
    process = start_loop(tmp_path / "run", "time.sleep(0.001)")
    process.send_signal(signal.SIGTERM)
    output = process.stdout.read()
    process.stdout.close()
    assert process.wait(30) == -signal.SIGTERM
    store = tsstore.open(tmp_path / "run")
    finished = int(output.split()[-1]) + 1 if output else 5
    # The last batch may have been finished and committed without its number being printed.
    assert store.samples in (2 * finished, 2 * finished + 2)
    assert store.column("id").tolist() == list(range(store.samples))


def test_what_is_queued_is_committed_soon_while_the_loop_does_something_else(tmp_path):
    process = start_loop(tmp_path / "run", "number == 4 and time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    while tsstore.open(tmp_path / "run").samples < 10:
        assert time.monotonic() < begun + 30
        time.sleep(0.02)
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert tsstore.open(tmp_path / "run").samples == 10


def test_a_signal_between_the_last_batch_and_the_end_is_not_lost(tmp_path):
    script = """
    import os, signal, sys, torch, tsstore
    model = torch.nn.Sequential(torch.nn.Linear(3, 9))
    with tsstore.capture(model, sys.argv[1], durable=False, layers="0", commit_on_sigterm=True):
        model(torch.ones(2, 3))
        os.kill(os.getpid(), signal.SIGTERM)
    print("survived")
    """
    done = run(script, tmp_path / "run", strict=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
    assert tsstore.open(tmp_path / "run").finished


def test_a_trainers_own_handler_decides_what_comes_then(tmp_path, handler):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 9))
    options = {"durable": False, "commit_every": 1e6, "commit_on_sigterm": True}
    with tsstore.capture(model, tmp_path / "run", layers="0", **options):
        model(torch.ones(2, 3))
        os.kill(os.getpid(), signal.SIGTERM)
        assert handler == [signal.SIGTERM]
        model(torch.ones(2, 3))
        assert tsstore.open(tmp_path / "run").samples >= 2
        model(torch.ones(2, 3))
    assert tsstore.open(tmp_path / "run").samples == 6
