from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
import weakref
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import children
import dask
import distributed  # noqa: F401 - what tests change of its configuration must be there before
import numpy as np
import pytest
from clusters import workers
from helpers import draw_batch, write_run
from synthetic import count, draw_layer, found, write_layers

import tsstore
from tsstore.analysis import client as client_of
from tsstore.analysis.cluster import DistributedScheduler
from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import build_graph
from tsstore.analysis.layers import count_layer
from tsstore.analysis.memory import available_memory
from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.request import Request, choose
from tsstore.analysis.schedulers import LocalScheduler, Scheduler, task_keys
from tsstore.counting.keys import KeyScheme
from tsstore.errors import AccessError, AnalysisError, CountingError, DamageError, TsstoreWarning
from tsstore.store.files.local import LocalFiles
from tsstore.store.run import create_run
from tsstore.store.threads import processors

GIB = 1 << 30


def add(*numbers: int) -> int:
    return sum(numbers)


def fail(*_: object) -> None:
    raise DamageError("chunk 7 is damaged")


def wait_and_fail(number: int) -> None:
    time.sleep(0.05)
    raise CountingError(f"task {number}")


def nap(folder: str, number: int) -> None:
    Path(folder, f"{number} begun").touch()
    time.sleep(0.1)
    Path(folder, f"{number} done").touch()


