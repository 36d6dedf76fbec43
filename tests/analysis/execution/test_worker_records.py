"""Records that workers hold for each other: of clusters that share no folder, and lose workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters import workers, workers_environment
from distributed import Client
from peaks import peak_memory
from synthetic import count, draw_layer, found, layer, write_layers

import tsstore
from tsstore.analysis import cluster
from tsstore.analysis.cluster import DistributedScheduler
from tsstore.analysis.execution import record_holder, scratch, worker_records
from tsstore.analysis.execution.exchange import FiledSlices, spill
from tsstore.analysis.execution.worker_records import LostRecordsError
from tsstore.analysis.planning.cost import file_bytes
from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.random_groups import GROUPS
from tsstore.analysis.request import choose
from tsstore.analysis.schedulers import task_keys
from tsstore.counting.partition import scatter_rows
from tsstore.counting.records import SampleKeys
from tsstore.errors import AnalysisError, CountingError, DamageError

NOWHERE = "/proc/no/folder"


@pytest.fixture
def small_blocks(small_sizes, monkeypatch):
    """Let plans have many blocks of but a few rows, besides all that is small then."""
    for name in ("MAX_PIECE_ROWS", "MAX_BLOCK_PIECES"):
        monkeypatch.setattr(f"tsstore.analysis.planning.fitting.{name}", 8)
    monkeypatch.setattr("tsstore.analysis.planning.fitting.BLOCKS_OF_A_THREAD", 40)


@pytest.fixture
def no_folder(monkeypatch):
    """Let nothing go through the system's folder for temporary files."""
    make = scratch.scratch_folder

    def refuse(parent: str | None, *others: Any) -> Any:
        assert parent is not None
        return make(parent, *others)

    monkeypatch.setattr(scratch, "scratch_folder", refuse)


@pytest.fixture
def apart(client, no_folder):
    """Give a client of workers without a folder for temporary files: they share nothing."""
    with workers_environment(client, {"TMPDIR": NOWHERE}):
        client.run(setattr, tempfile, "tempdir", NOWHERE)
        yield client
        client.run(setattr, tempfile, "tempdir", None)


@pytest.fixture
def mortal(fragile, no_folder):
    """Give a client of workers that may be killed, whose records go through no folder."""
    return fragile


def held(client: Any) -> list[int]:
    """Return the bytes that workers hold of records, or have reserved, in all."""

    def taken(dask_worker: Any) -> int:
        holder = dask_worker.plugins.get("tsstore-records")
        return sum(place.taken for place in holder._places.values()) if holder else 0

    return sorted(client.run(taken).values())


def lose(dask_worker: Any) -> None:
    """Let a worker know of no records, as one does that was started anew at the same address."""
    dask_worker.plugins["tsstore-records"]._places.clear()


