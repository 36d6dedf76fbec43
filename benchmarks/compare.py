"""Which states two runs share, and what is new in the second: tsstore against DuckDB.

Writes two runs as ``intervals_cost.py`` does, of which half of the second one's rows have states of
the first, and the same rows as Parquet. Both are asked for the distinct states of each and of both,
and for the rows and samples with new ones; tsstore also for the distances of 200 new states, which
are told separately. DuckDB has the same threads and memory. By turns; medians of seconds and of CPU
seconds::

    python benchmarks/compare.py [--rows 2_000_000] [--memory 2GiB] [--data conv distinct few]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from intervals_cost import DATA, LAYER, POSITIONS
from versions import print_versions

import tsstore
from tsstore.analysis.comparing import overlap
from tsstore.counting.nearest import nearest
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

SAMPLES = 4_000
"""Of a batch."""
DRAWN = overlap.DRAWN
QUERY = """
WITH first AS (SELECT DISTINCT state FROM '{0}/first.parquet'),
second AS (
    SELECT s.sample, s.state, f.state IS NULL AS new
    FROM '{0}/second.parquet' s LEFT JOIN first f ON s.state = f.state
)
SELECT (SELECT count(*) FROM first), count(DISTINCT state),
    count(DISTINCT state) FILTER (WHERE NOT new), count(*) FILTER (WHERE new),
    count(DISTINCT sample) FILTER (WHERE new)
FROM second
"""


def main() -> None:
    """Parse, write, ask by turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--directory", type=Path, help="where to write; the system's by default")
    arguments = parser.parse_args()
    print_versions("tsstore", "numpy", "numba", "duckdb")
    print(f"{'data':>10}{'rows':>12}{'':>12}{'seconds':>10}{'CPU s':>8}   states of each, of both")
    for name in arguments.data:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            write(folder, name, arguments.rows)
            contenders = {
                "tsstore": partial(ask, folder, arguments.memory, 0),
                "+ distances": partial(ask, folder, arguments.memory, DRAWN),
                "duckdb": partial(ask_duckdb, folder, arguments.memory),
            }
            for own, (seconds, cpu, found) in race(contenders, arguments.rounds).items():
                numbers = ", ".join(f"{number:,}" for number in found[:3])
                spent = f"{seconds:>10.2f}{cpu:>8.2f}"
                print(f"{name:>10}{arguments.rows:>12,}{own:>12}{spent}   {numbers}")
    for neurons in (64, 512, 4096):
        print(f"{neurons} neurons: {compare_rows(neurons):.3f} µs of CPU a row and {DRAWN} states")


def race(
    contenders: dict[str, Callable[[], tuple[int, ...]]], rounds: int
) -> dict[str, tuple[float, float, tuple[int, ...]]]:
    """Let all run by turns, once more than is counted; all must find the same."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    found = {}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            before = time.perf_counter(), time.process_time()
            found[name] = run()
            now = time.perf_counter(), time.process_time()
            spent[name].append((now[0] - before[0], now[1] - before[1]))
    assert len(set(found.values())) == 1, found
    return {
        name: (*(statistics.median(own) for own in zip(*times[1:], strict=True)), found[name])
        for name, times in spent.items()
    }


def ask(folder: str, memory: str, drawn: int) -> tuple[int, ...]:
    """Ask tsstore, which draws so many new states."""
    overlap.DRAWN = drawn
    found = tsstore.compare(
        f"{folder}/first.zarr",
        f"{folder}/second.zarr",
        efficiency=False,
        novelty=True,
        memory=memory,
        scheduler="threads",
    ).overlap[LAYER]
    return *found.distinct, found.distinct_in_both, found.alone[1].rows, found.new_samples


def ask_duckdb(folder: str, memory: str) -> tuple[int, ...]:
    """Ask DuckDB."""
    import duckdb

    threads = len(os.sched_getaffinity(0))
    with duckdb.connect(config={"threads": threads, "memory_limit": memory}) as connection:
        (found,) = connection.execute(QUERY.format(folder)).fetchall()
    return tuple(found)


def write(folder: str, name: str, rows: int) -> None:
    """Write both runs, of one layer of 64 neurons, without ids; and the same rows as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(0)
    numbers = DATA[name](generator, rows).astype(np.uint64)
    half = numbers[generator.permutation(rows)]
    half[: rows // 2] += np.uint64(1 << 63)
    for run, own in (("first", numbers), ("second", half)):
        files = LocalFiles(f"{folder}/{run}.zarr", durable=False)
        create_run(files)
        writer = PartWriter(files, PartAttributes())
        writer.define({LAYER: LayerAttributes(LAYER, 64)}, {LAYER: POSITIONS}, {})
        packed = own.astype("<u8").view(np.uint8).reshape(-1, 8)
        for first in range(0, rows // POSITIONS, SAMPLES):
            samples = min(SAMPLES, rows // POSITIONS - first)
            batch = packed[first * POSITIONS : (first + samples) * POSITIONS]
            layer = LayerBatch(np.ascontiguousarray(batch), np.full(samples, POSITIONS))
            writer.append(Batch(samples, {LAYER: layer}, {}))
        writer.seal()
        table = {"state": own, "sample": np.arange(rows) // POSITIONS}
        pq.write_table(pa.table(table), f"{folder}/{run}.parquet", compression="lz4")


def compare_rows(neurons: int) -> float:
    """Return the CPU seconds, in millionths, of comparing a row with 200 states."""
    generator = np.random.default_rng(0)
    states, rows = (
        generator.integers(0, 2**64, (count, neurons // 64), np.uint64)
        for count in (DRAWN, 1 << 14)
    )
    seconds = []
    for _ in range(4):
        least = np.full(len(states), neurons)
        before = time.process_time()
        nearest(states, rows, least)
        seconds.append(time.process_time() - before)
    return 1e6 * statistics.median(seconds[1:]) / len(rows)


if __name__ == "__main__":
    main()
