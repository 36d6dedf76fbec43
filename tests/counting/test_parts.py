"""Subpartitions in pieces with numbers of samples, with tags and with counts."""

from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    equal_pairs_of,
    mixed,
    random_records,
    rows_of,
    tagged,
    totals_by_group,
)
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting import partition as partition_module
from tsstore.counting import parts as module
from tsstore.counting.arena import Arena
from tsstore.counting.hashing import width_for
from tsstore.counting.partition import (
    restore_hashes,
    scatter,
    scatter_rows,
    subpartition_bits,
)
from tsstore.counting.parts import (
    PartPiece,
    Parts,
    count_part,
    divide_rows,
    gather_part,
    subpartitions,
    tag_rows,
)
from tsstore.counting.records import Buffers, Records, SampleKeys, group_dtype

seeds = st.integers(0, 2**32)
WAYS = {"tagged": tag_rows, "divided": divide_rows}


def random_rows(
    seed: int, count: int, samples: int, words: int, groups: int = 0, distinct: int = 30
) -> SampleKeys:
    """Rows of so many samples, of all sizes, with all bits of the hash."""
    generator = np.random.default_rng(seed)
    ends = np.sort(generator.integers(0, count + 1, max(samples, 1)))
    ends[-1] = count
    keys = mixed(np.arange(distinct), words, 0)[generator.integers(0, distinct, count)]
    group = generator.integers(0, groups, len(ends)) if groups else None
    return SampleKeys(keys, ends, None if group is None else group.astype(group_dtype(groups)))


def joined(records: list[Records]) -> Records:
    """Bare records of several pieces as one."""
    keys = np.concatenate([piece.keys for piece in records])
    if records[0].group is None:
        return Records(keys)
    return Records(keys, group=np.concatenate([piece.group for piece in records]))


def same(one: Records, other: Records) -> bool:
    return all(
        (own is None) == (others is None) and (own is None or np.array_equal(own, others))
        for own, others in zip(one.columns, other.columns, strict=True)
    )


def gathered(parts: Parts, part: int, kind: Records) -> Records:
    """The records of a subpartition as loops have them, of the kind of some others."""
    count = int(count_part(parts.columns, part))
    room = Records.empty(kind.words, kind.is_bare, kind.group_bytes, count + 2)
    keys, multiplicity, incidence, group = room.columns
    keys[:] = 7
    found = gather_part(
        parts.columns, part, keys, multiplicity, incidence, group, width_for(kind.words)
    )
    assert int(found) == count
    assert (keys[count:] == 7).all()
    return room[:count]


def check_parts(parts: Parts, expected: list[list[Records]], kind: Records) -> None:
    """Compare all ways to the records of each subpartition with those that are expected."""
    assert len(parts) == len(expected)
    for part, pieces in enumerate(expected):
        of = parts.of(part)
        assert len(of) == len(pieces)
        assert all(map(same, of, pieces))
        if kind.is_bare:
            whole = joined(pieces) if pieces else Records.empty(kind.words, True, kind.group_bytes)
        else:
            whole = scatter(pieces or [kind[:0]], 0)[0]
        assert same(gathered(parts, part, kind), whole)


def check_rows(blocks: list[tuple[str, SampleKeys]], bits: int) -> None:
    """Compare parts of blocks, each divided in its way, with rows that were scattered."""
    pieces = [WAYS[way](rows, bits) for way, rows in blocks]
    expected = [[] for _ in range(1 << bits)]
    for _, rows in blocks:
        records, offsets = scatter_rows(rows, bits)
        for part, own in enumerate(expected):
            own.append(records[offsets[part] : offsets[part + 1]])
    words = blocks[0][1].keys.shape[1]
    kind = Records.empty(words, True, blocks[0][1].group_bytes)
    check_parts(Parts(pieces, bits), expected, kind)


