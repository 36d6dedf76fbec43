"""What pages on commands show runs, and the commands that they name exist."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers import draw_batch, write_run
from pages import read, run_code
from typer.main import get_command

from tsstore.commands.app import app
from tsstore.store.format.attributes import PartAttributes

PAGES = ["how-to/compare.md", "how-to/report.md", "explanation/comparing.md"]
LAYERS = {"conv_1": 4, "fc": 9}
COLUMNS = {"id": np.arange(200), "label": np.arange(200) % 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of the names that the pages have; one of them of two steps."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    names = "run", "epoch_1", "epoch_2", "narrow", "wide", "steps"
    for name in names:
        steps = 2 if name == "steps" else 1
        for step in range(steps):
            batch = draw_batch(rng, 200, neurons=LAYERS, columns=COLUMNS)
            part = PartAttributes(attempt=step, step=step + 1 if steps > 1 else None)
            write_run(folder / f"{name}.zarr", [batch], neurons=LAYERS, part=part)
    return folder


@pytest.mark.parametrize("page", PAGES[1:])
def test_the_code_runs(page, folder, monkeypatch):
    import tsstore

    monkeypatch.chdir(folder)
    text = read(page)
    names = run_code(page, tsstore=tsstore, store=tsstore.open("steps.zarr"))
    for code in re.findall(r"`(tsstore\.\w+\(.*?\))`", text):
        exec(compile(code, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_and_their_options_exist(page):
    commands = get_command(app).commands
    text = read(page)
    named = re.findall(r"`tsstore (\w+)([^`]*)`", text)
    assert named or page.startswith("explanation")
    for command, rest in named:
        options = {option for one in commands[command].params for option in one.opts}
        assert set(re.findall(r"(?<!\S)--?[\w-]+", rest)) <= options
