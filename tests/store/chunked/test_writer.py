"""Chunks that are encoded on other threads: in order, bounded, and on disk before a commit."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import crashing
import numpy as np
import pytest
import torch
from crashing import check_run, quick_folder
from helpers import draw_batch, rows_of, start_part, stored_files
from hypothesis import given, settings
from hypothesis import strategies as st
from power import Step, Trials, kill_everywhere, log_job, lose_power
from torch import nn
from watching import packed

import tsstore
from tsstore.errors import WriterError
from tsstore.recording.background.thread import WriterThread
from tsstore.recording.batches.assembly import FinishedBatch
from tsstore.store.chunked import writer as chunk_writer
from tsstore.store.chunked.chunk import decode, encode
from tsstore.store.chunked.writer import Compression, Encoder, is_encoder_thread
from tsstore.store.format.arrays import ArraySpec
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import open_store
from tsstore.store.writing.batch import Batch
from tsstore.store.writing.part import PartWriter

SPEC = ArraySpec("uint8", 4, (2,), ("row", "byte"))


def encoder_threads():
    return [thread for thread in threading.enumerate() if is_encoder_thread(thread)]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    deadline = time.monotonic() + 60
    while encoder_threads():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def pool():
    pool = Encoder(2)
    yield pool
    pool.close()


@pytest.fixture
def begun(monkeypatch):
    """Where the entries lie that are being encoded, or have been, as the encoders see them."""
    begun = []

    def note(spec, entries):
        begun.append(entries.ctypes.data)
        return encode(spec, entries)

    monkeypatch.setattr(chunk_writer, "encode", note)
    return begun


@pytest.fixture
def gate(monkeypatch):
    """Lets encoders go on when it is set."""
    gate = threading.Event()

    def encode_later(spec, entries):
        assert gate.wait(60)
        return encode(spec, entries)

    monkeypatch.setattr(chunk_writer, "encode", encode_later)
    return gate


def entries(number):
    return np.full((4, 2), number, dtype=np.uint8)


@settings(deadline=None, max_examples=30)
@given(threads=st.integers(1, 4), count=st.integers(0, 12), drains=st.sets(st.integers(0, 11)))
def test_chunks_are_passed_on_in_their_order_by_whoever_puts_them_in(threads, count, drains):
    encoder, done, here = Encoder(threads), [], threading.get_ident()
    buffer = entries(0)

    def then(number, data):
        done.append((number, decode(SPEC, data, "")[0, 0], threading.get_ident()))

    for number in range(count):
        buffer[:] = number
        encoder.put(SPEC, buffer, partial(then, number))
        if number in drains:
            encoder.drain()
            assert len(done) == number + 1
        assert number + 1 - threads <= len(done) <= number + 1
    encoder.drain()
    encoder.close()
    assert done == [(number, number, here) for number in range(count)]


def test_one_thread_is_that_of_the_writer():
    here = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_writer, "encode", lambda *_: here.append(threading.current_thread()))
        Encoder(1).put(SPEC, entries(1), lambda data: None)
    assert here == [threading.current_thread()]


def test_encoders_work_at_the_same_time(pool, monkeypatch):
    both = threading.Barrier(2)

    def encode_together(spec, entries):
        both.wait(60)
        return encode(spec, entries)

    monkeypatch.setattr(chunk_writer, "encode", encode_together)
    done = []
    for number in range(4):
        pool.put(SPEC, entries(number), done.append)
    pool.drain()
    assert len(done) == 4


def test_no_more_chunks_are_on_the_way_than_threads(pool, gate):
    done = []
    for number in range(2):
        pool.put(SPEC, entries(number), done.append)
    assert done == []
    threading.Timer(0.05, gate.set).start()
    pool.put(SPEC, entries(2), done.append)
    assert gate.is_set(), "the third waits for the first"
    assert len(done) == 1
    pool.drain()
    assert len(done) == 3


def test_memory_is_used_again(pool, begun):
    for number in range(10):
        pool.put(SPEC, entries(number), lambda data: None)
    pool.drain()
    assert len(begun) == 10
    assert len(set(begun)) == 2
    for number in range(2):
        pool.put(SPEC, entries(number), lambda data: None)
    larger = ArraySpec("uint8", 400, (2,), ("row", "byte"))
    pool.put(larger, np.ones((400, 2), np.uint8), lambda data: None)
    pool.drain()


def test_the_next_chunk_is_being_encoded_while_one_is_written(pool, begun):
    def write(data):
        deadline = time.monotonic() + 60
        while len(begun) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    for number, what in enumerate((write, lambda data: None, lambda data: None)):
        pool.put(SPEC, entries(number), what)


@pytest.mark.parametrize("where", ["encoder", "then"])
@pytest.mark.parametrize("method", ["put", "drain"])
def test_after_an_error_nothing_more_is_taken(pool, monkeypatch, where, method):
    error = MemoryError("no room")

    def fail(*_):
        raise error

    if where == "encoder":
        monkeypatch.setattr(chunk_writer, "encode", fail)
    calls = {
        "put": lambda: pool.put(SPEC, entries(9), lambda data: None),
        "drain": pool.drain,
    }
    for number in range(2):
        pool.put(SPEC, entries(number), fail if where == "then" else lambda data: None)
    for call in (calls[method], *calls.values(), *calls.values()):
        with pytest.raises(MemoryError, match="no room"):
            call()


def test_a_chunk_that_cannot_be_copied_is_not_forgotten(pool, monkeypatch):
    monkeypatch.setattr(chunk_writer.np, "empty", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        pool.put(SPEC, entries(1), lambda data: None)
    monkeypatch.undo()
    with pytest.raises(MemoryError):
        pool.drain()


def test_a_pool_that_nobody_closed_ends_with_its_last_user():
    pool = Encoder(3)
    pool.put(SPEC, entries(1), lambda data: None)
    assert encoder_threads()
    del pool
    gc.collect()


def test_closing_drops_what_has_not_been_passed_on(pool):
    pool.put(SPEC, entries(1), lambda data: pytest.fail("passed on"))
    for _ in range(2):
        pool.close()
        pool.drain()
    assert not encoder_threads()


# In a writer.


def test_a_store_is_the_same_however_many_threads_encode(tmp_path):
    batches = [draw_batch(np.random.default_rng(n), 50) for n in range(6)]
    found = []
    for threads in (1, 2, 5):
        path = tmp_path / str(threads)
        compression = Compression(threads=threads)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("helpers.Compression", lambda codec, given=compression: given)
            writer = start_part(path, batches[0])
        for batch in batches:
            writer.append(batch)
        writer.seal()
        store = open_store(path)
        np.testing.assert_array_equal(store["fc.2"][:], rows_of(batches, "fc.2"))
        assert verify(path).ok
        found.append({file.relative_to(path): file.read_bytes() for file in stored_files(path)})
    chunk_files = [name for name in found[0] if "/c/" in str(name)]
    assert len(chunk_files) > 15
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(other[name] == found[0][name] for name in chunk_files)


@pytest.fixture
def three_threads(monkeypatch):
    monkeypatch.setattr(
        crashing, "PartWriter", partial(PartWriter, compression=Compression(threads=3))
    )


@pytest.fixture
def trials():
    with quick_folder() as folder:
        (folder / "base").mkdir()
        yield Trials(folder / "base" / "run.zarr", folder, check_run)


@pytest.mark.usefixtures("three_threads")
def test_what_is_done_on_the_disk_does_not_depend_on_how_fast_the_threads_are(tmp_path):
    logs = []
    for number in range(4):
        log: list[Step] = []
        base = tmp_path / str(number)
        log_job(base / "run", log)
        # Directories are synced together, in any order.
        steps = [step for step in log if step.operation != "sync_directory"]
        logs.append([(step.operation, step.path.relative_to(base).parent) for step in steps[1:]])
    assert len(logs[0]) > 300
    assert logs[1:] == logs[:-1]


@pytest.mark.usefixtures("three_threads")
def test_neither_a_kill_nor_a_loss_of_power_shows_a_commit_without_its_chunks(trials):
    log: list[Step] = []
    log_job(trials.run, log)
    kill_everywhere(log, trials)
    lose_power(log, trials, random.Random(0), 0.3)
    assert trials.count > 300
    assert trials.violations == []


@pytest.mark.usefixtures("three_threads")
def test_a_commit_that_does_not_wait_for_its_chunks_would_be_noticed(trials, monkeypatch):
    monkeypatch.setattr(Encoder, "drain", lambda self: None)
    log: list[Step] = []
    log_job(trials.run, log)
    kill_everywhere(log, trials)
    assert trials.violations


def test_a_writer_that_has_failed_commits_nothing_more(tmp_path, monkeypatch):
    batches = [draw_batch(np.random.default_rng(n), 50) for n in range(3)]
    monkeypatch.setattr("helpers.Compression", lambda codec: Compression(codec, threads=2))
    writer = start_part(tmp_path, batches[0])
    writer.append(batches[0])
    assert writer.commit().samples == 50
    with monkeypatch.context() as patch:
        patch.setattr(chunk_writer, "encode", lambda *_: (_ for _ in ()).throw(OSError("broken")))
        # Its chunks fail on their way, before the commit or in it.
        with pytest.raises(OSError, match="broken"):
            [writer.append(batches[1]), writer.commit()]
    for _ in range(2):
        with pytest.raises((OSError, tsstore.errors.StoreError)):
            writer.commit()
    writer.fail("broken")
    assert not encoder_threads()
    assert open_store(tmp_path).samples == 50
    assert verify(tmp_path).ok


# In a recorder.


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 9))


def test_a_recorder_records_the_same_with_many_threads(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tsstore.store.writing.batch.CHUNK_BYTES", 64)
    monkeypatch.setattr("tsstore.store.writing.batch.MIN_CHUNK_BYTES", 64)
    path, inputs = tmp_path / "run", torch.randn(500, 3)
    options = {"layers": "0", "durable": False, "codec": "zstd", "writer_threads": 3}
    with tsstore.capture(model, path, **options) as recorder:
        for some in inputs.split(7):
            model(some)
        assert len(encoder_threads()) <= 3
        recorder.commit()
        assert tsstore.open(path).samples == 500
    assert not encoder_threads()
    np.testing.assert_array_equal(tsstore.open(path)["0"][:], packed(model(inputs))[:, 0])


def test_an_encoders_error_reaches_the_job(model, tmp_path, monkeypatch):
    path = tmp_path / "run"
    options = {"layers": "0", "durable": False, "writer_threads": 2, "commit_every": 1e6}
    recorder = tsstore.capture(model, path, **options)
    model(torch.randn(4, 3))
    recorder.commit()
    # Columns and checksums are encoded where they are written.
    monkeypatch.setattr(
        chunk_writer,
        "encode",
        lambda spec, entries: (
            encode(spec, entries)
            if not is_encoder_thread(threading.current_thread())
            else (_ for _ in ()).throw(MemoryError("no room"))
        ),
    )
    model(torch.randn(4, 3))
    with pytest.raises(WriterError, match="the writer failed: MemoryError: no room"):
        recorder.commit()
    with pytest.raises(WriterError, match="no room"):
        recorder.close()
    assert not encoder_threads()
    store = tsstore.open(path)
    assert store.samples == 4
    assert store.parts[0].seal.why == "the writer failed: MemoryError: no room"


def test_a_recorder_may_be_collected_on_an_encoders_thread(monkeypatch):
    """Whoever is collected there is stopped, but not waited for: that may wait for the encoder."""
    pool, stopped = Encoder(2), threading.Event()

    class Writer:
        """In the place of a part's writer: it puts in a chunk, and waits for it."""

        def define(self, layers, positions, columns):
            pool.put(SPEC, entries(0), lambda data: None)

        def append(self, batch):
            pool.drain()

        def seal(self, why):
            pass

    thread = WriterThread(Writer(), 1e6, 1000)

    def collect(spec, entries):
        thread.close("never closed")
        stopped.set()
        return encode(spec, entries)

    monkeypatch.setattr(chunk_writer, "encode", collect)
    thread.put(FinishedBatch(Batch(0, {}, {}), {}, {}))
    assert stopped.wait(60)
    thread.close("closed")
    assert thread.error is None
    pool.close()


NEVER_CLOSED = """
import sys, torch, tsstore
import tsstore.store.writing.batch as part_arrays
part_arrays.CHUNK_BYTES = part_arrays.MIN_CHUNK_BYTES = 64
model = torch.nn.Sequential(torch.nn.Linear(3, 9))
recorder = tsstore.capture(model, sys.argv[1], layers="0", commit_every=1e6, writer_threads=2)
for _ in range(50):
    model(torch.randn(4, 3))
"""


def test_what_nobody_closed_is_encoded_at_the_interpreters_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NEVER_CLOSED, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(tsstore.__file__).parents[1])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    store = tsstore.open(tmp_path / "run")
    assert store.samples == 200
    assert store.parts[0].seal.why == "never closed"
