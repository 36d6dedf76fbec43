"""Loops that cannot be kept for the next process are compiled all the same."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import tsstore

LOOPS = """
import numpy as np
from tsstore.compiling import compiled


@compiled(nogil=True)
def double(number):
    return 2 * number


@compiled()
def total(numbers):
    sum = 0
    for number in numbers:
        sum += double(number)
    return sum

if __name__ == "__main__":
    assert total(np.arange(5)) == 20
    print(sum(total.stats.cache_hits.values()), sum(double.stats.cache_hits.values()))
"""


@pytest.fixture
def run(tmp_path):
    """Run the loops in a process of its own; return how many were found in the cache."""
    script = tmp_path / "loops.py"
    script.write_text(LOOPS, encoding="utf-8")

    def run(cache: Path, prepare=None, **variables) -> list[int]:
        variables["PYTHONPATH"] = str(Path(tsstore.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"NUMBA_CACHE_DIR": str(cache)} | variables,
            preexec_fn=prepare,
        )
        assert done.returncode == 0, done.stderr
        return [int(word) for word in done.stdout.split()]

    return run


def index_files(cache: Path) -> list[Path]:
    return list(cache.rglob("*.nbi"))


def test_machine_code_is_kept_for_the_next_process(run, tmp_path):
    assert run(tmp_path / "cache") == [0, 0]
    assert len(index_files(tmp_path / "cache")) == 2
    assert run(tmp_path / "cache") == [1, 0]


def write_nothing():
    """As on a full disk: Python ignores the signal, and each write fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_full_disk_is_no_obstacle(run, tmp_path):
    assert run(tmp_path / "cache", write_nothing) == [0, 0]
    assert index_files(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_read_is_no_obstacle(run, tmp_path):
    run(tmp_path / "cache")
    for content in (b"", b"\x80\x04", b"no pickle"):
        for file in index_files(tmp_path / "cache"):
            file.write_bytes(content)
        assert run(tmp_path / "cache") == [0, 0]
    for file in index_files(tmp_path / "cache"):
        file.unlink()
        file.mkdir()
    assert run(tmp_path / "cache") == [0, 0]


def test_without_any_folder_loops_are_compiled(run, tmp_path):
    for name in ("file", "__pycache__"):
        (tmp_path / name).write_bytes(b"")
    nowhere = str(tmp_path / "file")
    assert run(Path(nowhere), HOME=nowhere, XDG_CACHE_HOME=nowhere) == [0, 0]
    assert index_files(tmp_path) == []
