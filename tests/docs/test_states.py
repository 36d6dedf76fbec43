"""What docs/how-to/states.md shows is what happens."""

from __future__ import annotations

from pages import run_code


def test_the_code_runs_and_says_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_code("how-to/states.md")
    printed = capsys.readouterr().out
    assert "■" in printed
    assert "3 of " in printed
    assert printed.endswith("1000\n")
    assert len(names["behind"]) == names["found"].multiplicity[0]
    assert len(names["odd"]) == 5
    assert names["odd"]["bits"].is_monotonic_decreasing
