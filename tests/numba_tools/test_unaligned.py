from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tsstore.numba_tools import unaligned
from tsstore.numba_tools.unaligned import load_word


@njit
def compiled(data, at):
    # Not cached, so that each run of the tests writes the instructions anew.
    return load_word(data, at)


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=40), st.data())
def test_a_word_is_the_little_endian_number_in_eight_bytes(content, data) -> None:
    at = data.draw(st.integers(0, len(content) - 8))
    word = compiled(np.frombuffer(content, np.uint8), at)
    assert int(word) == int.from_bytes(content[at : at + 8], "little")


def test_a_word_begins_where_the_array_does() -> None:
    buffer = np.arange(32, dtype=np.uint8)
    for offset in range(16):
        words = [int(compiled(buffer[offset:], at)) for at in range(9)]
        assert words == [
            int.from_bytes(bytes(range(offset + at, offset + at + 8)), "little") for at in range(9)
        ]


@pytest.mark.parametrize("bit", [0, 7, 8, 62, 63])
def test_all_bits_are_there_and_the_word_is_unsigned(bit: int) -> None:
    word = compiled(np.frombuffer((1 << bit).to_bytes(8, "little"), np.uint8), 0)
    assert int(word) == 1 << bit


def test_machines_with_the_other_order_of_bytes_swap_them(monkeypatch) -> None:
    monkeypatch.setattr(unaligned, "_LITTLE_ENDIAN", False)

    @njit
    def swapped(data, at):
        return load_word(data, at)

    assert int(swapped(np.arange(9, dtype=np.uint8), 1)) == 0x0102030405060708
