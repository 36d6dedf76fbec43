"""What docs/how-to/neurons.md shows is what happens."""

from __future__ import annotations

import re

from pages import blocks, read, run_code


def test_the_code_runs_and_says_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_code("how-to/neurons.md")
    printed = capsys.readouterr().out
    (shown,) = blocks(read("how-to/neurons.md"), "text")
    # Rates are those of one machine's arithmetic, to its last digits.
    without_rates = re.compile(r"\d\.\d{3}")
    assert without_rates.sub("", shown) in without_rates.sub("", printed)
    assert "[2] [] [[1, 5]]\n" in printed
    assert " dead " in printed
