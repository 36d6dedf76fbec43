from __future__ import annotations

import pytest
from rich.console import Console

from tsstore.commands import terminal


def test_numbers_and_amounts_are_to_the_right_and_text_to_the_left(capsys):
    rows = [
        ["a", "1,234", "1.5 MiB", "x y", "", "3 %"],
        ["bcd", "5", "2 bytes", "12 z", "7", "12 %"],
    ]
    terminal.print_table(["name", "rows", "size", "text", "some", "share"], rows)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "name   rows     size  text  some  share",
        "a     1,234  1.5 MiB  x y           3 %",
        "bcd       5  2 bytes  12 z     7   12 %",
    ]


def test_brackets_are_shown_and_long_lines_are_whole(capsys):
    terminal.print_table(["[b]"], [["[red]x:smile:"]])
    terminal.print_lines(["[i]" + "word " * 100, "12"])
    out = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in out] == [
        "[b]",
        "[red]x:smile:",
        "[i]" + "word " * 99 + "word",
        "12",
    ]


def test_a_table_without_rows_is_its_headings(capsys):
    terminal.print_table(["layer", "rows"], [])
    assert capsys.readouterr().out.split() == ["layer", "rows"]


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    class Terminal(Console):
        def __init__(self, **options):
            super().__init__(**options, force_terminal=True)

    monkeypatch.setattr(terminal, "Console", Terminal)
    with terminal.progress() as report:
        report("conv_1", 1, 2)
        report("conv_1", 2, 2)
    assert isinstance(report, terminal.Bars)


def test_progress_elsewhere_is_a_line_for_what_is_done(capsys):
    with terminal.progress() as report:
        report("conv_1", 1, 2000)
        report("conv_1", 2000, 2000)
    assert capsys.readouterr() == ("", "conv_1: 2,000 of 2,000 done\n")


@pytest.mark.parametrize("done", [1, 2])
def test_silent_progress_is_none(capsys, done):
    with terminal.progress(silent=True) as report:
        report("conv_1", done, 2)
    assert capsys.readouterr() == ("", "")
