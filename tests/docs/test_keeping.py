"""What docs/keeping.md shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "keeping.md"


def test_the_code_runs_and_says_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    names = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, PAGE.name, "exec"), names)
    assert names["at_once"].to_dict() == names["analysis"].to_dict()
    assert names["analysis"].provenance.run_id in capsys.readouterr().out
    assert len(list((tmp_path / "analyses").iterdir())) == 1
