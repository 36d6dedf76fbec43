from __future__ import annotations

from dataclasses import replace

import counting_cases
import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    as_counter,
    changes_as_counter,
    changes_by_set,
    changes_of,
    crafted,
    equal_pairs_of,
    mixed,
    of_each_shape,
    random_records,
    spectrum_of,
    tagged,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting.partition import MOST_RECORDS, scatter
from tsstore.counting.parts import PartPiece, Parts, divide_rows, subpartitions, tag_rows
from tsstore.counting.records import Buffers, Records, SampleKeys, group_dtype
from tsstore.counting.tables import grouped_parts
from tsstore.counting.tables import spectra as delta_module
from tsstore.counting.tables.aggregate import Counted, aggregate_gathered, aggregate_parts
from tsstore.counting.tables.grouped_parts import GroupedParts
from tsstore.counting.tables.spectra import DeltaEntries, DeltaTally, Tally, count_spectra
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)


def compare(found: Counted, pieces: list[Records], groups: int, sets: int = 0) -> None:
    """Compare what has been counted of records with dictionaries."""
    spectrum, pairs, delta = found
    assert as_counter(spectrum) == spectrum_of(pieces)
    assert pairs.dtype == np.int64
    assert pairs.tolist() == equal_pairs_of(pieces, groups * (sets + 1))
    assert len(delta.ends) == count_spectra(groups, sets)
    spectra = changes_as_counter(delta)
    expected = changes_by_set(pieces, groups, sets) if sets else changes_of(pieces)
    if sets and groups == 1:  # Of which none is left out.
        spectra, expected = (
            {cell: n for cell, n in own.items() if cell[0] > 0 and cell[0] % 2 == 0}
            for own in (spectra, expected)
        )
    assert spectra == expected


def check_gathered(
    pieces: list[Records], words: int, groups: int, partition_bits: int = 1, slots: int = 64,
    share: int = 1 << 16, buffers: Buffers | None = None, sets: int = 0,
) -> None:  # fmt: skip
    slots = max(slots, 8 * groups * (sets + 1))
    found = aggregate_gathered(pieces, words, partition_bits, slots, share, buffers, groups, sets)
    compare(found, pieces, groups, sets)


@settings(max_examples=150)
@given(
    seeds,
    st.lists(st.integers(0, 150), max_size=4),
    st.integers(1, 300),
    st.sampled_from(WIDTHS),
    st.integers(1, 7),
    st.integers(1, 8),
    st.sampled_from([2, 16, 1 << 10]),
)
def test_gathered_records_are_counted_by_group_as_by_dictionaries(
    seed, counts, distinct, words, groups, partition_bits, share
) -> None:
    pieces = [
        random_records(
            seed + n, count, distinct, words, bare=n % 3 != 1, groups=groups,
            prefix_bits=partition_bits,
        )
        for n, count in enumerate(counts)
    ]  # fmt: skip
    check_gathered(pieces, words, groups, partition_bits, share=share)


@of_each_shape
@pytest.mark.parametrize("words", [1, 2, 9])
@pytest.mark.parametrize("share", [16, 1 << 16])
def test_extreme_data_is_counted_as_any_other(ids, words, share) -> None:
    keys = mixed(ids, words)
    for positions in ([1] * 2000, [2000], [500, 0, 1, 499, 1000], [2] * 1000):
        group = (np.arange(len(positions)) % 3).astype(np.uint8)
        check_gathered([tagged(keys, np.array(positions), group)], words, 4, share=share)


