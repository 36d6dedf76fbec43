from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tsstore.statistics.spectrum import Spectrum
from tsstore.statistics.verdict import SAMPLE_LIMITED_ABOVE, verdict


def test_states_of_single_samples_limit_the_layer() -> None:
    word, reason = verdict(Spectrum.from_arrays([1, 2], [1, 2], [9_998, 1]))
    assert word == "sample-limited"
    assert "100.0 % of the rows are in states seen in one sample only" in reason
    assert "more than 10 %" in reason


def test_shared_states_make_the_layer_usable() -> None:
    word, reason = verdict(Spectrum.from_counts([500, 480, 20]))
    assert word == "usable"
    assert "0.0 % of the rows" in reason
    assert "at most 10 %" in reason


def test_many_rows_of_one_sample_are_still_one_sample() -> None:
    word, reason = verdict(Spectrum.from_counts([64, 64], [1, 1]))
    assert word == "sample-limited"
    assert "100.0 %" in reason


def test_the_threshold_itself_is_usable() -> None:
    assert SAMPLE_LIMITED_ABOVE == 0.10
    assert verdict(Spectrum.from_counts([1, 9]))[0] == "usable"
    assert verdict(Spectrum.from_counts([1, 1, 17]))[0] == "sample-limited"


def test_the_reason_is_one_sentence() -> None:
    for counts in ([1, 1], [40, 50]):
        _, reason = verdict(Spectrum.from_counts(counts))
        assert reason.endswith(".")
        assert reason.count(". ") == 0


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are no rows"):
        verdict(Spectrum.empty())


def test_the_examples_of_the_documentation_give_what_they_show() -> None:
    page = Path(__file__).parent.parent / "docs" / "statistics.md"
    failed, tried = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert tried > 10
    assert failed == 0
