from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.analysis import memory as module
from tsstore.analysis.memory import (
    available_memory,
    give_back_memory,
    keep_freed_memory,
    parse_memory,
)
from tsstore.errors import AnalysisError
from tsstore.text import format_memory


@pytest.mark.parametrize(
    ("given_memory", "expected"),
    [("2GiB", 2 << 30), ("64 MiB", 64 << 20), ("1MB", 10**6), (12345, 12345), ("77KiB", 77 << 10)],
)
def test_amounts_are_read_as_people_write_them(given_memory, expected):
    assert parse_memory(given_memory) == expected


@pytest.mark.parametrize(
    "wrong", ["abc", -1, 0, "0MiB", "-2GiB", "1e400", "12 parsecs", None, ["1GiB"], float("nan")]
)
def test_what_is_no_positive_amount_is_refused_with_an_example(wrong):
    with pytest.raises(AnalysisError, match="expected a positive amount, such as '2GiB'") as error:
        parse_memory(wrong)
    assert repr(wrong) in str(error.value)


@given(st.integers(1, 1 << 50))
def test_an_amount_that_is_shown_can_be_read_again(amount):
    read = parse_memory(format_memory(amount).replace("bytes", "B"))
    assert read == pytest.approx(amount, rel=1e-3)


def test_available_memory_is_the_smallest_limit(monkeypatch, tmp_path):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    none, unlimited, small = tmp_path / "none", tmp_path / "max", tmp_path / "small"
    unlimited.write_text("max\n")
    small.write_text("1000000\n")
    monkeypatch.setattr(module, "_CGROUP_LIMITS", (none, unlimited))
    assert available_memory() == machine
    monkeypatch.setattr(module, "_CGROUP_LIMITS", (unlimited, small))
    assert available_memory() == 1_000_000
    small.write_text(str(1 << 63))
    assert available_memory() == machine
    assert all(isinstance(path, Path) for path in module._CGROUP_LIMITS)


def test_memory_is_given_back_where_the_c_library_can_and_else_nothing_happens(monkeypatch):
    trimmed = []
    library = type("Library", (), {"malloc_trim": staticmethod(trimmed.append)})
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: library)
    give_back_memory()
    assert trimmed == [0]
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: object())
    assert give_back_memory() is None


def test_the_library_is_told_to_keep_memory_where_it_can_be_told(monkeypatch) -> None:
    told = {}
    library = type("Library", (), {"mallopt": staticmethod(told.__setitem__)})
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    assert told == {-3: 32 << 20, -1: 64 << 20}
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is None
