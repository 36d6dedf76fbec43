"""What Dask takes for a task: a graph of the shape of an analysis whose tasks do nothing.

Blocks, a barrier, partitions, a tree that merges, in one plain dictionary, through the schedulers
that an analysis uses. Printed are the time to build the graph, the time of a run for each of its
tasks, with and without progress, and how many bytes are pickled for a task and for a real one::

    python benchmarks/cluster_overhead.py
    python benchmarks/cluster_overhead.py --blocks 100000 --workers 4 --json
    python benchmarks/cluster_overhead.py --plan
    python benchmarks/cluster_overhead.py --busy

`--plan` runs nothing: it prints how 10**12 rows of 8 bytes would be counted. A run of a cluster's
first tasks is not counted: it imports. `--busy` prints the share of the time that a network's tasks
keep the threads or workers busy, from the beginning of its analysis to the end: the most of three
times, since whatever else runs takes processors away between tasks as well.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
from dask.callbacks import Callback
from dask.local import get_sync
from memory import POSITIONS, half, write_run

import tsstore
from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import build_graph
from tsstore.analysis.planning.cost import FAN_IN, Work
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.random_groups import GROUPS, RandomGroups
from tsstore.analysis.request import choose
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import LocalScheduler, Scheduler, task_keys
from tsstore.counting.keys import KeyScheme
from tsstore.errors import MemoryTooSmallError
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

Graph = dict[Any, Any]

ROWS, BLOCKS = 100_000, 10
"""Of the real run whose tasks are pickled."""

PLANNED_ROWS, PLANNED_BYTES, PLANNED_WORKERS = 10**12, 8, 100
ROW_NANOSECONDS = 25
"""CPU time of a row, from a store in lz4 through files to the spectrum."""
MEMORIES = ((4, 0.60), (16, 0.25), (16, 0.60))
"""GiB of a worker, and the share of it that is given."""

BUSY_TIMES = 3

NETWORKS = {"3 large": (3, 1 << 22), "53 small": (53, 1 << 16)}
"""Layers, and rows of each, of 8 bytes and 16 positions."""


def do_nothing(*_: object) -> int:
    """Stand for a task."""
    return 1


def trivial_graph(blocks: int, partitions: int) -> tuple[Graph, Any]:
    """Return a graph of such a shape, and the key of its result."""
    token = uuid.uuid4().hex[:12]
    graph: Graph = {(f"constant-{token}", 0): b"plan"}
    (constant,) = graph
    level = [(f"block-{token}", number) for number in range(blocks)]
    graph |= {key: (do_nothing, constant, key[1]) for key in level}
    index = f"index-{token}"
    graph[index] = (do_nothing, level)
    level = [(f"partition-{token}", number) for number in range(partitions)]
    graph |= {key: (do_nothing, index, constant, key[1]) for key in level}
    depth = 0
    while len(level) > 1:
        shares = [level[start : start + FAN_IN] for start in range(0, len(level), FAN_IN)]
        level = [(f"merge-{token}-{depth}", number) for number in range(len(shares))]
        graph |= {key: (do_nothing, share) for key, share in zip(level, shares, strict=True)}
        depth += 1
    return graph, level[0]


def microseconds_a_task(
    scheduler: Scheduler, arguments: argparse.Namespace, reported: bool
) -> float:
    """Run a graph; return the time for each of its tasks, in microseconds."""
    graph, key = trivial_graph(arguments.blocks, arguments.partitions)
    report = (lambda done, total: None) if reported else None
    start = time.perf_counter()
    if scheduler.run(graph, key, scheduler.threads, report) != 1:
        raise RuntimeError("a task that gives 1 gave something else")
    return (time.perf_counter() - start) / len(task_keys(graph)) * 1e6


@contextmanager
def local_cluster(workers: int) -> Iterator[Scheduler]:
    """Give a cluster of so many processes of one thread, that has run something."""
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=workers, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        scheduler = choose(client)
        scheduler.run(*trivial_graph(100, 8), 1, None)
        yield scheduler


def pickled_sizes(folder: Path) -> dict[str, int]:
    """Return the most bytes that a task of an analysis takes, and what it gives, by their kind."""
    write_run(folder / "run", 8, ROWS, 100, "half")
    store = tsstore.open(folder / "run")
    states = store[store.layers[0]]
    scheduler = LocalScheduler(1)
    scheduler.shared_memory = False
    plan = replace(layer_plan(states, 256 << 20, scheduler, GROUPS), block_rows=ROWS // BLOCKS)
    scheme = KeyScheme.create(states.row_bytes)
    graph, _ = build_graph(
        LayerJob(states, scheme, plan, str(folder), Samples(groups=RandomGroups()))
    )
    tasks = list(task_keys(graph))
    sizes: dict[str, int] = {"constants": 0}
    for key in graph.keys() - tasks:
        sizes["constants"] += len(pickle.dumps(graph[key]))
    for key, value in zip(tasks, get_sync(graph, tasks), strict=True):
        kind = str(key[0] if isinstance(key, tuple) else key).split("-")[1]
        for name, thing in ((f"{kind} task", graph[key]), (f"{kind} result", value)):
            sizes[name] = max(sizes.get(name, 0), len(pickle.dumps(thing)))
    return sizes


def print_plans() -> None:
    """Print how very many rows would be counted by workers of one thread."""
    print(f"{PLANNED_ROWS:,} rows of {PLANNED_BYTES} bytes, workers of one thread")
    headings = ("worker", "memory", "intervals", "blocks", "partitions", "tasks")
    print("".join(f"{text:>11}" for text in (*headings, "slices", "a slice", "scratch")))
    for gibibytes, share in MEMORIES:
        for groups in (0, GROUPS):
            cells = (f"{gibibytes} GiB", f"{share:.0%}", "yes" if groups else "no")
            memory = int(share * (gibibytes << 30))
            print("".join(f"{text:>11}" for text in (*cells, *planned_cells(memory, groups))))
    seconds = PLANNED_ROWS * ROW_NANOSECONDS / 1e9
    print(
        f"CPU at {ROW_NANOSECONDS} ns a row: {seconds / 3600:.1f} hours; "
        f"{PLANNED_WORKERS} workers: {seconds / PLANNED_WORKERS / 60:.1f} minutes"
    )


def planned_cells(memory: int, groups: int) -> list[str]:
    """Return the figures of a plan within so many bytes, if there is one."""
    work = Work("layer", PLANNED_ROWS, PLANNED_BYTES, words=1, groups=groups)
    try:
        plan = make_plan(work, memory, 1, False)
    except MemoryTooSmallError:
        return ["too little"]
    slices = plan.blocks << plan.partition_bits
    return [
        *(f"{number:,}" for number in (plan.blocks, 1 << plan.partition_bits, plan.tasks)),
        f"{slices / 1e6:.0f} M",
        f"{plan.slice_bytes / 1e3:.0f} kB",
        f"{plan.scratch_bytes / 1e12:.0f} TB",
    ]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures: times of building and of runs in microseconds a task, sizes in bytes."""
    start = time.perf_counter()
    graph, _ = trivial_graph(arguments.blocks, arguments.partitions)
    found: dict[str, Any] = {"tasks": len(task_keys(graph)), "microseconds": {}}
    found["microseconds"]["building"] = (time.perf_counter() - start) / found["tasks"] * 1e6
    found["graph_bytes"] = len(pickle.dumps(graph))
    with local_cluster(arguments.workers) as cluster:
        for name, scheduler in (("threads", choose("threads")), ("cluster", cluster)):
            for reported in (False, True):
                label = f"{name}, progress" if reported else name
                taken = microseconds_a_task(scheduler, arguments, reported)
                found["microseconds"][label] = taken
    with tempfile.TemporaryDirectory() as folder:
        found["bytes"] = pickled_sizes(Path(folder))
    return found