def die_once(marker: str, function: Any, *arguments: Any) -> Any:
    """Run a task, but end the worker's process before that, the first time."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return function(*arguments)
    os._exit(1)


def die(*_: object) -> None:
    os._exit(1)


class Kept:
    """What a task gives, as long as anybody keeps it."""

    def __init__(self, *_: object) -> None:
        time.sleep(0.01)
        KEPT.add(self)


KEPT: weakref.WeakSet[Kept] = weakref.WeakSet()


def small_graph(size: int = 20) -> tuple[dict[Any, Any], Any]:
    """Return a graph whose keys are new each time, as those of an analysis are, and its key."""
    token = uuid.uuid4().hex
    constant, total = (f"constant-{token}", 0), f"sum-{token}"
    tasks = {(f"task-{token}", number): (add, constant, number) for number in range(size)}
    return {constant: 5, **tasks, total: (add, *tasks)}, total


@pytest.fixture(scope="module")
def kept_threads():
    with tsstore.Threads(3) as threads:
        yield threads


@pytest.fixture(params=["threads", "kept_threads", "synchronous", "client", "in_process"])
def scheduler(request):
    if request.param in ("kept_threads", "client", "in_process"):
        return choose(request.getfixturevalue(request.param))
    return choose(request.param)


@pytest.fixture(scope="module")
def in_process():
    """Give a client of two workers that are threads of this process."""
    with (
        # What they see as theirs is the memory of all tests before: they would pause for ever.
        dask.config.set({"distributed.worker.memory.pause": False}),
        workers(2, processes=False, threads_per_worker=3, memory_limit="2GiB") as client,
    ):
        yield client


@pytest.fixture
def doomed():
    """Give a client of a cluster that nobody needs afterwards."""
    with workers() as client:
        yield client


def test_a_graph_gives_the_same_everywhere(scheduler):
    graph, key = small_graph()
    assert scheduler.run(graph, key, 2, None) == 5 * 20 + sum(range(20))


def test_every_task_is_reported_once_and_in_the_thread_that_asked(scheduler):
    graph, key = small_graph(50)
    seen, threads = [], set()

    def report(done: int, total: int) -> None:
        seen.append((done, total))
        threads.add(threading.current_thread())

    assert scheduler.run(graph, key, 2, report) == 5 * 50 + sum(range(50))
    assert seen == [(done, 51) for done in range(1, 52)]
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("reported", [False, True])
def test_an_error_in_a_task_comes_out_as_it_is(scheduler, reported):
    graph, key = small_graph()
    failing = next(name for name in graph if name[1:] == (3,))
    graph[failing] = (fail, 5)
    report = (lambda done, total: None) if reported else None
    with pytest.raises(DamageError, match=r"^chunk 7 is damaged$"):
        scheduler.run(graph, key, 2, report)


def test_an_error_of_the_report_stops_the_run(scheduler):
    graph, key = small_graph()

    def report(done: int, total: int) -> None:
        raise RuntimeError(f"{done} of {total}")

    with pytest.raises(RuntimeError, match="1 of 21"):
        scheduler.run(graph, key, 2, report)


@pytest.mark.parametrize("reported", [False, True])
def test_after_an_error_no_task_begins_and_none_is_running(scheduler, tmp_path, reported):
    graph: dict[Any, Any] = {("nap", number): (nap, str(tmp_path), number) for number in range(200)}
    graph["bad"] = (wait_and_fail, 1)
    graph["all"] = (add, *graph)
    report = (lambda done, total: None) if reported else None
    with pytest.raises(CountingError, match="task 1"):
        scheduler.run(graph, "all", 2, report)
    seen = sorted(path.name for path in tmp_path.iterdir())
    assert len(seen) < 200
    assert len([name for name in seen if "begun" in name]) == len(seen) / 2
    time.sleep(0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == seen


def test_nothing_is_kept_for_the_sake_of_reports(in_process):
    graph = {("link", number): (Kept, ("link", number - 1)) for number in range(1, 60)}
    graph["link", 0] = (Kept,)
    alive = []

    def report(done: int, total: int) -> None:
        alive.append(len(KEPT))

    choose(in_process).run(graph, ("link", 59), 1, report)
    assert len(alive) == 60
    assert max(alive) < 20


def test_tasks_of_others_are_not_reported():
    seen: list[int] = []
    graph, key = small_graph(5)

    def report(done: int, total: int) -> None:
        seen.append(done)
        dask.get({"other": (add, 1, 2)}, "other")

    LocalScheduler(2).run(graph, key, 2, report)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_no_thread_is_left_after_a_run_or_an_error():
    before = set(threading.enumerate())
    graph, key = small_graph()
    LocalScheduler(4).run(graph, key, 4, None)
    assert set(threading.enumerate()) == before
    graph = {("task", number): (wait_and_fail, number) for number in range(100)}
    graph["all"] = (add, *graph)
    with pytest.raises(CountingError, match="task "):
        LocalScheduler(4).run(graph, "all", 4, None)
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("kept", [False, True])
def test_only_so_many_threads_run_whatever_dask_is_configured_for(kept):
    running, most, lock = 0, 0, threading.Lock()

    def task(_: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return 1

    graph: dict[Any, Any] = {("task", number): (task, number) for number in range(30)}
    graph["sum"] = (add, *graph)
    with dask.config.set(num_workers=16), tsstore.Threads(16) as threads:
        scheduler = choose(threads) if kept else LocalScheduler(16)
        assert scheduler.run(graph, "sum", 3, None) == 30
    assert most == 3


def test_names_mean_threads_or_this_thread():
    assert isinstance(choose("threads"), LocalScheduler)
    assert choose("threads").threads == processors()
    assert choose(None).threads == processors()
    for name in ("synchronous", "sync", "single-threaded"):
        assert choose(name).threads == 1
        assert choose(name).shared_memory


@pytest.mark.parametrize("wrong", ["processes", "localhost:8786", 7, object(), ""])
def test_what_is_no_scheduler_is_refused(wrong):
    with pytest.raises(AnalysisError, match="expected None, 'threads', 'synchronous'") as error:
        choose(wrong)
    assert repr(wrong) in str(error.value)


def test_the_current_client_is_the_default(client):
    assert isinstance(choose(None), LocalScheduler)
    with client.as_current():
        chosen = choose(None)
    assert isinstance(chosen, DistributedScheduler)
    assert not chosen.shared_memory
    assert chosen.threads == 1


def test_a_client_that_was_given_stays_open_and_one_of_an_address_does_not(client):
    from distributed import Client

    choose(client).close()
    assert client.status == "running"
    clients = len(Client._instances)
    chosen = choose(client.scheduler.address)
    assert chosen.run(*small_graph(), 1, None) == 5 * 20 + sum(range(20))
    chosen.close()
    assert chosen._client.status == "closed"
    assert len(Client._instances) <= clients + 1
    assert client.status == "running"


def test_a_client_that_is_closed_is_refused(client):
    from distributed import Client

    with Client(client.scheduler.address, set_as_default=False) as closed:
        pass
    with pytest.raises(AnalysisError, match=r"^the client <Client.*> is closed; make another"):
        choose(closed)


def test_an_asynchronous_client_is_refused(client):
    from distributed import Client

    async def choose_there() -> None:
        address = client.scheduler.address
        async with Client(address, asynchronous=True, set_as_default=False) as there:
            choose(there)

    with pytest.raises(AnalysisError, match=r"is asynchronous; make one with asynchronous=False"):
        asyncio.run(choose_there())


def test_an_address_where_nothing_answers_is_an_error():
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "100ms"}),
        pytest.raises(AnalysisError, match=r"no cluster answers at tcp://127.0.0.1:1 "),
    ):
        choose("tcp://127.0.0.1:1")
    with pytest.raises(AnalysisError, match="no cluster answers at gopher://there"):
        choose("gopher://there")


def test_while_nothing_answers_it_is_said_that_it_is_tried(monkeypatch):
    monkeypatch.setattr(client_of, "ANSWER_SECONDS", 0.1)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.warns(
            TsstoreWarning, match=r"no cluster answers at tcp://127.0.0.1:1 yet; .* 0.2 s"
        ),
        pytest.raises(AnalysisError, match=r"no cluster answers at tcp://127.0.0.1:1 "),
    ):
        choose("tcp://127.0.0.1:1")


def test_an_address_without_distributed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(AnalysisError, match=r"install tsstore\[cluster\]"):
        choose("tcp://127.0.0.1:1")


def test_without_distributed_there_is_no_current_client(monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "distributed", raising=False)
    assert isinstance(choose(None), LocalScheduler)


def test_memory_is_a_quarter_unless_asked_for(client):
    assert LocalScheduler(2).memory(None) == available_memory() // 4
    assert LocalScheduler(2).memory(123) == 123
    assert DistributedScheduler(client).memory(None) == GIB // 2
    assert DistributedScheduler(client).memory(GIB) == GIB


def test_memory_that_makes_workers_spill_is_refused(client):
    most = int(0.6 * 2 * GIB)
    assert DistributedScheduler(client).memory(most) == most
    with pytest.raises(AnalysisError, match=f"limit is 2 GiB; give at most memory={most}"):
        DistributedScheduler(client).memory(most + 1)


def test_a_cluster_without_workers_is_an_error():
    with workers(0) as client:
        with pytest.raises(AnalysisError, match="has no workers; start some first"):
            choose(client)
        with pytest.raises(AnalysisError, match="has no workers"):
            choose(client.scheduler.address)
        assert client.status == "running"


def test_workers_that_a_client_has_just_forgotten_count(client, monkeypatch):
    """Its own look at the scheduler, every few seconds, tells how many there are, and no more."""

    async def nothing(n_workers):
        pass

    monkeypatch.setattr(client, "_update_scheduler_info", nothing)
    forgotten = {**client.scheduler_info(), "workers": {}}
    monkeypatch.setattr(client, "_scheduler_identity", forgotten)
    assert not client.scheduler_info(n_workers=-1)["workers"]
    assert DistributedScheduler(client).all_threads == 2


def test_a_scheduler_that_is_gone_is_an_error_that_says_so(client, monkeypatch):
    async def identity():
        raise OSError("Timed out")

    monkeypatch.setattr(client.scheduler, "identity", identity)
    with pytest.raises(AnalysisError, match=r"cannot be reached \(Timed out\); make another"):
        DistributedScheduler(client)


def let_say(monkeypatch, client, workers):
    """Let the scheduler of a client say something else of its workers."""

    async def identity():
        return {"workers": workers}

    monkeypatch.setattr(client.scheduler, "identity", identity)


def test_workers_without_a_limit_share_the_memory_of_their_machine(client, monkeypatch):
    workers = client.scheduler_info(n_workers=-1)["workers"]
    without = {address: {**worker, "memory_limit": 0} for address, worker in workers.items()}
    let_say(monkeypatch, client, without)
    assert DistributedScheduler(client).memory(None) == available_memory() // 2 // 4
    one, other = without.values()
    other["host"] = "another machine"
    assert DistributedScheduler(client).memory(None) == available_memory() // 4
    one["memory_limit"] = GIB
    assert DistributedScheduler(client).memory(None) == GIB // 4


def test_workers_of_one_process_have_their_threads_and_memory_together(in_process):
    assert len(in_process.scheduler_info(n_workers=-1)["workers"]) == 2
    scheduler = DistributedScheduler(in_process)
    assert scheduler.threads == 6
    assert scheduler.memory(None) == GIB
    assert scheduler.memory(2 * GIB) == 2 * GIB
    with pytest.raises(AnalysisError, match="their limit is 4 GiB"):
        scheduler.memory(3 * GIB)


def test_the_worker_with_most_threads_and_that_with_least_memory_count(client, monkeypatch):
    workers = client.scheduler_info(n_workers=-1)["workers"]
    for worker, threads, limit in zip(workers.values(), (4, 2), (8 * GIB, GIB), strict=True):
        worker.update(nthreads=threads, memory_limit=limit)
    let_say(monkeypatch, client, workers)
    scheduler = DistributedScheduler(client)
    assert (scheduler.threads, scheduler.memory(None)) == (4, GIB // 4)


def test_a_scratch_folder_that_workers_see_is_fine(client, tmp_path):
    DistributedScheduler(client).check_scratch(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    LocalScheduler(1).check_scratch(str(tmp_path))


@pytest.mark.parametrize("answer", [None, "old nonce", PermissionError("no")])
def test_a_scratch_folder_that_a_worker_does_not_see_is_an_error(
    client, tmp_path, monkeypatch, answer
):
    def run(function: Any, *arguments: str, on_error: str) -> dict[str, Any]:
        return {"tcp://near": function(*arguments), "tcp://far": answer}

    monkeypatch.setattr(client, "run", run)
    with pytest.raises(AnalysisError, match=r"is not seen by tcp://far.*; pass a folder"):
        DistributedScheduler(client).check_scratch(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_all_workers_see_is_fine(client, tmp_path):
    create_run(LocalFiles(tmp_path))
    for scheduler in (DistributedScheduler(client), LocalScheduler(1)):
        with scheduler.reading(LocalFiles(tmp_path), []):
            pass


@pytest.mark.parametrize("answer", ["no x/zarr.json", b"another run", PermissionError("no")])
def test_a_store_that_a_worker_does_not_see_is_no_damage(client, tmp_path, monkeypatch, answer):
    create_run(LocalFiles(tmp_path))

    def run(function: Any, *arguments: Any, on_error: str) -> dict[str, Any]:
        return {"tcp://near": function(*arguments), "tcp://far": answer}

    monkeypatch.setattr(client, "run", run)
    with (
        pytest.raises(AccessError, match=r"is not seen by worker tcp://far.*, but from here.*; it"),
        DistributedScheduler(client).reading(LocalFiles(tmp_path), []),
    ):
        raise AssertionError


def test_a_store_that_only_the_client_sees_is_said_before_anything_is_counted(
    client, tmp_path, monkeypatch
):
    write_run(tmp_path / "run.zarr", [draw_batch(np.random.default_rng(0), 5)])
    store = tsstore.open(tmp_path / "run.zarr")
    # Pickled, it means another place: as where a file system is not mounted.
    monkeypatch.setattr(LocalFiles, "__reduce__", lambda files: (LocalFiles, ("/nowhere",)))
    for use in (tsstore.analyze, tsstore.neurons):
        with pytest.raises(AccessError, match=r"is not seen by worker tcp:.* on \S+, but"):
            use(store, scheduler=client)


class Partly(LocalFiles):
    """Files of a place of which some processes do not see all that others see."""

    def exists(self, key: str) -> bool:
        return key != self._unseen() and super().exists(key)

    def read(self, key: str, *arguments: Any, **options: Any) -> Any:
        if key == self._unseen():
            raise FileNotFoundError(key)
        return super().read(key, *arguments, **options)

    def _unseen(self) -> str | None:
        return os.environ.get("UNSEEN_BY_SOME")


def set_unseen(key: str) -> None:
    os.environ["UNSEEN_BY_SOME"] = key


@pytest.fixture
def seen_partly(doomed, tmp_path):
    """Give a client, a store in such files, and what hides a file from so many workers."""
    write_layers(tmp_path / "run.zarr", {"a": draw_layer(1, 300, 9)})
    store = tsstore.open(tmp_path / "run.zarr")
    for part in store.parts:
        part.files.__class__ = Partly
    addresses = list(doomed.scheduler_info()["workers"])
    return doomed, store, lambda key, most: doomed.run(set_unseen, key, workers=addresses[:most])


def test_a_file_that_workers_do_not_see_is_no_damage(seen_partly):
    client, store, hide = seen_partly
    chunk = next(key for key in store.parts[0].files.walk() if "/states/c/" in key)
    hide(chunk, 2)
    seen = rf"{chunk} is not seen by worker tcp:\S+ on \S+ and 1 other, but from here; it is not"
    with pytest.raises(AccessError, match=seen):
        tsstore.analyze(store, scheduler=client)
    # What nobody sees is damage.
    (Path(store.path) / chunk).unlink()
    with pytest.raises(DamageError, match="is missing"):
        tsstore.analyze(store, scheduler=client)


def test_a_file_that_workers_see_and_this_process_does_not_is_no_damage(seen_partly, monkeypatch):
    client, store, _ = seen_partly
    keys = list(store.parts[0].files.walk())
    positions = next(key for key in keys if "/positions/c/" in key)
    monkeypatch.setenv("UNSEEN_BY_SOME", positions)
    seen = rf"{positions} is not seen from here, but by worker tcp:\S+ on \S+ and 1 other; it is"
    with pytest.raises(AccessError, match=seen):
        tsstore.analyze(store, scheduler=client)


def test_a_part_that_one_worker_does_not_see_is_named_before_anything_is_counted(seen_partly):
    client, store, hide = seen_partly
    directory = store.parts[0].directory
    hide(f"{directory}/zarr.json", 1)
    done: list[int] = []
    with pytest.raises(AccessError, match=rf"{directory}/zarr.json is not seen by worker tcp:"):
        tsstore.analyze(store, scheduler=client, progress=lambda *_: done.append(1))
    assert done == []


@pytest.mark.usefixtures("small_sizes")
def test_scratch_that_only_this_process_cannot_use_is_said_to_be_so(client, tmp_path):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 9)})
    with pytest.raises(AnalysisError, match=r"from \S+, where the analysis was.*, but no worker"):
        tsstore.analyze(store, scheduler=client, scratch=tmp_path / "nowhere")
    (tmp_path / "file").touch()
    seeing = DistributedScheduler(client).seeing
    assert seeing(str(tmp_path)) == "all workers see it"
    assert seeing(str(tmp_path / "file")) == "no worker sees it"


def test_a_worker_of_another_version_is_an_error(client, tmp_path, monkeypatch):
    monkeypatch.setattr("tsstore.analysis.workers.__version__", "9.9")
    with pytest.raises(AnalysisError, match=r"^worker tcp://.* cannot take part \(it has") as error:
        DistributedScheduler(client).check_scratch(str(tmp_path))
    assert "but the analysis 9.9); install tsstore 9.9 and" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_has_no_tsstore_is_an_error(client, tmp_path, monkeypatch):
    def run(*_: object, on_error: str) -> dict[str, Any]:
        return {"tcp://far": ImportError("No module named 'tsstore'")}

    monkeypatch.setattr(client, "run", run)
    with pytest.raises(AnalysisError, match=r"tcp://far cannot take part \(No module named"):
        DistributedScheduler(client).check_scratch(str(tmp_path))


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("kind", ["block", "index", "partition", "merge"])
def test_a_worker_that_dies_does_not_change_the_result(fragile, tmp_path, kind):
    rows = draw_layer(1, 150, 9)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    scheduler = choose(fragile)
    plan = replace(layer_plan(states, GIB // 8, scheduler), block_rows=16)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    graph, key = build_graph(LayerJob(states, KeyScheme.create(9), plan, str(scratch)))
    tasks = [k for k in graph if isinstance(graph[k], tuple) and kind in str(k)]
    victim = tasks[len(tasks) // 2]
    graph[victim] = (die_once, str(tmp_path / "marker"), *graph[victim])
    assert found(scheduler.run(graph, key, 1, None)) == count(rows)
    assert (tmp_path / "marker").exists()


@pytest.mark.usefixtures("small_sizes")
def test_a_worker_that_dies_before_its_receipts_are_used_is_replaced(fragile, tmp_path):
    rows = draw_layer(2, 150, 9)
    states = write_layers(tmp_path / "run", {"a": rows})["a"]
    workers = list(fragile.scheduler_info()["workers"])

    def report(name: str, done: int, total: int) -> None:
        if done == 1:
            fragile.run(die, workers=workers[:1], on_error="ignore")

    counts = count_layer(states, Request(GIB // 8, progress=report), choose(fragile))
    assert found(counts) == count(rows)


def test_a_task_that_kills_every_worker_is_an_error(doomed):
    doomed.cluster.scheduler.allowed_failures = 0
    with pytest.raises(AnalysisError, match=r"lost a task .* look into the workers' logs"):
        choose(doomed).run({"bad": (die, 1)}, "bad", 1, None)


def test_a_cluster_that_closes_in_the_middle_is_an_error(doomed):
    scheduler = choose(doomed)
    graph: dict[Any, Any] = {("nap", number): (time.sleep, 0.2) for number in range(50)}
    graph["end"] = (add, 1, 2)

    def report(done: int, total: int) -> None:
        doomed.close()

    with pytest.raises(AnalysisError, match=r"was closed while it was analysing; leave both"):
        scheduler.run(graph, "end", 1, report)


def long_graph(folder: Path, naps: int = 200) -> dict[Any, Any]:
    """Return a graph whose tasks nap one after another, once a file says that they begin."""
    # Of functions that every process knows; 0 is what is written.
    begin = (Path.write_text, folder / "begun", "")
    graph: dict[Any, Any] = {("nap", number): (time.sleep, "seconds") for number in range(naps)}
    return {"seconds": (max, 0.1, begin), **graph, "end": (len, list(graph))}


@pytest.fixture
def later(tmp_path):
    """Give a function that lets another thread call something, once naps begin or another time."""
    threads = []

    def start(call: Any, *arguments: Any, when: Any = (tmp_path / "begun").exists) -> Any:
        def wait() -> None:
            deadline = time.monotonic() + 60
            while not when() and time.monotonic() < deadline:
                time.sleep(0.01)
            call(*arguments)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join()


def test_workers_that_all_go_are_waited_for_and_said_to_be_missing(monkeypatch, tmp_path, later):
    monkeypatch.setattr(client_of, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(client_of, "LOOK_SECONDS", 0.1)
    with workers(1) as client:
        scheduler = choose(client, patience=120)
        said = pytest.warns(
            TsstoreWarning, match=r"has no workers any more; .* goes on if some come"
        )
        later(client.cluster.scale, 0)
        later(client.cluster.scale, 2, when=lambda: len(said))
        with said:
            assert scheduler.run(long_graph(tmp_path, 20), "end", 1, None) == 20


def test_without_patience_workers_that_are_there_suffice(client):
    assert choose(client, patience=0).run({"end": (add, 1, 2)}, "end", 1, None) == 3


def test_without_workers_for_too_long_it_is_an_error(monkeypatch, tmp_path, later):
    monkeypatch.setattr(client_of, "LOOK_SECONDS", 0.1)
    with workers(1) as client:
        scheduler = choose(client, patience=1.5)
        later(client.cluster.scale, 0)
        with (
            pytest.warns(TsstoreWarning, match="has no workers any more"),
            pytest.raises(AnalysisError, match=r"had no workers for \d+ seconds; start some and"),
        ):
            scheduler.run(long_graph(tmp_path), "end", 1, None)
        assert client.status == "running"


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda client: client.restart(wait_for_workers=False), "was restarted meanwhile; analyse"),
        (lambda client: client.cluster.close(), "or its client, was closed while"),
    ],
)
@pytest.mark.parametrize("reported", [False, True])
def test_the_true_cause_is_told(end, said, reported, tmp_path, later):
    with workers(1) as client:
        scheduler = choose(client)
        ending = later(end, client)
        report = (lambda done, total: None) if reported else None
        with pytest.raises(AnalysisError, match=said):
            scheduler.run(long_graph(tmp_path), "end", 1, report)
        ending.join()


CLUSTER = """
import time
from distributed import LocalCluster

