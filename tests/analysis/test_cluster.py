"""Analyses on real clusters: workers that die, join, know no folder to keep loops in, or are
threads; and analyses that somebody stops."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
from clusters import workers
from object_stores import fresh_url, s3_environment, s3_server
from peaks import peak_memory
from synthetic import count, draw_layer, found, layer, write_layers

import tsstore
from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.exchange import Receipt
from tsstore.analysis.execution.graph import Index, build_graph
from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.random_groups import GROUPS, RandomGroups
from tsstore.analysis.request import choose
from tsstore.analysis.samples import Samples
from tsstore.counting.keys import KeyScheme
from tsstore.errors import AnalysisError
from tsstore.store.files.local import LocalFiles
from tsstore.store.files.open import open_files
from tsstore.store.reading.layer import LayerStates

ROOT = Path(tsstore.__file__).parents[1]
BLOCK_ROWS = 8
"""Of blocks of which there are many where there are but a few rows."""

SMALLEST = """
from tsstore.analysis.execution import graph
from tsstore.analysis.planning import cost, fitting
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.store.reading.layer import LayerStates

sizes = {"MAX_PIECE_ROWS": 64, "MIN_PIECE_ROWS": 8, "SUBPARTITION_RECORDS": 8}
cost.MIN_TABLE_SLOTS = 16
for name, value in {**sizes, "PARTITION_RECORDS": {False: 32, True: 32}}.items():
    assert hasattr(fitting, name)
    setattr(fitting, name, value)
blocks = LayerStates.blocks
LayerStates.blocks = lambda states, rows: blocks(states, min(rows, BLOCK_ROWS))
most_blocks = cost.most_blocks
cost.most_blocks = lambda rows, parts, block: most_blocks(rows, parts, min(block, BLOCK_ROWS))
graph.TASK_ROWS = BLOCK_ROWS
LocalScheduler.shared_memory = False
""".replace("BLOCK_ROWS", str(BLOCK_ROWS))
"""Begins a script whose analyses have thousands of tasks, and go through files."""

INTERRUPTED = """
import json, os, signal, sys, threading, time
from pathlib import Path

import tsstore


def analyze(run, scratch, scheduler, reported):
    "Analyse until somebody presses Ctrl-C; return what was left of it then."
    pressed, reports = [], []

    def press():
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def press_later():
        while len(list(Path(scratch).glob("*/*.records"))) < 5:
            time.sleep(0.005)
        press()

    def report(layer, done, total):
        reports.append(done)
        if done == 5:
            press()
            time.sleep(60)

    somebody = threading.Thread(target=press_later, daemon=True)
    if not reported:
        somebody.start()
    before = set(threading.enumerate())
    try:
        progress = report if reported else None
        tsstore.analyze(run, "a", scheduler=scheduler, scratch=scratch, progress=progress)
        waited = None
    except KeyboardInterrupt:
        waited = time.monotonic() - pressed[0]
    begun, left = set(threading.enumerate()) - before, os.listdir(scratch)
    time.sleep(0.3)
    return {
        "waited": waited,
        "threads": [thread.name for thread in begun if "Dask-Offload" not in thread.name],
        "left": left + os.listdir(scratch),
        "reports": len(reports),
    }


def on_cluster(run, scratch, reported):
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        seen = analyze(run, scratch, client, reported)
        seen["running"] = [*client.call_stack(), *filter(None, client.processing().values())]
        seen["tasks"] = len(cluster.scheduler.tasks)
        seen["samples"] = tsstore.analyze(run, "b", scheduler=client)["b"].samples
    return seen


if __name__ == "__main__":
    run, scratch, scheduler, reported = sys.argv[1:]
    if scheduler == "cluster":
        seen = on_cluster(run, scratch, reported == "True")
    else:
        seen = analyze(run, scratch, scheduler, reported == "True")
    print(json.dumps(seen))
"""

COMMAND = """
import os, signal, sys, threading, time
from pathlib import Path

from tsstore import cli

