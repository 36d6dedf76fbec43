"""What the pages on durability and resuming say is so."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import signal
from pathlib import Path

import children
import numpy as np
import pytest
from helpers import draw_batch, start_part
from pages import DOCS, blocks, read
from typer.main import get_command

import tsstore
from tsstore import errors
from tsstore.commands.app import app
from tsstore.recording.recorder import Recorder
from tsstore.store.files.local import LocalFiles
from tsstore.store.maintenance.verify import verify
from tsstore.store.reading.store import StateStore

ROOT = Path(__file__).parents[2]
PAGE = DOCS / "how-to" / "resume.md"
TEXT = read("how-to/resume.md", "explanation/durability.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = sorted(set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S))))
SCRIPT, _ = blocks(TEXT)
(SHOWN,) = blocks(TEXT, "console")

KILLED = """
import functools, os, signal, sys, tsstore
from tsstore.recording.recorder import Recorder

tsstore.capture = functools.partial(tsstore.capture, commit_every=3600)
record, batches = Recorder.batch, 0

def batch(self, *samples, **columns):
    global batches
    batches += 1
    if batches == 4:
        self.commit()
    if batches == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return record(self, *samples, **columns)

Recorder.batch = batch
sys.stdout.reconfigure(line_buffering=True)
exec(open(sys.argv[1]).read())
"""


def named(pattern: str) -> list[str]:
    return [name for name in CODE if re.fullmatch(pattern, name)]


def test_the_same_command_goes_on_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluate.py").write_text(SCRIPT, encoding="utf-8")
    killed = children.run(KILLED, "evaluate.py", cwd=tmp_path)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    again = children.run(SCRIPT, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    said = [line for line in SHOWN.splitlines() if line[0] not in "$K"]
    assert (killed.stdout + again.stdout).splitlines() == said
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert (failed, tried) == (0, 4)
    store = tsstore.open(tmp_path / "run.zarr")
    assert sorted(store.column("id")) == list(range(2_000))
    assert verify(tmp_path / "run.zarr").ok


@pytest.mark.parametrize("name", named(r"[A-Z]\w+(Error|Warning)"))
def test_errors_exist(name):
    assert issubclass(getattr(errors, name), errors.TsstoreError | errors.TsstoreWarning)


def test_all_that_must_be_expected_is_named():
    for name in ("WriterError", "ResumeError", "PartSealedError", "StoreExistsError"):
        assert f"`{name}`" in TEXT
    for promise in range(1, 8):
        assert len(re.findall(rf"\*\*P{promise}, ", TEXT)) == 1


@pytest.mark.parametrize("name", named("[a-z_]+=.*"))
def test_settings_exist(name):
    setting, _, value = name.partition("=")
    functions = tsstore.capture, tsstore.analyze
    (parameter,) = filter(None, (inspect.signature(f).parameters.get(setting) for f in functions))
    if value:
        assert value.strip('"') != str(parameter.default) or setting == "durable"


@pytest.mark.parametrize("name", named("tsstore [a-z].*"))
def test_commands_exist(name):
    _, command, *arguments = name.split()
    parameters = get_command(app).commands[command].params
    # Of several runs, one is given.
    given = [
        (parameter.metavar or parameter.name.upper()).rstrip("….")
        for parameter in parameters
        if parameter.opts[0][0] != "-"
    ]
    positional = [word for word in arguments if word.isupper()]
    options = {option for parameter in parameters for option in parameter.opts}
    assert positional in ([], given)
    assert {word for word in arguments if word[0] == "-"} <= options


@pytest.mark.parametrize("name", named(r"test_\w+\.py"))
def test_tests_exist(name):
    assert list((ROOT / "tests").rglob(name))


def test_what_recorders_and_stores_have_exists():
    for name in named(r"(recorder|store)\..*"):
        owner, attribute = re.match(r"(\w+)\.(\w+)", name).groups()
        home = {"recorder": Recorder, "store": StateStore}[owner]
        assert hasattr(home, attribute) or f"\n    {attribute}\n" in home.__doc__
    assert "recorder.missing(ids)" in CODE


def test_a_commit_writes_in_the_order_that_the_page_gives(tmp_path, monkeypatch):
    done = []
    write, sync = LocalFiles.write, LocalFiles.sync
    monkeypatch.setattr(
        LocalFiles, "write", lambda self, key, data: (done.append(key), write(self, key, data))
    )
    monkeypatch.setattr(LocalFiles, "sync", lambda self: (done.append("sync"), sync(self)))
    batch = draw_batch(np.random.default_rng(0), 5, columns={"id": range(5)})
    writer = start_part(tmp_path, batch, durable=True)
    writer.append(batch)
    done.clear()
    writer.commit()
    first = done.index("sync")
    assert all("/c/" in key for key in done[:first])
    assert done[first : first + 3] == ["sync", "part-00000-00000/commit/zarr.json", "sync"]
    assert all(key.endswith(("states/zarr.json", "id/zarr.json")) for key in done[first + 3 :])
    assert len(done) == 2 * first + 3 > 3


def test_the_table_is_one_that_the_benchmark_prints():
    """Its heading is; the numbers are those of a machine."""
    shown = re.search(r"benchmarks/commit.py.*?```text\n(.*?)```", TEXT, re.DOTALL)[1]
    benchmark = (ROOT / "benchmarks" / "commit.py").read_text(encoding="utf-8")
    (columns,) = re.findall(r"^COLUMNS = (\(.*\))$", benchmark, re.MULTILINE)
    heading = "".join(f"{column:>11}" for column in ast.literal_eval(columns))
    assert shown.count(heading) == shown.count("file system") >= 2
    lines = [line.split() for line in shown.splitlines() if re.search("(yes|no) ", line)]
    assert {line[0] for line in lines} == {"3", "20", "500"}


def test_the_readme_leads_here():
    assert "](docs/explanation/durability.md)" in README