def print_busy(workers: int) -> None:
    """Print the share of the time that tasks run, on threads and on processes, of two networks."""
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    print(f"{'layers':<12}{'where':<14}{'seconds':>8}{'busy':>7}")
    for name, (layers, rows) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "run")
            write_network(path, layers, rows)
            for where, measure_busy in (("threads", busy_threads), ("processes", busy_workers)):
                seconds, share = measure_busy(path, workers)
                print(f"{name:<12}{f'{workers} {where}':<14}{seconds:>8.1f}{share:>7.0%}")


def write_network(path: Path, layers: int, rows: int) -> None:
    """Write a run of layers of random states, every other one of which is in several samples."""
    files = LocalFiles(path, durable=False)
    create_run(files)
    writer = PartWriter(files, PartAttributes())
    names = [f"layer_{number}" for number in range(layers)]
    writer.define(
        {name: LayerAttributes(name, 64) for name in names}, dict.fromkeys(names, POSITIONS), {}
    )
    generator, samples = np.random.default_rng(1), rows // POSITIONS
    own = np.full(samples, POSITIONS, np.int64)
    batch = {name: LayerBatch(half(generator, 0, rows, 8), own) for name in names}
    writer.append(Batch(samples, batch))
    writer.seal()


def busy_threads(path: Path, threads: int) -> tuple[float, float]:
    """Return the seconds of an analysis, and the share in which the threads had tasks."""
    begun: dict[Any, float] = {}
    spent: list[float] = []

    def begin(key: Any, *_: Any) -> None:
        begun[key] = time.perf_counter()

    def end(key: Any, *_: Any) -> None:
        spent.append(time.perf_counter() - begun[key])

    tsstore.analyze(path, "layer_0", scheduler="threads")
    found = []
    for _ in range(BUSY_TIMES):
        spent.clear()
        start = time.perf_counter()
        with Callback(pretask=begin, posttask=end):
            tsstore.analyze(path, scheduler="threads")
        seconds = time.perf_counter() - start
        share = sum(spent) / seconds / min(threads, len(os.sched_getaffinity(0)))
        found.append((seconds, share))
    return max(found, key=lambda one: one[1])


