from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from counting_cases import WIDTHS, random_records, rows_of, totals_by_group
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting import partition as module
from tsstore.counting.partition import (
    LEAST_PREFIX_BITS,
    SUBPARTITION_RECORDS,
    Parts,
    most_records,
    scatter,
    subpartition_bits,
    subpartition_table_bytes,
    subpartitions,
)
from tsstore.counting.records import Buffers, Records
from tsstore.counting.tables.grouped_parts import GroupedParts
from tsstore.counting.tables.packed import PackedParts
from tsstore.counting.tables.spectra import small_bytes


def numbered(
    seed: int, count: int, words: int, bare: bool, grouped: bool, prefix_bits: int = 0
) -> Records:
    """Records whose last word, counts and group tell their order."""
    generator = np.random.default_rng(seed)
    keys = generator.integers(0, 2**64, (count, words), np.uint64)
    keys[:, 0] >>= np.uint64(prefix_bits)
    numbers = np.arange(1, count + 1, dtype=np.uint32)
    if words > 1:
        keys[:, -1] = numbers
    counts = (None, None) if bare else (numbers, numbers[::-1].copy())
    return Records(keys, *counts, (numbers % 251).astype(np.uint8) if grouped else None)


def shares(*kinds: Parts) -> list[tuple[Records, ...]]:
    """The records of each kind of each subpartition."""
    return [tuple(kind.of(part) for kind in kinds) for part in range(len(kinds[0]))]


def assert_scattered(
    pieces: list[Records], bits: int, skipped_bits: int = 0, buffers: Buffers | None = None
) -> Records:
    """Compare with a stable sort by the bits; return the records."""
    scattered, offsets = scatter(pieces, bits, skipped_bits, buffers)
    rows = [row for piece in pieces for row in rows_of(piece)]

    def partition_of(row: tuple) -> int:
        return (row[0][0] << skipped_bits) % 2**64 >> 64 - bits

    assert rows_of(scattered) == sorted(rows, key=partition_of)
    assert offsets.dtype == np.int64
    partitions = np.array([partition_of(row) for row in rows], np.int64)
    counts = np.bincount(partitions, minlength=2**bits)
    assert offsets.tolist() == [0, *np.cumsum(counts).tolist()]
    assert scattered.is_bare == pieces[0].is_bare
    assert (scattered.group is None) == (pieces[0].group is None)
    return scattered


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 80), min_size=1, max_size=4),
    st.integers(0, 12),
    st.sampled_from([0, 1, 8, 40]),
    st.sampled_from(WIDTHS),
    st.booleans(),
    st.booleans(),
)
def test_scatter_is_a_stable_sort_of_all_pieces(
    seed, counts, bits, skipped_bits, words, bare, grouped
) -> None:
    pieces = [numbered(seed + n, count, words, bare, grouped) for n, count in enumerate(counts)]
    assert_scattered(pieces, bits, skipped_bits)


@pytest.mark.parametrize("hash_word", [0, 2**64 - 1, 2**63])
@pytest.mark.parametrize("words", WIDTHS)
def test_all_records_may_fall_into_one_partition(hash_word: int, words: int) -> None:
    keys = np.full((50, words), hash_word, np.uint64)
    keys[:, 1:] = np.arange(50)[:, None]
    assert_scattered([Records(keys)], 6)
    scattered, offsets = scatter([Records(keys)], 6)
    assert np.array_equal(scattered.keys, keys)
    assert np.count_nonzero(np.diff(offsets)) == 1


@pytest.mark.parametrize("skipped_bits", [0, 1, 40, 64])
def test_no_bits_copy_a_single_piece_and_join_several(skipped_bits: int) -> None:
    one, other = (numbered(seed, 7, 2, bare=False, grouped=True) for seed in (1, 2))
    scattered, offsets = scatter([one], 0, skipped_bits)
    assert rows_of(scattered) == rows_of(one)
    assert not np.shares_memory(scattered.keys, one.keys)
    assert offsets.tolist() == [0, 7]
    assert offsets.dtype == np.int64
    joined, offsets = scatter([one, other], 0, skipped_bits)
    assert rows_of(joined) == rows_of(one) + rows_of(other)
    assert offsets.tolist() == [0, 14]


def test_the_last_bits_of_a_hash_can_be_ordered_by() -> None:
    keys = np.array([[3], [2], [1], [0], [3]], np.uint64)
    scattered, offsets = scatter([Records(keys)], 2, 62)
    assert scattered.keys.ravel().tolist() == [0, 1, 2, 3, 3]
    assert offsets.tolist() == [0, 1, 2, 3, 5]


def test_scatter_leaves_its_input_alone() -> None:
    records = numbered(2, 100, 1, bare=True, grouped=False)
    keys = records.keys.copy()
    records.keys.setflags(write=False)
    scattered, _ = scatter([records], 4)
    assert np.array_equal(records.keys, keys)
    assert not np.shares_memory(scattered.keys, records.keys)


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.booleans(), st.booleans(), st.sampled_from(WIDTHS)),
        max_size=6,
    )
)
def test_what_buffers_held_before_changes_nothing(kinds) -> None:
    buffers = Buffers()
    for seed, (count, bare, grouped, words) in enumerate(kinds):
        assert_scattered([numbered(seed, count, words, bare, grouped)] * 2, 4, 0, buffers)


def test_records_lie_in_buffers_until_the_next_ones_of_their_kind() -> None:
    buffers = Buffers()
    bare, counted = (numbered(1, 50, 2, kind, grouped=True) for kind in (True, False))
    first, others = (assert_scattered([kind], 3, 0, buffers) for kind in (bare, counted))
    rows = rows_of(others)
    again = assert_scattered([bare[:40]], 3, 0, buffers)
    assert np.shares_memory(first.keys, again.keys)
    assert np.shares_memory(first.group, again.group)
    assert rows_of(others) == rows


