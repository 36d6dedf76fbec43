from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import children
import pytest

from tsstore.counting.warm_up import warm_up

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MEASURED = "import json, sys, memory; print(json.dumps(memory.measure(*sys.argv[1:])))"

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peaks of memory are read from /proc"
)


def measure(
    mebibytes: int,
    memory: str,
    width: int,
    *,
    positions: int = 16,
    data: str = "half",
    intervals: bool = True,
    exact: bool = False,
) -> dict[str, int]:
    """Analyse a run of so many MiB in a process of its own, as the benchmark does in a cold one.

    Returns what was planned and measured, and the run's size.
    """
    with written(mebibytes, width, positions, data) as runs:
        found = measure_runs(runs, memory, width, intervals=intervals, exact=exact)
    return {"rows": (mebibytes << 20) // width, "width": width, **found}


@contextmanager
def written(mebibytes: int, width: int, positions: int = 16, data: str = "half") -> Iterator[Path]:
    """Write a run of so many MiB, and a tiny one."""
    benchmark = runpy.run_path(str(BENCHMARKS / "memory.py"))
    with tempfile.TemporaryDirectory() as folder:
        rows = (mebibytes << 20) // width
        for name, count in (("tiny", 100 * positions), ("run", rows)):
            benchmark["write_run"](Path(folder, name), width, count, positions, data)
        yield Path(folder)


def measure_runs(
    runs: Path, memory: str, width: int, *, intervals: bool, exact: bool = False
) -> dict[str, int]:
    """Analyse a run that was written before; see :func:`measure`."""
    # The compiler's memory is not that of an analysis: the child finds all loops in the cache.
    warm_up(width, exact, intervals, spill=True)
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    arguments = runs / "tiny", runs / "run", memory, int(intervals), int(exact)
    done = children.run(MEASURED, *arguments, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def measure_first(mebibytes: int, width: int, intervals: bool, exact: bool) -> dict[str, int]:
    """Analyse a run in 64 MiB in a process that has not done anything yet, as the benchmark does.

    Its libraries and loops count, so that it begins as a cold interpreter.
    """
    warm_up(width, exact, intervals, spill=True)
    benchmark = runpy.run_path(str(BENCHMARKS / "memory.py"))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        benchmark["write_run"](run, width, (mebibytes << 20) // width, 16, "half")
        command = [sys.executable, str(BENCHMARKS / "memory.py"), "--measure-first"]
        command += [str(run), "64MiB", str(int(intervals)), str(int(exact))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return dict(json.loads(done.stdout))


def assert_kept(found: dict[str, int]) -> None:
    assert found["measured"] <= found["projected"] <= found["memory"]
    assert found["threads"] in (1, 2)


def assert_spilled(found: dict[str, int]) -> None:
    """Check that memory was kept to by a run that is larger, most of whose states are rare."""
    assert_kept(found)
    assert found["rows"] * found["width"] > 1.5 * found["memory"]
    assert found["spill"]
    assert found["distinct"] > 0.1 * found["rows"]


@pytest.mark.parametrize("positions", [pytest.param(1, marks=pytest.mark.slow), 16])
def test_a_run_larger_than_its_memory_keeps_to_it(positions):
    found = measure(100, "64MiB", 8, intervals=False, positions=positions)
    assert_spilled(found)
    assert found["changes"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("width", "positions"), [(8, 16), (16, 1)])
def test_groups_of_samples_keep_to_the_memory(width, positions):
    found = measure(100, "64MiB", width, positions=positions)
    assert_spilled(found)
    assert found["changes"] > 32


@pytest.mark.slow
def test_exact_keys_keep_to_the_memory():
    assert_spilled(measure(100, "64MiB", 32, exact=True, intervals=False))


def test_records_that_stay_in_memory_keep_to_it():
    found = measure(40, "96MiB", 16, intervals=False, positions=1)
    assert_kept(found)
    assert not found["spill"]


@pytest.mark.parametrize("intervals", [True, False])
def test_a_partition_that_cannot_be_gathered_keeps_to_the_memory(intervals):
    found = measure(40, "64MiB", 8, data="crafted", intervals=intervals)
    assert_kept(found)
    assert found["distinct"] == pytest.approx(found["rows"], rel=1e-3)


def test_skewed_states_whose_spectra_are_large_keep_to_the_memory():
    found = measure(100, "64MiB", 8, data="skewed")
    assert_kept(found)
    assert found["spill"]
    assert found["changes"] > 10_000


@pytest.mark.slow
def test_states_of_very_many_frequencies_keep_to_the_memory():
    found = measure(170, "64MiB", 3, data="power", positions=1000)
    assert_kept(found)
    assert found["spill"]
    assert found["changes"] > 500_000


@pytest.mark.slow
@pytest.mark.parametrize("width", [3, 8, 32])
def test_states_that_change_the_spectra_of_all_groups_keep_to_the_memory(width):
    found = measure(160, "64MiB", width, data="repeated", positions=1000, exact=width > 16)
    assert_kept(found)
    assert found["spill"]
    assert found["changes"] > 100_000


def test_a_process_that_starts_with_an_analysis_adds_what_the_plan_says():
    found = measure_first(40, 8, True, False)
    assert 32 << 20 < found["at first"] <= found["allowed"] == 104 << 20


@pytest.mark.slow
@pytest.mark.parametrize("intervals", [True, False])
@pytest.mark.parametrize(
    ("width", "exact"), [(3, False), (8, False), (16, False), (32, False), (256, True)]
)
def test_whatever_is_counted_first_a_process_adds_what_the_plan_says(width, intervals, exact):
    found = measure_first(100, width, intervals, exact)
    assert found["at first"] <= found["allowed"] == 104 << 20


@pytest.mark.slow(minutes=0.5)
@pytest.mark.parametrize("memory", [256, 512])
@pytest.mark.parametrize("width", [3, 8, 16, 32, 256])
def test_a_large_run_keeps_to_the_memory(width, memory):
    # Of three bytes, rows take more than twice as much when they are counted.
    with written(2 * memory if width > 3 else memory, width) as runs:
        for intervals in (True, False):
            assert_kept(measure_runs(runs, f"{memory}MiB", width, intervals=intervals))


@pytest.mark.slow
@pytest.mark.parametrize("width", [32, 256])
def test_a_large_run_of_exact_keys_keeps_to_the_memory(width):
    assert_spilled(measure(600, "256MiB", width, exact=True))


@pytest.mark.slow(minutes=0.5)
def test_a_run_keeps_to_two_gibibytes():
    assert_kept(measure(3000, "2GiB", 8, intervals=False))


FOLLOWING = """
import json, sys, memory, tsstore
folder, names = sys.argv[1], sys.argv[2].split()
found = []
with tsstore.Threads(2) as threads:
    tsstore.analyze(f"{folder}/tiny", scheduler=threads)
    baseline = memory.begin_peak()
    for name in names:
        tsstore.analyze(f"{folder}/{name}", scheduler=threads, memory=int(sys.argv[3]))
        found.append((memory.peak_memory() - baseline, threads.arena.free_bytes))
print(json.dumps(found))
"""


@pytest.mark.parametrize(("mebibytes", "keeps"), [(64, False), (224, True)])
def test_analyses_on_threads_that_are_kept_keep_to_the_memory_of_each(tmp_path, mebibytes, keeps):
    benchmark, memory = runpy.run_path(str(BENCHMARKS / "memory.py")), mebibytes << 20
    for name, width, size, positions in (
        ("tiny", 8, 16 << 10, 16),
        ("single", 16, 16 << 20, 1),
        ("samples", 8, 24 << 20, 7),
        ("short", 3, 8 << 20, 576),
    ):
        benchmark["write_run"](tmp_path / name, width, size // width, positions, "half")
    for width in (3, 8, 16):
        warm_up(width, False, True, spill=True)
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS)}
    names = " ".join(["single", "samples", "short"] * 2)
    done = children.run(FOLLOWING, tmp_path, names, memory, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 6
    assert all(measured <= memory for measured, _ in found)
    assert all(kept <= memory // 2 for _, kept in found)
    assert any(kept > 0 for _, kept in found) == keeps
