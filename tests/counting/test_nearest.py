"""Distances to the nearest of many states, against NumPy on decoded ones."""

from __future__ import annotations

import numpy as np
import pytest
from counting_cases import run_as_plain_python
from hypothesis import given, settings
from hypothesis import strategies as st

from tsstore.counting import nearest as module
from tsstore.counting.firing import row_words
from tsstore.counting.nearest import nearest


def check(seed: int, neurons: int, states: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    decoded = [rng.random((count, neurons)) < 0.4 for count in (states, others)]
    packed = [np.packbits(own, axis=1, bitorder="little") for own in decoded]
    words = [row_words(np.ascontiguousarray(own)) for own in packed]
    apart = (decoded[0][:, None] != decoded[1][None]).sum(axis=2)
    least = np.full(states, neurons + 1)
    nearest(words[0], words[1][: others // 2], least)
    nearest(words[0], words[1][others // 2 :], least)
    assert least.tolist() == apart.min(axis=1, initial=neurons + 1).tolist()


@settings(max_examples=25)
@given(
    st.integers(0, 99),
    st.sampled_from([1, 7, 8, 63, 64, 65, 130, 300]),
    st.integers(1, 20),
    st.integers(0, 40),
)
def test_the_nearest_is_that_of_all_pairs(seed, neurons, states, others):
    check(seed, neurons, states, others)


@pytest.mark.parametrize("neurons", [64, 65])
def test_loops_do_the_same_as_plain_python(monkeypatch, neurons):
    run_as_plain_python(monkeypatch, module)
    with np.errstate(over="ignore"):
        check(0, neurons, 5, 9)