def busy_workers(path: Path, workers: int) -> tuple[float, float]:
    """Return the same of a LocalCluster, as its workers tell how long they computed."""
    from distributed import Client, LocalCluster

    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=workers, memory_limit="2GiB", **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        tsstore.analyze(path, "layer_0", scheduler=client)
        client.get_task_stream(count=1)
        found = []
        for _ in range(BUSY_TIMES):
            begin, start = time.time(), time.perf_counter()
            tsstore.analyze(path, scheduler=client)
            seconds = time.perf_counter() - start
            stream = client.get_task_stream(start=begin)
            done = [one for task in stream for one in task["startstops"]]
            computed = (one["stop"] - one["start"] for one in done if one["action"] == "compute")
            found.append((seconds, sum(computed) / seconds / workers))
    return max(found, key=lambda one: one[1])


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=10_000, help="block tasks (default 10,000)")
    parser.add_argument("--partitions", type=int, default=1024, help="partitions (default 1,024)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--plan", action="store_true", help="print the plan of 10**12 rows alone")
    parser.add_argument("--busy", action="store_true", help="print how busy networks keep workers")
    arguments = parser.parse_args()
    if arguments.busy:
        print_busy(arguments.workers)
        return
    if arguments.plan:
        print_plans()
        return
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print_tables(found)


def print_tables(found: dict[str, Any]) -> None:
    """Print the figures for people."""
    versions = f"Python {platform.python_version()}, Dask {dask.__version__}"
    print(f"{os.cpu_count()} cores, {versions}, load average {os.getloadavg()[0]:.1f}")
    print(
        f"{found['tasks']:,} tasks, graph of {found['graph_bytes'] / found['tasks']:.0f} bytes each"
    )
    print(f"\n{'microseconds a task':<24}")
    for name, taken in found["microseconds"].items():
        print(f"  {name:<22}{taken:>8.0f}")
    print(f"\n{f'most bytes, of {BLOCKS} blocks':<24}")
    for name, size in sorted(found["bytes"].items()):
        print(f"  {name:<22}{size:>8,}")


if __name__ == "__main__":
    main()
