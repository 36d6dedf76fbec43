"""What docs/neurons.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

from pages import run_code

PAGE = Path(__file__).parents[2] / "docs" / "neurons.md"


def test_the_code_runs_and_says_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    run_code("neurons.md")
    printed = capsys.readouterr().out
    shown = re.search(r"prints\n\n```\n(.*?)```", text, re.DOTALL).group(1)
    # Rates are those of one machine's arithmetic, to its last digits.
    without_rates = re.compile(r"\d\.\d{3}")
    assert without_rates.sub("", shown) in without_rates.sub("", printed)
    assert "[2] [] [[1, 5]]\n" in printed
    assert " dead " in printed