run, scratch = sys.argv[1:]


def press():
    while not list(Path(scratch).glob("*/*.records")):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=press, daemon=True).start()
sys.argv = ["tsstore", "analyze", run, "--layer", "a", "--scheduler", "threads"]
cli.main()
"""


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def many_tasks(tmp_path_factory):
    """Give a run of which an analysis has thousands of tasks with the smallest blocks."""
    path = tmp_path_factory.mktemp("many") / "run"
    layers = {"a": draw_layer(1, 1500, 9, distinct=900), "b": draw_layer(2, 1500, 1, 3, largest=1)}
    write_layers(path, layers)
    return path


@pytest.fixture
def small_blocks(small_sizes, monkeypatch):
    """Let there be many blocks of but a few rows, besides all that is small then."""
    blocks = LayerStates.blocks
    monkeypatch.setattr(
        LayerStates, "blocks", lambda states, rows: blocks(states, min(rows, BLOCK_ROWS))
    )
    monkeypatch.setattr("tsstore.analysis.execution.graph.TASK_ROWS", BLOCK_ROWS)


def kill(client: Any, most: int | None) -> list[str]:
    """Kill some worker processes, as a system out of memory does; return their addresses."""
    pids = dict(list(client.run(os.getpid, on_error="ignore").items())[:most])
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    return list(pids)


def wait_until_gone(client: Any, killed: list[str]) -> None:
    """Wait until the scheduler knows: it would ask the dead for half a minute."""
    latest = time.monotonic() + 120
    while client.scheduler_info(n_workers=-1)["workers"].keys() & set(killed):
        assert time.monotonic() < latest
        time.sleep(0.02)


def killing(
    client: Any, share: float, most: int | None, killed: list[str]
) -> Callable[[str, int, int], None]:
    """Return what kills workers when such a share of the tasks is done."""

    def report(_: str, done: int, total: int) -> None:
        if done >= share * total and not killed:
            killed.extend(kill(client, most))

    return report


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("share", "most"),
    [  # One that dies at each kind of task is in test_schedulers.py.
        (0.9, None),
        *(pytest.param(share, 1, marks=pytest.mark.slow) for share in (0.1, 0.5, 0.9, 0.99)),
        *(pytest.param(share, None, marks=pytest.mark.slow) for share in (0.1, 0.5, 0.99)),
    ],
)
def test_killed_workers_change_nothing(fragile, tmp_path, scratch, share, most):
    rows = draw_layer(1, 400, 9, distinct=300)
    store = write_layers(tmp_path / "run", {"a": rows})
    killed: list[str] = []
    report = killing(fragile, share, most, killed)
    result = tsstore.analyze(store, scheduler=fragile, scratch=scratch, progress=report)
    wait_until_gone(fragile, killed)
    assert len(killed) == (most or 2)
    assert found(result["a"]) == count(rows)
    assert result.to_json() == tsstore.analyze(store, scheduler="threads").to_json()
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("small_blocks")
def test_a_worker_that_joins_in_the_middle_changes_nothing(tmp_path, scratch):
    rows = draw_layer(1, 200, 9, distinct=100)
    store = write_layers(tmp_path / "run", {"a": rows})
    with workers(1) as client:

        def report(_: str, done: int, total: int) -> None:
            if done == 5:
                client.cluster.scale(2)
                client.wait_for_workers(2, timeout=120)

        result = tsstore.analyze(store, scheduler=client, scratch=scratch, progress=report)
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2
    assert found(result["a"]) == count(rows)


@pytest.mark.usefixtures("small_blocks")
def test_workers_may_be_threads_of_this_process(tmp_path, scratch):
    rows = draw_layer(1, 200, 9)
    store = write_layers(tmp_path / "run", {"a": rows})
    with workers(2, processes=False, threads_per_worker=2) as client:
        result = tsstore.analyze(store, scheduler=client, scratch=scratch)
    assert found(result["a"]) == count(rows)
    assert result.to_json() == tsstore.analyze(store, scheduler="threads").to_json()
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
def test_a_store_on_s3_is_read_by_the_workers(tmp_path, scratch):
    rows = draw_layer(1, 60, 9)
    with s3_server() as endpoint, s3_environment(endpoint), workers() as client:
        url, here = fresh_url(), LocalFiles(tmp_path / "run")
        write_layers(tmp_path / "run", {"a": rows})
        for key in here.walk():
            open_files(url).write(key, here.read(key))
        result = tsstore.analyze(url, scheduler=client, scratch=scratch)
    assert found(result["a"]) == count(rows)


@pytest.mark.usefixtures("small_blocks")
def test_an_interrupt_releases_all_futures(client, tmp_path, scratch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 400, 9)})

    def report(_: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tsstore.analyze(store, scheduler=client, scratch=scratch, progress=report)
    assert list(scratch.iterdir()) == []
    assert [key for key in client.futures if "tsstore" in str(key)] == []
    assert not any(client.processing().values())


def fill_disk() -> None:
    """Let no file of this process have more than so many bytes: to it, the disk is full."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("reported", [False, True])
