"""Scratch in object storage: on threads, and on workers that share nothing else."""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid

import children
import numpy as np
import pytest
from clusters import workers, workers_environment
from counting_cases import by_partition
from object_stores import BUCKET, FailingProxy, s3_environment, s3_server, s3_settings
from synthetic import count, draw_layer, found, write_layers

import tsstore
from tsstore.analysis.execution import exchange, scratch, scratch_objects
from tsstore.analysis.execution.exchange import HeldSlices, read_slices, spill
from tsstore.analysis.execution.scratch import scratch_objects as below
from tsstore.analysis.planning import fitting
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.counting.records import Records
from tsstore.errors import AccessError, AnalysisError, CountingError, TsstoreWarning
from tsstore.store.files import objects as object_files
from tsstore.store.files.open import open_files

MIB = 1 << 20
OPTIONS = {"memory": 64 * MIB, "seed": 1}


@pytest.fixture(scope="module")
def server():
    with s3_server() as url, s3_environment(url):
        yield url


@pytest.fixture
def url(server, monkeypatch) -> str:
    """Give a place for scratch, where slices may be short; and little patience."""
    monkeypatch.setattr(object_files, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(object_files, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(fitting, "LEAST_SLICE_BYTES", 1)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def small_parts(monkeypatch):
    """Let a scratch file be many objects."""
    monkeypatch.setattr(scratch_objects, "PART_BYTES", 1000)


@pytest.fixture
def spilling(monkeypatch):
    """Let records go through scratch on threads too, as they do where memory is short."""
    monkeypatch.setattr(LocalScheduler, "shared_memory", False)


@pytest.fixture
def failing(server, monkeypatch):
    """Give a function that puts a failing proxy before the server, for what is opened then."""
    proxies = []

    def fail(fault) -> FailingProxy:
        proxies.append(FailingProxy(server, fault).__enter__())
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxies[-1].url)
        return proxies[-1]

    yield fail
    for proxy in proxies:
        proxy.__exit__()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    rng = np.random.default_rng(0)
    columns = {"label": rng.integers(0, 3, 200), "id": np.arange(200)}
    layers = {"a": draw_layer(1, 200, 9, distinct=150), "wide": draw_layer(2, 200, 38)}
    return write_layers(path, layers, columns=columns)


def keys(url: str) -> list[str]:
    return list(scratch_objects.scratch_files(url.rstrip("/")).walk())


def change(url: str, what: str = "") -> None:
    """Flip a bit of each object of records, or shorten or remove it."""
    files = open_files(url)
    for key in [key for key in files.walk() if ".records/" in key]:
        data = bytearray(files.read(key))
        if what == "removed":
            files.remove(key)
        elif what == "short":
            files.write(key, bytes(data[:-1]))
        else:
            data[len(data) // 2] ^= 4
            files.write(key, bytes(data))


def records(seed: int, count: int, grouped: bool = False) -> Records:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 2**64, (count, 2), np.uint64)
    numbers = rng.integers(1, 9, (2, count), np.uint32) if seed % 2 else (None, None)
    return Records(drawn, *numbers, rng.integers(0, 9, count, np.uint8) if grouped else None)


def columns(pieces) -> list[list[bytes]]:
    """Return the bytes of bare records' columns, and of others'."""
    found = []
    for bare in (True, False):
        kind = [piece.arrays() for piece in pieces if piece.is_bare == bare]
        found.append([np.concatenate(own).tobytes() for own in zip(*kind, strict=True)])
    return found


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("ahead", [1, 700, MIB])
def test_slices_are_the_same_from_objects_as_from_memory(url, monkeypatch, grouped, ahead):
    monkeypatch.setattr(scratch_objects, "FRAME_BYTES", ahead)
    monkeypatch.setattr(exchange, "FRAME_BYTES", 500)
    pieces = [by_partition(records(seed, 30, grouped), 2) for seed in range(4)]
    with below(url) as folder:
        filed, held = spill(pieces, folder), HeldSlices(pieces)
        assert [key for key in keys(url) if ".records/" in key]
        assert max(open_files(url).size(key) for key in keys(url)) == 1000
        for partition in range(4):
            assert columns(list(filed.read(partition))) == columns(held.read(partition))
        both = [filed, HeldSlices([]), held, filed]
        for partition in (1, 2):
            assert columns(list(read_slices(both, partition))) == columns(
                [piece for each in both for piece in each.read(partition)]
            )
    assert keys(url) == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("flipped", "has changed while it was in use; analyse again"),
        ("short", "has changed while it was in use; analyse again"),
        ("removed", "an object of it is not there.*; was it removed"),
    ],
)
def test_an_object_that_is_not_what_was_written_is_named_and_gives_no_number(url, what, said):
    with below(url) as folder:
        slices = spill([by_partition(records(1, 100), 0)], folder)
        change(folder, what)
        with pytest.raises(CountingError, match=f"scratch file {slices.file} .*{said}"):
            list(slices.read(0))


