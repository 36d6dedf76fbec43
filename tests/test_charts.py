from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore import charts


@given(st.floats(1e-9, 1e15))
def test_an_axis_has_a_few_round_numbers_from_0_to_its_end(most):
    ticks = charts.Axis("samples", most).ticks
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 6
    assert ticks[-1] <= most * (1 + 1e-9)


@given(st.lists(st.tuples(st.integers(1, 10**12), st.integers(1, 10**6)), max_size=20))
def test_octaves_hold_all_states(entries):
    names, states = charts.octaves([q for q, _ in entries], [n for _, n in entries])
    assert sum(states) == sum(n for _, n in entries)
    assert len(names) == len(states) == max((q.bit_length() for q, _ in entries), default=0)


def test_octaves_by_an_example():
    assert charts.octaves([1, 2, 3, 4, 130], [5, 1, 1, 2, 1]) == (
        ["1", "2", "4", "8", "16", "32", "64", "2⁷"],
        [5, 2, 2, 0, 0, 0, 0, 1],
    )


@pytest.mark.parametrize("is_bound", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 1.2])
def test_a_bar_is_within_its_line_and_says_what_it_shows(value, is_bound):
    drawn = charts.bar(charts.Row("", value, value - 0.1, value + 0.1, is_bound), title="<a> & b")
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == "<a> & b"
    places = [float(part.get(name)) for part in root.iter("line") for name in ("x1", "x2")]
    assert min(places) >= 4
    assert max(places) <= 196


def test_a_curve_has_its_band_and_its_words_even_without_points():
    full = charts.curve([(1, 1), (10, 5)], [(1, 0, 2), (10, 4, 6)], "samples", "states", "title")
    kinds = [part.tag for part in ElementTree.fromstring(full)]
    assert kinds.count("polygon") == kinds.count("polyline") == 1
    words = [part.text for part in ElementTree.fromstring(full).iter("text")]
    assert "samples" in words
    assert "states" in words
    empty = ElementTree.fromstring(charts.curve([], [], "samples", "states", "title"))
    assert "polygon" not in [part.tag for part in empty]


def test_bars_stand_on_the_floor():
    drawn = ElementTree.fromstring(charts.bars(["1", "2", "3"], [4, 0, 2], "q", "states", "title"))
    (bars,) = [part for part in drawn.iter("path") if part.get("class") == "block"]
    floor = charts.HEIGHT - charts.BOTTOM
    tall, low = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", bars.get("d"))
    assert (float(tall[1]), float(low[1])) == (floor, floor)
    assert floor - float(tall[2]) == 2 * (floor - float(low[2])) == floor - charts.TOP
    assert float(low[0]) - float(tall[0]) >= 2 * float(bars.get("stroke-width"))


def test_rows_have_a_line_each_and_names_that_differ():
    lines = [charts.Row("a", 0.5, 0.4, 0.6), charts.Row("<b>", 0.2, 0.2, 0.2, is_bound=True)]
    drawn = ElementTree.fromstring(charts.rows(lines, "efficiency", "title"))
    names = [part.text for part in drawn.iter("text")]
    assert {"a", "<b>"} <= set(names)
    assert len(list(drawn.iter("circle"))) == 1
    assert [part.get("class") for part in drawn.iter("path")].count("mark") == 1


def test_long_names_stand_above_their_lines_and_only_the_longest_lose_their_middle():
    long, longest = "encoder.layers.11.self_attn", [f"{'a' * 40}{'b' * 40}{i}" for i in range(2)]
    lines = [charts.Row(name, 0.5, 0.4, 0.6) for name in (long, "few", *longest)]
    drawn = ElementTree.fromstring(charts.rows(lines, "efficiency", "title"))
    names = [part.text for part in drawn.iter("text") if part.get("class")]
    assert names[:2] == [long, "few"]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= charts.ABOVE