def test_a_full_scratch_is_an_error_that_says_what_was_missing(tmp_path, scratch, reported):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 1000, 9)})
    progress = (lambda *_: None) if reported else None
    with workers(1) as client:
        client.run(fill_disk)
        with pytest.raises(AnalysisError, match=r"KiB of a block cannot be written.* are free"):
            tsstore.analyze(store, scheduler=client, scratch=scratch, progress=progress)
        assert list(scratch.iterdir()) == []
        assert not any(client.processing().values())


def test_nothing_large_goes_through_the_scheduler(client, tmp_path, scratch):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 3000, 8, largest=8)})["a"]
    scheduler, groups = choose(client), RandomGroups()
    plan = layer_plan(states, 64 << 20, scheduler, GROUPS)
    plan = replace(plan, block_rows=1024, partition_bits=3)
    graph, _ = build_graph(
        LayerJob(states, KeyScheme.create(8), plan, str(scratch), Samples(groups=groups))
    )
    tasks = [key for key, task in graph.items() if isinstance(task, tuple)]
    values = dict(zip(tasks, client.get(graph, tasks), strict=True))
    blocks = [value for value in values.values() if isinstance(value, Receipt)]
    (index,) = [value for value in values.values() if isinstance(value, Index)]
    assert sum(receipt.slices.total for receipt in blocks) > 5000
    assert max(len(pickle.dumps(graph[key])) for key in graph if key not in values) < 4096
    assert max(len(pickle.dumps(receipt)) for receipt in blocks) < 4096
    assert len(pickle.dumps(index)) < 4096 * len(blocks)


