"""Memory that an analysis takes, against what its plan projects and what it was given.

Writes a run larger than the memory, then analyses it in fresh processes on two threads::

    python benchmarks/memory.py
    python benchmarks/memory.py --mebibytes 200 --widths 3 8 16 38 --memory 48MiB 128MiB
    python benchmarks/memory.py --no-intervals --data skewed
    python benchmarks/memory.py --exact --widths 32 256 --positions 1
    python benchmarks/memory.py --data crafted --mebibytes 100 --memory 64MiB

Printed are MiB. ``measured`` is the peak of a process's resident memory (VmHWM, so Linux only)
beyond its baseline: what the same process has after an analysis of a tiny run, when all modules and
kernels are loaded. ``at first`` is the same of a process that starts with this analysis: beyond
what it has when `tsstore.plan` has said what would be done; ``allowed`` is what it may be, the
memory and what `plan` says of the start. Of the rows, *half* have a state of their own, half one
of a million; or they are *skewed*: a quarter of them have one state, some states are in thousands
of samples, and most of the states in one; or they are *crafted*: all rows differ, and the keys of
half of them begin with the same bits, so that one partition is far too large to be gathered; or
five thousand states are *repeated*; or they follow a *power* law, and occur in as many frequencies
as there may be.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

LAYER = "conv_1"
POSITIONS = 16
BATCH_ROWS = 1 << 20
POOL = 1_000_000
FEW = 5_000
SEED = 1
"""Makes the keys that states are crafted for."""
MIB = 1 << 20
COLUMNS = (
    "width",
    "rows",
    "threads",
    "spill",
    "bits",
    "memory",
    "projected",
    "measured",
    "allowed",
    "at first",
    "seconds",
)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=800, help="size of the run's rows")
    parser.add_argument("--widths", type=int, nargs="+", default=[8], help="bytes of a row")
    parser.add_argument("--memory", nargs="+", default=["80MiB", "128MiB", "256MiB"])
    parser.add_argument("--data", choices=DATA, default="half")
    parser.add_argument("--positions", type=int, default=POSITIONS, help="rows of a sample")
    parser.add_argument("--exact", action="store_true", help="keys as wide as states")
    parser.add_argument("--intervals", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", action="store_true", help="print a JSON document a line")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--measure-first", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure or arguments.measure_first:
        first = arguments.measure_first
        print(json.dumps(measure_first(*first) if first else measure(*arguments.measure)))
        return
    if not arguments.json:
        print("".join(f"{column:>11}" for column in COLUMNS))
    for width in arguments.widths:
        with tempfile.TemporaryDirectory() as folder:
            rows = arguments.mebibytes * MIB // width
            for name, count in (("tiny", 100 * arguments.positions), ("run", rows)):
                write_run(Path(folder) / name, width, count, arguments.positions, arguments.data)
            options = str(int(arguments.intervals)), str(int(arguments.exact))
            for memory in arguments.memory:
                found = {"width": width, "rows": rows}
                places = f"{folder}/tiny", f"{folder}/run"
                found |= run_fresh("--measure", *places, memory, *options)
                found |= run_fresh("--measure-first", places[1], memory, *options)
                print(json.dumps(found) if arguments.json else table_line(found))


def write_run(path: Path, width: int, rows: int, positions: int, data: str) -> None:
    """Write a run of one layer, the same each time."""
    generator = np.random.default_rng(1)
    whole, step = rows - rows % positions, BATCH_ROWS - BATCH_ROWS % positions
    starts = range(0, whole, step)
    batches = (DATA[data](generator, at, min(step, whole - at), width) for at in starts)
    write_batches(path, width, positions, batches)


def write_batches(path: Path, width: int, positions: int, batches: Iterable[Any]) -> None:
    """Write a run of one layer, whose batches have rows of whole samples of so many positions."""
    from tsstore.store.files.local import LocalFiles
    from tsstore.store.format.attributes import LayerAttributes, PartAttributes
    from tsstore.store.run import create_run
    from tsstore.store.writing.batch import Batch, LayerBatch
    from tsstore.store.writing.part import PartWriter

    files = LocalFiles(path, durable=False)
    create_run(files)
    writer = PartWriter(files, PartAttributes())
    writer.define({LAYER: LayerAttributes(LAYER, 8 * width)}, {LAYER: positions}, {})
    for states in batches:
        samples = len(states) // positions
        own = np.full(samples, positions, dtype=np.int64)
        writer.append(Batch(samples, {LAYER: LayerBatch(states, own)}))
    writer.seal()


def half(generator: np.random.Generator, start: int, count: int, width: int) -> Any:
    """Return rows: every other one is new, the rest are out of a pool."""
    numbers = generator.integers(0, POOL, count, dtype=np.uint64)
    numbers[::2] = np.arange(start + POOL, start + POOL + (count + 1) // 2, dtype=np.uint64)
    return rows_of(numbers, width)


def skewed(generator: np.random.Generator, start: int, count: int, width: int) -> Any:
    """Return rows, of which some are everywhere and most are rare."""
    numbers = np.minimum(3e4 * (generator.random(count) ** -2 - 1), 1e18).astype(np.uint64) + 1
    numbers[generator.random(count) < 0.24] = 0
    return rows_of(numbers, width)


def crafted(generator: np.random.Generator, start: int, count: int, width: int) -> Any:
    """Return rows of up to 16 bytes that all differ; half of the keys have equal top bits."""
    from tsstore.counting.keys import KeyScheme

    scheme = KeyScheme.create(width, seed=SEED)
    numbers = np.arange(start, start + count, dtype=np.uint64)
    keys = np.zeros((count, scheme.words), dtype=np.uint64)
    keys[:, 0] = numbers * ODD
    keys[::2, 0] >>= np.uint64(12)
    return scheme.rows(keys)


def repeated(generator: np.random.Generator, start: int, count: int, width: int) -> Any:
    """Return rows of few states: each is in all groups, in another number of rows and samples."""
    return rows_of(generator.integers(0, FEW, count, dtype=np.uint64), width)


def power(generator: np.random.Generator, start: int, count: int, width: int) -> Any:
    """Return rows of states by a power law: of as many frequencies as there may be."""
    numbers = np.minimum(1e4 * (1 / generator.random(count) - 1), 2**62).astype(np.uint64)
    return rows_of(numbers, width)


DATA = {
    "half": half,
    "skewed": skewed,
    "crafted": crafted,
    "repeated": repeated,
    "power": power,
}
ODD = np.uint64(0x9E3779B97F4A7C15)


def rows_of(numbers: Any, width: int) -> Any:
    """Return rows, uint8 (count, width), that depend on a number each."""
    words = np.empty((len(numbers), -(-width // 8)), dtype=np.uint64)
    for word in range(words.shape[1]):
        words[:, word] = numbers * (ODD + np.uint64(2 * word))
    return np.ascontiguousarray(words.view(np.uint8)[:, :width])


def run_fresh(*arguments: str) -> dict[str, Any]:
    """Measure in a process of its own, whose peak is not that of what went before."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_first(run: str, memory: str, intervals: str, exact: str) -> dict[str, int]:
    """Analyse a run, and show what was found, in a process that has done nothing but plan it."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    import tsstore

    options: dict[str, Any] = {"scheduler": "threads", "memory": memory}
    options |= {"intervals": intervals == "1", "exact": exact == "1"}
    plan = tsstore.plan(run, **options)
    baseline = peak_memory()
    found = tsstore.analyze(run, seed=SEED, **options)
    found.to_json(), repr(found)
    allowed = plan.memory + plan.start_up_bytes
    return {"allowed": allowed, "at first": peak_memory() - baseline}


def measure(tiny: str, run: str, memory: str, intervals: str, exact: str) -> dict[str, Any]:
    """Analyse a run on two threads of this process; return bytes planned and measured."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    import tsstore
    from tsstore.analysis.memory import parse_memory
    from tsstore.analysis.planning.layers import layer_plan
    from tsstore.analysis.random_groups import GROUPS
    from tsstore.analysis.request import choose

    options: dict[str, Any] = {"scheduler": "threads", "seed": SEED}
    options |= {"intervals": intervals == "1", "exact": exact == "1"}
    tsstore.analyze(tiny, **options)
    store = tsstore.open(run)
    groups = GROUPS if options["intervals"] else 0
    amount, threads = parse_memory(memory), choose("threads")
    plan = layer_plan(store[LAYER], amount, threads, groups, exact=options["exact"])
    baseline = begin_peak()
    begin = time.perf_counter()
    result = tsstore.analyze(store, memory=memory, **options)[LAYER]
    seconds = time.perf_counter() - begin
    return {
        "threads": plan.threads,
        "spill": plan.spill,
        "bits": plan.partition_bits,
        "memory": plan.memory,
        "projected": plan.projected_peak,
        "measured": peak_memory() - baseline,
        "seconds": seconds,
        "distinct": result.distinct,
        "changes": 0 if result.changes is None else len(result.changes),
    }


def begin_peak() -> int:
    """Forget how much resident memory this process has had; return what it has, in bytes."""
    # What the tiny run let go of would be used again, and not be measured.
    ctypes.CDLL(None).malloc_trim(0)
    # See clear_refs in proc(5): compiled kernels are loaded with far more than they keep.
    Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def peak_memory() -> int:
    """Return the largest resident memory that this process has had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def table_line(found: dict[str, Any]) -> str:
    """Return what was found as a line of the table."""
    names = "memory", "projected", "measured", "allowed", "at first"
    amounts = {name: f"{found[name] / MIB:.1f}" for name in names}
    cells = {**found, **amounts, "seconds": f"{found['seconds']:.1f}"}
    return "".join(f"{cells[column]!s:>11}" for column in COLUMNS)


if __name__ == "__main__":
    main()
