"""The tutorial, and pages of which all code is one script, run and say what they say."""

from __future__ import annotations

import re

import pytest
from pages import blocks, read, run_code

import tsstore


def test_the_tutorial_comes_to_its_decision(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_code("tutorial.md")
    printed = capsys.readouterr().out
    (shown,) = blocks(read("tutorial.md"), "text")
    for line in shown.splitlines():
        assert line in printed
    assert not any(names["idle"].values())
    assert "conv_1: 6.7 bits in 20 neurons\nmore than 9,000 samples\n" in printed
    efficiency = {label: found["conv_1"].efficiency() for label, found in names["grouped"].items()}
    assert {min(efficiency, key=efficiency.get), max(efficiency, key=efficiency.get)} == {0, 1}
    assert (f"{efficiency[1]:.2f}", f"{efficiency[0]:.2f}") == ("0.20", "0.38")


def test_layers_say_how_many_samples_they_need(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_code("how-to/samples.md")
    analysis = names["analysis"]
    assert "about" in analysis["1"].needs
    assert "more than" in analysis["3"].needs
    assert analysis.sentence in capsys.readouterr().out
    assert names["curve"][-1].samples == 1000


def test_each_rank_records_its_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a job")
        run_code("how-to/ranks.md")
    store = tsstore.open("run.zarr")
    assert [part.samples for part in store.parts] == [500, 500]
    assert sorted(store.column("id")) == list(range(1000))


@pytest.mark.parametrize("page", ["how-to/ranks.md", "how-to/samples.md", "tutorial.md"])
def test_their_commands_exist(page):
    from typer.main import get_command

    from tsstore.commands.app import app

    named = re.findall(r"(?:^|`)tsstore (\w+)", read(page), re.MULTILINE)
    assert set(named) <= set(get_command(app).commands)