@pytest.mark.parametrize(("bits", "skipped_bits"), [(-1, 0), (25, 0), (5, 60), (1, 64)])
def test_wrong_bits_are_refused(bits: int, skipped_bits: int) -> None:
    message = f"{bits} bits to scatter by after {skipped_bits}; expected 0 to 24, within the hash"
    with pytest.raises(ValueError, match=message):
        scatter([Records.empty(1)], bits, skipped_bits)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("bare", [False, True])
def test_kernels_run_as_plain_python_with_the_same_result(words, bare, monkeypatch) -> None:
    counting_cases.run_as_plain_python(monkeypatch, module)
    for grouped in (False, True):
        pieces = [numbered(seed, 30, words, bare, grouped) for seed in (3, 4)]
        assert_scattered(pieces, 3)
        assert_scattered(pieces, 2, 62)


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(0, 8),
    st.sampled_from([1, 8, 1 << 16]),
    st.sampled_from(WIDTHS),
    st.booleans(),
)
def test_shares_make_up_the_partition_and_share_their_first_bits(
    seed, counts, partition_bits, subpartition_records, words, grouped
) -> None:
    pieces = [
        random_records(
            seed + n, count, 50, words, bare=n % 2 == 0, groups=3 * grouped,
            prefix_bits=partition_bits,
        )
        for n, count in enumerate(counts)
    ]  # fmt: skip
    bits = subpartition_bits(sum(counts), partition_bits, subpartition_records)
    found = shares(*subpartitions(pieces, words, partition_bits, bits, grouped))
    prefix_bits = partition_bits + bits
    assert len(found) == 2 ** (prefix_bits - partition_bits)
    assert totals_by_group(piece for share in found for piece in share) == totals_by_group(pieces)
    for number, share in enumerate(found):
        assert [piece.is_bare for piece in share] == [True, False]
        for piece in share:
            assert {key[0] >> 64 - prefix_bits for key, *_ in rows_of(piece)} <= {number}
            assert (piece.group is not None) == grouped
            assert piece.words == words


@pytest.mark.parametrize("grouped", [False, True])
def test_partitions_that_share_buffers_are_divided_as_others_are(grouped: bool) -> None:
    buffers = Buffers()
    for count in (100, 0, 300, 7):
        pieces = [
            random_records(count, count, 50, 2, bare=n != 1, groups=3 * grouped, prefix_bits=4)
            for n in range(3)
        ]
        own, expected = (
            [
                tuple(map(rows_of, share))
                for share in shares(*subpartitions(pieces, 2, 4, 3, grouped, memory))
            ]
            for memory in (buffers, None)
        )
        assert own == expected
        assert sum(len(rows) for share in own for rows in share) == 3 * count


def test_no_pieces_give_empty_shares() -> None:
    found = shares(*subpartitions([], 2, 3, subpartition_bits(0, 3, 8), 1))
    assert len(found) == 2 ** (LEAST_PREFIX_BITS - 3)
    assert all(len(piece) == 0 and piece.group is not None for share in found for piece in share)


@pytest.mark.parametrize("partition_bits", range(9))
def test_a_share_has_room_for_counts_and_about_as_many_records_as_wished(partition_bits) -> None:
    for records in (0, 1, 1000, 10**5, 10**7):
        bits = subpartition_bits(records, partition_bits, 1000)
        assert partition_bits + bits >= LEAST_PREFIX_BITS
        assert records <= 1000 * 2**bits or bits == 12
        least = max(0, LEAST_PREFIX_BITS - partition_bits)
        assert bits == least or records > 1000 * 2 ** (bits - 1)
    assert subpartition_bits(2**40, partition_bits) == 12


def test_bits_grow_when_shares_are_full() -> None:
    assert [subpartition_bits(records, 6, 8) for records in (8, 9, 16, 17, 32, 33)] == [
        0,
        1,
        1,
        2,
        2,
        3,
    ]
    assert subpartition_bits(SUBPARTITION_RECORDS, 6) == 0
    assert subpartition_bits(SUBPARTITION_RECORDS + 1, 6) == 1


def test_a_share_is_large_beyond_twice_what_it_is_to_have() -> None:
    assert most_records(8) == 16


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("records", [1 << 14, 11_111])
def test_the_tables_of_a_full_share_take_no_more_bytes_than_said(words: int, records: int) -> None:
    table = PackedParts(words, 6, most_records(records))
    assert 0 <= subpartition_table_bytes(words, 0, records) - table.nbytes < 48 * words * records


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize(("groups", "sets"), [(7, 0), (7, 3), (300, 0)])
def test_tables_by_group_take_no_more_bytes_than_said(words: int, groups: int, sets: int) -> None:
    said = subpartition_table_bytes(words, groups, 1 << 14, sets)
    table = GroupedParts(words, groups, sets, most_records(1 << 14))
    changes = 5 if sets else 2
    handed_on = 24 * changes * most_records(1 << 14)
    # Bare records and others are in order in arrays of their own, and no more than all of them.
    ordered = 8 * words * most_records(1 << 14)
    assert 0 <= said + ordered - table.nbytes - handed_on < 20 * most_records(1 << 14)
    assert subpartition_table_bytes(words, groups + 1, 8) - subpartition_table_bytes(
        words, groups, 8
    ) == small_bytes(groups + 1, 0) - small_bytes(groups, 0) + 16 * (groups == 255)
