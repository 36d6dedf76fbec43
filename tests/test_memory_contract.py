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


def measure(mebibytes: int, memory: str, *widths: int) -> list[dict[str, int]]:
    """Analyse runs of so many MiB in fresh processes; return what was planned and measured."""
    command = [sys.executable, str(BENCHMARK), "--json", f"--mebibytes={mebibytes}"]
    command += ["--memory", memory, "--widths", *map(str, widths)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_kept(found: dict[str, int], mebibytes: int) -> None:
    assert found["rows"] * found["width"] > 2 * found["memory"]
    assert found["rows"] * found["width"] > (mebibytes - 1) * MIB
    assert found["measured"] <= found["projected"] <= found["memory"]
    assert found["spill"]
    assert found["distinct"] > 0.15 * found["rows"]


def test_an_analysis_of_a_run_larger_than_its_memory_keeps_to_it():
    (found,) = measure(240, "48MiB", 8)
    assert_kept(found, 240)
    assert found["threads"] in (1, 2)


@pytest.mark.parametrize("width", [3, 16, 38])
def test_rows_of_any_width_keep_to_the_memory(width):
    (found,) = measure(128, "48MiB", width)
    assert_kept(found, 128)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["64MiB", "128MiB", "256MiB"])
def test_a_large_run_keeps_to_the_memory(memory):
    (found,) = measure(1000, memory, 8)
    assert_kept(found, 1000)
