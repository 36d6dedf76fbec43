"""What a commit costs, with and without syncing, for runs of few and of many layers.

Writes parts whose tails, the unfinished chunks, are half full, as they are on average in a capture.
Between two commits one chunk of each layer is filled, which is not part of the commit's cost::

    python benchmarks/commit.py
    python benchmarks/commit.py --directories . /dev/shm --layers 3 20 500 --commits 21

Printed are, for each commit, how many files it writes, their MiB, how many files and directories
it syncs, and the median and longest of its milliseconds; then what follows from the rule that
commits come no more often than 50 times what the last one cost: seconds between commits where 10
are asked for, and the share of the writer's time. Half of the rows repeat the one before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from versions import print_versions

from tsstore.recording.background.thread import COMMIT_COST_RATIO
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import (
    BUFFER_BYTES,
    CHUNK_BYTES,
    MIN_CHUNK_BYTES,
    Batch,
    LayerBatch,
    chunk_rows,
)
from tsstore.store.writing.part import PartWriter

COMMIT_EVERY = 10.0
SAMPLES = 32
"""So many fill a chunk."""

NEURONS = {3: (20, 50, 100), 20: (64, 128, 256, 512), 500: (768, 3072)}
"""Neurons of the layers, in turns, of networks of up to so many: LeNet, ResNet, transformers."""

COLUMNS = ("layers", "durable", "files", "MiB", "syncs", "median ms", "longest", "every s", "share")
PACKAGES = ("tsstore", "numpy", "numcodecs")


class CountedFiles(LocalFiles):
    """Counts what is written and synced."""

    def __init__(self, root: Path, durable: bool) -> None:
        super().__init__(root, durable)
        self.counts: Counter[str] = Counter()

    def _step(self, operation: str, path: Path, call: Any, *arguments: Any) -> Any:
        self.counts[operation] += 1
        if operation == "write":
            self.counts["bytes"] += memoryview(arguments[1]).nbytes
        return super()._step(operation, path, call, *arguments)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--directories", type=Path, nargs="+", default=[Path(".")])
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 20, 500])
    parser.add_argument("--commits", type=int, default=21)
    arguments = parser.parse_args()
    print_versions(*PACKAGES)
    for directory in arguments.directories:
        print(f"\nfile system {file_system(directory)}, load average {os.getloadavg()[0]:.1f}")
        print("".join(f"{column:>11}" for column in COLUMNS))
        for layers in arguments.layers:
            for durable in (True, False):
                with tempfile.TemporaryDirectory(dir=directory) as folder:
                    files = CountedFiles(Path(folder) / "run", durable)
                    print(table_line(layers, files, arguments.commits), flush=True)


def table_line(layers: int, files: CountedFiles, commits: int) -> str:
    """Measure the commits of a run and return its line of the table."""
    seconds, counts = zip(*measure(files, layers, commits), strict=True)
    cost = statistics.median(seconds)
    every = max(COMMIT_EVERY, COMMIT_COST_RATIO * cost)
    cells = (
        f"{layers:,}",
        "yes" if files.durable else "no",
        f"{median(counts, 'write'):,}",
        f"{median(counts, 'bytes') / (1 << 20):.1f}",
        f"{median(counts, 'sync') + median(counts, 'sync_directory'):,}",
        f"{1000 * cost:,.0f}",
        f"{1000 * max(seconds):,.0f}",
        f"{every:.0f}",
        f"{100 * cost / (every + cost):.2f} %",
    )
    return "".join(f"{cell:>11}" for cell in cells)


def measure(files: CountedFiles, layers: int, commits: int) -> Iterator[tuple[float, Counter[str]]]:
    """Yield the seconds of each commit but the first, and what it did."""
    create_run(files)
    writer = PartWriter(files, PartAttributes())
    half, whole = define(writer, layers)
    writer.append(half)
    writer.commit()
    for _ in range(commits):
        writer.append(whole)
        files.counts.clear()
        begun = time.perf_counter()
        writer.commit()
        yield time.perf_counter() - begun, files.counts.copy()


def define(writer: PartWriter, layers: int) -> tuple[Batch, Batch]:
    """Define a part's layers; return batches that fill half a chunk of each, and a whole one."""
    generator = np.random.default_rng(1)
    widths = next(widths for limit, widths in NEURONS.items() if layers <= limit)
    names = {f"layer_{index}": n for index, n in enumerate(islice(cycle(widths), layers))}
    attributes = {name: LayerAttributes(name, neurons) for name, neurons in names.items()}
    size = max(MIN_CHUNK_BYTES, min(CHUNK_BYTES, BUFFER_BYTES // layers))
    positions = {
        name: chunk_rows(layer.row_bytes, 0, size) // SAMPLES for name, layer in attributes.items()
    }
    rows = {
        name: draw_rows(generator, positions[name] * SAMPLES, layer.row_bytes)
        for name, layer in attributes.items()
    }
    writer.define(attributes, positions, {"id": "int64", "loss": "float32"})
    return batch(rows, positions, SAMPLES // 2), batch(rows, positions, SAMPLES)


def draw_rows(generator: np.random.Generator, rows: int, row_bytes: int) -> Any:
    """Return rows, uint8 (rows, row_bytes), of which half repeat the one before."""
    states = generator.integers(0, 256, (rows, row_bytes), dtype=np.uint8)
    last_new = np.where(generator.random(rows) < 0.5, np.arange(rows), 0)
    return states[np.maximum.accumulate(last_new)]


def batch(rows: dict[str, Any], positions: dict[str, int], samples: int) -> Batch:
    """Return a batch of the first samples."""
    layers = {
        name: LayerBatch(
            layer[: samples * positions[name]], np.full(samples, positions[name], dtype=np.int64)
        )
        for name, layer in rows.items()
    }
    loss = np.ones(samples, dtype=np.float32)
    return Batch(samples, layers, {"id": np.arange(samples), "loss": loss})


def median(counts: tuple[Counter[str], ...], name: str) -> int:
    """Return the median of one count over all commits."""
    return int(statistics.median(count[name] for count in counts))


def file_system(directory: Path) -> str:
    """Return the type of the file system in which a directory lies."""
    path = directory.resolve()
    mounts = {Path(item.mountpoint): item.fstype for item in psutil.disk_partitions(all=True)}
    return next(mounts[place] for place in (path, *path.parents) if place in mounts)


if __name__ == "__main__":
    main()
