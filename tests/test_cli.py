"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

import tsstore
from tsstore import cli


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from tsstore.demo import mnist
    from tsstore.demo.run import capture_demo

    path = tmp_path_factory.mktemp("cli") / "run.zarr"
    images, labels = mnist.test_images()
    capture_demo(path, images[:300], labels[:300])
    return str(path)


def tsstore_command(*arguments):
    code = "from tsstore.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_json_is_one_document_and_nothing_else(run):
    result = tsstore_command("analyze", run, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["run"] == run
    assert list(document["layers"]) == ["conv_1", "conv_2", "conv_3"]
    layer = document["layers"]["conv_1"]
    result = tsstore.analyze(run)["conv_1"]
    assert layer["rows"] == 300 * 576
    assert layer["samples"] == 300
    assert layer["neurons"] == 20
    assert layer["distinct"] == result.distinct
    assert layer["entropy_bits"] == result.entropy()
    assert layer["efficiency"] == result.efficiency()
    assert layer["verdict"] == result.verdict
    assert 0 < document["network_efficiency"] < 1


def test_analyze_prints_a_table_and_a_sentence(run):
    result = tsstore_command("analyze", run, "--layer", "conv_3", "--memory", "64MiB")
    assert result.returncode == 0
    heading, line, *rest = result.stdout.splitlines()
    assert heading.split() == [
        "layer", "neurons", "samples", "rows", "distinct", "efficiency", "verdict",
    ]  # fmt: skip
    assert line.startswith("conv_3")
    assert "≥" in line
    assert rest[-1] == "1 of 1 layer needs more samples."
    assert result.stderr.splitlines()[-1].startswith("conv_3: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["analyze", "nowhere.zarr"], "is no tsstore run"),
        (["info", "nowhere.zarr"], "is no tsstore run"),
        (["analyze"], "RUN"),
        (["no-such-command"], "no-such-command"),
        (["analyze", "RUN", "--layer", "conv_9"], "has no layer 'conv_9'"),
        (["analyze", "RUN", "--memory", "lots"], "expected a positive amount"),
        (["analyze", "RUN", "--memory", "1KiB"], "give at least memory="),
        (["analyze", "RUN", "--scheduler", "mine"], "expected None, 'threads'"),
        (["layers", "nowhere:thing"], "cannot be imported"),
        (["layers", "tsstore.demo.model:load_lenet5", "--input", "a,b"], "expected sizes"),
        (["demo", "--output", "RUN"], "exists already"),
        (["demo", "--mnist", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line_on_stderr_and_exit_code_2(run, arguments, words):
    result = tsstore_command(*(run if word == "RUN" else word for word in arguments))
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("tsstore: ")
    assert words.lower() in result.stderr.lower()


def test_info_says_what_a_run_holds(run):
    result = tsstore_command("info", run)
    assert result.returncode == 0
    assert "300 samples · 1 part · columns id, label, prediction · finished" in result.stdout
    assert "sealed: closed" in result.stdout
    assert "172,800" in result.stdout


def test_layers_lists_what_can_be_captured():
    result = CliRunner().invoke(
        cli.app, ["layers", "tsstore.demo.model:load_lenet5", "--input", "2,1,28,28"]
    )
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["conv_1", "Conv2d", "20", "576", "1728"]
    assert lines[9].split() == ["conv_3", "Conv2d", "100", "1", "13"]


def test_names_cannot_write_to_the_terminal(tmp_path):
    import numpy as np

    from tsstore.store.files import LocalFiles
    from tsstore.store.layout import LayerAttributes, PartAttributes
    from tsstore.store.writer import Batch, LayerBatch, PartWriter, create_run

    name = "[bold]\x1b[31mred"
    files = LocalFiles(tmp_path / "run.zarr", durable=False)
    create_run(files)
    writer = PartWriter(files, PartAttributes())
    writer.define({name: LayerAttributes(name, 4)}, {name: 1}, {})
    rows = np.arange(8, dtype=np.uint8).reshape(8, 1)
    writer.append(Batch(8, {name: LayerBatch(rows, np.ones(8, dtype=np.int64))}))
    writer.seal()
    for command in ("info", "analyze"):
        result = tsstore_command(command, str(tmp_path / "run.zarr"))
        assert result.returncode == 0
        assert "[bold]\\x1b[31mred" in result.stdout
        assert "\x1b" not in result.stdout


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    class Terminal(Console):
        def __init__(self, **options):
            super().__init__(**options, force_terminal=True)

    monkeypatch.setattr(cli, "Console", Terminal)
    with cli._progress() as report:
        report("conv_1", 1, 2)
        report("conv_1", 2, 2)
    assert isinstance(report, cli._Bars)


def test_usage_is_printed_without_a_command():
    result = tsstore_command("--help")
    assert result.returncode == 0
    for command in ("demo", "layers", "info", "analyze"):
        assert command in result.stdout
