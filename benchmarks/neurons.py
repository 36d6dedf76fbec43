"""How fast neurons are counted: GB of rows a second, on one core.

Loops over rows in memory, and a run on disk on one thread, without groups, with maps of positions,
by ten and by a hundred groups of samples; then loops by position, and ``numpy.unpackbits`` and a
sum, which gives the rates alone; then pairs of neurons, in thousand million pairs of words of 64
rows a second, beside a product of matrices of float32. By turns, medians of CPU seconds::

    python benchmarks/neurons.py
    python benchmarks/neurons.py --rounds 7 --megabytes 64
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from versions import print_versions

import tsstore
from tsstore.counting.by_position import count_by_position
from tsstore.counting.firing import count_firing
from tsstore.counting.joint import count_joint
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

SHAPES = ((64, 784), (256, 196), (512, 49), (512, 1), (4096, 1), (128, 4))
"""Neurons, and positions of a sample."""
PAIRS, PAIR_ROWS = (64, 512, 2048), 8192
"""Neurons whose pairs are counted, and in how many rows."""


def main() -> None:
    """Parse, make rows, count by turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--directory", type=Path, help="where to write; the system's by default")
    arguments = parser.parse_args()
    print_versions("tsstore", "numpy", "numba")
    names = ("loops", "a run", "with maps", "by 10", "by 100", "map loops", "unpackbits")
    head = "".join(f"{name:>12}" for name in names)
    print(f"{'neurons':>8}{'positions':>10}{head}   GB/s of CPU")
    for neurons, positions in SHAPES:
        rows, lengths = make_rows(neurons, positions, arguments.megabytes * 1_000_000)
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            write(f"{folder}/run.zarr", rows, lengths, neurons)
            found = race(contenders(rows, lengths, f"{folder}/run.zarr"), arguments.rounds)
        speeds = "".join(f"{rows.nbytes / seconds / 1e9:>12.2f}" for seconds in found)
        print(f"{neurons:>8}{positions:>10}{speeds}")
    print(
        f"\n{'neurons':>8}{'loops':>12}{'float32':>12}   thousand million pairs of words a second"
    )
    for neurons in PAIRS:
        rows, _ = make_rows(neurons, 1, PAIR_ROWS * neurons // 8)
        pairs = neurons * (neurons + 1) / 2 * len(rows) / 64
        found = race(pair_contenders(rows, neurons), arguments.rounds)
        print(f"{neurons:>8}" + "".join(f"{pairs / seconds / 1e9:>12.2f}" for seconds in found))


def make_rows(neurons: int, positions: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows, uint8 (rows, neurons / 8), and the rows of each sample."""
    samples = max(size // (neurons // 8) // positions, 1)
    rows = np.random.default_rng(0).integers(
        0, 256, (samples * positions, neurons // 8), dtype=np.uint8
    )
    return rows, np.full(samples, positions)


def write(path: str, rows: np.ndarray, lengths: np.ndarray, neurons: int) -> None:
    """Write a run of one batch, with columns to group by."""
    draw = np.random.default_rng(1)
    columns = {f"of_{groups}": draw.integers(0, groups, len(lengths)) for groups in (10, 100)}
    files = LocalFiles(path, durable=False)
    create_run(files)
    writer = PartWriter(files, PartAttributes())
    writer.define(
        {"layer": LayerAttributes("layer", neurons)},
        {"layer": int(lengths[0])},
        dict.fromkeys(columns, "int64"),
    )
    writer.append(Batch(len(lengths), {"layer": LayerBatch(rows, lengths)}, columns))
    writer.commit()
    writer.seal()


def contenders(rows: np.ndarray, lengths: np.ndarray, path: str) -> list[Callable[[], object]]:
    """Return what counts."""
    some = rows[: max(len(rows) // 16, 1)]

    def unpack() -> None:
        for first in range(0, len(rows), len(some)):
            np.unpackbits(rows[first : first + len(some)], axis=1).sum(axis=0)

    neurons, positions = 8 * rows.shape[1], int(lengths[0])
    one_by_one = partial(tsstore.neurons, path, scheduler="synchronous")
    return [
        lambda: count_firing(rows, lengths, neurons, [0]),
        one_by_one,
        lambda: one_by_one(maps=True),
        lambda: one_by_one(by="of_10"),
        lambda: one_by_one(by="of_100"),
        lambda: count_by_position(rows, positions, neurons, [0], 0, positions),
        unpack,
    ]


def pair_contenders(rows: np.ndarray, neurons: int) -> list[Callable[[], object]]:
    """Return what counts pairs."""
    states = np.unpackbits(rows, axis=1, bitorder="little").astype(np.float32)
    return [lambda: count_joint(rows, neurons, 0, neurons), lambda: states.T @ states]


def race(callers: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median CPU seconds of each, by turns, after a call that does not count."""
    seconds: list[list[float]] = [[] for _ in callers]
    for turn in range(rounds + 1):
        for call, own in zip(callers, seconds, strict=True):
            start = time.process_time()
            call()
            if turn:
                own.append(time.process_time() - start)
    return [statistics.median(own) for own in seconds]


if __name__ == "__main__":
    main()