def damage(dask_worker: Any) -> None:
    """Flip a bit of each file that a worker holds."""
    holder = dask_worker.plugins["tsstore-records"]
    with holder._lock:
        for place in holder._places.values():
            for name, data in place.files.items():
                changed = bytearray(data)
                changed[len(changed) // 2] ^= 1
                place.files[name] = memoryview(changed)


@pytest.mark.usefixtures("small_sizes")
def test_workers_that_share_no_folder_count_what_threads_count(apart, tmp_path):
    rows = {"a": draw_layer(1, 300, 9, distinct=200), "b": draw_layer(2, 300, 8, largest=3)}
    labels = np.arange(300) % 3
    store = write_layers(tmp_path / "run", rows, columns={"label": labels})
    plan = tsstore.plan(store, scheduler=apart)
    assert {own["records"] for own in plan.to_dict()["layers"].values()} == {"workers"}
    result = tsstore.analyze(store, scheduler=apart)
    assert {name: found(result[name]) for name in rows} == {
        name: count(own) for name, own in rows.items()
    }
    assert (
        result.to_json() == tsstore.analyze(store, scheduler="threads", scratch=tmp_path).to_json()
    )
    for options in ({"by": "label"}, {"exact": True, "intervals": False}):
        results = [tsstore.analyze(store, scheduler=on, **options) for on in (apart, "threads")]
        assert results[0].to_json() == results[1].to_json()
    assert held(apart) == [0, 0]


@pytest.mark.usefixtures("small_sizes")
def test_so_are_the_states_that_two_runs_share(apart, tmp_path):
    stores = [
        write_layers(tmp_path / f"{seed}", {"a": draw_layer(seed, 150, 9, distinct=100)})
        for seed in (1, 2)
    ]
    found = [
        tsstore.compare(*stores, novelty=True, efficiency=False, scheduler=on).to_json()
        for on in (apart, "threads")
    ]
    assert found[0] == found[1]
    assert held(apart) == [0, 0]


def kill_one(client: Any) -> None:
    """Kill a worker process, as a system out of memory does."""
    os.kill(next(iter(client.run(os.getpid, on_error="ignore").values())), signal.SIGKILL)


def kill_all(client: Any) -> None:
    for pid in client.run(os.getpid, on_error="ignore").values():
        os.kill(pid, signal.SIGKILL)


def lose_of_one(client: Any) -> None:
    client.run(lose, workers=list(client.nthreads())[:1])


def lose_all(client: Any) -> None:
    client.run(lose)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("harm", "share"),
    [
        (lose_of_one, 0.7),
        (lose_all, 0.7),
        (kill_one, 0.6),
        pytest.param(lose_of_one, 0.1, marks=pytest.mark.slow),
        *(pytest.param(kill_one, s, marks=pytest.mark.slow) for s in (0.1, 0.3, 0.8, 0.9, 0.99)),
        *(pytest.param(kill_all, s, marks=pytest.mark.slow) for s in (0.1, 0.5, 0.7, 0.9)),
        *(pytest.param(lose_all, s, marks=pytest.mark.slow) for s in (0.1, 0.5, 0.9)),
    ],
)
def test_what_is_lost_is_counted_again(mortal, tmp_path, harm, share):
    rows = {"a": draw_layer(1, 250, 9, distinct=200), "b": draw_layer(3, 250, 2, largest=2)}
    store = write_layers(tmp_path / "run", rows)
    harmed: list[int] = []

    def report(_: str, done: int, total: int) -> None:
        if done >= share * total and not harmed:
            harmed.append(done)
            harm(mortal)

    result = tsstore.analyze(store, scheduler=mortal, progress=report)
    assert harmed
    assert found(result["a"]) == count(rows["a"])
    assert found(result["b"]) == count(rows["b"])
    assert (
        result.to_json() == tsstore.analyze(store, scheduler="threads", scratch=tmp_path).to_json()
    )
    mortal.wait_for_workers(2, timeout=120)
    assert held(mortal) == [0, 0]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("harm", [lose_of_one, pytest.param(kill_one, marks=pytest.mark.slow)])
def test_so_is_what_is_lost_of_two_runs_that_are_read_in_step(mortal, tmp_path, harm):
    columns = {"id": np.arange(250)}
    stores = [
        write_layers(tmp_path / f"{seed}", {"a": draw_layer(seed, 250, 9)}, columns=columns)
        for seed in (1, 2)
    ]
    assert not tsstore.plan(stores[0], compare=stores[1], scheduler=mortal).report.compared_again
    harmed: list[int] = []

    def report(_: str, done: int, total: int) -> None:
        if done >= 0.7 * total and not harmed:
            harmed.append(done)
            harm(mortal)

    result = tsstore.compare(*stores, scheduler=mortal, progress=report)
    assert harmed
    expected = tsstore.compare(*stores, scheduler="threads", scratch=tmp_path)
    assert result.to_json() == expected.to_json()
    mortal.wait_for_workers(2, timeout=120)
    assert held(mortal) == [0, 0]


