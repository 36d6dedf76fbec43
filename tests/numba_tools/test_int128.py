from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tsstore.numba_tools.int128 import multiply_add

words = st.integers(0, 2**64 - 1)


@njit
def compiled(high, low, key_high, key_low, word):
    # Not cached, so that each run of the tests writes the instructions anew.
    return multiply_add(high, low, key_high, key_low, word)


@settings(deadline=None)
@given(words, words, words, words, words)
def test_multiply_add_is_arithmetic_modulo_2_to_the_128(high, low, key_high, key_low, word) -> None:
    upper, lower = compiled(*map(np.uint64, (high, low, key_high, key_low, word)))
    expected = ((high << 64) + low + ((key_high << 64) + key_low) * word) % 2**128
    assert (int(upper) << 64) + int(lower) == expected


def test_multiply_add_carries_across_all_words() -> None:
    most = np.uint64(2**64 - 1)
    upper, lower = compiled(most, most, most, most, most)
    assert (int(upper), int(lower)) == divmod((2**128 - 1) * 2**64 % 2**128, 2**64)
