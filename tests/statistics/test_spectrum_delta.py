from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import delta_of_counts

from tsstore.statistics.jackknife import SpectrumDelta, merge_deltas
from tsstore.statistics.spectrum import Spectrum

# Three states in three groups: one everywhere, one in group 1 alone, one in groups 0 and 2.
MULTIPLICITY = np.array([[3, 1, 2], [0, 5, 0], [1, 0, 1]])
INCIDENCE = np.array([[2, 1, 2], [0, 2, 0], [1, 0, 1]])
SMALL = delta_of_counts(MULTIPLICITY, INCIDENCE, [2, 3, 2], [3, 11, 1], [4, 12, 3])
WHOLE = Spectrum.from_counts([6, 5, 2], [5, 2, 2])


@st.composite
def tables(draw: st.DrawFn, groups: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Multiplicity and incidence of distinct states by group; every state occurs somewhere."""
    groups = draw(st.integers(1, 5)) if groups is None else groups
    cells = st.lists(st.integers(0, 6), min_size=groups, max_size=groups).filter(any)
    k = np.array(draw(st.lists(cells, max_size=12)), np.int64).reshape(-1, groups)
    seed = draw(st.integers(0, 99))
    return k, np.random.default_rng(seed).integers(np.minimum(k, 1), k, endpoint=True)


def changes_of(k: np.ndarray, q: np.ndarray) -> SpectrumDelta:
    return delta_of_counts(k, q, q.sum(axis=0))


def spectrum_of(k: np.ndarray, q: np.ndarray, left_out: int | None = None) -> Spectrum:
    """The spectrum by a Counter, without the columns of a group."""
    kept = [group for group in range(k.shape[1]) if group != left_out]
    states = zip(k[:, kept].sum(axis=1).tolist(), q[:, kept].sum(axis=1).tolist(), strict=True)
    counter = Counter(pair for pair in states if pair[0])
    if not counter:
        return Spectrum.empty()
    multiplicity, incidence = zip(*counter, strict=True)
    return Spectrum.from_arrays(multiplicity, incidence, list(counter.values()))


@given(tables())
def test_without_a_group_is_the_spectrum_of_the_other_columns(table) -> None:
    k, q = table
    changes, whole = changes_of(k, q), spectrum_of(k, q)
    assert changes.groups == k.shape[1]
    for group in range(changes.groups):
        left = changes.without(whole, group)
        assert left == spectrum_of(k, q, group)
        assert left.rows == whole.rows - changes.rows[group]


@given(tables())
def test_entries_are_sorted_and_say_something(table) -> None:
    changes = changes_of(*table)
    entries = list(zip(changes.group, changes.multiplicity, changes.incidence, strict=True))
    assert entries == sorted(set(entries))
    assert 0 not in changes.states
    lost = [changes.states[changes.entries_of(g)] for g in range(changes.groups)]
    gone = [
        ((table[0].sum(axis=1) == table[0][:, g]) & (table[0][:, g] > 0)).sum()
        for g in range(changes.groups)
    ]
    assert [-int(states.sum()) for states in lost] == gone


@given(tables(groups=3), tables(groups=3))
def test_changes_of_disjoint_states_add_up(one, other) -> None:
    both = [np.concatenate(pair) for pair in zip(one, other, strict=True)]
    merged = merge_deltas([changes_of(*one), changes_of(*other)])
    assert merged == changes_of(*both)
    assert merged == merge_deltas(iter([merged]))


def test_a_small_table_gives_the_entries_that_one_expects() -> None:
    found = zip(SMALL.group, SMALL.multiplicity, SMALL.incidence, SMALL.states, strict=True)
    assert [tuple(map(int, entry)) for entry in found] == [
        *[(0, 1, 1, 1), (0, 2, 2, -1), (0, 3, 3, 1), (0, 6, 5, -1)],
        *[(1, 5, 2, -1), (1, 5, 4, 1), (1, 6, 5, -1)],
        *[(2, 1, 1, 1), (2, 2, 2, -1), (2, 4, 3, 1), (2, 6, 5, -1)],
    ]
    assert SMALL.rows.tolist() == [4, 6, 3]
    assert SMALL.samples.tolist() == [2, 3, 2]
    assert SMALL.equal_pairs_within_samples.tolist() == [3, 11, 1]
    assert SMALL.pairs_within_samples.tolist() == [4, 12, 3]
    assert SMALL.without(WHOLE, 1) == Spectrum.from_arrays([2, 5], [2, 4], [1, 1])
    assert [SMALL.entries_of(g) for g in range(3)] == [slice(0, 4), slice(4, 7), slice(7, 11)]
    assert len(SMALL) == 11


def test_groups_without_samples_change_nothing() -> None:
    k = np.array([[0, 4, 0]])
    changes = delta_of_counts(k, k, k[0])
    assert changes.without(Spectrum.from_counts([4]), 0) == Spectrum.from_counts([4])
    assert changes.without(Spectrum.from_counts([4]), 1) == Spectrum.empty()
    assert changes.entries_of(2) == slice(1, 1)
    nothing = SpectrumDelta.from_arrays([[0, 0]] * 4)
    assert (nothing.groups, len(nothing)) == (2, 0)
    assert nothing.without(Spectrum.empty(), 1) == Spectrum.empty()
    assert merge_deltas([nothing, nothing]) == nothing


def test_numbers_of_rows_beyond_32_bits_are_left_out_as_small_ones_are() -> None:
    k = np.array([[2**40, 2**41], [7, 0], [2**40, 2**41]])
    q = np.array([[2, 3], [1, 0], [2, 3]])
    left = changes_of(k, q).without(spectrum_of(k, q), 0)
    assert left == Spectrum.from_arrays([2**41], [3], [2])
    assert left == spectrum_of(k, q, 0)


def test_entries_come_in_any_order_and_equal_ones_add_up() -> None:
    numbers = [[1, 1]] * 4
    changes = SpectrumDelta.from_arrays(
        numbers, [1, 0, 1, 1, 0], [2, 5, 2, 1, 5], [1, 2, 1, 1, 2], [3, -1, -2, 4, 1]
    )
    assert changes.group.tolist() == [1, 1]
    assert changes.multiplicity.tolist() == [1, 2]
    assert changes.incidence.tolist() == [1, 1]
    assert changes.states.tolist() == [4, 1]


@given(tables())
def test_entries_in_order_by_group_give_the_same(table) -> None:
    changes = changes_of(*table)
    ends = np.searchsorted(changes.group, np.arange(changes.groups), side="right")
    columns = (changes.multiplicity, changes.incidence, changes.states)
    for dtype in (np.int32, np.int64):
        entries = [column.astype(dtype) for column in columns]
        assert SpectrumDelta.from_groups(changes.numbers, ends, *entries) == changes


def test_numbers_of_groups_are_as_many_as_there_are_groups() -> None:
    one = np.ones(1, np.int32)
    with pytest.raises(ValueError, match="must be of one length"):
        SpectrumDelta.from_groups([[1], [1, 1], [1], [1]], np.array([1]), one, one, one)


def test_the_spectrum_of_other_samples_is_refused() -> None:
    for wrong in (Spectrum.empty(), Spectrum.from_counts([6, 5], [5, 2])):
        with pytest.raises(ValueError, match="group 0 takes away states that the spectrum"):
            SMALL.without(wrong, 0)


@pytest.mark.parametrize("group", [-1, 3])
def test_a_group_that_is_not_there_is_refused(group: int) -> None:
    with pytest.raises(ValueError, match=f"no group {group}; there are 3"):
        SMALL.entries_of(group)
    with pytest.raises(ValueError, match=f"no group {group}"):
        SMALL.without(WHOLE, group)


def test_wrong_arrays_are_refused() -> None:
    numbers = [[1, 1]] * 4
    with pytest.raises(ValueError, match=r"samples, rows, .* one length each"):
        SpectrumDelta.from_arrays([[1], [1, 2], [1], [1]])
    with pytest.raises(ValueError, match="group, multiplicity, incidence, states must be"):
        SpectrumDelta.from_arrays(numbers, [0], [1], [1], [1, 2])
    for group in (-1, 2):
        with pytest.raises(ValueError, match=f"groups {group} to {group}; expected 0 to 1"):
            SpectrumDelta.from_arrays(numbers, [group], [1], [1], [1])
    with pytest.raises(ValueError, match="whole numbers: found dtype float64"):
        SpectrumDelta.from_arrays(numbers, [0.5], [1], [1], [1])


def test_parts_of_unlike_groups_or_none_are_not_merged() -> None:
    with pytest.raises(ValueError, match="0 parts"):
        merge_deltas([])
    with pytest.raises(ValueError, match=r"\[2, 3\] groups"):
        merge_deltas([SMALL, SpectrumDelta.from_arrays([[0, 0]] * 4)])


def test_changes_are_frozen_compared_by_content_and_pickled() -> None:
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL
    assert changes_of(MULTIPLICITY, INCIDENCE) != SMALL
    assert SMALL != "changes"
    assert repr(SMALL) == "SpectrumDelta(3 groups, 7 samples, 11 entries)"
    with pytest.raises(ValueError, match="read-only"):
        SMALL.states[0] = 5
    with pytest.raises(FrozenInstanceError):
        SMALL.states = SMALL.group  # type: ignore[misc]
    with pytest.raises(TypeError, match="unhashable"):
        hash(SMALL)
