from __future__ import annotations

import pytest
from counting_cases import WIDTHS, random_records, rows_of, totals_by_group
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.buffers import Buffers
from tsstore.counting.records import Records
from tsstore.counting.shares import (
    LEAST_PREFIX_BITS,
    SHARE_RECORDS,
    is_large,
    share_bits,
    share_table_bytes,
    shares,
)
from tsstore.counting.tables.grouped import GroupedTable
from tsstore.counting.tables.packed import PackedTable
from tsstore.counting.tables.singletons import AloneFilter


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(0, 8),
    st.sampled_from([1, 8, 1 << 16]),
    st.sampled_from(WIDTHS),
    st.booleans(),
)
def test_shares_make_up_the_partition_and_share_their_first_bits(
    seed, counts, partition_bits, share_records, words, grouped
) -> None:
    pieces = [
        random_records(
            seed + n, count, 50, words, bare=n % 2 == 0, groups=3 * grouped,
            prefix_bits=partition_bits,
        )
        for n, count in enumerate(counts)
    ]  # fmt: skip
    bits = share_bits(sum(counts), partition_bits, share_records)
    found = list(shares(pieces, words, partition_bits, bits, grouped))
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
            [tuple(map(rows_of, share)) for share in shares(pieces, 2, 4, 3, grouped, memory)]
            for memory in (buffers, None)
        )
        assert own == expected
        assert sum(len(rows) for share in own for rows in share) == 3 * count


def test_no_pieces_give_empty_shares() -> None:
    found = list(shares([], 2, 3, share_bits(0, 3, 8), grouped=True))
    assert len(found) == 2 ** (LEAST_PREFIX_BITS - 3)
    assert all(len(piece) == 0 and piece.group is not None for share in found for piece in share)


@pytest.mark.parametrize("partition_bits", range(9))
def test_a_share_has_room_for_counts_and_about_as_many_records_as_wished(partition_bits) -> None:
    for records in (0, 1, 1000, 10**5, 10**7):
        bits = share_bits(records, partition_bits, 1000)
        assert partition_bits + bits >= LEAST_PREFIX_BITS
        assert records <= 1000 * 2**bits or bits == 12
        least = max(0, LEAST_PREFIX_BITS - partition_bits)
        assert bits == least or records > 1000 * 2 ** (bits - 1)
    assert share_bits(2**40, partition_bits) == 12


def test_bits_grow_when_shares_are_full() -> None:
    assert [share_bits(records, 6, 8) for records in (8, 9, 16, 17, 32, 33)] == [0, 1, 1, 2, 2, 3]
    assert share_bits(SHARE_RECORDS, 6) == 0
    assert share_bits(SHARE_RECORDS + 1, 6) == 1


def test_a_share_is_large_beyond_twice_what_it_is_to_have() -> None:
    assert not is_large(16, 8)
    assert is_large(17, 8)


@pytest.mark.parametrize("words", WIDTHS)
def test_the_tables_of_a_full_share_take_no_more_bytes_than_said(words: int) -> None:
    share_records = 1 << 14
    bare = random_records(1, 2 * share_records, 10**7, words, bare=True, prefix_bits=6)
    none = Records.empty(words, bare=False)
    alone, table = AloneFilter(words), PackedTable(words, 6)
    left = alone.part(bare, none)
    table.add(bare.keys, None)  # as if nothing had been settled
    tables = alone._marks.nbytes + alone._left.nbytes + 3 * table._slots.nbytes // 2
    assert tables <= share_table_bytes(words, 0, share_records)
    assert len(left) < len(bare)


@pytest.mark.parametrize("words", WIDTHS)
def test_tables_by_group_take_no_more_bytes_than_said(words: int) -> None:
    share_records, groups = 1 << 12, 7
    pieces = [random_records(n, share_records, 2000, words, groups=groups) for n in (1, 2)]
    table = GroupedTable(words, groups, 1 << 20)
    assert all(map(table.add, pieces))
    assert table.nbytes <= share_table_bytes(words, groups, share_records)
    assert share_table_bytes(words, groups + 1, 8) - share_table_bytes(words, groups, 8) == 1 << 15