def test_blocks_wait_at_the_scheduler_until_a_worker_is_free(client, tmp_path, scratch):
    states = write_layers(tmp_path / "run", {"a": draw_layer(1, 500, 8)})["a"]
    scheduler = choose(client)
    plan = replace(layer_plan(states, 64 << 20, scheduler, GROUPS), block_rows=16)
    graph, key = build_graph(
        LayerJob(states, KeyScheme.create(8), plan, str(scratch), Samples(groups=RandomGroups()))
    )
    blocks = [str(own) for own in graph if "-block-" in str(own)]
    assert len(blocks) > 20
    scheduler.run(graph, key, 1, None)

    def states_of_blocks(dask_scheduler: Any) -> dict[str, set[str]]:
        seen: dict[str, set[str]] = {}
        for entry in dask_scheduler.transition_log:
            if "-block-" in str(entry[0]):
                seen.setdefault(str(entry[0]), set()).add(entry[2])
        return seen

    seen = client.run_on_scheduler(states_of_blocks)
    waited = [own for own in blocks if "queued" in seen[own]]
    assert len(waited) >= len(blocks) - 2 * len(client.nthreads())


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("scheduler", "reported"),
    [
        ("threads", True),
        ("synchronous", False),
        pytest.param("threads", False, marks=pytest.mark.slow),
        pytest.param("synchronous", True, marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_leaves_no_thread_and_no_file(scratch, many_tasks, scheduler, reported):
    done = children.run(SMALLEST + INTERRUPTED, many_tasks, scratch, scheduler, reported)
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert seen["waited"] < 30
    assert (seen["threads"], seen["left"]) == ([], [])
    assert seen["reports"] == (5 if reported else 0)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("reported", [False, True])
def test_an_interrupt_leaves_the_workers_idle_and_at_hand(tmp_path, scratch, many_tasks, reported):
    # Its workers load the script for themselves, and what it sets.
    script = tmp_path / "script.py"
    script.write_text(SMALLEST + INTERRUPTED, encoding="utf-8")
    command = [sys.executable, script, many_tasks, scratch, "cluster", reported]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300
    )
    assert "Error" not in done.stderr
    seen = json.loads(done.stdout)
    assert seen["waited"] < 30
    assert (seen["threads"], seen["left"], seen["running"]) == ([], [], [])
    assert seen["tasks"] == 0
    assert seen["samples"] == 1500


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_of_the_command_is_a_line(scratch, many_tasks):
    environment = os.environ | {"TMPDIR": str(scratch)}
    done = children.run(SMALLEST + COMMAND, many_tasks, scratch, env=environment)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "tsstore: interrupted\n"
    assert list(scratch.iterdir()) == []


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """Give the address of a worker whose tsstore, home and cache can hold no new file."""
    installed, nowhere = tmp_path / "installed", tmp_path / "file"
    shutil.copytree(ROOT / "tsstore", installed / "tsstore", ignore=lambda *_: ["__pycache__"])
    nowhere.touch()
    for folder in [installed, *(installed / "tsstore").rglob("*/")]:
        (folder / "__pycache__").touch()
    (installed / "tsstore" / "__pycache__").touch()
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), str(nowhere))
    places |= {"NUMBA_CACHE_DIR": str(nowhere / "cache"), "PYTHONPATH": str(installed)}
    with workers(0) as client:
        address = client.scheduler.address
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny"]
        command += ["--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
        process = subprocess.Popen(
            command, env={**os.environ, **places}, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        try:
            client.wait_for_workers(1, timeout=120)
            yield client
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.slow
@pytest.mark.usefixtures("small_blocks")
def test_a_worker_that_can_keep_no_machine_code_counts_all_the_same(tmp_path, scratch, read_only):
    rows = draw_layer(1, 60, 9)
    store = write_layers(tmp_path / "run", {"a": rows})
    result = tsstore.analyze(store, scheduler=read_only.scheduler.address, scratch=scratch)
    assert found(result["a"]) == count(rows)
    (place,) = read_only.run(inspect.getsourcefile, tsstore).values()
    assert place == str(tmp_path / "installed" / "tsstore" / "__init__.py")
    assert list(tmp_path.rglob("*.nb[ic]")) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_a_worker_of_two_threads_keeps_to_the_memory(tmp_path, scratch):
    memory = 96 << 20
    numbers = np.random.default_rng(0).integers(0, 1 << 62, 1 << 24, dtype=np.uint64)
    rows = layer(numbers.view(np.uint8).reshape(-1, 8), 16)
    store = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=2 << 20)
    tiny = write_layers(tmp_path / "tiny", {"a": draw_layer(1, 100, 8)})
    with workers(1, threads_per_worker=2, memory_limit="2GiB") as client:
        tsstore.analyze(tiny, scheduler=client, scratch=scratch)
        (baseline,) = client.run(peak_memory).values()
        plan = layer_plan(store["a"], memory, choose(client), GROUPS)
        result = tsstore.analyze(store, scheduler=client, scratch=scratch, memory=memory)
        (peak,) = client.run(peak_memory).values()
    assert plan.threads == 2
    assert result["a"].distinct == len(rows.rows)
    assert peak - baseline <= plan.projected_peak <= memory