@pytest.mark.usefixtures("small_sizes", "small_parts", "spilling")
@pytest.mark.parametrize(
    "options",
    [
        {"by": "label"},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"exact": True, "intervals": False, "window": 50}, marks=pytest.mark.slow),
    ],
)
def test_an_analysis_gives_from_objects_what_it_gives_from_files(url, store, tmp_path, options):
    expected = tsstore.analyze(store, scratch=tmp_path, **OPTIONS, **options)
    seen: set[str] = set()

    def report(_: str, done: int, total: int) -> None:
        if not any(".records/" in key for key in seen):
            seen.update(keys(url))

    got = tsstore.analyze(store, scratch=url, progress=report, **OPTIONS, **options)
    assert got.to_json() == expected.to_json()
    assert any(".records/" in key for key in seen)
    assert keys(url) == []


@pytest.mark.slow
@pytest.mark.usefixtures("small_sizes", "small_parts", "spilling")
def test_states_are_from_objects_what_they_are_from_files(url, store, tmp_path):
    places = (url + "/", tmp_path)
    tables = [tsstore.surprising(store, "a", scratch=place) for place in places]
    assert tables[0].equals(tables[1])
    states = [tsstore.states(store, "wide", scratch=place).to_dict() for place in places]
    assert states[0] == states[1]
    outs = [tmp_path / "objects.zarr", tmp_path / "files.zarr"]
    for out, place in zip(outs, places, strict=True):
        tsstore.export(store, "wide", out, sort=True, scratch=place)
    assert (outs[0] / "state/c/0/0").read_bytes() == (outs[1] / "state/c/0/0").read_bytes()
    assert keys(url) == []


@pytest.mark.usefixtures("small_sizes", "spilling")
@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_requests_that_fail_now_and_then_change_nothing(url, store, failing, tmp_path, fault):
    expected = tsstore.analyze(store, "a", scratch=tmp_path, **OPTIONS).to_json()
    lost = {"PUT": "done, lost", "DELETE": "done, busy"}

    def now_and_then(number: int, method: str) -> str:
        return lost.get(method, fault) if number % 7 == 3 else ""

    proxy = failing(now_and_then)
    assert tsstore.analyze(store, "a", scratch=url, **OPTIONS).to_json() == expected
    assert len(proxy.faults) > 5
    assert keys(url) == []


@pytest.mark.usefixtures("small_sizes", "spilling")
def test_an_outage_in_the_middle_is_an_error_and_what_is_left_is_said(url, store, failing):
    host = socket.gethostname()
    proxy = failing(lambda number, method: "busy" if number > 30 else "")
    with (
        pytest.warns(TsstoreWarning, match=f"scratch is left at {url}/tsstore-scratch-.* 503"),
        pytest.raises(AccessError, match=f"{url}/tsstore-scratch-.* answers 503.* from {host}"),
    ):
        tsstore.analyze(store, "a", scratch=url, **OPTIONS)
    assert len(proxy.faults) > 2


@pytest.mark.usefixtures("small_sizes", "spilling")
def test_a_place_that_cannot_be_used_is_an_error_before_anything_is_counted(
    url, store, monkeypatch
):
    tasks: list[object] = []
    options = {"progress": lambda *told: tasks.append(told), **OPTIONS}
    with pytest.raises(
        AnalysisError, match=r"scratch cannot be used from .*no such bucket; create"
    ):
        tsstore.analyze(store, scratch="s3://nowhere/scratch", **options)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(AnalysisError, match=r"scratch cannot be used from .*no connection"):
        tsstore.analyze(store, scratch=url, **options)
    assert tasks == []


@pytest.mark.usefixtures("small_sizes", "spilling")
def test_an_interrupt_leaves_no_object(url, store):
    def report(_: str, done: int, total: int) -> None:
        if done == 5:
            assert keys(url)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tsstore.analyze(store, "a", scratch=url, progress=report, scheduler="synchronous")
    assert keys(url) == []


