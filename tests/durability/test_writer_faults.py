"""Each call that a recorder makes of the place where its store lies fails: once, or for ever.

Whatever fails, the error reaches the job, what was committed stays readable, nothing of ours is
left on the model or in the process, and the same command run again finishes the run.
"""

from __future__ import annotations

import errno
import os
import warnings
from itertools import cycle
from pathlib import Path

import children
import numpy as np
import pytest
import torch
from crashing import quick_folder
from torch import nn
from watching import hook_count, packed, writers

import tsstore
from tsstore.errors import NotAStoreError, TsstoreError, TsstoreWarning, WriterError
from tsstore.store.files.local import LocalFiles

IDS = list(range(6))
ERRORS = {
    name: OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
    for name in ("ENOSPC", "EIO", "EACCES", "EMFILE")
} | {"MemoryError": MemoryError("no memory")}


class Failing:
    """Counts calls, and lets some of them fail."""

    def __init__(self, root, fails=lambda number: False, error=None):
        super().__init__(root, self.durable_here)
        self.calls = 0
        self.failed = []
        self._fails = fails
        self._error = error

    def _count(self, what):
        self.calls += 1
        if self._fails(self.calls):
            self.failed.append(what)
            raise self._error


class FailingFiles(Failing, LocalFiles):
    """Lets whole calls fail, before they do anything."""

    durable_here = False
    quiet = ()


class FailingDisk(Failing, LocalFiles):
    """Lets a single operation on the disk fail; of bytes, half are written."""

    durable_here = True
    # A link can be done without, and a temporary file may stay; a later error is the one told of.
    quiet = ("link", "unlink")

    def _step(self, operation, path, call, *arguments):
        try:
            self._count(operation)
        except BaseException:
            if operation == "write":
                file, data = arguments
                file.write(bytes(data)[: len(data) // 2])
            raise
        return super()._step(operation, path, call, *arguments)


def _counted(name):
    method = getattr(LocalFiles, name)

    def call(self, *arguments, **limits):
        self._count(name)
        return method(self, *arguments, **limits)

    return call


for _name in ("read", "write", "create", "exists", "list", "sync"):
    setattr(FailingFiles, _name, _counted(_name))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 4))


def values(ids):
    return torch.sin(torch.arange(3) + torch.tensor(ids).reshape(-1, 1) * 1.7)


class Run:
    """The same command, run once or again: 3 batches of 2 samples, a commit after each."""

    def __init__(self, model, path, monkeypatch):
        self.model = model
        self.path = path
        self.committed = []
        self._monkeypatch = monkeypatch
        self._threads = writers()

    def __call__(self, files=None, **options):
        files = files or FailingFiles(self.path)
        self._monkeypatch.setattr("tsstore.recording.capture.open_files", lambda *_: files)
        recorder = tsstore.capture(
            self.model, self.path, layers=("0", "2"), resume=True, commit_every=1e6, **options
        )
        with recorder:
            ids = recorder.missing(IDS).tolist()
            for start in range(0, len(ids), 2):
                some = ids[start : start + 2]
                with recorder.batch(id=some):
                    self.model(values(some))
                recorder.commit()
                if not recorder.error:
                    self.committed += some
        return files

    def check_nothing_is_left(self, temporary=0):
        assert hook_count(self.model) == 0
        assert writers() <= self._threads
        assert len(list(self.path.rglob("*.partial"))) <= temporary

    def check_what_was_committed(self):
        try:
            found = tsstore.open(self.path).column("id").tolist()
        except NotAStoreError:
            found = []
        except TsstoreError:
            # No part has any samples yet: then there is no column of ids.
            assert tsstore.open(self.path).samples == 0
            found = []
        assert found[: len(self.committed)] == self.committed
        assert found == IDS[: len(found)]

    def rows(self):
        """Return the row of each id in each layer; no id may come twice."""
        store = tsstore.open(self.path)
        ids = store.column("id").tolist()
        assert sorted(ids) == IDS
        return {name: store[name][:][np.argsort(ids)].tolist() for name in ("0", "2")}


@pytest.fixture
def run(model, monkeypatch):
    with quick_folder() as folder:
        yield Run(model, folder / "run", monkeypatch)


