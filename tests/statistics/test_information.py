from __future__ import annotations

import numpy as np
import pytest

from tsstore.statistics.information import mean_surprisal, unseen
from tsstore.statistics.spectrum import Spectrum


def test_what_is_unseen_follows_from_what_one_sample_alone_shows():
    # Of 5 samples: two states in 3 rows of one sample, one in two samples, one in four.
    spectrum = Spectrum.from_counts([3, 3, 2, 4], [1, 1, 2, 4])
    mass, states = unseen(spectrum, 5, 20)
    assert mass == 6 / 12
    assert states == pytest.approx(4 / 5 * 2**2 / 2)
    assert unseen(spectrum, 5, 2) == (mass, 1.0)
    assert unseen(Spectrum.from_counts([2, 4], [2, 4]), 5, 2000) == (0.0, 1.0)


def test_bits_of_a_hand_made_case():
    # Sample 0: a row of a state with 4 others, one of a new state; sample 1: 8 rows seen twice.
    logs = np.array([np.log2(4), 8 * np.log2(2), 0.0])
    bits = mean_surprisal(logs, np.array([1, 0, 0]), np.array([2, 8, 0]), 0.25, 4.0)
    first = (-np.log2(0.75 * 4 / 8) - np.log2(0.25 / 4)) / 2
    assert bits[:2] == pytest.approx([first, -np.log2(0.75 * 2 / 2)])
    assert np.isnan(bits[2])


def test_bits_are_finite_where_all_or_nothing_is_new():
    rows = np.array([2, 2])
    assert np.isfinite(mean_surprisal(np.zeros(2), rows, rows, 1.0, 3.0)).all()
    assert mean_surprisal(np.zeros(2), 0 * rows, rows, 0.0, 1.0).tolist() == [1.0, 1.0]
