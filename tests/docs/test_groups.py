"""What docs/how-to/groups.md shows is what happens."""

from __future__ import annotations

from pages import run_code


def test_the_code_runs_and_says_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_code("how-to/groups.md")
    printed = capsys.readouterr().out
    assert "Samples where label = 3." in printed
