"""Time that confidence intervals add to an analysis: counting by 32 groups of samples.

Writes three runs of rows of 8 bytes, then analyses them with and without groups in turns, on the
threads of this process::

    python benchmarks/intervals_cost.py
    python benchmarks/intervals_cost.py --rows 20_000_000 --repeats 9 --memory 64MiB

Printed are medians: seconds on the clock without and with groups, their ratio, and the ratio of
processor time, which other work on the machine disturbs less.

*conv*: like a layer of feature maps, with 64 positions a sample; a quarter of the rows are one
state, many repeat the one before, and a fifth of the rows are distinct. *distinct*: all rows are.
*few*: 4,096 states, some much more often than others.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from versions import print_versions

LAYER = "conv_1"
POSITIONS = 64
BATCH_SAMPLES = 1 << 14
PACKAGES = ("tsstore", "numpy", "numba", "dask", "zarr")


def conv(generator: np.random.Generator, rows: int) -> Any:
    """Return numbers of states, uint64 (rows,), that are skewed and repeat within a sample."""
    numbers = np.minimum(3e4 * (generator.random(rows) ** -2 - 1), 1e18).astype(np.uint64) + 1
    numbers[generator.random(rows) < 0.24] = 0
    last_new = np.arange(rows)
    last_new[(generator.random(rows) < 0.35) & (last_new % POSITIONS > 0)] = 0
    return numbers[np.maximum.accumulate(last_new)]


def distinct(generator: np.random.Generator, rows: int) -> Any:
    """Return numbers of states that are all different."""
    return generator.permutation(rows).astype(np.uint64)


def few(generator: np.random.Generator, rows: int) -> Any:
    """Return numbers of 4,096 states by Zipf's law."""
    return np.minimum(generator.zipf(1.2, rows), 4096).astype(np.uint64)


DATA: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "conv": conv,
    "distinct": distinct,
    "few": few,
}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--positions", type=int, default=POSITIONS, help="rows of a sample")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", help="as for tsstore.analyze")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    arguments = parser.parse_args()
    print_versions(*PACKAGES)
    print(
        f"{'data':>10}{'rows':>12}{'distinct':>12}{'without':>10}{'with':>10}{'ratio':>8}{'cpu':>8}"
    )
    for name in arguments.data:
        with tempfile.TemporaryDirectory() as folder:
            numbers = DATA[name](np.random.default_rng(1), arguments.rows)
            write_run(Path(folder) / "run", numbers, arguments.positions)
            found = measure(Path(folder) / "run", arguments.repeats, arguments.memory)
        print(
            f"{name:>10}{found['rows']:>12,}{found['distinct']:>12,}"
            f"{found['without']:>10.3f}{found['with']:>10.3f}{found['ratio']:>8.2f}"
            f"{found['cpu']:>8.2f}"
        )


def write_run(path: Path, numbers: Any, positions: int) -> None:
    """Write a run of one layer, whose states are the numbers' bits."""
    from tsstore.store.files.local import LocalFiles
    from tsstore.store.format.attributes import LayerAttributes, PartAttributes
    from tsstore.store.run import create_run
    from tsstore.store.writing.batch import Batch, LayerBatch
    from tsstore.store.writing.part import PartWriter

    files = LocalFiles(path, durable=False)
    create_run(files)
    writer = PartWriter(files, PartAttributes())
    writer.define({LAYER: LayerAttributes(LAYER, 64)}, {LAYER: positions}, {})
    rows = numbers.astype("<u8").view(np.uint8).reshape(-1, 8)
    step = BATCH_SAMPLES * positions
    for start in range(0, len(rows) - len(rows) % positions, step):
        batch = rows[start : start + step]
        samples = len(batch) // positions
        counts = np.full(samples, positions, dtype=np.int64)
        layer = LayerBatch(np.ascontiguousarray(batch[: samples * positions]), counts)
        writer.append(Batch(samples, {LAYER: layer}))
    writer.seal()


def measure(path: Path, repeats: int, memory: str | None) -> dict[str, Any]:
    """Analyse a run in turns; return the medians, after one round to warm up."""
    import tsstore

    seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(repeats + 1):
        for intervals, times in seconds.items():
            begin = time.perf_counter(), time.process_time()
            analysis = tsstore.analyze(
                path, intervals=intervals, memory=memory, scheduler="threads"
            )
            times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    medians = [
        [statistics.median(kind) for kind in zip(*times[1:], strict=True)]
        for times in seconds.values()
    ]
    (without, cpu_without), (with_groups, cpu_with) = medians
    return {
        "rows": analysis[LAYER].rows,
        "distinct": analysis[LAYER].distinct,
        "without": without,
        "with": with_groups,
        "ratio": with_groups / without,
        "cpu": cpu_with / cpu_without,
    }


if __name__ == "__main__":
    main()
