from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.statistics.spectrum import MAX_ROWS, Spectrum, exact_total, merge

SMALL = Spectrum.from_arrays([3, 1, 3, 2], [1, 1, 2, 2], [4, 10, 5, 6])


@st.composite
def counted_states(draw: st.DrawFn) -> list[tuple[int, int]]:
    """(multiplicity, incidence) of each distinct state."""
    multiplicities = draw(st.lists(st.integers(1, 40), max_size=30))
    return [(k, draw(st.integers(1, k))) for k in multiplicities]


def spectrum_of(states: list[tuple[int, int]]) -> Spectrum:
    return Spectrum.from_counts([k for k, _ in states], [q for _, q in states])


def test_entries_are_sorted_by_multiplicity_then_incidence() -> None:
    assert SMALL.multiplicity.tolist() == [1, 2, 3, 3]
    assert SMALL.incidence.tolist() == [1, 2, 1, 2]
    assert SMALL.states.tolist() == [10, 6, 4, 5]


def test_arrays_are_int64_and_read_only() -> None:
    for array in (SMALL.multiplicity, SMALL.incidence, SMALL.states):
        assert array.dtype == np.int64
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    with pytest.raises(FrozenInstanceError):
        SMALL.states = SMALL.incidence  # type: ignore[misc]


def test_equal_pairs_are_added_up() -> None:
    spectrum = Spectrum.from_arrays([2, 1, 2], [1, 1, 1], [3, 1, 4])
    assert spectrum == Spectrum.from_arrays([1, 2], [1, 1], [1, 7])
    assert len(spectrum) == 2


def test_totals() -> None:
    assert SMALL.rows == 10 + 12 + 12 + 15
    assert SMALL.distinct == 25
    assert SMALL.rows_in_single_samples == 10 + 12
    assert all(type(total) is int for total in (SMALL.rows, SMALL.distinct))


def test_marginals() -> None:
    assert [part.tolist() for part in SMALL.multiplicities()] == [[1, 2, 3], [10, 6, 9]]
    assert [part.tolist() for part in SMALL.incidences()] == [[1, 2], [14, 11]]


def test_one_position_a_sample_makes_incidence_equal_multiplicity() -> None:
    spectrum = Spectrum.from_counts([5, 1, 1, 2])
    assert spectrum == Spectrum.from_counts([5, 1, 1, 2], [5, 1, 1, 2])
    assert spectrum.rows_in_single_samples == 2
    assert spectrum.states.tolist() == [2, 1, 1]


def test_empty_spectrum_has_nothing_and_no_warnings() -> None:
    empty = Spectrum.empty()
    assert (empty.rows, empty.distinct, empty.rows_in_single_samples, len(empty)) == (0, 0, 0, 0)
    assert [part.size for part in (*empty.multiplicities(), *empty.incidences())] == [0] * 4
    assert empty == Spectrum.from_counts([]) == Spectrum.from_counts([], []) == merge([])
    assert empty.states.dtype == np.int64


def test_equality_is_by_content() -> None:
    assert Spectrum.from_counts([1, 2]) != Spectrum.from_counts([1, 3])
    assert Spectrum.from_counts([2, 2], [1, 2]) != Spectrum.from_counts([2, 2], [1, 1])
    assert Spectrum.from_counts([1]) != Spectrum.from_counts([1, 1])
    assert Spectrum.from_counts([1]) != [1]
    with pytest.raises(TypeError, match="unhashable"):
        hash(SMALL)


def test_totals_beyond_four_bytes_are_exact() -> None:
    spectrum = Spectrum.from_arrays([10**13 - 3, 1], [10**9, 1], [1, 3])
    assert spectrum.rows == 10**13
    assert exact_total(spectrum.multiplicity, spectrum.multiplicity, spectrum.states) == (
        (10**13 - 3) ** 2 + 3
    )


def test_the_most_rows_fit_and_one_more_is_refused() -> None:
    full = Spectrum.from_arrays([MAX_ROWS - 1, 1], [1, 1], [1, 1])
    assert full.rows == MAX_ROWS
    with pytest.raises(ValueError, match=r"at most 9223372036854775807 rows: found 922.*808"):
        merge([full, Spectrum.from_counts([1])])
    with pytest.raises(ValueError, match="at most"):
        Spectrum.from_arrays([2**40], [1], [2**40])


