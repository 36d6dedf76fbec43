"""Counting neurons, and comparing states, takes no more memory than it was given."""

from __future__ import annotations

from pathlib import Path

import children
import numpy as np
import pytest
from synthetic import layer, numbered_rows, write_layers

import tsstore
from tsstore.counting.warm_up import warm_up

MIB = 1 << 20

MEASURED = """
import os, sys

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from peaks import peak_memory

import tsstore
from tsstore.analysis.neurons.count import analyze_with_neurons
from tsstore.analysis.request import Request


def count(run, memory):
    options = {"memory": memory, "scheduler": "threads"}
    if what == "novelty":
        found = tsstore.compare(
            run, f"{run}-other", efficiency=False, novelty=True, scratch=folder, **options
        )
        return found.overlap["a"].new_samples
    if what.startswith("report"):
        by = "label" if what.endswith("by") else None
        asked = Request(scratch=folder, by=by, **options)
        return analyze_with_neurons(run, asked)[1]["a"].samples
    asked = {"by": {"by": "label"}, "maps": {"maps": True}}.get(what, {})
    found = tsstore.neurons(run, **asked, **options)
    return (found.whole if what == "by" else found)["a"].samples


folder, what, memory = sys.argv[1:]
count(f"{folder}/tiny", "32MiB")
baseline = peak_memory()
print(count(f"{folder}/run", memory), peak_memory() - baseline)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder with two runs of 64 MiB, half of the other one's rows new, and tiny ones."""
    folder = tmp_path_factory.mktemp("large")
    for name, samples in (("run", 1 << 20), ("tiny", 2_000)):
        numbers = np.arange(16 * samples, dtype=np.uint64) // np.uint64(8)
        columns = {"label": np.arange(samples) % 10}
        for other in ("", "-other"):
            numbers[::2] += np.uint64(len(numbers) if other else 0)
            rows = layer(numbered_rows(numbers, 4), 16)
            path = folder / f"{name}{other}"
            write_layers(path, {"a": rows}, columns=columns, chunk_bytes=1 << 20)
    return folder


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peaks of memory are read from /proc"
)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "memory"),
    [("alone", 20), ("by", 24), ("maps", 20), ("novelty", 40), ("report", 60), ("report by", 96)],
)
def test_a_run_larger_than_the_memory_keeps_to_it(folder, what, memory):
    # The compiler's memory is not that of a count: the child finds all loops in the cache.
    tiny = folder / "tiny"
    tsstore.neurons(tiny, by="label" if what == "by" else None, maps=what == "maps")
    if what.startswith("report"):
        warm_up(4, False, True, spill=True, sets=what == "report by")
    if what == "novelty":
        large = folder / "run"
        tsstore.compare(large, f"{large}-other", efficiency=False, novelty=True, memory="40MiB")
    done = children.run(MEASURED, folder, what, f"{memory}MiB", timeout=240)
    assert done.returncode == 0, done.stderr
    samples, measured = map(int, done.stdout.split())
    assert samples == 1 << 20
    assert measured <= memory * MIB
