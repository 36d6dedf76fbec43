"""Tables of commands as CSV and Markdown: on stdout they are alone."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from helpers import draw_batch, write_run
from typer.main import get_command
from typer.testing import CliRunner

from tsstore.commands.app import app

COMMANDS = {
    "layers": ("tsstore.demo.model:load_lenet5",),
    "info": ("run",),
    "plan": ("run",),
    "analyze": ("run",),
    "compare": ("run", "run"),
    "information": ("run", "--by", "label"),
    "shared-states": ("run", "--by", "label"),
    "neurons": ("run",),
    "steps": ("run",),
    "states": ("run", "--layer", "conv_1"),
    "samples": ("run", "00", "--layer", "conv_1"),
    "surprising": ("run", "--layer", "fc", "-n", "3"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    layers, columns = {"conv_1": 5, "fc": 9}, {"id": np.arange(100), "text": ["a" * 40] * 100}
    columns["label"] = np.arange(100) % 2
    batch = draw_batch(np.random.default_rng(0), 100, neurons=layers, columns=columns)
    batch.layers["conv_1"].rows[:30] = 0
    write_run(folder / "run", [batch], neurons=layers)
    return folder


def tables(folder, monkeypatch, name, form):
    """Return the tables on stdout as lists of lines; they are parted by empty ones."""
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, [name, *COMMANDS[name], "--format", form])
    assert done.exit_code == 0, done.output
    return [part.splitlines() for part in done.stdout.strip().split("\n\n")]


@pytest.mark.parametrize("name", COMMANDS)
def test_stdout_holds_tables_alone(folder, monkeypatch, name):
    for table in tables(folder, monkeypatch, name, "csv"):
        rows = list(csv.reader(table))
        assert len({len(row) for row in rows}) == 1
        assert len(rows) > 1


def test_tables_of_markdown_begin_with_their_headings(folder, monkeypatch):
    parts, layers = tables(folder, monkeypatch, "info", "markdown")
    assert parts[0].startswith("| part | rank |")
    assert layers[2].startswith("| conv_1 | 5 | 1 | 100 |")


def test_all_samples_are_in_csv_and_nothing_is_cut(folder, monkeypatch):
    (table,) = tables(folder, monkeypatch, "samples", "csv")
    assert len(table) > 30
    assert all("a" * 40 in line for line in table[1:])


def test_several_runs_make_one_table(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(COMMANDS, "analyze", ("run", "again"))
    shutil.copytree("run", "again", dirs_exist_ok=True)
    (table,) = tables(folder, monkeypatch, "analyze", "csv")
    assert [line.split(",")[:2] for line in table[1:]] == [
        ["run", "conv_1"], ["run", "fc"], ["again", "conv_1"], ["again", "fc"],
    ]  # fmt: skip


def test_commands_that_have_a_format_are_tried_here():
    commands = get_command(app).commands
    having = {
        name
        for name, command in commands.items()
        if "--format" in {option for one in command.params for option in one.opts}
    }
    assert having == {*COMMANDS, "combine"}
