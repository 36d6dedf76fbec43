"""Tables at any width: what must stay whole does, and golden texts of three networks."""

from __future__ import annotations

import csv
import os
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tsstore.commands.tables import csv_lines, markdown_lines, table_lines, wrapped

HEADINGS = ("layer", "neurons", "samples", "distinct", "efficiency", "verdict")
OPTIONAL = ("neurons", "samples")
GOLDEN = Path(__file__).parent / "tables"

DEMO = ["conv_1", "conv_2", "conv_3"]
RESNET = [
    "conv1",
    *(
        f"layer{stage}.{block}.conv{number}"
        for stage, blocks in enumerate((3, 4, 6, 3), 1)
        for block, number in product(range(blocks), (1, 2, 3))
    ),
    *(f"layer{stage}.0.downsample.0" for stage in (1, 2, 3, 4)),
]
BLOCK = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
    "feed_forward.intermediate_dense",
    "feed_forward.output_dense",
)
TRANSFORMER = [
    f"wav2vec2.encoder.layers.{layer}.{name}" for layer, name in product(range(34), BLOCK)
]


def rows_of(names: list[str]) -> list[list[str]]:
    """Return lines as an analysis prints them."""
    kinds = (("0.341 [0.339, 0.343]", "saturated"), ("≥ 0.376", "sample-limited"))
    return [
        [name, f"{64 << index % 4:,}", "50,000", f"{987 * (index + 3):,}", *kinds[index % 2]]
        for index, name in enumerate(names)
    ]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("network", ["demo", "resnet", "transformer"])
def test_networks_look_like_this(network, width):
    names = {"demo": DEMO, "resnet": RESNET, "transformer": TRANSFORMER}[network]
    lines = table_lines(HEADINGS, rows_of(names), width, OPTIONAL)
    golden = GOLDEN / f"{network}_{width}.txt"
    if os.environ.get("TSSTORE_GOLDEN") == "write":
        golden.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert lines == golden.read_text(encoding="utf-8").splitlines()
    assert max(map(cell_len, lines)) <= width


@given(
    st.lists(
        st.tuples(
            st.text("ab.漢_", min_size=1, max_size=60),
            st.integers(0, 10**12),
            st.integers(0, 10**6),
            st.text("xy ", max_size=50),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row[0],
    ),
    st.integers(1, 150),
    st.booleans(),
)
def test_numbers_stay_whole_and_names_differ_at_any_width(drawn, width, may_leave_out):
    headings = ["name", "rows in all", "of them few", "text"]
    rows = [[name, f"{rows:,}", f"{few:,}", text.strip()] for name, rows, few, text in drawn]
    lines = table_lines(headings, rows, width, ["of them few"] if may_leave_out else [])
    words = [word for line in lines for word in line.split()]
    for row in rows:
        assert row[1] in words
        assert row[2] in words or "Not shown" in "\n".join(lines)
        assert all(word in words for word in row[3].split())
    if lines[0] == rows[0][0]:
        return  # blocks: nothing is cut
    assert all(cell_len(line) <= width for line in lines[-1 - len(rows) :] if "Not" not in line)


def test_shortened_names_can_be_told_apart_where_they_differ_at_the_end():
    names = [f"some_very_long_name_of_a_network_{index}" for index in range(30)]
    lines = table_lines(["layer", "rows"], [[name, "1,234"] for name in names], 25)
    assert len(set(lines[1:])) == 30
    assert all(len(line) <= 25 for line in lines)


def test_what_all_names_begin_with_stands_once_above():
    rows = [[f"model.encoder.{name}", "1,234"] for name in ("a.first", "b.second")]
    lines = table_lines(["layer", "rows"], rows, 20)
    assert lines == [
        "layer …: model.encoder.",
        "layer       rows",
        "…a.first   1,234",
        "…b.second  1,234",
    ]


def test_optional_columns_go_the_last_one_first():
    headings, row = ["layer", "aaaa", "bbbb", "cccc"], ["x", "1", "2", "3"]
    assert table_lines(headings, [row], 17, ["bbbb", "aaaa"]) == [
        "layer  bbbb  cccc",
        "x         2     3",
        "Not shown for",
        "want of width:",
        "aaaa.",
    ]


def test_without_room_a_row_is_a_block():
    lines = table_lines(["layer", "rows", "text"], [["long.name.of.it", "12,345,678", ""]], 10)
    assert lines == ["long.name.of.it", "  rows  12,345,678"]


def test_sentences_break_between_words_and_commands_do_not():
    assert wrapped("one two three", 8) == ["one two", "three"]
    assert wrapped("  tsstore info run", 8) == ["  tsstore info run"]
    assert wrapped("", 8) == [""]


def test_csv_is_read_back_with_plain_numbers():
    rows = [["conv,1", "1,234", "0.3 [0.2, 0.4]"], ["fc", "5", "≥ 0.1"]]
    lines = csv_lines(["layer", "rows", "efficiency"], rows)
    assert list(csv.reader(lines)) == [
        ["layer", "rows", "efficiency"],
        ["conv,1", "1234", "0.3 [0.2, 0.4]"],
        ["fc", "5", "≥ 0.1"],
    ]
    assert csv_lines(["layer"], []) == ["layer"]


def test_names_mean_nothing_in_markdown_but_themselves():
    lines = markdown_lines(["layer", "rows"], [["<b>a|b</b>[x](y)", "1,234"]])
    assert lines == [
        "| layer | rows |",
        "| --- | ---: |",
        "| &lt;b&gt;a\\|b&lt;/b&gt;[x]\\(y) | 1,234 |",
    ]


def test_headings_take_the_room_that_is_left():
    headings = ("layer", "states of first", "bits to nearest")
    rows = [("conv_1", "2,702", "3 of 24"), ("conv_2", "263", "1 of 10")]
    heights = {width: len(table_lines(headings, rows, width)) - 2 for width in (23, 30, 80)}
    assert heights == {23: 3, 30: 2, 80: 1}
    for width in heights:
        assert max(map(len, table_lines(headings, rows, width))) <= width


@pytest.mark.parametrize(
    "name", ["=cmd|'/c calc'!A1", "+1+cmd|'/c calc'!A1", "-2+3+SUM(A1)", "@SUM(A1)", "\t=1", "=1"]
)
def test_no_name_is_a_formula_in_csv(name):
    (cells,) = list(csv.reader(csv_lines([name], [[name]])[1:]))
    assert cells == [f"'{name}"]
    assert csv_lines([name], [])[0].lstrip('"').startswith("'")


@pytest.mark.parametrize("figure", ["+0.398 [+0.389, +0.413]", "-3", "-1e-05", "+2 %"])
def test_figures_with_a_sign_stay_as_they_are_in_csv(figure):
    assert list(csv.reader(csv_lines(["a"], [[figure]])))[1] == [figure]


def test_names_are_neither_bold_nor_code_nor_links_in_markdown():
    names = ["**a**", "`a`", "~~a~~", "__a__", "_a_", "http://e.org", "https://e.org", "www.e.org"]
    *_, line = markdown_lines(["layer"] * len(names), [[*names]])
    assert line == (
        r"| \*\*a\*\* | \`a\` | \~\~a\~\~ | \_\_a\_\_ | \_a\_ | http\://e.org | https\://e.org "
        r"| www\.e.org |"
    )
    assert markdown_lines(["conv_1"], [])[0] == "| conv_1 |"
