"""How fast neurons are counted: GB of rows a second, on one core.

Loops over rows in memory, and a run on disk on one thread, beside ``numpy.unpackbits`` and a sum,
which gives the rates alone; by turns, medians of CPU seconds::

    python benchmarks/neurons.py
    python benchmarks/neurons.py --rounds 7 --megabytes 256
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tsstore
from tsstore.counting.firing import count_firing
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

SHAPES = ((64, 784), (256, 196), (512, 49), (512, 1), (4096, 1), (128, 4))
"""Neurons, and positions of a sample."""


def main() -> None:
    """Parse, make rows, count by turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--directory", type=Path, help="where to write; the system's by default")
    arguments = parser.parse_args()
    print(
        f"{'neurons':>8}{'positions':>10}{'loops':>8}{'a run':>8}{'unpackbits':>12}   GB/s of CPU"
    )
    for neurons, positions in SHAPES:
        rows, lengths = make_rows(neurons, positions, arguments.megabytes * 1_000_000)
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            write(f"{folder}/run.zarr", rows, lengths, neurons)
            found = race(contenders(rows, lengths, f"{folder}/run.zarr"), arguments.rounds)
        speeds = "".join(f"{rows.nbytes / seconds / 1e9:>{width}.2f}" for seconds, width in found)
        print(f"{neurons:>8}{positions:>10}{speeds}")


def make_rows(neurons: int, positions: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows, uint8 (rows, neurons / 8), and the rows of each sample."""
    samples = max(size // (neurons // 8) // positions, 1)
    rows = np.random.default_rng(0).integers(
        0, 256, (samples * positions, neurons // 8), dtype=np.uint8
    )
    return rows, np.full(samples, positions)


def write(path: str, rows: np.ndarray, lengths: np.ndarray, neurons: int) -> None:
    """Write a run of one batch."""
    files = LocalFiles(path, durable=False)
    create_run(files)
    writer = PartWriter(files, PartAttributes())
    writer.define({"layer": LayerAttributes("layer", neurons)}, {"layer": int(lengths[0])}, {})
    writer.append(Batch(len(lengths), {"layer": LayerBatch(rows, lengths)}, {}))
    writer.commit()
    writer.seal()


def contenders(
    rows: np.ndarray, lengths: np.ndarray, path: str
) -> list[tuple[Callable[[], object], int]]:
    """Return what counts, and how wide its column is."""
    some = rows[: max(len(rows) // 16, 1)]

    def unpack() -> None:
        for first in range(0, len(rows), len(some)):
            np.unpackbits(rows[first : first + len(some)], axis=1).sum(axis=0)

    return [
        (lambda: count_firing(rows, lengths, 8 * rows.shape[1], [0]), 8),
        (lambda: tsstore.neurons(path, scheduler="synchronous"), 8),
        (unpack, 12),
    ]


def race(callers: list[tuple[Callable[[], object], int]], rounds: int) -> list[tuple[float, int]]:
    """Return the median CPU seconds of each, by turns, after a call that does not count."""
    seconds: list[list[float]] = [[] for _ in callers]
    for turn in range(rounds + 1):
        for (call, _), own in zip(callers, seconds, strict=True):
            start = time.process_time()
            call()
            if turn:
                own.append(time.process_time() - start)
    return [
        (statistics.median(own), width) for own, (_, width) in zip(seconds, callers, strict=True)
    ]


if __name__ == "__main__":
    main()
