"""A table of all states, against dictionaries."""

from __future__ import annotations

import counting_cases
import numpy as np
import pytest
from counting_cases import equal_pairs_of, tagged, totals_by_group
from hypothesis import given
from hypothesis import strategies as st
from synthetic import numbered_rows

from tsstore.counting.keys import KeyScheme
from tsstore.counting.premerge import direct_index as module
from tsstore.counting.premerge import hot_keys as hot
from tsstore.counting.premerge.direct_index import DirectTable, direct_bytes, states_of
from tsstore.counting.records import Records


def table(row_bytes: int, groups: int = 0, largest_sample: int = 100) -> DirectTable:
    return DirectTable(KeyScheme.create(row_bytes, seed=1), groups, largest_sample)


def _without_first_bit(counts: dict) -> dict:
    return {((key[0] % 2**63,), group): pair for (key, group), pair in counts.items()}


def check(
    direct: DirectTable,
    rows: np.ndarray,
    positions: np.ndarray,
    group: np.ndarray | None = None,
    groups: int = 1,
) -> list[Records]:
    """Compare with what dictionaries count of the keys; return the records."""
    direct.begin()
    equal_pairs = direct.count(rows, positions, group)
    records = direct.take()
    keys = KeyScheme.create(rows.shape[1], seed=1).keys(rows)
    expected = [tagged(keys, positions, group)]
    assert _without_first_bit(totals_by_group(records)) == totals_by_group(expected)
    assert equal_pairs.tolist() == equal_pairs_of(expected, groups)
    assert all((piece.group is None) == (group is None) for piece in records)
    assert not any(piece.is_bare for piece in records)
    return records


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 12), max_size=12),
    st.integers(1, 40),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 3),
)
def test_samples_are_counted_as_by_their_keys(seed, positions, distinct, row_bytes, groups):
    generator = np.random.default_rng(seed)
    states = generator.integers(0, 1 << (8 * row_bytes), distinct)
    rows = numbered_rows(states[generator.integers(0, distinct, sum(positions))], row_bytes)
    group = generator.integers(0, groups, len(positions)).astype(np.uint8) if groups else None
    direct = table(row_bytes, groups)
    for _ in range(2):
        check(direct, rows, np.array(positions, np.int64), group, max(groups, 1))


@pytest.mark.parametrize("row_bytes", [1, 2, 3])
def test_the_first_and_the_last_state_are_states_like_any_others(row_bytes: int) -> None:
    last = (1 << (8 * row_bytes)) - 1
    rows = numbered_rows(np.array([0, last, 0, 0, last, 1]), row_bytes)
    (records,) = check(table(row_bytes), rows, np.array([2, 0, 4]))
    assert sorted(zip(records.multiplicity, records.incidence, strict=True)) == [
        (1, 1), (2, 2), (3, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("groups", [0, 2])
def test_more_states_than_there_is_room_for_are_records_of_several_pieces(
    groups: int, monkeypatch
) -> None:
    monkeypatch.setattr(module, "MOST_STATES", 8)
    rows = numbered_rows(np.random.default_rng(0).integers(0, 30, 500), 2)
    group = (np.arange(100) % 2).astype(np.uint8) if groups else None
    direct = table(2, groups, 5)
    assert len(check(direct, rows, np.full(100, 5), group, max(groups, 1))) > 20
    # As many as there is room for, and as many in one more sample.
    of_three = (None if group is None else group[:3], max(groups, 1))
    fits, exceeds = (numbered_rows(np.arange(count), 2) for count in (13, 14))
    assert len(check(direct, fits, np.array([5, 3, 5]), *of_three)) == 1
    assert len(check(direct, exceeds, np.array([5, 4, 5]), *of_three)) == 2


def test_all_states_of_two_bytes_are_counted_together() -> None:
    rows = numbered_rows(np.tile(np.arange(1 << 16), 2), 2)
    (records,) = check(table(2), rows, np.full(1 << 11, 64))
    assert len(records) == 1 << 16


def test_it_pays_while_rows_are_many_for_each_record() -> None:
    direct = table(3)
    check(direct, numbered_rows(np.arange(100) % 25, 3), np.full(10, 10))
    assert direct.pays
    check(direct, numbered_rows(np.arange(100) % 26, 3), np.full(10, 10))
    assert not direct.pays


def test_pieces_of_a_block_are_counted_together() -> None:
    rows = numbered_rows(np.random.default_rng(0).integers(0, 9, 300), 2)
    positions = np.full(30, 10)
    direct = table(2)
    (whole,) = check(direct, rows, positions)
    direct.begin()
    for first in range(0, 30, 7):
        direct.count(rows[10 * first : 10 * (first + 7)], positions[first : first + 7])
    (pieces,) = direct.take()
    assert totals_by_group([pieces]) == totals_by_group([whole])
    assert direct.take() == []


def test_what_an_error_left_behind_is_forgotten() -> None:
    rows, positions = numbered_rows(np.arange(60) % 7, 2), np.full(6, 10)
    direct = table(2)
    direct.count(rows, positions)
    direct._times[:3] = 5
    check(direct, rows, positions)


def test_wrong_positions_and_groups_are_refused() -> None:
    rows, direct = numbered_rows(np.arange(6), 2), table(2, 2, 4)
    with pytest.raises(ValueError, match="add up to 5; expected the number of rows, 6"):
        direct.count(rows, np.array([2, 3]))
    with pytest.raises(ValueError, match="a sample has 5 rows; expected no more than 4"):
        direct.count(rows, np.array([5, 1]))
    with pytest.raises(ValueError, match="-1 to 4 positions"):
        direct.count(rows, np.array([-1, 4, 3]))
    with pytest.raises(ValueError, match="groups 0 to 2; expected 2 samples of 2 groups"):
        direct.count(rows, np.array([3, 3]), np.array([0, 2], np.uint8))


def test_states_are_fewer_for_more_groups_and_bytes_are_those_of_the_table() -> None:
    assert states_of(0) == states_of(1) == module.MOST_STATES
    assert states_of(32) == module.MOST_COUNTS // 32
    direct = table(2, 3, 50)
    arrays = (direct._index, direct._states, direct._times, direct._counts, direct._touched)
    # There are no more than all states; and one place is for none.
    places = direct._states[:51].nbytes + direct._times[:51].nbytes + direct._counts[:51].nbytes
    keys, records = (4 + 8) * states_of(3), 17 * 3 * states_of(3)
    assert direct_bytes(16, 3, 50) == sum(a.nbytes for a in arrays) - places + keys + records
    assert direct_bytes(10, 0, 50) == 4096 + 400 + 1024 * (24 + 8 + 16)


@pytest.mark.parametrize("groups", [0, 3])
def test_kernels_run_as_plain_python_with_the_same_result(groups: int, monkeypatch) -> None:
    rows = numbered_rows(np.random.default_rng(2).integers(0, 20, 90), 3)
    group = np.array([0, 2, 1], np.uint8) if groups else None
    positions = np.array([40, 0, 50])
    compiled = check(table(3, groups), rows, positions, group, max(groups, 1))
    counting_cases.run_as_plain_python(monkeypatch, module, hot)
    plain = check(table(3, groups), rows, positions, group, max(groups, 1))
    assert list(map(counting_cases.rows_of, plain)) == list(map(counting_cases.rows_of, compiled))
