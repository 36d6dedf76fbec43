from __future__ import annotations

import numpy as np
import pytest

from tsstore.counting.kernels import kernel


@kernel
def _increase(counts: np.ndarray, place: int) -> None:
    if place % 2:
        counts[place] += 2
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


def test_a_kernel_lets_go_of_the_lock_and_counts_no_references() -> None:
    assert _increase_all.targetoptions["nogil"]
    assert not _increase_all.targetoptions["_nrt"]


def test_what_a_kernel_raises_comes_out_of_it() -> None:
    @kernel
    def _fail(counts: np.ndarray) -> None:
        if counts.size:
            raise ValueError("too many")

    assert _fail(np.zeros(0)) is None
    with pytest.raises(ValueError, match="too many"):
        _fail(np.zeros(1))
