"""A billion rows of 8 bytes in 1 GiB: finished, exact, within its memory, and as fast as fewer.

Writes a run of 2**30 rows, and one of an eighth of it, whose spectrum follows from how they are
made; counts both in fresh processes on two threads, and compares::

    python benchmarks/billion.py --directory /scratch
    python benchmarks/billion.py --directory /scratch --rows-log2 24 --memory 64MiB

It needs about 18 bytes of disk for each row. A quarter of the rows have one state, a quarter states
of 64 rows each, a quarter states of two, and each of the rest a state of its own; rows of one state
lie anywhere in the run. ``measured`` is the peak of a process's resident memory beyond that after
the analysis of a tiny run (Linux only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from memory import BATCH_ROWS, LAYER, MIB, begin_peak, peak_memory, write_batches

ODD = 0x9E3779B97F4A7C15
TINY_LOG2 = 14


def main() -> None:
    """Parse, write, count, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows-log2", type=int, default=30, help="rows, as a power of two")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--directory", type=Path, help="where to write; the system's by default")
    parser.add_argument("--intervals", action="store_true", help="count by random groups as well")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        write_run(Path(folder) / "tiny", TINY_LOG2)
        for log2 in (arguments.rows_log2 - 3, arguments.rows_log2):
            begin = time.perf_counter()
            write_run(Path(folder) / "run", log2)
            print(f"{1 << log2:,} rows written in {time.perf_counter() - begin:.0f} s", flush=True)
            command = [sys.executable, __file__, "--measure", folder, str(log2), arguments.memory]
            command.append(str(int(arguments.intervals)))
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(report(json.loads(done.stdout), 1 << log2), flush=True)
            subprocess.run(["rm", "-r", f"{folder}/run"], check=True)


def write_run(path: Path, log2: int) -> None:
    """Write a run of one layer of ``2 ** log2`` samples of one position."""
    count = min(BATCH_ROWS, 1 << log2)
    starts = range(0, 1 << log2, count)
    numbers = (np.arange(start, start + count, dtype=np.uint64) for start in starts)
    rows = (states(own, log2).view(np.uint8).reshape(-1, 8) for own in numbers)
    write_batches(path, 8, 1, rows)


def states(numbers: Any, log2: int) -> Any:
    """Return the states of rows by their numbers: uint64, by a quarter each as the page says."""
    quarter = np.uint64(1 << (log2 - 2))
    # An odd factor permutes the numbers below a power of two, a xor with their upper half too.
    places = (numbers * np.uint64(ODD)) & np.uint64((1 << log2) - 1)
    places ^= places >> np.uint64(log2 // 2)
    kind, place = places // quarter, places % quarter
    shares = np.array([quarter, 64, 2, 1], np.uint64)
    return ((kind << np.uint64(56)) | (place // shares[kind])) * np.uint64(ODD)


def expected_spectrum(rows: int) -> dict[int, int]:
    """Return how many states occur how often."""
    quarter = rows // 4
    return {quarter: 1, 64: quarter // 64, 2: quarter // 2, 1: quarter}


def measure(folder: str, log2: str, memory: str, intervals: str) -> dict[str, Any]:
    """Count in this process; return what was planned and found."""
    import tsstore

    options: dict[str, Any] = {"scheduler": "threads", "intervals": intervals == "1"}
    tsstore.analyze(f"{folder}/tiny", **options)
    baseline = begin_peak()
    options["memory"] = memory
    plan = tsstore.plan(f"{folder}/run", **options)[LAYER]
    begin, cpu = time.perf_counter(), time.process_time()
    result = tsstore.analyze(f"{folder}/run", scratch=folder, **options)[LAYER]
    spectrum = result.spectrum
    found = {int(k): int(n) for k, n in zip(spectrum.multiplicity, spectrum.states, strict=True)}
    return {
        "exact": found == expected_spectrum(1 << int(log2)),
        "seconds": time.perf_counter() - begin,
        "cpu": time.process_time() - cpu,
        "measured": peak_memory() - baseline,
        "projected": plan.projected_peak,
        "memory": plan.memory,
        "spill": plan.spill,
        "partitions": 1 << plan.partition_bits,
        "slice": plan.slice_bytes,
    }


def report(found: dict[str, Any], rows: int) -> str:
    """Return what was found as text; raise if it is wrong."""
    if not found["exact"]:
        raise SystemExit(f"{rows:,} rows: the spectrum is not the one that they were made with")
    way = "through files" if found["spill"] else "in memory"
    return (
        f"  exact; {way}, {found['partitions']} partitions, slices of {found['slice'] >> 10} KiB\n"
        f"  {found['seconds']:.1f} s, {found['seconds'] / rows * 1e9:.1f} ns a row; "
        f"CPU {found['cpu'] / rows * 1e9:.1f} ns a row\n"
        f"  MiB: memory {found['memory'] / MIB:.0f}, projected {found['projected'] / MIB:.0f}, "
        f"measured {found['measured'] / MIB:.0f}"
    )


if __name__ == "__main__":
    main()
