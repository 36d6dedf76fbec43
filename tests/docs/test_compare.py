"""What docs/how-to/compare.md shows is what happens."""

from __future__ import annotations

from pages import run_code


def test_the_code_runs_and_prints_all_three_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_code("how-to/compare.md")
    found = names["found"]
    printed = capsys.readouterr().out
    for words in ("network efficiency", "bits that differ", "new rows"):
        assert words in printed
    assert found.overlap["1"].sample_limited
    assert found.overlap["3"].new_rows > 10 * found.overlap["3"].expected_new_rows
    assert list(names["found_of"]) == ["before", "after"]
    assert len(names["frame"]) == 4
