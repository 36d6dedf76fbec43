from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import changes as changes_module
from tsstore.counting import grouped as module
from tsstore.counting import grouped_kernels as kernels
from tsstore.counting.changes import Changes
from tsstore.counting.grouped import (
    LARGEST_GROUPS,
    GroupedTable,
    aggregate_groups,
    grouped_slot_bytes,
    least_slots,
)
from tsstore.counting.records import Records
from tsstore.errors import CountingError

seeds = st.integers(0, 2**32)
KERNELS = ("absorb", "count_changes", "index_pairs", "index_states", "list_changes")


def mixed(ids: np.ndarray, words: int) -> np.ndarray:
    """Keys of which every distinct id has its own, of bits that look random."""
    keys = np.random.default_rng(7).integers(
        0, 2**64, (int(ids.max(initial=0)) + 1, words), np.uint64
    )
    return keys[ids]


def random_records(seed: int, count: int, distinct: int, words: int, groups: int = 5) -> Records:
    generator = np.random.default_rng(seed)
    incidence = generator.integers(1, 9, count).astype(np.uint32)
    keys = mixed(generator.integers(0, distinct, count), words)
    group = generator.integers(0, groups, count).astype(np.uint8)
    return Records(keys, incidence * np.uint32(2), incidence, group)


def oracle(records: Records) -> tuple[Counter, Counter]:
    """The spectrum, and the changes of all groups, by dictionaries."""
    every: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(2, np.int64))
    own: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(2, np.int64))
    counts = np.column_stack([records.multiplicity, records.incidence]).astype(np.int64)
    for key, group, pair in zip(
        map(tuple, records.keys.tolist()), records.group.tolist(), counts, strict=True
    ):
        every[key] += pair
        own[key, group] += pair
    changes: Counter = Counter()
    for (key, group), pair in own.items():
        changes[group, *every[key].tolist()] -= 1
        if rest := (every[key] - pair).tolist()[0]:
            changes[group, rest, (every[key] - pair).tolist()[1]] += 1
    spectrum = Counter(tuple(pair.tolist()) for pair in every.values())
    return spectrum, Counter({cell: n for cell, n in changes.items() if n})


def as_counter(*columns: np.ndarray) -> Counter:
    """The last column by the others, none of which may come twice; without what is 0."""
    *cells, states = (column.tolist() for column in columns)
    counter = Counter(dict(zip(zip(*cells, strict=True), states, strict=True)))
    assert len(counter) == len(states)
    return Counter({cell: states for cell, states in counter.items() if states})


def contents(spectrum: tuple, changes: Changes) -> tuple[Counter, Counter]:
    return as_counter(*spectrum), as_counter(*changes.columns)


def table_contents(table: GroupedTable) -> tuple[Counter, Counter]:
    return contents(table.spectrum(), table.changes())


@settings(deadline=None, max_examples=150)
@given(seeds, st.integers(0, 300), st.integers(1, 200), st.sampled_from([1, 2]), st.integers(1, 7))
def test_a_table_counts_by_group_as_dictionaries_do(seed, count, distinct, words, groups) -> None:
    records = random_records(seed, count, distinct, words, groups)
    table = GroupedTable(words, groups, 1 << 20, initial_slots=2)
    half = count // 2
    assert table.add(records[:half])
    assert table.add(records[half:])
    assert table_contents(table) == oracle(records)
    assert table.distinct == sum(oracle(records)[0].values())


def test_states_of_one_group_take_no_pairs() -> None:
    keys = mixed(np.repeat(np.arange(50), 2), 1)
    records = Records.bare(keys, np.repeat(np.arange(50) % 7, 2).astype(np.uint8))
    table = GroupedTable(1, 7, 1 << 10)
    assert table.add(records)
    assert (table.distinct, table.entries) == (50, 50)
    assert table_contents(table) == oracle(records)
    changed = Counter({(g, 2, 2): -(8 if g == 0 else 7) for g in range(7)})
    assert table_contents(table)[1] == changed


