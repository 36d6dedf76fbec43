from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tsstore.numba_tools.words import GOLDEN, splitmix, splitmix_words

WORD = 2**64


def expected(word: int) -> int:
    """The same in Python's own integers."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB % WORD
    return word ^ word >> 31


@given(st.lists(st.integers(0, WORD - 1), max_size=10))
def test_words_are_mixed_alike_one_by_one_and_as_an_array(words) -> None:
    array = np.array(words, np.uint64)
    mixed = [expected(word) for word in words]
    assert splitmix_words(array).tolist() == mixed
    assert [int(splitmix(word)) for word in array] == mixed


def test_the_first_numbers_of_the_generator_are_those_that_its_authors_give() -> None:
    # SplitMix64 from the seed 1234567.
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * GOLDEN
    assert splitmix_words(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
