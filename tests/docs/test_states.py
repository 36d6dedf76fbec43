"""What docs/states.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def test_the_code_runs_and_says_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    names = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, PAGE.name, "exec"), names)
    printed = capsys.readouterr().out
    assert "■" in printed
    assert "3 of " in printed
    assert printed.endswith("1000\n")
    assert len(names["behind"]) == names["found"].multiplicity[0]
    assert len(names["odd"]) == 5
    assert names["odd"]["bits"].is_monotonic_decreasing
