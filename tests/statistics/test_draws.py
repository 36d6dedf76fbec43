from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from richness_cases import counts_per_state, one_a_sample, several_a_sample

from tsstore.statistics.draws import Draws, draws_from_one_to
from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.unseen import unseen

# Rows: 0 five times, 1 three times, 2 and 3 once; samples: 0 in three, 1 in two.
SPECTRUM = several_a_sample([[0, 0, 0, 1], [0, 1, 1, 2], [0, 3]])


def test_by_rows_a_draw_is_a_row() -> None:
    rows = Draws.of(SPECTRUM)
    assert rows.counts.tolist() == [1, 3, 5]
    assert rows.states.tolist() == [2, 1, 1]
    assert (rows.number, rows.total) == (10, 10)
    assert (rows.distinct, rows.once, rows.twice) == (4, 2, 0)


def test_by_samples_a_draw_is_a_sample() -> None:
    samples = Draws.of(SPECTRUM, 3)
    assert samples.counts.tolist() == [1, 2, 3]
    assert samples.states.tolist() == [2, 1, 1]
    assert (samples.number, samples.total) == (3, 7)
    assert (samples.distinct, samples.once, samples.twice) == (4, 2, 1)


def test_samples_without_a_state_of_their_own_count() -> None:
    assert Draws.of(SPECTRUM, 50).number == 50


def test_weights_add_up_to_the_total() -> None:
    assert Draws.of(SPECTRUM, 3).weights.tolist() == [2.0, 2.0, 3.0]
    assert Draws.of(SPECTRUM).weights.sum() == 10.0


def test_numbers_are_python_integers_that_cannot_overflow() -> None:
    huge = Draws.of(Spectrum.from_arrays([1, 2**40], [1, 2**40], [2**40, 2**20]), np.int64(2**40))
    numbers = (huge.number, huge.total, huge.once, huge.twice, huge.distinct)
    assert all(type(number) is int for number in numbers)
    assert huge.total == 2**40 + 2**60


def test_unseen_is_that_of_the_draws() -> None:
    assert Draws.of(SPECTRUM).unseen == unseen(10, 2, 0)
    assert Draws.of(SPECTRUM, 3).unseen == unseen(3, 2, 1)


def test_more_incidences_than_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="seen in 3 samples, so there were at least as many"):
        Draws.of(SPECTRUM, 2)


def test_no_rows_are_refused() -> None:
    for samples in (None, 5):
        with pytest.raises(ValueError, match="no rows"):
            Draws.of(Spectrum.empty(), samples)


def test_a_size_is_a_whole_number_of_the_draws() -> None:
    assert draws_from_one_to(9, 1) == 1
    assert type(draws_from_one_to(9, np.int64(7))) is int
    for size in (0, 10):
        with pytest.raises(ValueError, match=f"from 1 to the 9 that there are: found {size}"):
            draws_from_one_to(9, size)
    with pytest.raises(TypeError):
        draws_from_one_to(9, 2.5)  # type: ignore[arg-type]


@given(counts_per_state)
def test_with_one_position_a_sample_both_ways_are_one(counts: list[int]) -> None:
    spectrum, samples = one_a_sample(counts)
    by_rows, by_samples = Draws.of(spectrum), Draws.of(spectrum, samples)
    assert by_rows.counts.tolist() == by_samples.counts.tolist()
    assert by_rows.states.tolist() == by_samples.states.tolist()
    assert (by_rows.number, by_rows.total) == (by_samples.number, by_samples.total)