@pytest.fixture
def expected(run, model, monkeypatch):
    """Return what an uninterrupted run gives, and how many calls it makes of each kind."""
    calls = {}
    for kind in (FailingFiles, FailingDisk):
        whole = Run(model, run.path.with_name(f"whole{kind.__name__}"), monkeypatch)
        calls[kind] = whole(kind(whole.path)).calls
    return whole.rows(), calls


def fail_each(run, expected, kind, errors, for_ever, every=1, **options):
    """Let each call fail in a run of its own, by one error after another; return how many did."""
    rows, calls = expected
    location = run.path
    for number, error in zip(range(1, calls[kind] + 1, every), cycle(errors), strict=False):
        # In a folder of its own: whoever finds no run looks whether one is near.
        run.path, run.committed = location / str(number) / "run", []
        files = kind(run.path, number.__le__ if for_ever else number.__eq__, error)
        fail_one(run, files, error, **options)
        run.check_nothing_is_left(files.failed.count("unlink"))
        run.check_what_was_committed()
        run()
        assert run.rows() == rows, f"call {number}"
        run.check_nothing_is_left(files.failed.count("unlink"))
    return calls[kind]


def fail_one(run, files, error, on_error="raise"):
    raised = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run(files, on_error=on_error)
        except (TsstoreError, type(error)) as failure:
            raised = failure
    assert files.failed
    if raised is not None:
        assert error in (raised, raised.__cause__, raised.__context__) or str(error) in str(raised)
        # Where the recording cannot even begin, the job must know.
        assert on_error == "raise" or not isinstance(raised, WriterError)
    elif on_error == "detach" and caught:
        assert [warning.category for warning in caught] == [TsstoreWarning]
    else:
        assert set(files.failed) <= set(files.quiet), "a failure that nobody was told of"
        assert run.committed == IDS


@pytest.mark.parametrize(("kind", "every"), [(FailingFiles, 1), (FailingDisk, 5)])
def test_one_call_after_the_other_fails(run, expected, kind, every):
    assert fail_each(run, expected, kind, [ERRORS["ENOSPC"]], False, every) > 40


@pytest.mark.parametrize("on_error", ["raise", "detach"])
@pytest.mark.parametrize(("kind", "every"), [(FailingFiles, 7), (FailingDisk, 31)])
def test_some_calls_fail_for_ever(run, expected, on_error, kind, every):
    assert fail_each(run, expected, kind, [ERRORS["EIO"]], True, every, on_error=on_error)


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["raise", "detach"])
@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("own", [False, True], ids=["OSError", "MemoryError"])
@pytest.mark.parametrize("kind", [FailingFiles, FailingDisk])
def test_every_call_fails_in_every_way(run, expected, kind, own, for_ever, on_error):
    """Nothing but what is said depends on the number of the system's error.

    Each call meets each of them in one of the four ways.
    """
    *system, memory = ERRORS.values()
    turn = 2 * for_ever + (on_error == "detach")
    errors = [memory] if own else system[turn:] + system[:turn]
    assert fail_each(run, expected, kind, errors, for_ever, on_error=on_error) > 40


CROWD = list(range(1000))
FULL_DISK = """
import resource, sys
import test_writer_faults
# Numba's cache is not what is tested here.
test_writer_faults.evaluate(sys.argv[1] + ".first")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
test_writer_faults.evaluate(sys.argv[1])
"""


def wide_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 500))


def evaluate(path):
    """Record what is missing of 1,000 samples, 63 bytes each, with a commit after each 100."""
    model = wide_model()
    with tsstore.capture(model, path, layers="0", resume=True, durable=False) as recorder:
        ids = recorder.missing(CROWD).tolist()
        for start in range(0, len(ids), 100):
            some = ids[start : start + 100]
            with recorder.batch(id=some):
                model(values(some))
            recorder.commit()


def test_a_really_full_disk(tmp_path):
    """The system itself cuts writes short: no file may hold more than 20 kB."""
    path = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = children.run(FULL_DISK, path, env=environment)
    assert done.returncode == 1
    assert "run: the writer failed: OSError: [Errno 27] File too large" in done.stderr
    assert list(path.rglob("*.partial")) == []
    store = tsstore.open(path)
    assert 0 < store.samples < 1000
    assert store.column("id").tolist() == CROWD[: store.samples]
    evaluate(path)
    store = tsstore.open(path)
    assert store.column("id").tolist() == CROWD
    model = wide_model()
    np.testing.assert_array_equal(store["0"][:], packed(model(values(CROWD)))[:, 0])