@pytest.mark.usefixtures("small_blocks")
def test_blocks_are_counted_again_whose_records_are_lost_and_no_others(
    mortal, tmp_path, monkeypatch
):
    rows = draw_layer(1, 250, 9, distinct=200)
    store = write_layers(tmp_path / "run", {"a": rows})
    first, lost, counted = next(iter(mortal.nthreads())), [], []
    run = DistributedScheduler.run_once

    def spy(self: Any, graph: dict[Any, Any], *arguments: Any) -> Any:
        counted.append(sum(1 for key in task_keys(graph) if "tsstore-block" in str(key)))
        return run(self, graph, *arguments)

    def lose_files(dask_worker: Any) -> int:
        with dask_worker.plugins["tsstore-records"]._lock:
            (place,) = dask_worker.plugins["tsstore-records"]._places.values()
            lose(dask_worker)
            return len(place.files)

    def report(_: str, done: int, total: int) -> None:
        if not lost and done == 30:
            lost.append(mortal.run(lose_files, workers=[first])[first])

    monkeypatch.setattr(DistributedScheduler, "run_once", spy)
    assert found(tsstore.analyze(store, scheduler=mortal, progress=report)["a"]) == count(rows)
    every, again = counted
    # One may be handed over in just that moment.
    assert 5 < lost[0] <= again <= lost[0] + 2 < every


@pytest.mark.usefixtures("small_blocks")
def test_an_index_that_is_lost_with_its_worker_is_made_of_the_same_receipts(mortal, tmp_path):
    rows = draw_layer(1, 250, 9, distinct=200)
    store = write_layers(tmp_path / "run", {"a": rows})
    killed: list[str] = []

    def holders(dask_scheduler: Any) -> list[str]:
        tasks = dask_scheduler.tasks.items()
        return [one.address for key, t in tasks if "index" in str(key) for one in t.who_has or ()]

    def report(_: str, done: int, total: int) -> None:
        if not killed and (addresses := mortal.run_on_scheduler(holders)):
            killed.extend(addresses)
            for pid in mortal.run(os.getpid, workers=addresses, on_error="ignore").values():
                os.kill(pid, signal.SIGKILL)

    assert found(tsstore.analyze(store, scheduler=mortal, progress=report)["a"]) == count(rows)
    assert killed


@pytest.mark.usefixtures("small_blocks")
def test_records_that_are_lost_again_and_again_are_an_error(mortal, tmp_path, monkeypatch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 60, 9)})
    monkeypatch.setattr(cluster, "MOST_LOSSES", 3)

    def report(_: str, done: int, total: int) -> None:
        if done > 0.5 * total:
            mortal.run(lose)

    with pytest.raises(
        AnalysisError, match=r"workers were lost.* 3 times \(.*worker tcp://.* as sc"
    ):
        tsstore.analyze(store, scheduler=mortal, progress=report)


@pytest.mark.usefixtures("small_blocks")
def test_records_that_change_meanwhile_are_an_error(mortal, tmp_path):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 100, 9)})

    def report(_: str, done: int, total: int) -> None:
        if done > 0.3 * total:
            mortal.run(damage)

    with pytest.raises(CountingError, match="has changed while it was in use"):
        tsstore.analyze(store, scheduler=mortal, progress=report)
    assert held(mortal) == [0, 0]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("error", [KeyboardInterrupt, DamageError])
