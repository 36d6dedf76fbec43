from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting import by_group as module
from tsstore.counting.by_group import numbers_by_group

GROUPS = 4
samples = st.lists(st.tuples(st.integers(0, 5), st.integers(0, GROUPS - 1)), max_size=30)


def arrays(drawn: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    positions = np.array([rows for rows, _ in drawn], np.int64)
    return positions, np.array([group for _, group in drawn], np.uint8)


def check_numbers(positions: np.ndarray, group: np.ndarray) -> None:
    numbers = numbers_by_group(positions, group, GROUPS)
    assert numbers.dtype == np.int64
    assert numbers.shape == (3, GROUPS)
    for own in range(GROUPS):
        rows = positions[group == own].tolist()
        pairs = sum(count * (count - 1) // 2 for count in rows)
        assert numbers[:, own].tolist() == [len(rows), sum(rows), pairs]


@given(samples)
def test_samples_rows_and_pairs_are_counted_as_by_sums(drawn) -> None:
    check_numbers(*arrays(drawn))


def test_pairs_of_a_large_sample_do_not_overflow_32_bits() -> None:
    numbers = numbers_by_group(np.array([2**31]), np.zeros(1, np.uint8), 1)
    assert numbers[:, 0].tolist() == [1, 2**31, 2**30 * (2**31 - 1)]


def test_all_groups_there_can_be_are_counted() -> None:
    numbers = numbers_by_group(np.full(256, 3), np.arange(256, dtype=np.uint8), 256)
    assert numbers.tolist() == [[1] * 256, [3] * 256, [3] * 256]


def test_groups_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="2 samples of groups 0 to 3; expected 2 samples of 3"):
        numbers_by_group(np.array([1, 1]), np.array([0, 3], np.uint8), 3)
    with pytest.raises(ValueError, match="1 samples of groups 0 to 0; expected 2 samples"):
        numbers_by_group(np.array([1, 1]), np.array([0], np.uint8), 3)


def test_kernels_run_as_plain_python_with_the_same_result(monkeypatch) -> None:
    counting_cases.run_as_plain_python(monkeypatch, module)
    check_numbers(*arrays([(2, 1), (0, 3), (5, 0), (1, 1), (3, 0)]))
    assert not hasattr(module._add_up, "py_func")
