"""Counting the states of the demo's first convolution, against sorting them in NumPy.

Captures the demo's network on MNIST's test images, then counts layer conv_1, 5.76 million rows of
3 bytes, by turns: tsstore from the run on disk on two threads, with and without the groups behind
confidence intervals; ``numpy.unique`` of rows in memory, as voids, and as integers of 8 bytes::

    python benchmarks/conv_1.py
    python benchmarks/conv_1.py --rounds 3 --directory /dev/shm

All must give the same counts. Printed are medians of wall and CPU seconds, and the ratio of wall
times to tsstore's without intervals.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tsstore
from tsstore.demo.run import run_demo

LAYER = "conv_1"
Spectrum = dict[int, int]


def main() -> None:
    """Parse, capture, count by turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where to write; the system's by default")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        run_demo(f"{folder}/demo.zarr")
        seconds, spectra = race(contenders(f"{folder}/demo.zarr"), arguments.rounds)
    first = next(iter(spectra.values()))
    if any(spectrum != first for spectrum in spectra.values()):
        raise SystemExit(f"the answers differ: { ({name: len(s) for name, s in spectra.items()}) }")
    medians = {
        name: [statistics.median(c) for c in zip(*s, strict=True)] for name, s in seconds.items()
    }
    print(f"{'':<24}{'wall s':>10}{'CPU s':>10}{'ratio':>10}")
    for name, (wall, cpu) in medians.items():
        print(f"{name:<24}{wall:>10.3f}{cpu:>10.3f}{wall / medians['tsstore'][0]:>10.1f}")


def contenders(path: str) -> dict[str, Callable[[], Spectrum]]:
    """Return what counts the layer, each in its way."""
    rows = tsstore.open(path)[LAYER][:]
    padded = np.zeros((len(rows), 8), np.uint8)
    padded[:, : rows.shape[1]] = rows
    voids, words = rows.view(f"V{rows.shape[1]}").reshape(-1), padded.view(np.uint64).reshape(-1)
    return {
        "tsstore": lambda: counted(path, intervals=False),
        "tsstore, intervals": lambda: counted(path, intervals=True),
        "numpy.unique, voids": lambda: sorted_out(voids),
        "numpy.unique, uint64": lambda: sorted_out(words),
    }


def counted(path: str, intervals: bool) -> Spectrum:
    """Count from the run on disk."""
    options: dict[str, Any] = {"scheduler": "threads", "intervals": intervals}
    spectrum = tsstore.analyze(path, LAYER, **options)[LAYER].spectrum
    found: Spectrum = {}
    for k, states in zip(spectrum.multiplicity.tolist(), spectrum.states.tolist(), strict=True):
        found[k] = found.get(k, 0) + states
    return found


def sorted_out(rows: Any) -> Spectrum:
    """Count by sorting."""
    _, multiplicity = np.unique(rows, return_counts=True)
    k, states = np.unique(multiplicity, return_counts=True)
    return dict(zip(k.tolist(), states.tolist(), strict=True))


def race(
    ways: dict[str, Callable[[], Spectrum]], rounds: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, Spectrum]]:
    """Let the ways take turns after one turn each that does not count."""
    spectra = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return seconds, spectra


if __name__ == "__main__":
    main()
