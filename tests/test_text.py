from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Tags

from tsstore.text import (
    ago,
    counted,
    format_memory,
    html_lines,
    html_table,
    html_title,
    is_number,
    listed,
    printable,
    text_table,
)


@given(text=st.text(st.characters()))
def test_what_is_printable_stays_and_the_rest_is_escaped(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert (shown == text) == text.isprintable()


@pytest.mark.parametrize(("amount", "text"), [
    (0, "0 bytes"), (999, "999 bytes"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"),
    (5 << 29, "2.5 GiB"), (7 << 40, "7168 GiB"),
])  # fmt: skip
def test_amounts_are_shown_in_the_unit_that_suits_them(amount, text):
    assert format_memory(amount) == text
    assert is_number(text)


@pytest.mark.parametrize(("seconds", "text"), [
    (-5, "0 s ago"), (0, "0 s ago"), (59.9, "59 s ago"), (60, "1 min ago"), (7199, "1 h ago"),
    (86_400, "1 d ago"), (86_400_000, "1,000 d ago"),
])  # fmt: skip
def test_how_long_ago_something_was(seconds, text):
    assert ago(timedelta(seconds=seconds)) == text


@given(cells=st.lists(st.text(), min_size=1, max_size=4))
def test_every_cell_is_escaped(cells):
    cells = [cell + "<i>" for cell in cells]
    around = {"style", "div", "details", "summary"}
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    assert Tags(html_table(cells, [cells])).tags == around | table


def test_names_stand_to_the_left_and_numbers_to_the_right():
    assert text_table([("layer", "rows"), ("a", "10"), ("longer", "9")]) == [
        "  layer   rows",
        "  a         10",
        "  longer     9",
    ]


@pytest.mark.parametrize(("cell", "right"), [
    ("1,234", True), ("0.5", True), ("64 MiB", True), ("3 %", True), ("", True), ("varying", True),
    ("conv_1", False), ("3 apples", False), ("2026-01-02", False),
])  # fmt: skip
def test_which_cells_are_numbers(cell, right):
    assert is_number(cell) is right


def test_sentences_name_a_few_things_and_count_the_others():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and d"
    assert listed(["a\x1b", "b", "c", "d", "e", "f"]) == "a\\x1b, b, c, d and 2 more"
    assert (counted(1, "row"), counted(1000, "row")) == ("1 row", "1,000 rows")


def test_a_cell_has_a_tooltip_where_one_is_given():
    page = html_table(["a", "b"], [["1", "2"], ["3", "4"]], [{"b": "'<i>'"}, {}])
    assert page.count("title=") == 1
    assert Tags(page).titles == ["'<i>'"]


def test_titles_and_lines_of_a_page_are_escaped():
    assert Tags(html_title("<i>", "<i>\n")).text == ["<i>", " ", "<i>\\n"]
    assert html_lines(["a<b", "", "c"]).endswith(">a&lt;b<br>c</p>")


def test_long_tables_are_opened_by_a_click():
    assert "<details open>" in html_table(["a"], [["1"]] * 25)
    assert "<details>" in html_table(["a"], [["1"]] * 26)
