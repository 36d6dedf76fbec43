from __future__ import annotations

import numpy as np
import pytest
from counting_cases import WIDTHS
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.hashing import (
    LONG_PROBE,
    PROBE_LIMIT,
    copy_key,
    is_same,
    slots_for,
    width_for,
    width_of,
)
from tsstore.numba_tools.decorators import kernel


@kernel
def compare(keys: np.ndarray, others: np.ndarray, width: tuple[None, ...]) -> int:
    """Return the number of rows that are equal in both."""
    equal = 0
    for row in range(keys.shape[0]):
        equal += is_same(keys, row, others, row, width)
    return equal


@kernel
def reverse(keys: np.ndarray, others: np.ndarray, width: tuple[None, ...]) -> None:
    last = keys.shape[0] - 1
    for row in range(keys.shape[0]):
        copy_key(keys, row, others, last - row, width)


@pytest.mark.parametrize(
    ("keys", "slots"), [(0, 2), (1, 2), (2, 4), (3, 8), (4, 8), (5, 16), (512, 1024), (513, 2048)]
)
def test_slots_are_the_smallest_power_of_two_that_stays_half_empty(keys: int, slots: int) -> None:
    assert slots_for(keys) == slots


def test_message_names_the_limit_and_a_way_out() -> None:
    assert str(PROBE_LIMIT) in LONG_PROBE
    assert "another seed" in LONG_PROBE


@pytest.mark.parametrize("words", WIDTHS)
def test_a_width_is_as_long_as_a_key(words: int) -> None:
    assert len(width_of(np.zeros((0, words), np.uint64))) == len(width_for(words)) == words


def test_widths_of_many_words_are_of_one_type_however_many() -> None:
    keys = np.zeros((3, 2000), np.uint64)
    reverse(keys, keys, width_for(9))
    before = list(reverse.signatures)
    others = keys.copy()
    others[1, 1999] = 1
    assert compare(keys, others, width_of(keys)) == 2
    reverse(others[:, :1500].copy(), keys, width_for(1500))
    assert reverse.signatures == before
    assert type(width_for(8)) is tuple


@pytest.mark.parametrize("words", WIDTHS)
def test_keys_are_equal_if_all_their_words_are(words: int) -> None:
    keys = np.arange(1, words + 1, dtype=np.uint64) * np.ones((words + 1, 1), np.uint64)
    others = keys.copy()
    for word in range(words):
        others[word, word] += np.uint64(2**63)
    assert compare(keys, others, width_of(keys)) == 1
    assert compare(keys, keys, width_of(keys)) == words + 1
    plain = [bool(is_same.py_func(keys, n, others, n, width_of(keys))) for n in range(words + 1)]
    assert plain == [False] * words + [True]


@given(st.integers(0, 2**32), st.sampled_from(WIDTHS), st.integers(0, 20), st.integers(0, 2))
def test_copies_fill_the_first_columns_of_any_table(seed, words, count, further) -> None:
    keys = np.random.default_rng(seed).integers(0, 2**64, (count, words), np.uint64)
    table = np.full((count, words + further), 7, np.uint64)
    reverse(keys, table, width_of(keys))
    assert np.array_equal(table[:, :words], keys[::-1])
    assert (table[:, words:] == 7).all()
    plain = np.full_like(table, 7)
    for row in range(count):
        copy_key.py_func(keys, row, plain, count - 1 - row, width_of(keys))
    assert np.array_equal(plain, table)
