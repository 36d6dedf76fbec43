from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tsstore.numba_tools import intrinsics
from tsstore.numba_tools.intrinsics import load_word, multiply_add, words_at


def total(address, count, like):
    words = words_at(address, count, like)
    result = 0
    for index in range(words.size):
        result += words[index]
    words[0] = 9
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("total", [total, njit(total)])
def test_what_lies_at_an_address_is_the_memory_itself(total, dtype):
    memory = np.arange(2, 22, dtype=dtype)
    assert total(memory[3:].ctypes.data, 10, dtype(0)) == sum(range(5, 15))
    assert memory[3] == 9
    assert (memory[:3].tolist(), memory[4:].tolist()) == ([2, 3, 4], list(range(6, 22)))


def test_numbers_at_an_address_have_the_type_asked_for():
    memory = np.arange(8, dtype=np.uint8)
    words = words_at(memory.ctypes.data, 2, np.uint32(0))
    assert (words.dtype, words.shape) == (np.uint32, (2,))
    assert words.tobytes() == memory.tobytes()
    assert np.shares_memory(words, memory)


words = st.integers(0, 2**64 - 1)


@njit
def compiled_multiply_add(high, low, key_high, key_low, word):
    # Not cached, so that each run of the tests writes the instructions anew.
    return multiply_add(high, low, key_high, key_low, word)


@settings(deadline=None)
@given(words, words, words, words, words)
def test_multiply_add_is_arithmetic_modulo_2_to_the_128(high, low, key_high, key_low, word) -> None:
    upper, lower = compiled_multiply_add(*map(np.uint64, (high, low, key_high, key_low, word)))
    expected = ((high << 64) + low + ((key_high << 64) + key_low) * word) % 2**128
    assert (int(upper) << 64) + int(lower) == expected


def test_multiply_add_carries_across_all_words() -> None:
    most = np.uint64(2**64 - 1)
    upper, lower = compiled_multiply_add(most, most, most, most, most)
    assert (int(upper), int(lower)) == divmod((2**128 - 1) * 2**64 % 2**128, 2**64)


@njit
def compiled_load(data, at):
    # Not cached, so that each run of the tests writes the instructions anew.
    return load_word(data, at)


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=40), st.data())
def test_a_word_is_the_little_endian_number_in_eight_bytes(content, data) -> None:
    at = data.draw(st.integers(0, len(content) - 8))
    word = compiled_load(np.frombuffer(content, np.uint8), at)
    assert int(word) == int.from_bytes(content[at : at + 8], "little")


def test_a_word_begins_where_the_array_does() -> None:
    buffer = np.arange(32, dtype=np.uint8)
    for offset in range(16):
        words = [int(compiled_load(buffer[offset:], at)) for at in range(9)]
        assert words == [
            int.from_bytes(bytes(range(offset + at, offset + at + 8)), "little") for at in range(9)
        ]


@pytest.mark.parametrize("bit", [0, 7, 8, 62, 63])
def test_all_bits_are_there_and_the_word_is_unsigned(bit: int) -> None:
    word = compiled_load(np.frombuffer((1 << bit).to_bytes(8, "little"), np.uint8), 0)
    assert int(word) == 1 << bit


def test_machines_with_the_other_order_of_bytes_swap_them(monkeypatch) -> None:
    monkeypatch.setattr(intrinsics, "_LITTLE_ENDIAN", False)

    @njit
    def swapped(data, at):
        return load_word(data, at)

    assert int(swapped(np.arange(9, dtype=np.uint8), 1)) == 0x0102030405060708