@pytest.mark.parametrize("positions", [[60_000], [1, 59_999], [30_000] * 2, [1] * 60_000])
@pytest.mark.parametrize("state_of", [np.zeros_like, lambda rows: rows % 2, lambda rows: rows // 2])
def test_a_state_may_be_all_that_there_is_in_samples(positions: list[int], state_of) -> None:
    group = (np.arange(len(positions)) % 2).astype(np.uint8)
    keys = mixed(state_of(np.arange(60_000)), 2)
    check_gathered([tagged(keys, np.array(positions), group)], 2, 2)


@pytest.mark.parametrize("ids", [np.zeros_like, lambda rows: rows, lambda rows: rows // 2])
@pytest.mark.parametrize("sample", [1, 7, 1 << 16])
def test_as_many_records_as_16_bits_can_number_are_not_too_large_and_one_more_is(
    ids, sample: int
) -> None:
    words = 2
    keys = mixed(ids(np.arange(MOST_RECORDS + 1)), words)
    positions = np.diff(np.append(np.arange(0, MOST_RECORDS, sample), MOST_RECORDS))
    group = (np.arange(len(positions)) % 3).astype(np.uint8)
    table = GroupedParts(words, 3, 0, MOST_RECORDS, Buffers())

    def count(pieces: list[Records]) -> tuple[list, Counted]:
        tally, pairs, deltas = Tally(), np.zeros(3, np.int64), DeltaTally()
        parts = subpartitions(pieces, 1, 0)
        large = list(table.count(*parts, range(1), tally, pairs, deltas))
        return large, (tally.spectrum(), pairs, deltas.total())

    most = tagged(keys[:-1], positions, group)
    large, found = count([most])
    assert large == []
    compare(found, [most], 3)
    large, found = count([most, tagged(keys[-1:], group=group[:1])])
    assert large == [0]
    assert [len(found[0][0]), found[1].tolist(), len(found[2])] == [0, [0] * 3, len(found[2])]
    assert not changes_as_counter(found[2])
    assert count([most])[0] == []


@pytest.mark.parametrize("words", WIDTHS)
def test_tables_grow_for_more_states_and_shrink_again(words: int) -> None:
    buffers = Buffers()
    for count in (1280, 1281, 20_000, 3, 2560, 2561, 0, 6000):
        ids = np.random.default_rng(count).permutation(np.arange(count) * 4 // 5)
        positions = np.diff(np.append(np.arange(0, count, 70), count))
        group = (np.arange(len(positions)) % 3).astype(np.uint8)
        pieces = [tagged(mixed(ids, words), positions, group)]
        check_gathered(pieces, words, 3, buffers=buffers)
        check_gathered([*pieces, random_records(1, 99, 9, words, groups=3)], words, 3)


@pytest.mark.parametrize("words", [2, 3, 5, 9])
@pytest.mark.parametrize("count", [2, 9, 100, 1300])
def test_keys_with_the_same_first_word_stay_apart(words: int, count: int) -> None:
    for place in {1, words - 1}:
        keys = np.full((count, words), 9, np.uint64)
        keys[:, place] = np.arange(count)
        ids = np.concatenate([np.arange(count), np.arange(count // 2), np.arange(count)])
        group = np.array([1, 0, 2], np.uint8)
        records = tagged(keys[ids], np.array([len(ids) - 3, 0, 3]), group)
        twos = np.full(count, 2, np.uint32)
        others = Records(keys, twos, twos, (np.arange(count) % 3).astype(np.uint8))
        check_gathered([records], words, 3)
        check_gathered([others, records], words, 3)


@pytest.mark.parametrize("at_once", [0, 50, 1 << 17])
def test_changes_of_large_states_are_added_up_whenever_they_are_many(at_once, monkeypatch) -> None:
    merges = []

    def spy(parts: list[DeltaEntries]) -> DeltaEntries:
        merges.append(sum(map(len, parts)))
        return add_up(parts)

    add_up = delta_module.add_up_entries
    monkeypatch.setattr(delta_module, "AT_ONCE", at_once)
    monkeypatch.setattr(delta_module, "add_up_entries", spy)
    # Each of 300 states occurs in some hundred rows of three groups.
    ids = np.random.default_rng(3).integers(0, 300, 40_000)
    group = (np.arange(len(ids)) % 3).astype(np.uint8)
    records = tagged(mixed(ids, 1), group=group)
    check_gathered([records], 1, 3, 1, 1 << 12, 1 << 10)
    assert len(merges) == 1 if at_once > 1 << 16 else len(merges) > 1


@pytest.mark.parametrize("partition_bits", [1, 6])
def test_what_is_alone_is_counted_by_its_group(partition_bits: int) -> None:
    keys = mixed(np.concatenate([np.arange(3000), np.arange(20)]), 2, partition_bits)
    group = (np.arange(3020) % 7).astype(np.uint8)
    for positions in (None, np.full(755, 4)):
        own = group[: 3020 if positions is None else 755]
        check_gathered([tagged(keys, positions, own)], 2, 9, partition_bits, 1 << 10)


def test_a_state_of_all_groups_in_a_full_share_has_room() -> None:
    group = np.tile(np.arange(255), 16).astype(np.uint8)
    keys = mixed(np.repeat(np.arange(16), 255), 1, 6)
    for share in (len(keys) // 2, len(keys), 64):
        check_gathered([tagged(keys, group=group)], 1, 255, 6, 1 << 12, share)


@pytest.mark.parametrize("bare", [False, True])
def test_records_of_wrong_groups_are_refused(bare: bool) -> None:
    for groups, message in ((0, "do not tell groups"), (3, "group 2 of 2")):
        records = random_records(1, 200, 100, 1, bare=bare, groups=groups)
        with pytest.raises(ValueError, match=message):
            aggregate_gathered([records], 1, 1, 64, groups=2)
    records = random_records(1, 200, 100, 1, bare=bare, prefix_bits=2)
    parts = subpartitions([records], 2, 2)
    with pytest.raises(ValueError, match="do not tell groups"):
        aggregate_parts(parts, range(4), 1, 4, 64, groups=2)


@pytest.mark.parametrize("words", WIDTHS)
def test_partitions_leave_nothing_behind_for_the_next_ones(words: int) -> None:
    buffers = Buffers()

    def check(seed: int, groups: int, share: int = 100) -> None:
        pieces = [
            random_records(seed, 300, 100 * seed, words, bare=True, groups=groups, prefix_bits=6),
            random_records(seed, 50, 200, words, groups=groups, prefix_bits=6),
        ]
        check_gathered(pieces, words, groups, 6, 1 << 12, share, buffers)

    for seed in (1, 9, 2, 3):
        check(seed, 5)
        check(seed, 3)
    check(1, 5, 1 << 13)
    worse = np.repeat(crafted(5000, words), 2, axis=0)
    group = np.arange(100, dtype=np.uint8) % 5
    with pytest.raises(CountingError, match="4096 slots"):
        aggregate_gathered(
            [tagged(worse, np.full(100, 100), group)], words, 6, 1 << 12, 1 << 13, buffers, 5
        )
    check(9, 5, 1 << 13)


def test_each_share_tells_the_next_one_whether_most_of_its_states_occur_once(monkeypatch) -> None:
    settling = []

    def spy(bare, others, part, tables, found, is_settling, width) -> int:
        if is_settling:
            settling.append(int(part))
        return order(bare, others, part, tables, found, is_settling, width)

    ids = np.arange(4000)
    ids[1000:2000] = 1000 + ids[1000:2000] % 500
    # Shares of 1,000 keys, by their number: those of the second occur twice.
    keys = mixed(np.arange(4000), 1, 8)
    keys[:, 0] |= np.arange(4000, dtype=np.uint64) // np.uint64(1000) << np.uint64(56)
    records = tagged(keys[ids], group=(np.arange(4000) % 3).astype(np.uint8))
    table, tally, deltas = GroupedParts(1, 3, 0, 1 << 12, Buffers()), Tally(), DeltaTally()
    counting_cases.run_counting_as_plain_python(monkeypatch)
    order = grouped_parts._order
    monkeypatch.setattr(grouped_parts, "_order", spy)
    pairs = np.zeros(3, np.int64)
    with np.errstate(over="ignore"):
        parts = subpartitions([records], 6, 2)
        assert list(table.count(*parts, range(4), tally, pairs, deltas)) == []
        compare((tally.spectrum(), pairs, deltas.total()), [records], 3)
    assert settling == [0, 1, 3]


@pytest.mark.parametrize("sets", [0, 2])
def test_shares_that_change_more_than_is_listed_at_once_are_counted_one_by_one(
    sets: int, monkeypatch
) -> None:
    monkeypatch.setattr(grouped_parts, "_MOST_ENDS", 8)
    keys = mixed(np.random.default_rng(1).integers(0, 30, 6000), 2, 6)
    many = np.full(len(keys), 100, np.uint32)
    group = (np.arange(len(keys)) % (3 * (sets + 1))).astype(np.uint8)
    pieces = [tagged(keys, group=group), Records(keys, many, many, group)]
    check_gathered(pieces, 2, 3, 6, 1 << 12, 1 << 10, sets=sets)


@settings(max_examples=40)
@given(
    seeds,
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 80), st.integers(0, 9)), min_size=1, max_size=5
    ),
    st.integers(1, 5),
    st.sampled_from(WIDTHS),
    st.sampled_from([(1, 0), (3, 0), (300, 0), (2, 2), (150, 2)]),
    st.sampled_from([4, 1 << 10]),
)
def test_pieces_with_numbers_with_tags_and_with_counts_are_counted_together(
    seed, blocks, bits, words, told, share
) -> None:
    groups, sets = told
    codes = groups * (sets + 1)
    bare, expected = [], []
    for n, (way, count, samples) in enumerate(blocks):
        generator = np.random.default_rng(seed + n)
        keys = mixed(np.arange(25), words, 0)[generator.integers(0, 25, count)]
        ends = np.append(np.sort(generator.integers(0, count + 1, samples)), count)
        group = generator.integers(0, codes, len(ends)).astype(group_dtype(codes))
        bare.append((divide_rows if way else tag_rows)(SampleKeys(keys, ends, group), bits))
        expected.append(tagged(keys, np.diff(ends, prepend=0), group))
    counted = random_records(seed, 30, 25, words, groups=min(codes, 255), prefix_bits=0)
    counted = replace(counted, group=counted.group.astype(group_dtype(codes)))
    parts = Parts(bare, bits), Parts([PartPiece(*scatter([counted], bits))], bits)
    found = aggregate_parts(
        parts, range(1 << bits), words, bits, 8 * codes, share, None, groups, sets
    )
    counted.keys[:, 0] &= np.uint64(2**63 - 1)
    compare(found, [*expected, counted], groups, sets)


@pytest.mark.parametrize("words", WIDTHS)
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    records = tagged(crafted(5000, words), group=np.zeros(5000, np.uint8))
    with pytest.raises(CountingError, match="another seed"):
        aggregate_gathered([records, records], words, 1, 1 << 20, groups=2)


def check_sets(seed, distinct: int, words: int, groups: int, sets: int, share: int) -> None:
    # Samples in no set are of one more.
    codes = groups * (sets + 1)
    pieces = [
        random_records(
            seed + n, count, distinct, words, bare=n != 1, groups=min(codes, 255), prefix_bits=6
        )
        for n, count in enumerate((150, 60, 90))
    ]
    pieces = [replace(piece, group=piece.group.astype(group_dtype(codes))) for piece in pieces]
    check_gathered(pieces, words, groups, 6, 64 * codes, share, sets=sets)


@settings(max_examples=40)
@given(
    seeds,
    st.one_of(st.integers(1, 80), st.just(10_000)),
    st.sampled_from([1, 2, 9]),
    st.sampled_from([1, 2, 3, 4, 60]),
    st.integers(1, 5),
    st.sampled_from([2, 16, 1 << 10]),
)
def test_each_set_is_counted_as_if_there_were_no_others(
    seed, distinct, words, groups, sets, share
) -> None:
    check_sets(seed, distinct, words, groups, sets, share)


@settings(max_examples=10)
@given(
    seeds,
    st.sampled_from([20, 10_000]),
    st.sampled_from([1, 2, 9]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([16, 1 << 10]),
)
def test_plain_python_counts_each_set_as_if_there_were_no_others(
    seed, distinct, words, groups, sets, share
) -> None:
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        counting_cases.run_counting_as_plain_python(patch)
        check_sets(seed, distinct, words, groups, sets, share)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("sets", [0, 2])
def test_shares_are_counted_by_plain_python_with_the_same_result(words, sets, monkeypatch) -> None:
    pieces = [
        random_records(n, 150, 80, words, bare=n < 2, groups=2 * (sets + 1), prefix_bits=6)
        for n in range(3)
    ]
    ids, group = np.arange(1400) // 200 * 200 + np.arange(1400) % 190, np.arange(7, dtype=np.uint8)
    many = tagged(mixed(ids, words, 6), np.full(7, 200), group % 2)
    args = words, 6, 1 << 12, 1 << 12, None, 2, sets
    compiled = aggregate_gathered([*pieces, many], *args)
    counting_cases.run_counting_as_plain_python(monkeypatch)
    with np.errstate(over="ignore"):
        plain = aggregate_gathered([*pieces, many], *args)
        compare(plain, [*pieces, many], 2, sets)
    assert all(map(np.array_equal, plain[0], compiled[0]))
    assert plain[1].tolist() == compiled[1].tolist()
    assert changes_as_counter(plain[2]) == changes_as_counter(compiled[2])
