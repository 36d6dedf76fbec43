from __future__ import annotations

from collections import Counter

import counting_cases
import numpy as np
import pytest
from counting_cases import as_counter, spectrum_counts
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.tables import spectra as module
from tsstore.counting.tables.spectra import Tally, add_up_spectra

counts = st.one_of(st.integers(1, 4), st.integers(62, 66), st.integers(1, 2**62))
all_pairs = st.lists(st.tuples(counts, counts), max_size=40)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    k, q = np.array(pairs, np.int64).reshape(-1, 2).T
    return k, q


@given(all_pairs)
def test_spectrum_counts_are_a_counter_of_pairs(pairs) -> None:
    k, q = arrays(pairs)
    assert as_counter(spectrum_counts(k, q)) == Counter(pairs)
    assert as_counter(spectrum_counts(k.copy(), q.copy())) == Counter(pairs)


def test_what_never_occurred_is_no_state() -> None:
    k, q = np.array([0, 3, 0, 1000]), np.array([0, 2, 0, 1])
    assert as_counter(spectrum_counts(k, q)) == Counter({(3, 2): 1, (1000, 1): 1})


def test_spectrum_counts_of_many_states() -> None:
    generator = np.random.default_rng(0)
    k = generator.zipf(1.3, 50_000) % 10_000 + 1
    q = (k + 1) // 2
    expected = Counter(zip(k.tolist(), q.tolist(), strict=True))
    assert as_counter(spectrum_counts(k, q)) == expected


@given(
    st.lists(all_pairs, max_size=5),
    st.lists(all_pairs, max_size=3),
    st.integers(0, 9),
    st.sampled_from([0, 9, 1 << 14]),
)
def test_a_tally_adds_up_whatever_it_is_given(parts, spectra, once, most_waiting) -> None:
    tally, expected = Tally(), Counter({(1, 1): once} if once else {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_WAITING", most_waiting)
        for pairs in parts:
            tally.add(*arrays(pairs))
            expected.update(pairs)
        tally.add_once(once)
        assert tally.dense[1, 1] == expected[1, 1]
        for pairs in spectra:
            tally.add_spectrum(spectrum_counts(*arrays(pairs)))
            expected.update(pairs)
        assert as_counter(tally.spectrum()) == +expected
        assert as_counter(tally.spectrum()) == +expected


def test_many_large_pairs_are_added_up_on_the_way(monkeypatch) -> None:
    added_up, original = [], module.add_up_spectra
    monkeypatch.setattr(
        module, "add_up_spectra", lambda given: (added_up.append(len(given)), original(given))[1]
    )
    tally, expected = Tally(), Counter()
    for part in range(12):
        k = 100 + np.arange(5000) % (1000 + part)
        tally.add(k, k - 1)
        expected.update(zip(k.tolist(), (k - 1).tolist(), strict=True))
    assert len(added_up) >= 2
    assert as_counter(tally.spectrum()) == expected


def test_spectra_add_up() -> None:
    one, other = Counter({(1, 1): 3, (70, 2): 4}), Counter({(1, 1): 2, (70, 3): 1, (70, 2): 1})
    spectra = [spectrum_counts(*arrays(list(each.elements()))) for each in (one, other)]
    assert as_counter(add_up_spectra(spectra)) == one + other
    assert as_counter(add_up_spectra(spectra[:1])) == one


@pytest.mark.parametrize("strided", [False, True])
def test_loops_run_as_plain_python_with_the_same_result(monkeypatch, strided) -> None:
    table = np.array([[0, 2, 300, 2], [0, 1, 1, 1]]).T
    k, q = table.T if strided else table.T.copy()
    compiled = spectrum_counts(k, q)
    counting_cases.run_as_plain_python(monkeypatch, module)
    assert as_counter(spectrum_counts(k, q)) == as_counter(compiled) == {(2, 1): 2, (300, 1): 1}
