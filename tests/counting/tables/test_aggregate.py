"""The whole count of partitions: from rows on, and in several passes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from counting_cases import (
    WIDTHS,
    as_counter,
    changes_as_counter,
    equal_pairs_of,
    mixed,
    numbers_of,
    of_each_shape,
    partitions_of,
    parts_of,
    random_records,
    rows_of_states,
    sample_few_rows,
    tagged,
    totals,
    true_pairs,
    true_spectrum,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting.hashing import HashRange
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import most_records
from tsstore.counting.parts import subpartitions
from tsstore.counting.records import Buffers, Records
from tsstore.counting.tables.aggregate import (
    aggregate,
    aggregate_gathered,
    aggregate_parts,
    count_in_passes,
    subpartition_table_bytes,
)
from tsstore.counting.tables.grouped import least_slots
from tsstore.counting.tables.grouped_parts import GroupedParts
from tsstore.counting.tables.plain_parts import PlainParts
from tsstore.counting.tables.spectra import small_bytes
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)
row_widths = st.one_of(st.integers(1, 32), st.integers(57, 64))
"""Keys, exact or not, have 1, 2, 4, 5 or 9 words: for each number of these loops are compiled."""
some_positions = st.one_of(
    st.lists(st.integers(0, 12), max_size=10), st.lists(st.integers(0, 1), max_size=80)
)


# the whole chain ---------------------------------------------------------------------------


class Found:
    """What partitions have, added up."""

    def __init__(self, groups: int) -> None:
        self.spectrum, self.changes = Counter(), Counter()
        self.pairs = np.zeros(max(groups, 1), np.int64)

    def add(self, spectrum, pairs, delta) -> None:
        self.spectrum += as_counter(spectrum)
        self.pairs += pairs
        if delta is not None:
            self.changes.update(changes_as_counter(delta))


def check_whole_chain(
    scheme: KeyScheme, rows: np.ndarray, positions: np.ndarray, bits: int, slots: int, share: int,
    group: np.ndarray | None = None, groups: int = 0,
) -> None:  # fmt: skip
    """Compare all ways of counting all partitions with the definition, without each group too."""
    gathered, streamed, divided = ways = [Found(groups) for _ in range(3)]
    own = group, max(groups, 1)
    buffers = Buffers()
    partitions, hot_pairs = partitions_of(scheme, rows, positions, bits, *own)
    for pieces in partitions:
        args = scheme.words, bits, slots
        gathered.add(*aggregate_gathered(pieces, *args, share, buffers, groups))
        streamed.add(*aggregate(lambda pieces=pieces: pieces, *args, groups))
    parts, same_pairs = parts_of(scheme, rows, positions, bits + 2, *own)
    assert same_pairs.tolist() == hot_pairs.tolist()
    for span in (range(3), range(3, 4 << bits)):
        divided.add(
            *aggregate_parts(parts, span, scheme.words, bits + 2, slots, share, buffers, groups)
        )
    states = numbers_of(rows)
    expected = true_spectrum(states, positions)
    assert sum(k * states for (k, _), states in expected.items()) == len(rows)
    sample = np.repeat(np.arange(len(positions)), positions)
    for found in ways:
        assert found.spectrum == expected
        assert {of for of, _, _ in found.changes} <= set(range(groups))
        if not groups:
            assert (hot_pairs + found.pairs).tolist() == [true_pairs(states, positions)]
    for one in range(groups):
        expected = true_spectrum(states, positions, group == one)
        pairs = true_pairs(states[group[sample] == one], positions[group == one])
        for found in ways:
            without = found.spectrum.copy()
            without.update({(k, q): n for (of, k, q), n in found.changes.items() if of == one})
            assert +without == expected
            assert min(without.values(), default=0) >= 0
            assert hot_pairs[one] + found.pairs[one] == pairs


@settings(max_examples=60)
@given(
    seeds,
    row_widths,
    st.booleans(),
    some_positions,
    st.integers(1, 60),
    st.integers(1, 8),
    st.sampled_from([8, 64, 1024]),
    st.sampled_from([1, 8, 1 << 16]),
)
def test_the_whole_chain_counts_as_a_counter_does(
    seed, row_bytes, exact, positions, distinct, bits, slots, share
) -> None:
    rows = rows_of_states(seed, sum(positions), distinct, row_bytes)
    scheme = KeyScheme.create(row_bytes, seed, exact)
    with pytest.MonkeyPatch.context() as patch:
        sample_few_rows(patch, 8)
        check_whole_chain(scheme, rows, np.array(positions, np.int64), bits, slots, share)


@given(
    seeds,
    row_widths,
    st.booleans(),
    some_positions,
    st.integers(1, 60),
    st.integers(1, 6),
    st.integers(1, 7),
    st.sampled_from([64, 1024]),
    st.sampled_from([4, 8, 1 << 10]),
)
def test_the_whole_chain_counts_by_group_as_counters_do(
    seed, row_bytes, exact, positions, distinct, groups, bits, slots, share
) -> None:
    rows = rows_of_states(seed, sum(positions), distinct, row_bytes)
    scheme = KeyScheme.create(row_bytes, seed, exact)
    group = np.random.default_rng(seed).integers(0, groups, len(positions)).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        sample_few_rows(patch, 8)
        positions = np.array(positions, np.int64)
        check_whole_chain(scheme, rows, positions, bits, slots, share, group, groups)


@of_each_shape
@pytest.mark.parametrize("row_bytes", [3, 8, 16, 24])
@pytest.mark.parametrize("share", [64, 1 << 16])
def test_extreme_data_is_counted_as_any_other(ids, share, row_bytes, monkeypatch) -> None:
    sample_few_rows(monkeypatch, 256)
    rows = np.zeros((len(ids), row_bytes), np.uint8)
    rows[:, -2:] = ids.astype("<u2").view(np.uint8).reshape(-1, 2)
    scheme = KeyScheme.create(row_bytes, exact=share == 64)
    check_whole_chain(scheme, rows, np.array([500, 1, 0, 499, 1000]), 2, 256, share)
    check_whole_chain(scheme, rows, np.array([666, 667, 667]), 1, 1 << 20, share)
    check_whole_chain(scheme, rows[:100], np.ones(100, np.int64), 1, 64, share)


@of_each_shape
@pytest.mark.parametrize("row_bytes", [3, 16, 24])
def test_extreme_data_is_counted_by_group_as_any_other(ids, row_bytes, monkeypatch) -> None:
    sample_few_rows(monkeypatch, 256)
    rows = np.zeros((len(ids), row_bytes), np.uint8)
    rows[:, -2:] = ids.astype("<u2").view(np.uint8).reshape(-1, 2)
    scheme = KeyScheme.create(row_bytes, exact=True)
    group = np.arange(2000, dtype=np.uint8) % 5
    for positions, slots, share in (
        (np.full(500, 4), 1 << 9, 64),
        (np.ones(2000, int), 1 << 14, 512),
        (np.array([900, 0, 1, 1099]), 1 << 14, 512),
    ):
        own = group[: len(positions)]
        check_whole_chain(scheme, rows, positions, 1, slots, share, own, 5)


def test_exact_keys_of_very_wide_rows_are_counted_as_any_other() -> None:
    rows = rows_of_states(1, 40, 25, 8200)
    rows[::2, :-1] = rows[0, :-1]
    check_whole_chain(KeyScheme.create(8200, exact=True), rows, np.array([30, 10]), 1, 64, 8)


@pytest.mark.parametrize("groups", [0, 4])
def test_spans_of_subpartitions_add_up_to_all_of_them(groups: int) -> None:
    pieces = [
        random_records(n, 400, 150, 2, bare=n != 1, groups=groups, prefix_bits=2) for n in range(3)
    ]
    parts = subpartitions(pieces, 2, 4)
    spans = [range(5), range(5, 5), range(5, 6), range(6, 16)]
    args = 2, 6, 1 << 10, 1 << 10, None, groups
    whole, found = Found(groups), Found(groups)
    whole.add(*aggregate_parts(parts, range(16), *args))
    for span in spans:
        found.add(*aggregate_parts(parts, span, *args))
    assert found.spectrum == whole.spectrum
    assert found.pairs.tolist() == whole.pairs.tolist() == equal_pairs_of(pieces, max(groups, 1))
    assert counting_changes(found) == counting_changes(whole)


def counting_changes(found: Found) -> dict:
    return {cell: states for cell, states in found.changes.items() if states}


@pytest.mark.parametrize("grouped", [False, True])
def test_too_few_slots_are_refused(grouped: bool) -> None:
    with pytest.raises(ValueError, match=r"a table of .* slots; expected at least"):
        aggregate(list, 1, 1, 1, int(grouped))


@pytest.mark.parametrize("groups", [1, 32, 255])
def test_the_least_slots_are_enough_for_states_of_all_groups(groups: int) -> None:
    group = np.tile(np.arange(groups), 30).astype(np.uint8)
    records = tagged(mixed(np.repeat(np.arange(30), groups), 1), group=group)
    spectrum, _, delta = aggregate(lambda: [records], 1, 1, least_slots(groups), groups)
    assert as_counter(spectrum) == {(groups, groups): 30}
    assert len(delta.ends) == groups


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("records", [1 << 14, 11_111])
def test_the_tables_of_a_full_share_take_no_more_bytes_than_said(words: int, records: int) -> None:
    table = PlainParts(words, most_records(records), Buffers())
    assert 0 <= table.nbytes - subpartition_table_bytes(words, 0, records) <= 8 * (1 + 16)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize(("groups", "sets"), [(7, 0), (7, 3), (300, 0)])
def test_tables_by_group_take_no_more_bytes_than_said(words: int, groups: int, sets: int) -> None:
    most = most_records(1 << 14)
    said = subpartition_table_bytes(words, groups, 1 << 14, sets)
    table = GroupedParts(words, groups, sets, most, Buffers())
    handed_on = 24 * (5 if sets else 2) * most
    # Bare records and others lie in arrays of their own, and are no more than so many together.
    apart = (8 * words + 16) * most
    assert table.nbytes + handed_on - apart <= said + (1 << 20)
    assert said < 2 * (table.nbytes + handed_on)
    more = subpartition_table_bytes(words, groups + 1, 8) - subpartition_table_bytes(
        words, groups, 8
    )
    assert more >= small_bytes(groups + 1, 0) - small_bytes(groups, 0)


# passes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("maximum_slots", [16, 100, 512, 1 << 14])
def test_a_table_that_outgrows_takes_more_passes_to_the_same_spectrum(maximum_slots, words) -> None:
    pieces = [
        random_records(n, 300, 1500 if n < 4 else 200, words, bare=n % 2 == 0) for n in range(7)
    ]
    opened = []

    def slices():
        opened.append(1)
        return iter(pieces)

    spectrum, pairs, _ = aggregate(slices, words, 1, maximum_slots)
    assert as_counter(spectrum) == Counter(totals(pieces).values())
    assert pairs.tolist() == equal_pairs_of(pieces) > [0]
    least = len(totals(pieces)) / (maximum_slots // 2)
    assert least <= len(opened) <= 12 * least + 1


def test_no_slices_give_an_empty_spectrum() -> None:
    for slices in (list, lambda: [Records.empty(2)]):
        spectrum, pairs, delta = aggregate(slices, 2, 5, 64)
        assert as_counter(spectrum) == Counter()
        assert pairs.tolist() == [0]
        assert delta is None


@pytest.mark.parametrize("top", [0, 2**29 - 1, 0x0AAAAAAA])
def test_passes_reach_bits_far_below_a_shared_prefix(top: int) -> None:
    keys = np.array([[(top << 34) + (low << 20) + low] for low in range(64)], np.uint64)
    spectrum, *_ = aggregate(lambda: [tagged(keys)], 1, 10, 32)
    assert as_counter(spectrum) == Counter({(1, 1): 64})


@pytest.mark.parametrize("top", [0, 2**47 - 1])
@pytest.mark.parametrize("partition_bits", [1, 10])
def test_keys_that_no_pass_can_divide_are_an_error(top: int, partition_bits: int) -> None:
    keys = np.array([[(top << 16) + low] for low in range(20)], np.uint64)
    with pytest.raises(CountingError, match="share the first 48 bits"):
        aggregate(lambda: [tagged(keys)], 1, partition_bits, 16)


class Slots:
    """A table that holds so many records of its range, and nothing else."""

    def __init__(self, hashes: HashRange, most: int) -> None:
        self.bits, self.index, self.most = int(hashes.mask).bit_length(), int(hashes.number), most
        self.held: list[int] = []

    def add(self, records: Records) -> bool:
        words = records.keys[:, 0].tolist()
        self.held += [word for word in words if word >> (64 - self.bits) == self.index]
        return len(self.held) <= self.most

    @property
    def used(self) -> int:
        return len(self.held)

    distinct = used


def slots_of(slices, most: int, maximum_slots: int) -> list[Slots]:
    """The tables that it takes for all records of a partition."""
    tables = count_in_passes(lambda hashes: Slots(hashes, most), slices, 0, maximum_slots)
    return list(tables)


@given(st.lists(st.integers(0, 2**16 - 1), max_size=40), st.integers(1, 20))
def test_every_record_is_counted_in_one_table_that_holds_it(tops, most) -> None:
    words = sorted({top << 48 for top in tops})
    records = Records(np.array(words, np.uint64)[:, None])

    def slices():
        return [records[:7], records[7:]]

    tables = list(count_in_passes(lambda hashes: Slots(hashes, most), slices, 0, 8 * most))
    assert [word for table in tables for word in table.held] == words
    assert all(table.used <= most for table in tables)


def test_steps_become_larger_again_after_a_dense_spot() -> None:
    dense = [number << 40 for number in range(16)]
    words = np.array([*dense, 2**63, 2**63 + 2**62], np.uint64)
    records = Records(words[:, None])
    tables = list(count_in_passes(lambda hashes: Slots(hashes, 4), lambda: [records], 0, 32))
    assert max(table.bits for table in tables) == 22
    assert tables[-1].bits <= 2
    assert [word for table in tables for word in table.held] == words.tolist()
    assert len(tables) < 3 * 22


def test_keys_that_share_too_many_bits_are_an_error() -> None:
    records = Records(np.arange(5, dtype=np.uint64)[:, None])
    with pytest.raises(CountingError, match=r"more than 5 distinct keys.*first 48 bits"):
        slots_of(lambda: [records], 4, 32)
