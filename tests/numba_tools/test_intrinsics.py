from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tsstore.numba_tools import intrinsics
from tsstore.numba_tools.intrinsics import (
    array_at,
    compare_bucket,
    copy_from,
    count_trailing_zeros,
    item_at,
    load_word,
    sum_products,
    words_at,
)


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


@njit
def compiled_sums(data, at, row_bytes, addends, pairs):
    # Not cached, as those above and below.
    return sum_products(data, at, row_bytes, addends, pairs)


def row_and_addends(seed: int, row_bytes: int) -> tuple[np.ndarray, ...]:
    """Bytes with a row at place 3, and what is added to its words."""
    draw = np.random.default_rng(seed).integers
    addends = draw(0, 2**64 - 1, 6 + 2 * -(-row_bytes // 16), np.uint64, endpoint=True)
    return draw(0, 256, row_bytes + 7, np.uint8), addends


@pytest.mark.parametrize("row_bytes", [16, 17, 24, 31, 32, 33, 100, 256, 1000])
def test_products_of_half_words_are_summed_in_four_lanes(row_bytes: int) -> None:
    pairs = -(-row_bytes // 16)
    for seed in range(20):
        data, addends = row_and_addends(seed, row_bytes)
        sums = compiled_sums(data, 3, row_bytes, addends, pairs)
        with np.errstate(over="ignore"):
            expected = counting_cases.sum_products(data, 3, row_bytes, addends, pairs)
        assert sums == expected


def test_half_words_and_sums_wrap_around_by_themselves() -> None:
    # Halves stay 2**32 - 1 or become 0, whose carry the other half must not get.
    data, addends = np.full(64, 255, np.uint8), np.zeros(14, np.uint64)
    addends[8:] = 2**32 + 1
    sums = compiled_sums(data, 0, 64, addends, 4)
    square = (2**32 - 1) ** 2
    # Pairs of lanes 0, 2, 1 and 3 to which nothing is added, of two products each.
    assert [int(one) for one in sums] == [2 * n * square % 2**64 for n in (4, 2, 3, 1)]


def test_rows_are_summed_alike_where_the_order_of_bytes_is_another(monkeypatch) -> None:
    monkeypatch.setattr(intrinsics, "_LITTLE_ENDIAN", False)

    @njit
    def swapped(data, at, row_bytes, addends, pairs):
        return sum_products(data, at, row_bytes, addends, pairs)

    data, addends = row_and_addends(1, 57)
    turned = data.reshape(-1, 8)[:, ::-1].ravel()
    for at, row_bytes in ((0, 16), (8, 32), (0, 64), (16, 40)):
        pairs = -(-row_bytes // 16)
        expected = compiled_sums(data, at, row_bytes, addends, pairs)
        assert swapped(turned, at, row_bytes, addends, pairs) == expected


@njit
def compiled_compare(words, at, word):
    # Not cached, as those above and below.
    return compare_bucket(words, at, word)


@given(
    st.lists(st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**32]), min_size=8, max_size=30),
    st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**31]),
    st.data(),
)
def test_a_bucket_is_compared_with_a_word_and_with_zero(content, word, data) -> None:
    at = data.draw(st.integers(0, len(content) - 8))
    words = np.array(content, np.uint64)
    same, empty = compiled_compare(words, np.uint64(at), np.uint64(word))
    bucket = content[at : at + 8]
    assert int(same) == sum(1 << lane for lane in range(8) if bucket[lane] == word)
    assert int(empty) == sum(1 << lane for lane in range(8) if bucket[lane] == 0)
    plain = counting_cases.compare_bucket(words, np.uint64(at), np.uint64(word))
    assert plain == (same, empty)


@pytest.mark.parametrize("lane", range(8))
def test_each_word_of_a_bucket_has_a_bit_of_its_own(lane: int) -> None:
    words = np.arange(1, 17, dtype=np.uint64)
    words[8 + lane] = 0
    same, empty = compiled_compare(words, np.uint64(8), np.uint64(9 + (lane + 1) % 8))
    assert (int(same), int(empty)) == (1 << (lane + 1) % 8, 1 << lane)


@njit
def compiled_trailing_zeros(word):
    return count_trailing_zeros(word)


@given(words, st.integers(0, 63))
def test_zeros_below_the_lowest_bit_are_counted(word, shift) -> None:
    for own in (word, (word | 1) << shift & (2**64 - 1), 0, 1 << shift):
        expected = 64 if own == 0 else bin(own)[::-1].index("1")
        assert int(compiled_trailing_zeros(np.uint64(own))) == expected
        assert counting_cases.count_trailing_zeros(np.uint64(own)) == expected


@njit
def compiled_copy(address, array, at, count):
    copy_from(address, array, at, count)


KINDS = [np.uint8, np.uint16, np.uint32, np.uint64, np.int64]


@pytest.mark.parametrize("copy", [compiled_copy, counting_cases.copy_from])
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(("first", "at", "count"), [(0, 0, 20), (3, 2, 9), (5, 20, 0), (19, 0, 1)])
def test_items_are_copied_from_an_address(copy, dtype, first: int, at: int, count: int) -> None:
    source, array = np.arange(20, dtype=dtype), np.full((5, 4), 99, dtype)
    copy(source.ctypes.data + first * source.itemsize, array, at, count)
    expected = [99] * 20
    expected[at : at + count] = range(first, first + count)
    assert array.ravel().tolist() == expected
    assert source.tolist() == list(range(20))


def test_nothing_is_read_where_nothing_is_copied() -> None:
    array = np.arange(4, dtype=np.uint32)
    compiled_copy(0, array, 2, 0)
    assert array.tolist() == [0, 1, 2, 3]


@njit
def compiled_item(address, at, like):
    return item_at(address, at, like)


@pytest.mark.parametrize("item", [compiled_item, counting_cases.item_at])
@pytest.mark.parametrize("dtype", KINDS)
def test_an_item_at_an_address_has_the_kind_asked_for(item, dtype) -> None:
    largest = np.iinfo(dtype).max
    source = np.array([1, largest, np.iinfo(dtype).min, 7], dtype)
    like = np.empty((0, 3), dtype)
    for first, at in ((0, 0), (0, 1), (1, 1), (3, 0)):
        found = item(source[first:].ctypes.data, at, like)
        assert int(found) == int(source[first + at])


@njit
def compiled_row_sums(address, like):
    rows = array_at(address, like)
    return rows.shape, [rows[row].sum() for row in range(like.shape[0])]


def plain_sums(address, like):
    rows = counting_cases.array_at(address, like)
    return rows.shape, rows.sum(axis=1).tolist()


@pytest.mark.parametrize("sums", [compiled_row_sums, plain_sums])
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(3, 4), (12, 1), (1, 5)])
def test_an_array_at_an_address_is_like_another_one(sums, dtype, shape) -> None:
    source, like = np.arange(1, 21, dtype=dtype), np.zeros(shape, dtype)
    found, rows = sums(source[2:].ctypes.data, like)
    assert found == shape
    assert list(rows) == source[2 : 2 + like.size].reshape(shape).sum(axis=1).tolist()
    assert not like.any()
