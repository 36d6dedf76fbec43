"""Loops that cannot be kept for the next process are compiled all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import children
import numpy as np
import pytest

import tsstore
from tsstore.numba_tools.decorators import inlined, kernel

LOOPS = """
import numpy as np
from tsstore.numba_tools.decorators import compiled


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


CHILD = """
import resource, runpy, sys
from numba.core import config
config.reload_config()
limit = int(sys.argv[2])
# As on a full disk: Python ignores the signal, and each write fails.
limit < 0 or resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture
def script(tmp_path) -> Path:
    """The loops as a program."""
    path = tmp_path / "loops.py"
    path.write_text(LOOPS, encoding="utf-8")
    return path


@pytest.fixture
def run(script):
    """Run the loops in a process of its own; return how many were found in the cache."""

    def run(cache: Path, most_bytes: int = -1, **variables) -> list[int]:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)} | variables
        done = children.run(CHILD, script, most_bytes, env=environment)
        assert done.returncode == 0, done.stderr
        return [int(word) for word in done.stdout.split()]

    return run


def index_files(cache: Path) -> list[Path]:
    return list(cache.rglob("*.nbi"))


def run_cold(script: Path, cache: Path) -> list[int]:
    """Run a program in a cold interpreter, as a user does; return the numbers that it prints."""
    variables = {
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPATH": str(Path(tsstore.__file__).parents[1]),
    }
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    assert (done.returncode, done.stderr) == (0, "")
    return [int(word) for word in done.stdout.split()]


def test_machine_code_is_kept_for_the_next_process(script, tmp_path):
    cache = tmp_path / "cache"
    for expected in ([0, 0], [1, 0]):
        assert run_cold(script, cache) == expected
        assert len(index_files(cache)) == 2


AFTERWARDS = """
import sys
from pathlib import Path

import numba
import numpy as np
from numba.core.runtime import rtsys
from tsstore.numba_tools.decorators import kernel


@kernel
def fill(array, number):
    for place in range(len(array)):
        array[place] = number // 3


@numba.njit(cache=True)
def squares(most):
    return {number: np.full(3, number) ** 2 for number in range(most)}


def cached(function):
    return sum(function.stats.cache_hits.values())


if __name__ == "__main__":
    array = np.zeros(4)
    fill(array, 10)
    began = rtsys._init
    assert array.tolist() == [3.0] * 4 and squares(3)[2].tolist() == [4, 4, 4]
    fill(np.zeros(4, np.int8), 10)
    print(int(began), cached(fill), cached(squares))
"""


def test_a_kernel_from_the_cache_needs_no_compiler_and_others_find_it_later(script, tmp_path):
    """In cold interpreters: what tests' children are forked from has loaded the compiler."""
    script.write_text(AFTERWARDS, encoding="utf-8")
    # Nothing was kept; then both loops of the kernel and the other function.
    assert run_cold(script, tmp_path / "cache") == [1, 0, 0]
    assert run_cold(script, tmp_path / "cache") == [0, 2, 1]


def test_a_full_disk_is_no_obstacle(run, tmp_path):
    assert run(tmp_path / "cache", 0) == [0, 0]
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


@pytest.mark.parametrize("content", [b"cnumba.gone\nThing\n.", b"cnumba\nno_such_name\n.", b""])
def test_a_loop_that_another_version_of_numba_has_kept_is_no_obstacle(run, tmp_path, content):
    run(tmp_path / "cache")
    files = list((tmp_path / "cache").rglob("*.nbc"))
    assert files
    for file in files:
        file.write_bytes(content)
    assert run(tmp_path / "cache") == [0, 0]


def test_without_any_folder_loops_are_compiled(run, tmp_path):
    for name in ("file", "__pycache__"):
        (tmp_path / name).write_bytes(b"")
    nowhere = str(tmp_path / "file")
    assert run(Path(nowhere), HOME=nowhere, XDG_CACHE_HOME=nowhere) == [0, 0]
    assert index_files(tmp_path) == []


@inlined
def _step(place: int) -> int:
    return 2 if place % 2 else 1


@kernel
def _increase(counts: np.ndarray, place: int) -> None:
    if place % 2:
        counts[place] += _step(place)
    else:
        counts[place] += 1


@kernel
def _increase_all(counts: np.ndarray) -> int:
    for place in range(counts.size):
        _increase(counts, place)
    return counts.size


def test_a_kernel_calls_kernels_and_changes_its_arrays() -> None:
    counts = np.zeros(4, np.int64)
    assert _increase_all(counts) == 4
    assert counts.tolist() == [1, 2, 1, 2]
    assert _increase_all.py_func(counts) == 4
    assert counts.tolist() == [2, 4, 2, 4]


@pytest.mark.parametrize("compiled", [_increase_all, _step])
def test_a_kernel_lets_go_of_the_lock_and_counts_no_references(compiled) -> None:
    assert compiled.targetoptions["nogil"]
    assert not compiled.targetoptions["_nrt"]


def test_only_what_is_inlined_is_made_part_of_its_callers() -> None:
    assert _step.targetoptions["forceinline"]
    assert not _increase.targetoptions.get("forceinline", False)
    assert (_step(3), _step.py_func(4)) == (2, 1)


def test_what_a_kernel_raises_comes_out_of_it() -> None:
    @inlined
    def _check(counts: np.ndarray) -> None:
        if counts.size:
            raise ValueError("too many")

    @kernel
    def _fail(counts: np.ndarray) -> None:
        _check(counts)

    assert _fail(np.zeros(0)) is None
    with pytest.raises(ValueError, match="too many"):
        _fail(np.zeros(1))