def test_after_an_error_and_an_interrupt_nothing_is_held(mortal, tmp_path, error):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 200, 9)})
    seen: list[int] = []

    def report(_: str, done: int, total: int) -> None:
        if done > 0.4 * total:
            seen.extend(held(mortal))
            raise error

    with pytest.raises(error):
        tsstore.analyze(store, scheduler=mortal, progress=report)
    assert min(seen) > 0
    assert held(mortal) == [0, 0]


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
def test_several_clients_analyse_at_once(mortal, tmp_path):
    layers = [draw_layer(seed, 150, 9, distinct=100) for seed in range(3)]
    stores = [write_layers(tmp_path / f"{n}", {"a": own}) for n, own in enumerate(layers)]
    results: dict[int, Any] = {}

    def analyze(number: int) -> None:
        with Client(mortal.scheduler.address, set_as_default=False) as own:
            results[number] = tsstore.analyze(stores[number], scheduler=own)

    threads = [threading.Thread(target=analyze, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found(results[number]["a"]) for number in range(3)] == list(map(count, layers))
    assert held(mortal) == [0, 0]


def scattered(seed: int, rows: int = 1000) -> list[Any]:
    keys = np.random.default_rng(seed).integers(0, 1 << 60, (rows, 1), dtype=np.uint64)
    return [scatter_rows(SampleKeys(keys), 2)]


def spilled(seed: int, place: str) -> FiledSlices:
    return spill(scattered(seed), place)


def read_back(slices: FiledSlices) -> list[list[int]]:
    return [
        sorted(int(key) for piece in slices.read(part) for key in piece.keys[:, 0])
        for part in range(4)
    ]


def be_impatient() -> None:
    worker_records.ROOM_SECONDS = 0.3


def be_patient() -> None:
    worker_records.ROOM_SECONDS = 60.0


def test_what_has_no_room_at_a_worker_is_held_by_another_one(mortal):
    first, second = mortal.nthreads()
    expected = [read_back_of(seed) for seed in range(4)]
    size = len(expected[0]) and 8 * 1000
    most = file_bytes(size, 4)
    with choose(mortal).holding(2 * most) as place:
        files = [
            mortal.submit(spilled, seed, place, workers=[first], pure=False).result()
            for seed in range(4)
        ]
        at = [file.file.partition("@")[2] for file in files]
        assert at == [first, first, second, second]
        for reader in (first, second):
            read = [
                mortal.submit(read_back, file, workers=[reader], pure=False).result()
                for file in files
            ]
            assert read == expected
        assert max(held(mortal)) <= 2 * most
        mortal.run(be_impatient)
        try:
            with pytest.raises(AnalysisError, match=r"no worker has room for 7\.\d+ KiB"):
                mortal.submit(spilled, 4, place, workers=[first], pure=False).result()
        finally:
            mortal.run(be_patient)
        assert max(held(mortal)) <= 2 * most
    assert held(mortal) == [0, 0]
    with pytest.raises(LostRecordsError, match=f"worker {second} does not hold"):
        mortal.submit(read_back, files[3], workers=[first], pure=False).result()


def read_back_of(seed: int) -> list[list[int]]:
    ((records, offsets),) = scattered(seed)
    keys = records.keys[:, 0].tolist()
    return [sorted(keys[offsets[part] : offsets[part + 1]]) for part in range(4)]


def test_what_nobody_asks_for_any_more_is_let_go_of(mortal):
    def forget(dask_worker: Any) -> None:
        dask_worker.plugins["tsstore-records"]._forget_idle()

    def pass_time(place: str, dask_worker: Any) -> None:
        places = dask_worker.plugins["tsstore-records"]._places
        if place in places:
            places[place].used -= record_holder.IDLE_SECONDS

    scheduler = choose(mortal)
    with scheduler.holding(1 << 20) as place, choose(mortal).holding(1 << 20) as other:
        for name in (place, other):
            mortal.submit(spilled, 0, name, pure=False).result()
        mortal.run(forget)
        assert sum(held(mortal)) > 16_000
        mortal.run(pass_time, place.split(":")[1])
        mortal.run(forget)
        assert 8_000 < sum(held(mortal)) < 16_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize("threads", [1, 2])
def test_workers_that_hold_records_keep_to_the_memory(tmp_path, threads):
    memory = 256 << 20
    numbers = np.random.default_rng(0).integers(0, 1 << 62, 1 << 24, dtype=np.uint64)
    rows = layer(numbers.view(np.uint8).reshape(-1, 8), 16)
    store = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=2 << 20)
    tiny = write_layers(tmp_path / "tiny", {"a": draw_layer(1, 100, 8)})
    with workers(2, threads_per_worker=threads, memory_limit="2GiB") as client:
        tsstore.analyze(tiny, scheduler=client)
        baselines = client.run(peak_memory)
        plan = layer_plan(store["a"], memory, choose(client), GROUPS)
        seen: list[int] = []

        def report(_: str, done: int, total: int) -> None:
            if not seen and done > 0.7 * total:
                seen.extend(held(client))

        result = tsstore.analyze(store, scheduler=client, memory=memory, progress=report)
        peaks = client.run(peak_memory)
    assert plan.room_bytes > 64 << 20
    assert sum(seen) > 128 << 20
    assert max(seen) <= plan.room_bytes
    assert result["a"].distinct == len(rows.rows)
    added = [peaks[address] - baseline for address, baseline in baselines.items()]
    print(f"{[one >> 20 for one in added]} of {plan.projected_peak >> 20} MiB")
    assert max(added) <= plan.projected_peak <= memory