def test_what_was_counted_before_the_second_group_came_is_kept() -> None:
    one = mixed(np.zeros(5, np.int64), 2)
    records = Records(
        one,
        np.array([5, 6, 7, 8, 9], np.uint32),
        np.array([1, 2, 3, 4, 5], np.uint32),
        np.array([3, 3, 0, 3, 254], np.uint8),
    )
    table = GroupedTable(2, LARGEST_GROUPS, 1 << 10)
    for start in range(5):
        assert table.add(records[start : start + 1])
    assert (table.distinct, table.entries) == (1, 4)
    assert table_contents(table) == oracle(records)
    assert table_contents(table)[1][3, 16, 8] == 1


def test_counts_go_beyond_32_bits() -> None:
    most = np.full(4, 2**32 - 1, np.uint32)
    records = Records(np.zeros((4, 1), np.uint64), most, most, np.array([0, 1, 1, 1], np.uint8))
    table = GroupedTable(1, 2, 16)
    assert table.add(records)
    assert table.changes().multiplicity.dtype == np.int64
    assert table_contents(table) == oracle(records)


def test_keys_that_differ_in_their_second_word_alone_stay_apart() -> None:
    keys = np.array([[5, 1], [5, 2], [5, 1]], np.uint64)
    records = Records.bare(keys, np.array([0, 0, 1], np.uint8))
    table = GroupedTable(2, 2, 16)
    assert table.add(records)
    assert table_contents(table) == oracle(records)


def test_an_empty_table_is_empty() -> None:
    table = GroupedTable(2, 3, 16)
    assert table.add(random_records(1, 0, 1, 2))
    assert table_contents(table) == (Counter(), Counter())
    assert table.changes().ends.tolist() == [0, 0, 0]


@pytest.mark.parametrize("words", [1, 2])
def test_tables_double_up_to_their_maximum_together_and_no_further(words: int) -> None:
    keys = mixed(np.arange(40), words)
    table = GroupedTable(words, 2, 96, initial_slots=4)
    assert table.add(Records.bare(keys[:32], np.zeros(32, np.uint8)))
    assert table.entries == 32
    # 64 + 4 slots; 16 states of both groups take 32 pairs, in 64 slots: too many.
    both = Records.bare(keys[:16], np.ones(16, np.uint8))
    assert table.add(both[:8])
    assert table.entries == 32 + 16
    assert not table.add(both)


def test_rows_that_were_never_written_take_no_memory() -> None:
    table = GroupedTable(1, 2, 1 << 24)
    assert table.nbytes == 2 * 4 * 1024
    assert table.add(random_records(1, 100, 100, 1, 2))
    assert table.nbytes <= table.entries * 24 + 2 * 4 * 1024


def test_slots_are_bounded_by_what_is_said_of_them() -> None:
    assert grouped_slot_bytes(2) - grouped_slot_bytes(1) == 4
    for words in (1, 2):
        records = random_records(3, 20_000, 3000, words, 9)
        table = GroupedTable(words, 9, 1 << 20)
        assert table.add(records)
        slots = len(table._state_index) + len(table._pair_index)
        assert table.nbytes <= slots * grouped_slot_bytes(words)
        assert slots <= 4 * table.entries + 2


def test_too_few_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="tables of 1 slots; expected at least 2 in each"):
        GroupedTable(1, 2, 3)
    with pytest.raises(ValueError, match="at least 2 in each"):
        GroupedTable(1, 2, 16, initial_slots=1)


def test_records_that_do_not_tell_groups_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="do not tell groups apart"):
        GroupedTable(1, 2, 16).add(Records.empty(1))
    with pytest.raises(ValueError, match="a record is of group 2 of 2"):
        GroupedTable(1, 2, 16).add(
            Records.bare(np.zeros((1, 1), np.uint64), np.full(1, 2, np.uint8))
        )