KILLED = """
import os, signal, sys
from tsstore.analysis.execution.scratch import scratch_objects

with scratch_objects(sys.argv[1]) as folder:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_has_left_is_removed_after_a_week_and_that_is_said(url, server, monkeypatch):
    assert children.run(KILLED, url).returncode == -signal.SIGKILL
    files = open_files(url)
    (left,) = keys(url)
    name = left.partition("/")[0]
    files.write(f"{name}/1.records/0", b"some")
    files.write("tsstore-scratch-notes/0", b"of somebody")
    now = time.time()
    monkeypatch.setattr(scratch.time, "time", lambda: now + 6.9 * scratch.DAY)
    with below(url):
        assert left in keys(url)
    monkeypatch.setattr(scratch.time, "time", lambda: now + 8.5 * scratch.DAY)
    told = f"{url}/{name} is removed: scratch of an analysis on .*, .* for 8 days"
    with pytest.warns(TsstoreWarning, match=told), below(url):
        pass
    assert keys(url) == ["tsstore-scratch-notes/0"]


@pytest.fixture(scope="module")
def mortal(server):
    """Give a client of workers that use that server, and may be killed."""
    with workers() as client:
        yield client


@pytest.fixture
def apart(client, url, tmp_path):
    """Give a client whose workers share no folder, but that server."""
    with workers_environment(client, {**s3_settings(), "TMPDIR": ""}):
        client.run(set_up, str(tmp_path), 2.0)
        yield client
        client.run(set_up, str(tmp_path), 120.0)


def set_up(folder: str, patience: float) -> None:
    """Let a worker have so much patience, and a folder for temporary files of its own."""
    os.environ["TMPDIR"] = os.path.join(folder, f"tmp-{os.getpid()}")
    os.makedirs(os.environ["TMPDIR"], exist_ok=True)
    object_files.PATIENCE_SECONDS = patience


def mislead() -> None:
    """Let a worker find no object storage."""
    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"


def local_files(tmp_path) -> list[str]:
    return [file for _, _, files in os.walk(tmp_path) for file in files if "records" in file]


@pytest.mark.usefixtures("small_sizes")
def test_workers_that_share_no_folder_count_what_threads_count(apart, url, store, tmp_path):
    for options in ({}, {"by": "label"}):
        expected = tsstore.analyze(store, scheduler="threads", **OPTIONS, **options)
        got = tsstore.analyze(store, scheduler=apart, scratch=url, **OPTIONS, **options)
        assert got.to_json() == expected.to_json()
    states = [tsstore.states(store, "wide", scheduler=on, scratch=url) for on in (apart, "threads")]
    assert states[0].to_dict() == states[1].to_dict()
    assert keys(url) == []
    assert local_files(tmp_path) == []


@pytest.mark.usefixtures("small_sizes")
def test_a_worker_that_cannot_use_it_is_named_before_anything_is_counted(apart, url, store):
    tasks: list[object] = []
    first, *_ = apart.run(os.getpid)
    apart.run(mislead, workers=[first])
    said = f"scratch {url}/tsstore-scratch-.* cannot be used by {first} on .*no connection"
    with pytest.raises(AnalysisError, match=f"{said}.*; give all workers what this process has"):
        tsstore.analyze(
            store, scheduler=apart, scratch=url, progress=lambda *told: tasks.append(told)
        )
    assert tasks == []
    assert keys(url) == []


@pytest.mark.slow
@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("share", [0.2, 0.9], ids=["while it scatters", "while it counts"])
def test_killed_workers_change_nothing_and_leave_nothing(mortal, url, tmp_path, share):
    mortal.wait_for_workers(2, timeout=120)
    rows = draw_layer(1, 400, 9, distinct=300)
    run = write_layers(tmp_path / "run", {"a": rows})
    killed: list[int] = []

    def report(_: str, done: int, total: int) -> None:
        if done >= share * total and not killed:
            killed.append(next(iter(mortal.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    result = tsstore.analyze(run, scheduler=mortal, scratch=url, progress=report, **OPTIONS)
    assert killed
    assert found(result["a"]) == count(rows)
    assert result.to_json() == tsstore.analyze(run, scheduler="threads", **OPTIONS).to_json()
    assert keys(url) == []


@pytest.mark.slow
@pytest.mark.usefixtures("small_sizes")
def test_objects_that_change_meanwhile_are_an_error_that_names_one(apart, url, tmp_path):
    # Large enough that blocks are still being scattered when the first ones are told of.
    store = write_layers(tmp_path / "large", {"a": draw_layer(1, 2000, 9, distinct=300)})
    changed: list[int] = []

    def report(_: str, done: int, total: int) -> None:
        if not changed and any(".records/" in key for key in keys(url)):
            changed.append(done)
            change(url)

    with pytest.raises(CountingError, match=f"scratch file {url}/.*records has changed"):
        tsstore.analyze(store, "a", scheduler=apart, scratch=url, progress=report, **OPTIONS)
    assert keys(url) == []