@pytest.mark.parametrize(
    ("k", "q", "states", "message"),
    [
        ([1], [2], [1], "seen in 1 rows cannot have been seen in 2 samples"),
        ([1], [0], [1], "incidence must be from 1 to 9223372036854775807: found 0 to 0"),
        ([-3, 2], [1, 1], [1, 1], "multiplicity must be from 1 .* found -3 to 2"),
        ([1], [1], [0], "states must be from 1"),
        ([1.0], [1], [1], "multiplicity must be whole numbers: found dtype float64"),
        ([1], ["a"], [1], "incidence must be whole numbers"),
        ([1], [1], [[1]], r"states must be one-dimensional: found shape \(1, 1\)"),
        ([1, 2], [1], [1, 1], "found 2, 1 and 2 numbers"),
        (np.array([2**63], dtype=np.uint64), [1], [1], "multiplicity must be from 1"),
    ],
)
def test_bad_entries_are_refused(k: object, q: object, states: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spectrum.from_arrays(k, q, states)


def test_counts_of_different_length_or_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="found 2, 1 and 2 numbers"):
        Spectrum.from_counts([1, 2], [1])
    with pytest.raises(ValueError, match="multiplicity must be from 1"):
        Spectrum.from_counts([1, 0])
    with pytest.raises(ValueError, match="one-dimensional"):
        Spectrum.from_counts([[1, 2]])


def test_dictionary_goes_through_json() -> None:
    again = Spectrum.from_dict(json.loads(json.dumps(SMALL.to_dict())))
    assert again == SMALL
    assert list(SMALL.to_dict()) == ["multiplicity", "incidence", "states"]
    assert Spectrum.from_dict(Spectrum.empty().to_dict()) == Spectrum.empty()
    with pytest.raises(ValueError, match="states not found"):
        Spectrum.from_dict({"multiplicity": [1], "incidence": [1]})


def test_table_has_one_row_an_entry() -> None:
    frame = SMALL.to_frame()
    assert list(frame.columns) == ["multiplicity", "incidence", "states"]
    assert frame["states"].tolist() == [10, 6, 4, 5]
    assert int((frame.multiplicity * frame.states).sum()) == SMALL.rows


def test_pickle_and_repr() -> None:
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL
    assert repr(SMALL) == "Spectrum(49 rows, 25 distinct states, 4 entries)"


@given(counted_states(), st.randoms())
def test_the_order_of_the_states_does_not_matter(states: list[tuple[int, int]], random) -> None:
    shuffled = list(states)
    random.shuffle(shuffled)
    assert spectrum_of(shuffled) == spectrum_of(states)


@given(counted_states())
def test_totals_are_those_of_the_states(states: list[tuple[int, int]]) -> None:
    spectrum = spectrum_of(states)
    assert spectrum.rows == sum(k for k, _ in states)
    assert spectrum.distinct == len(states)
    assert spectrum.rows_in_single_samples == sum(k for k, q in states if q == 1)
    assert len(spectrum) == len(set(states))


@given(st.lists(counted_states(), max_size=4))
def test_merging_is_counting_the_states_together(parts: list[list[tuple[int, int]]]) -> None:
    whole = spectrum_of([state for part in parts for state in part])
    spectra = [spectrum_of(part) for part in parts]
    assert merge(spectra) == whole
    assert merge([merge(spectra[:2]), merge(iter(spectra[2:]))]) == whole


@given(
    st.lists(st.tuples(st.integers(1, 2**62), st.integers(1, 2**62), st.integers(1, 9)), max_size=9)
)
def test_exact_total_is_that_of_unbounded_integers(entries: list[tuple[int, int, int]]) -> None:
    columns = np.array(entries, dtype=np.int64).reshape(-1, 3).T
    assert exact_total(*columns) == sum(a * b * c for a, b, c in entries)


def test_what_many_numbers_ask_for_is_computed_once_and_cannot_be_changed() -> None:
    spectrum = Spectrum.from_arrays([5, 5, 7], [1, 2, 2], [3, 4, 1])
    for grouped in (spectrum.multiplicities, spectrum.incidences):
        assert grouped() is grouped()
        for array in grouped():
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 9
    assert [column.tolist() for column in spectrum.multiplicities()] == [[5, 7], [7, 1]]
    assert [column.tolist() for column in spectrum.incidences()] == [[1, 2], [3, 5]]
