from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "memory.py"
MIB = 1 << 20

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peaks of memory are read from /proc"
)


def measure(mebibytes: int, memory: str, width: int, *options: str) -> dict[str, int]:
    """Analyse a run of so many MiB in a fresh process; return what was planned and measured."""
    command = [sys.executable, str(BENCHMARK), "--json", f"--mebibytes={mebibytes}", *options]
    command += ["--memory", memory, "--widths", str(width)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def assert_kept(found: dict[str, int], mebibytes: int) -> None:
    assert found["rows"] * found["width"] > 2 * found["memory"]
    assert found["rows"] * found["width"] > (mebibytes - 1) * MIB
    assert found["measured"] <= found["projected"] <= found["memory"]
    assert found["spill"]
    assert found["distinct"] > 0.15 * found["rows"]


def test_an_analysis_of_a_run_larger_than_its_memory_keeps_to_it():
    found = measure(240, "48MiB", 8, "--no-intervals")
    assert_kept(found, 240)
    assert found["threads"] in (1, 2)
    assert found["changes"] == 0


def test_groups_of_samples_keep_to_the_memory():
    found = measure(240, "64MiB", 8)
    assert_kept(found, 240)
    assert found["changes"] > 32


def test_skewed_states_whose_spectra_are_large_keep_to_the_memory():
    found = measure(128, "64MiB", 8, "--data", "skewed")
    assert found["measured"] <= found["projected"] <= found["memory"] == 64 * MIB
    assert found["spill"]
    assert found["changes"] > 10_000


@pytest.mark.parametrize("width", [3, 16, 38])
def test_rows_of_any_width_keep_to_the_memory(width):
    assert_kept(measure(128, "48MiB", width), 128)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["64MiB", "128MiB", "256MiB"])
def test_a_large_run_keeps_to_the_memory(memory):
    assert_kept(measure(1000, memory, 8), 1000)