@settings(deadline=None, max_examples=60)
@given(seeds, st.sampled_from([1, 2]), st.sampled_from([64, 100, 512, 1 << 14]), st.integers(0, 6))
def test_tables_that_outgrow_take_more_passes_to_the_same_counts(
    seed, words, maximum_slots, initial_bits
) -> None:
    records = random_records(seed, 500, 120, words)

    def slices():
        return (records[start : start + 90] for start in range(0, 500, 90))

    found = aggregate_groups(slices, words, 5, 0, maximum_slots, 4 << initial_bits)
    assert contents(*found) == oracle(records)


@pytest.mark.parametrize("groups", [1, 32, LARGEST_GROUPS])
def test_the_least_slots_are_enough_for_states_of_all_groups(groups: int) -> None:
    group = np.tile(np.arange(groups), 30).astype(np.uint8)
    records = Records.bare(mixed(np.repeat(np.arange(30), groups), 1), group)
    found = aggregate_groups(lambda: [records], 1, groups, 0, least_slots(groups))
    assert contents(*found) == oracle(records)


def test_no_records_change_nothing() -> None:
    spectrum, changes = aggregate_groups(list, 2, 3, 5, 64)
    assert len(spectrum[0]) == len(changes) == 0
    assert changes.ends.tolist() == [0, 0, 0]


def test_keys_of_a_partition_are_counted_by_their_further_bits() -> None:
    records = random_records(5, 400, 300, 1)
    records.keys[:] >>= np.uint64(10)
    found = aggregate_groups(lambda: [records], 1, 5, 10, 128)
    assert contents(*found) == oracle(records)


@pytest.mark.parametrize("words", [1, 2])
def test_crafted_keys_are_an_error_not_an_endless_search(words: int) -> None:
    keys = np.zeros((5000, words), np.uint64)
    keys[:, 0] = np.arange(5000, dtype=np.uint64) << np.uint64(40)
    records = Records.bare(keys, np.zeros(5000, np.uint8))
    with pytest.raises(CountingError, match="another seed"):
        aggregate_groups(lambda: [records], words, 2, 0, 1 << 20)


def test_keys_that_no_pass_can_divide_are_an_error() -> None:
    keys = np.arange(20, dtype=np.uint64)[:, None]
    records = Records.bare(keys, np.zeros(20, np.uint8))
    with pytest.raises(CountingError, match="share the first 48 bits"):
        aggregate_groups(lambda: [records], 1, 2, 0, 16)


@pytest.mark.parametrize("words", [1, 2])
def test_kernels_run_as_plain_python_with_the_same_result(words: int, monkeypatch) -> None:
    records = random_records(9, 200, 90, words)
    compiled = GroupedTable(words, 5, 1024, initial_slots=4)
    assert compiled.add(records)
    expected = table_contents(compiled)
    for name in KERNELS:
        monkeypatch.setattr(module, name, getattr(kernels, name).py_func)
    for name in ("_find_state", "_find_pair", "_add_pair"):
        monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)
    for name in ("_find", "_add_up"):
        monkeypatch.setattr(changes_module, name, getattr(changes_module, name).py_func)
    with np.errstate(over="ignore"):
        plain = GroupedTable(words, 5, 1024, initial_slots=4)
        assert plain.add(records)
        assert table_contents(plain) == expected == oracle(records)
        assert np.array_equal(plain._states[: plain.distinct], compiled._states[: plain.distinct])
        monkeypatch.setattr(kernels, "PROBE_LIMIT", 3)
        crafted = np.full((5, words), 3, np.uint64) << np.arange(10, 60, 10, np.uint64)[:, None]
        with pytest.raises(CountingError, match="another seed"):
            plain.add(Records.bare(crafted, np.zeros(5, np.uint8)))
        monkeypatch.setattr(kernels, "PROBE_LIMIT", 0)
        with pytest.raises(CountingError, match="another seed"):
            kernels._find_pair(plain._pairs, plain._pair_index, np.uint64(1))
