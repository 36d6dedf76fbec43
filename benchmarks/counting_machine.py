"""What a machine is, and how fast its parts are that counting depends on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numba
import numpy as np
from counting_data import CONV_POSITIONS, batches
from numcodecs import blosc

PACKAGES = (
    "tsstore", "duckdb", "polars", "pandas", "dask", "pyarrow", "numpy", "numba", "zarr",
    "numcodecs",
)  # fmt: skip
LIBRARIES = "tsstore.analysis.analyze, duckdb, polars, pandas, pyarrow.parquet, dask.dataframe"
TABLE_SLOTS = 1 << 21
INCREMENTS = 1 << 24
CHUNK_BYTES = 2 << 20
COPY_BYTES = 1 << 27
REPEATS = 5


def describe() -> Iterator[str]:
    """Yield lines that name processor, memory and versions."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    processor = names[0] if names else platform.processor()
    yield f"{processor}, {cores} cores, {memory:.0f} GiB, load average {os.getloadavg()[0]:.1f}"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    yield f"Python {platform.python_version()}, {packages}"


class Others:
    """What other processes did meanwhile: entered before a contest, and left after it.

    Of processes that this one has started, those count as its own that have ended by then.
    """

    def __enter__(self) -> Self:
        self._begun = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        spent = [after - before for before, after in zip(self._begun, self._now(), strict=True)]
        seconds, busy, own = spent
        load = os.getloadavg()[0]
        cores = "" if busy == 0 else f"{max(busy - own, 0) / seconds:.2f} cores busy, "
        self.line = f"other processes meanwhile: {cores}load average {load:.1f}"

    def _now(self) -> tuple[float, float, float]:
        """Return seconds of the clock, of all processors' work (0 if unknown), and of our own."""
        stat, busy = Path("/proc/stat"), 0.0
        if stat.exists():
            user, nice, system, _, _, *interrupts = stat.read_text().split("\n")[0].split()[1:8]
            ticks = sum(map(int, (user, nice, system, *interrupts)))
            busy = ticks / os.sysconf("SC_CLK_TCK")
        own = os.times()
        return time.perf_counter(), busy, sum(own[:4])


def calibrate() -> Iterator[str]:
    """Yield lines that say how fast one thread is."""
    table = np.zeros(TABLE_SLOTS, np.int64)
    increment(table, 1)
    seconds = fastest(lambda: increment(table, INCREMENTS))
    yield f"random increment in {table.nbytes >> 20} MiB: {1e9 * seconds / INCREMENTS:.2f} ns"
    yield f"decode of lz4 chunks of 2 MiB, states of `conv`: {decode_speed():.1f} GB/s"
    source, target = np.ones((2, COPY_BYTES), np.uint8)
    seconds = fastest(lambda: np.copyto(target, source))
    yield f"copy: {COPY_BYTES / seconds / 1e9:.1f} GB/s"
    first, again = new_memory()
    yield f"8 bytes written to new memory: {first:.1f} ns; again: {again:.1f} ns"


@numba.njit
def increment(table: Any, count: int) -> None:
    """Add one in so many slots of a table, which are as good as random."""
    for number in range(count):
        mixed = np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ mixed >> np.uint64(32)) * np.uint64(0xBF58476D1CE4E5B9)
        table[mixed >> np.uint64(64 - 21)] += 1


def new_memory() -> tuple[float, float]:
    """Return nanoseconds that 8 bytes take, in memory that is new and in the same once more."""
    words = np.empty(COPY_BYTES // 8, np.uint64)
    seconds = []
    for _ in range(2):
        begun = time.thread_time()
        words.fill(1)
        seconds.append(time.thread_time() - begun)
    first, again = (1e9 * each / words.size for each in seconds)
    return first, again


def decode_speed() -> float:
    """Return how many GB of rows of 8 bytes a second are decoded, compressed as in a store."""
    rows = CHUNK_BYTES // 8
    (states, _), *_ = batches("conv", 8, rows - rows % CONV_POSITIONS, CONV_POSITIONS)
    threads = blosc.set_nthreads(1)
    packed = blosc.compress(states, b"lz4", 5, blosc.NOSHUFFLE, 0, 1)
    room = np.empty_like(states)
    seconds = fastest(lambda: blosc.decompress(packed, room))
    blosc.set_nthreads(threads)
    return float(states.nbytes / seconds / 1e9)


def fastest(work: Callable[[], object]) -> float:
    """Return the fewest seconds of this thread's CPU of some repeats."""
    seconds = []
    for _ in range(REPEATS):
        begun = time.thread_time()
        work()
        seconds.append(time.thread_time() - begun)
    return min(seconds)


def warm_up() -> None:
    """Have all libraries' files read once, so that no first call waits for a disk."""
    command = [sys.executable, "-c", f"import {LIBRARIES}"]
    # What cannot be imported fails in its turn, and says so then.
    subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