@pytest.mark.slow
def test_a_worker_that_comes_later_holds_records_too(tmp_path, small_blocks, no_folder):
    rows = draw_layer(1, 400, 9, distinct=300)
    store = write_layers(tmp_path / "run", {"a": rows})
    with workers(1) as client:

        def report(_: str, done: int, total: int) -> None:
            if done == 5:
                client.cluster.scale(2)
                client.wait_for_workers(2, timeout=120)
                time.sleep(0.1)

        assert found(tsstore.analyze(store, scheduler=client, progress=report)["a"]) == count(rows)
        assert len(client.run(os.getpid)) == 2
        assert held(client) == [0, 0]


@pytest.fixture
def namespaces(tmp_path):
    """Give a client of workers each of which has a file system of its own mounted in a folder."""
    folder = tmp_path / "own"
    folder.mkdir()
    unshare = ["unshare", "-rm", "--propagation", "private", "sh", "-c"]
    mount = f"mount -t tmpfs none '{folder}'"
    if subprocess.run([*unshare, mount], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    with workers(0) as client:
        options = f"--no-nanny --nthreads 1 --no-dashboard --local-directory '{folder}'"
        worker = f"'{sys.executable}' -m distributed.cli.dask_worker {client.scheduler.address}"
        command = [*unshare, f"{mount} && exec {worker} {options} --memory-limit 1GiB"]
        environment = os.environ | {"PYTHONPATH": str(Path(tsstore.__file__).parents[1])}
        started = [
            subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)
        ]
        try:
            client.wait_for_workers(2, timeout=120)
            yield client, folder
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)


@pytest.mark.slow
@pytest.mark.usefixtures("no_folder")
def test_workers_in_mount_namespaces_of_their_own_count_without_scratch(namespaces, tmp_path):
    client, folder = namespaces
    rows = draw_layer(1, 60_000, 9, distinct=50_000)
    store = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=1 << 20)
    with pytest.raises(AnalysisError, match=r"is not seen by tcp.*or without scratch= more memory"):
        tsstore.analyze(store, scheduler=client, scratch=folder)
    assert found(tsstore.analyze(store, scheduler=client)["a"]) == count(rows)
    assert held(client) == [0, 0]


def test_a_task_that_comes_after_the_end_holds_nothing_and_does_not_wait(mortal):
    with choose(mortal).holding(1 << 20) as place:
        mortal.submit(spilled, 0, place, pure=False).result()
        assert sum(held(mortal)) > 0
    with pytest.raises(AnalysisError, match="has ended"):
        mortal.submit(spilled, 1, place, pure=False).result()
    assert held(mortal) == [0, 0]