with LocalCluster(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0",
                  protocol="tcp://") as cluster:
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


def test_a_scheduler_that_is_killed_is_said_to_be_gone(tmp_path, later):
    cluster = children.start(CLUSTER, pipes=["stdout"])
    try:
        with cluster.stdout, closing(choose(cluster.stdout.readline().strip())) as scheduler:
            later(cluster.kill)
            with pytest.raises(AnalysisError, match=r"the scheduler at .* is gone: .* died"):
                scheduler.run(long_graph(tmp_path), "end", 1, None)
    finally:
        cluster.kill()
        cluster.wait()


class Unnamed:
    """What has no name of its own, and would take long to be named by what it is."""

    def __dask_tokenize__(self) -> str:
        raise AssertionError("a graph was read to name it")


def test_a_graph_is_not_read_to_name_it(client):
    graph = {"thing": Unnamed(), "is": (isinstance, "thing", object), "end": (str, "is")}
    for _ in range(2):
        assert DistributedScheduler(client).run(graph, "end", 1, None) == "True"


def test_tasks_are_told_from_constants():
    graph = {"a": 1, "b": (max, "a", 2), ("c", 0): (min, 1, 2), "d": [1]}
    assert task_keys(graph) == {"b", ("c", 0)}
    assert task_keys({}) == set()


def test_threads_and_a_cluster_have_all_that_an_analysis_needs(client):
    schedulers: list[Scheduler] = [LocalScheduler(2), DistributedScheduler(client)]
    needed = {name for name in vars(Scheduler) if not name.startswith("_")}
    needed |= Scheduler.__annotations__.keys()
    assert len(needed) == 13
    assert all(hasattr(each, name) for each in schedulers for name in needed)
