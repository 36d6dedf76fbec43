"""Names in a store are anybody's: none of them reaches the terminal as it is."""

from __future__ import annotations

import csv
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from helpers import column, stored_files, write_run

import tsstore
from tsstore import cli
from tsstore.commands import terminal
from tsstore.store.files.local import LocalFiles
from tsstore.store.format.attributes import LayerAttributes, PartAttributes
from tsstore.store.run import create_run
from tsstore.store.writing.batch import Batch, LayerBatch
from tsstore.store.writing.part import PartWriter

pytestmark = pytest.mark.filterwarnings("default::tsstore.errors.TsstoreWarning")

COLOUR, TITLE, LINK = "\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://example.org\x1b\\link"
C1_CONTROLS, RIGHT_TO_LEFT, UNSEEN = "\x9b31m\x85", "\u202econv\u2066", "conv\u200b\u2028\ue000"
NAMES = {
    "a colour, a window's title and a link": COLOUR + TITLE + LINK,
    "a line written over, and another line": "conv\rfine\nfine",
    "other controls": C1_CONTROLS + RIGHT_TO_LEFT + UNSEEN,
    "markup": "[bold]conv[/bold]<img src=x onerror=alert(1)>",
    "a formula": "=cmd|'/c calc'!A1",
}


class Terminal(StringIO):
    """Takes what a terminal would show."""

    def isatty(self) -> bool:
        return True


def write(path: Path, name: str) -> Path:
    files = LocalFiles(path, durable=False)
    create_run(files)
    writer = PartWriter(files, PartAttributes(step=name), chunk_bytes=None)
    writer.define({name: LayerAttributes(name, 4)}, {name: 1}, {name: "int64", "id": "string"})
    rows = np.arange(8, dtype=np.uint8).reshape(8, 1)
    columns = {name: np.arange(8), "id": column([f"{name}{i % 5}" for i in range(8)])}
    batch = Batch(8, {name: LayerBatch(rows, np.ones(8, dtype=np.int64))}, columns)
    writer.append(batch)
    writer.seal()
    return path


def commands(run: Path, name: str, out: Path) -> list[list[str]]:
    """Return commands that show names, in what they print, in their progress, or in errors."""
    table = str(out / "states.zarr")
    return [
        [command, str(run), *options]
        for command, *options in (
            ("info",), ("verify",), ("plan",), ("analyze",), ("analyze", "--verbose"),
            ("analyze", "--dependent-by", name), ("states", "--layer", name),
            ("export", "--layer", name, "--states", table), ("compact", str(out / name.strip("/"))),
            ("states", "--layer", "other"), ("export", "--layer", name, "--states", table + name),
            ("analyze", "--layer", name + "2"), ("analyze", "--unique-by", name + "2"),
            ("analyze", "--scratch", name, "--memory", "1"), ("states", "--layer", name + "2"),
            ("compare", str(run)), ("analyze", "--by", name, "--format", "csv"),
            ("neurons", "--near", "0.5", "--format", "csv"), ("info", "--format", "markdown"),
            ("surprising", "--layer", name, "--format", "markdown"), ("info", "--watch", "1"),
            ("samples", "00", "--layer", name, "--format", "csv"), ("analyze", "--json"),
            ("report", "--by", "id", "--output", str(out / "page.html")), ("steps",),
            ("compare", str(run), "--novelty"), ("neurons", "--maps"),
        )
    ]  # fmt: skip


def shown(arguments: list[str], stream: type[StringIO]) -> tuple[int, str]:
    """Run a command; return its exit code and all that it printed."""
    out, err = stream(), stream()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tsstore", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return end.value.code, out.getvalue() + err.getvalue()


def test_no_name_is_a_formula_in_a_file_or_a_table(tmp_path):
    name = NAMES["a formula"]
    run, table = str(write(tmp_path / "run.zarr", name)), tmp_path / "table.csv"
    for arguments in (
        ["neurons", run, "--output", str(table)],
        ["steps", run, "--output", str(table)],
        ["surprising", run, "--layer", name, "--output", str(table)],
        ["analyze", run, "--format", "csv"],
    ):
        out = StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
            patch.setattr(sys, "argv", ["tsstore", *arguments])
            with pytest.raises(SystemExit):
                cli.main()
        text = table.read_text("utf-8") if "--output" in arguments else out.getvalue()
        cells = [cell for line in csv.reader(text.splitlines()) for cell in line]
        assert any(cell.startswith("'=cmd") for cell in cells)
        assert not any(cell.startswith("=") for cell in cells)


def test_columns_may_be_called_as_what_a_file_has_beside_them(tmp_path):
    names = ("layer", "neuron", "rate", "low", "kind", "step", "part", "sample", "bits", "position")
    run, values, table = str(tmp_path / "run.zarr"), np.arange(8) % 2, tmp_path / "table.csv"
    rows = {"a": LayerBatch(np.arange(8, dtype=np.uint8).reshape(8, 1), np.ones(8, np.int64))}
    write_run(run, [Batch(8, rows, dict.fromkeys(names, values))], neurons={"a": 4})
    by = [["neurons", run, "--by", name] for name in names if name != "step"]
    samples = [[*own, "--layer", "a"] for own in (["samples", run, "03"], ["surprising", run])]
    for arguments in (*by, *samples, *([*own, "--json"] for own in samples)):
        code, text = shown([*arguments, "--output", str(table)], StringIO)
        assert code == 0, text
        headings, *lines = csv.reader(table.read_text("utf-8").splitlines())
        assert len(set(headings)) == len(headings)
        values_of = dict(zip(headings, zip(*lines, strict=True), strict=True))
        if arguments[0] == "neurons":
            assert [line[1] for line in lines] == ["0"] * 4 + ["1"] * 4
        else:
            assert values_of["sample (recorded)"] == tuple(
                str(int(sample) % 2) for sample in values_of["sample"]
            )


def foreign(text: str) -> set[str]:
    """Return the characters of a text that do more to a terminal than to be seen."""
    return {c for c in text if not c.isprintable()} - {"\n"}


@pytest.mark.parametrize("kind", NAMES)
def test_no_name_writes_to_the_terminal(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    name = NAMES[kind]
    run = write(tmp_path / "run.zarr", name)
    ends = []
    for arguments in commands(run, name, tmp_path):
        code, text = shown(arguments, StringIO)
        assert not foreign(text), (arguments, text)
        assert "Traceback" not in text
        ends.append(code)
    assert {0, 2} == set(ends)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not foreign(page)
    assert "<img" not in page
    for file in stored_files(run):
        if file.parent.parent.name == "states" or file.parent.name == "c":
            file.write_bytes(b"")
    for arguments in commands(run, name, tmp_path):
        code, text = shown(arguments, StringIO)
        assert not foreign(text), (arguments, text)
        assert "Traceback" not in text


@pytest.mark.parametrize("kind", NAMES)
def test_no_name_in_a_bar_writes_to_the_terminal(tmp_path, monkeypatch, kind):
    name, shown = NAMES[kind], []
    written = terminal.BarsOfRich.add_task
    monkeypatch.setattr(
        terminal.BarsOfRich,
        "add_task",
        lambda self, description, **given: (
            shown.append(description) or written(self, description, **given)
        ),
    )
    run = write(tmp_path / "run.zarr", name)
    monkeypatch.setattr("sys.stderr", Terminal())
    with terminal.progress() as report:
        tsstore.analyze(run, progress=report, scheduler="synchronous")
    assert shown
    assert not foreign("".join(shown))