@given(
    seeds,
    st.lists(
        st.tuples(st.sampled_from(sorted(WAYS)), st.integers(0, 80), st.integers(0, 20)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 6),
    st.sampled_from(WIDTHS),
    st.sampled_from([0, 1, 3, 300]),
)
def test_pieces_of_all_ways_give_the_same_records(seed, blocks, bits, words, groups) -> None:
    rows = [
        (way, random_rows(seed + n, count, samples, words, groups))
        for n, (way, count, samples) in enumerate(blocks)
    ]
    check_rows(rows, bits)


@pytest.mark.parametrize("bits", [1, 2, 6, 9])
@pytest.mark.parametrize("groups", [0, 3])
def test_samples_have_numbers_as_long_as_the_bits_can_tell(bits: int, groups: int) -> None:
    for samples, is_numbered in ((1 << bits, True), ((1 << bits) + 1, False)):
        rows = random_rows(1, 3 * samples, samples, 2, groups)
        piece = divide_rows(rows, bits)
        assert piece.is_numbered == is_numbered
        assert (piece.group_of is not None) == (is_numbered and groups > 0)
        assert (piece.records.group is not None) == (not is_numbered and groups > 0)
        check_rows([("divided", rows)], bits)
    assert not divide_rows(SampleKeys(rows.keys), bits).is_numbered


def test_samples_of_one_row_each_have_tags() -> None:
    rows = SampleKeys(mixed(np.arange(40) % 7, 2, 0), None, (np.arange(40) % 3).astype(np.uint8))
    check_rows([("divided", rows), ("tagged", rows)], 4)


@pytest.mark.parametrize("way", WAYS)
def test_divided_rows_keep_their_equal_pairs_and_their_hashes(way: str) -> None:
    rows = random_rows(3, 600, 30, 2, 4)
    parts = Parts([WAYS[way](rows, 5)], 5)
    of = [parts.of(part)[0] for part in range(len(parts))]
    whole = tagged(rows.keys, np.diff(rows.ends, prepend=0), rows.group)
    assert totals_by_group(of) == totals_by_group([whole])
    assert equal_pairs_of(of, 4) == equal_pairs_of([whole], 4)
    restored = np.concatenate(
        [restore_hashes(records.keys, part, 5) for part, records in enumerate(of)]
    )
    assert sorted(restored.tolist()) == sorted(rows.keys.tolist())


@given(
    seeds,
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(1, 5),
    st.sampled_from(WIDTHS),
    st.sampled_from([0, 3]),
)
def test_records_with_counts_are_gathered_piece_after_piece(
    seed, counts, bits, words, groups
) -> None:
    records = [
        random_records(seed + n, count, 40, words, groups=groups, prefix_bits=0)
        for n, count in enumerate(counts)
    ]
    pieces = [PartPiece(*scatter([piece], bits)) for piece in records]
    expected = [[] for _ in range(1 << bits)]
    for scattered, ends, *_ in pieces:
        for part, own in enumerate(expected):
            own.append(scattered[ends[part] : ends[part + 1]])
    kind = Records.empty(words, False, groups > 0)
    check_parts(Parts(pieces, bits), expected, kind)


def test_no_pieces_are_subpartitions_without_records() -> None:
    check_parts(Parts([], 3), [[] for _ in range(8)], Records.empty(2, True, 1))
    check_parts(Parts([], 0), [[]], Records.empty(1, False, 1))


def test_memory_of_an_arena_is_kept_while_the_parts_are() -> None:
    arena = Arena()
    rows = random_rows(1, 40_000, 500, 2, 3, 900)
    for way in WAYS.values():
        parts = Parts([way(rows, 9, arena.empty)], 9)
        expected = Parts([way(rows, 9)], 9)
        columns = parts.columns
        for part in range(len(parts)):
            other = arena.empty((40_000, 2), np.uint64)
            other[:] = 9
            assert same(parts.of(part)[0], expected.of(part)[0])
        assert columns is parts.columns
        del parts, columns


# a partition in memory ---------------------------------------------------------------------


@given(
    seeds,
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(1, 8),
    st.sampled_from([1, 8, 1 << 16]),
    st.sampled_from(WIDTHS),
    st.booleans(),
)
def test_subpartitions_make_up_the_partition_and_share_their_first_bits(
    seed, counts, partition_bits, subpartition_records, words, grouped
) -> None:
    pieces = [
        random_records(
            seed + n, count, 50, words, bare=n % 2 == 0, groups=3 * grouped,
            prefix_bits=partition_bits,
        )
        for n, count in enumerate(counts)
    ]  # fmt: skip
    bits = subpartition_bits(sum(counts), subpartition_records)
    kinds = subpartitions(pieces, partition_bits, bits)
    assert list(map(len, kinds)) == [1 << bits] * 2
    found = [[piece for kind in kinds for piece in kind.of(part)] for part in range(1 << bits)]
    whole = [piece for share in found for piece in share]
    assert totals_by_group(whole) == totals_by_group(pieces)
    assert equal_pairs_of(whole, 3) == equal_pairs_of(pieces, 3)
    for number, share in enumerate(found):
        for piece in share:
            keys = {key[0] >> 64 - partition_bits - bits for key, *_ in rows_of(piece)}
            assert keys <= {number}
            assert (piece.group is not None) == grouped
            assert piece.words == words
    for kind, is_bare in zip(kinds, (True, False), strict=True):
        assert all(piece.is_bare == is_bare for part in range(1 << bits) for piece in kind.of(part))


@pytest.mark.parametrize("grouped", [False, True])
def test_partitions_that_share_buffers_are_divided_as_others_are(grouped: bool) -> None:
    buffers = Buffers()
    for count in (100, 0, 300, 7):
        pieces = [
            random_records(count, count, 50, 2, bare=n != 1, groups=3 * grouped, prefix_bits=4)
            for n in range(3)
        ]
        own, expected = (
            [[rows_of(piece) for kind in kinds for piece in kind.of(part)] for part in range(8)]
            for kinds in (subpartitions(pieces, 4, 3, memory) for memory in (buffers, None))
        )
        assert own == expected
        assert sum(len(rows) for share in own for rows in share) == 3 * count


# kernels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("groups", [0, 3, 300])
def test_kernels_run_as_plain_python_with_the_same_result(words, groups, monkeypatch) -> None:
    rows = [random_rows(seed, 40, 4, words, groups) for seed in range(2)]
    compiled = [
        [records for part in range(4) for records in Parts([way(own, 2)], 2).of(part)]
        for way in WAYS.values()
        for own in rows
    ]
    counting_cases.run_as_plain_python(monkeypatch, module, partition_module)
    for name in ("count_part", "gather_part"):
        monkeypatch.setitem(globals(), name, getattr(module, name))
    with np.errstate(over="ignore"):
        plain = [
            [records for part in range(4) for records in Parts([way(own, 2)], 2).of(part)]
            for way in WAYS.values()
            for own in rows
        ]
        for one, other in zip(plain, compiled, strict=True):
            assert all(map(same, one, other))
        check_rows(list(zip(("tagged", "divided"), rows, strict=True)), 2)
        counted = random_records(1, 40, 20, words, groups=min(groups, 3), prefix_bits=0)
        if groups < 300:
            scattered, ends = scatter([counted], 2)
            expected = [[scattered[ends[part] : ends[part + 1]]] for part in range(4)]
            check_parts(Parts([PartPiece(scattered, ends)], 2), expected, counted[:0])
