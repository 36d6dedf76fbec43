"""What an analysis by groups takes, against one of all samples together with intervals.

Writes runs as ``intervals_cost.py`` does, with a column of random values for each number of groups,
and analyses them on the threads of this process, by turns; printed are medians of CPU seconds of
the ungrouped analysis, and ratios to it::

    python benchmarks/groups.py [--rows 2_000_000] [--groups 10 100 1000] [--memory 64MiB]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from intervals_cost import DATA, LAYER, POSITIONS

import tsstore
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

SAMPLES = 4_000
"""Of a batch."""


def main() -> None:
    """Parse, write, count by turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--groups", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", help="as for tsstore.analyze")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--directory", type=Path, help="where to write; the system's by default")
    arguments = parser.parse_args()
    headings = "".join(f"{f'{n:,} groups':>14}" for n in arguments.groups)
    print(f"{'data':>10}{'rows':>12}{'CPU s':>8}{headings}")
    for name in arguments.data:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            path = f"{folder}/run.zarr"
            write(path, name, arguments.rows, arguments.groups)
            spent: dict[int, list[float]] = {n: [] for n in (0, *arguments.groups)}
            for _ in range(arguments.rounds + 1):
                for groups, seconds in spent.items():
                    before = time.process_time()
                    by = f"by_{groups}" if groups else None
                    tsstore.analyze(path, memory=arguments.memory, scheduler="threads", by=by)
                    seconds.append(time.process_time() - before)
        median = {n: statistics.median(seconds[1:]) for n, seconds in spent.items()}
        ratios = "".join(f"{median[n] / median[0]:>14.2f}" for n in arguments.groups)
        print(f"{name:>10}{arguments.rows:>12,}{median[0]:>8.2f}{ratios}")


def write(path: str, name: str, rows: int, groups: list[int]) -> None:
    """Write a run of one layer of 64 neurons."""
    generator, files = np.random.default_rng(0), LocalFiles(path, durable=False)
    create_run(files)
    numbers = DATA[name](generator, rows).astype("<u8").view(np.uint8).reshape(-1, 8)
    writer = PartWriter(files, PartAttributes())
    dtypes = dict.fromkeys(("id", *(f"by_{n}" for n in groups)), "int64")
    writer.define({LAYER: LayerAttributes(LAYER, 64)}, {LAYER: POSITIONS}, dtypes)
    for first in range(0, rows // POSITIONS, SAMPLES):
        samples = min(SAMPLES, rows // POSITIONS - first)
        columns = {f"by_{n}": generator.integers(0, n, samples) for n in groups}
        own = numbers[first * POSITIONS : (first + samples) * POSITIONS]
        layer = LayerBatch(np.ascontiguousarray(own), np.full(samples, POSITIONS))
        columns = {"id": np.arange(first, first + samples), **columns}
        writer.append(Batch(samples, {LAYER: layer}, columns))
    writer.seal()


if __name__ == "__main__":
    main()
