"""What docs/how-to/keeping.md shows is what happens."""

from __future__ import annotations

from pages import run_code


def test_the_code_runs_and_says_what_the_page_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_code("how-to/keeping.md")
    assert names["at_once"].to_dict() == names["analysis"].to_dict()
    assert names["analysis"].provenance.run_id in capsys.readouterr().out
    assert len(list((tmp_path / "analyses").iterdir())) == 1
