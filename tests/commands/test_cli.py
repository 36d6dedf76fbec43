"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple

import children
import numpy as np
import pytest
import typer
from helpers import draw_batch, write_run
from typer.testing import CliRunner

import tsstore
from tsstore import cli
from tsstore.commands import app as commands
from tsstore.demo.model import load_lenet5
from tsstore.store.maintenance.compact import disk_usage


class Ended(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from tsstore.demo import mnist
    from tsstore.demo.run import capture_demo

    path = tmp_path_factory.mktemp("cli") / "run.zarr"
    images, labels = mnist.test_images()
    capture_demo(path, images[:300], labels[:300])
    return str(path)


def tsstore_command(*arguments):
    """Run a command in this process; return how it ended and what it printed."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tsstore", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    return Ended(end.value.code, out.getvalue(), err.getvalue())


def tsstore_process(*arguments):
    """Run a command in a process of its own, as a user does."""
    return children.run("from tsstore.cli import main; main()", *arguments, strict=True)


def test_json_is_one_document_and_nothing_else(run):
    result = tsstore_process("analyze", run, "--json")
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
    assert layer["entropy_plug_in_bits"] == result.entropy("plug-in")
    assert layer["efficiency"] == result.efficiency()
    assert layer["efficiency_interval"]["upper"] == result.efficiency_interval().upper
    assert layer["verdict"] == result.verdict
    assert 0 < document["network_efficiency"] < 1


def test_a_warning_is_a_line_without_code(run):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = tsstore_command("surprising", run, "--layer", "conv_3", "-n", "3")
    assert result.returncode == 0
    (line,) = [line for line in result.stderr.splitlines() if not line.endswith(" done")]
    assert line.startswith(f"tsstore: warning: {run}: layer conv_3: no state occurs in two samples")


def test_analyze_prints_a_table_and_a_sentence(run):
    result = tsstore_command("analyze", run, "--layer", "conv_3", "--memory", "64MiB")
    assert result.returncode == 0
    heading, line, *rest = result.stdout.splitlines()
    assert heading.split() == ["layer", "neurons", "samples", "distinct", "efficiency", "verdict"]
    assert line.startswith("conv_3")
    assert "≥" in line
    assert rest[-1] == "conv_3 needs more than 900 samples."
    assert result.stderr.splitlines()[-1].startswith("conv_3: ")


def test_analyze_shows_plug_ins_and_reasons_when_it_is_verbose(run):
    result = tsstore_command("analyze", run, "--verbose")
    assert result.returncode == 0
    heading, *lines = result.stdout.splitlines()
    assert heading.split()[3:] == ["rows", "distinct", "efficiency", "plug-in", "cap", "verdict"]
    assert lines[0].split()[3] == "172,800"
    assert [line.split(": ")[0] for line in lines[-3:]] == ["conv_1", "conv_2", "conv_3"]
    assert all(line.endswith(".") for line in lines[-3:])


def test_intervals_can_be_left_out_or_made_of_clusters(run):
    arguments = ["analyze", run, "--layer", "conv_1", "--json"]
    (without,) = json.loads(tsstore_command(*arguments, "--no-intervals").stdout)["layers"].values()
    assert without["efficiency_interval"] is without["margin_bits"] is None
    (alone,) = json.loads(tsstore_command(*arguments).stdout)["layers"].values()
    clustered = json.loads(tsstore_command(*arguments, "--dependent-by", "label").stdout)
    assert alone["efficiency"] == pytest.approx(without["efficiency"], rel=1e-12)
    by_label = clustered["layers"]["conv_1"]
    assert (alone["clusters"], by_label["clusters"]) == (None, 10)
    assert by_label["margin_bits"] > alone["margin_bits"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["analyze", "nowhere.zarr"], "is no tsstore run"),
        (["info", "nowhere.zarr"], "is no tsstore run"),
        (["compact", "nowhere.zarr", "out.zarr"], "is no tsstore run"),
        (["compact", "RUN", "RUN"], "exists already"),
        (["verify", "nowhere.zarr"], "is no tsstore run"),
        (["repair", "nowhere.zarr"], "is no tsstore run"),
        (["info", "no\x1b[31m\nwhere.zarr"], r"no\x1b[31m where.zarr is no tsstore run"),
        (["analyze"], "; see tsstore analyze --help"),
        (["no-such-command"], "no-such-command"),
        (["analyse"], "did you mean 'analyze'?"),
        (["--foo"], "; see tsstore --help"),
        (["analyze", "RUN", "--layer", "conv_9"], "has no layer 'conv_9'"),
        (["analyze", "RUN", "--cluster", "patient"], "no sample column 'patient'"),
        (["analyze", "RUN", "--unique-by", "name"], "no sample column 'name'; it has id, label"),
        (["analyze", "RUN", "--memory", "lots"], "expected a positive amount"),
        (["analyze", "RUN", "--memory", "1KiB"], "give at least --memory "),
        (["analyze", "RUN", "--scheduler", "mine"], "expected None, 'threads'"),
        (["plan", "RUN", "--memory", "1KiB"], "give at least --memory "),
        (["states", "RUN"], "--layer"),
        (["export", "RUN", "--layer", "conv_1"], "--states"),
        (["layers", "nowhere:thing"], "cannot be imported"),
        (["layers", "tsstore.demo.model:load_lenet5", "--input", "a,b"], "expected sizes"),
        (["layers", "tsstore.demo.model:load_lenet5", "--input", "2,-1"], "expected sizes"),
        (["layers", "tsstore.demo.model:load_lenet5", "--input", "2,3"], "failed: RuntimeError"),
        (["layers", "tsstore.demo.model:load_weights"], "cannot be imported"),
        (
            ["layers", "tsstore.demo.mnist:load_idx"],
            "failed: TypeError: load_idx() missing",
        ),
        (["layers", "tsstore.cli:FAILED"], "failed: TypeError: 'int' object is not callable"),
        (["layers", "tsstore.demo.mnist:test_images"], "gives a tuple; expected a nn.Module"),
        (["demo", "--output", "RUN"], "exists already; pass --overwrite"),
        (["compact", "RUN", "/dev/null/out.zarr"], "cannot be created"),
        (["demo", "--mnist", "nowhere"], "nowhere"),
        (["demo", "--output", "RUN/new.zarr"], "new.zarr lies within the run"),
        (["info", "RUN/part-00000-00000"], "no tsstore run but a part of one"),
        (["info", "RUN/zarr.json"], "did you mean"),
        (["analyze", "RUN", "--bins", "3"], "found neither; expected --by or --window"),
        (["analyze", "RUN", "--by", "label", "--window", "3"], "--by label and --window 3; expect"),
        (["neurons", "RUN", "--near", "2"], "--near is 2; expected a share"),
        (["neurons", "RUN", "--near", "0.9", "--by", "label"], "leave out --by and --window"),
        (["report", "RUN", "--other-step", "3"], "pass --compare OTHER"),
    ],
)
def test_errors_are_one_line_on_stderr_and_exit_code_2(run, arguments, words):
    result = tsstore_command(*(word.replace("RUN", run) for word in arguments))
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("tsstore: ")
    assert words.lower() in result.stderr.lower()


def test_so_they_are_in_a_process_of_its_own():
    result = tsstore_process("info", "nowhere.zarr")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("tsstore: nowhere.zarr is no tsstore run")
    assert result.stderr.count("\n") == 1


def test_without_a_command_there_is_help_and_each_command_has_an_example():
    help_text = tsstore_command("--help").stdout
    assert tsstore_command().stdout == help_text
    assert "Exit codes" in help_text
    for name in ("demo", "info", "analyze", "export"):
        assert f"Example: tsstore {name}" in tsstore_command(name, "--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(monkeypatch, shell):
    words = {"COMP_WORDS": "tsstore ana", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "tsstore ana"}
    words["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    for name, value in (words | {"_TSSTORE_COMPLETE": f"complete_{shell}"}).items():
        monkeypatch.setenv(name, value)
    assert "analyze" in tsstore_command().stdout


def test_the_version_is_that_of_the_package():
    assert tsstore_command("--version").stdout == f"tsstore {tsstore.__version__}\n"


def test_a_run_that_was_meant_is_named(tmp_path):
    write_run(tmp_path / "evaluation.zarr", [draw_batch(np.random.default_rng(0), 3)])
    result = tsstore_command("info", str(tmp_path / "evalution.zarr"))
    assert f"did you mean {tmp_path / 'evaluation.zarr'}?" in result.stderr
    assert "check the path" in tsstore_command("info", str(tmp_path / "a" / "b")).stderr


def test_errors_speak_of_options():
    say = cli.in_options
    assert say("give at least memory='64KiB'") == "give at least --memory 64KiB"
    assert say("pass another folder as scratch=, or") == "pass another folder as --scratch, or"
    assert say("with intervals=False; leave") == "with --no-intervals; leave"
    assert say("the same dependent_by=, or unique_by=") == "the same --dependent-by, or --unique-by"


def test_a_finished_run_is_followed_to_its_end(run):
    result = tsstore_command("info", run, "--watch", "0.1")
    assert result.returncode == 0
    (line,) = result.stdout.splitlines()
    assert line.startswith("300 samples · 1 part · finished, last commit ")
    assert line.endswith(" of disk left")


def test_a_live_run_is_followed_part_by_part(tmp_path, monkeypatch):
    from tsstore.commands import runs
    from tsstore.store.format.attributes import PartAttributes

    path, clock = tmp_path / "run.zarr", iter([0.0, 4.0])
    batch = draw_batch(np.random.default_rng(0), 20)
    writers = [
        write_run(path, [batch], close=False, part=PartAttributes(rank=rank, world_size=2))
        for rank in (0, 1)
    ]

    def sleep(seconds):
        if seconds != 5:
            raise KeyboardInterrupt
        monkeypatch.setattr(runs, "sleep", lambda seconds: sleep(0))
        writers[1].append(batch)
        writers[1].commit()

    monkeypatch.setattr(runs, "sleep", sleep)
    monkeypatch.setattr(runs, "monotonic", lambda: next(clock))
    result = tsstore_command("info", str(path), "--watch", "5", "--total", "100")
    assert result.returncode == 130
    first, _, _, whole, quiet, busy = result.stdout.splitlines()
    assert first.startswith("40 of 100 samples · 2 parts · live")
    assert whole.startswith("60 of 100 samples · 5.0 a second · 0:00:08 left · 2 parts · live")
    assert quiet == "  part-00000-00000: 20 samples · 0.0 a second"
    assert busy.startswith("  part-")
    assert busy.endswith(": 40 samples · 5.0 a second")
    assert "pass --watch" in tsstore_command("info", str(path), "--total", "100").stderr


def test_a_job_that_says_its_length_and_waits_is_followed(tmp_path, monkeypatch):
    from tsstore.commands import runs
    from tsstore.store.format.attributes import PartAttributes

    batch = draw_batch(np.random.default_rng(0), 20)
    told = PartAttributes(total=80)
    writer = write_run(tmp_path / "run", [batch], close=False, part=told)
    clock = iter([0.0, 4.0])

    def sleep(seconds):
        if writer.waited is not None:
            raise KeyboardInterrupt
        writer.waited = 1e6
        writer.append(batch)
        writer.commit()

    monkeypatch.setattr(runs, "sleep", sleep)
    monkeypatch.setattr(runs, "monotonic", lambda: next(clock))
    first, then, part = tsstore_command(
        "info", str(tmp_path / "run"), "--watch", "5"
    ).stdout.splitlines()
    assert first.startswith("20 of 80 samples · 1 part · live")
    assert then.startswith("40 of 80 samples · 5.0 a second · 0:00:08 left · 1 part · live")
    assert part.endswith(": 40 samples · 5.0 a second · waits for the writer 100% of the time")
    document = json.loads(tsstore_command("info", str(tmp_path / "run"), "--json").stdout)
    assert (document["total"], document["parts"][0]["waited"]) == (80, 1e6)
    write_run(tmp_path / "run", [batch], part=PartAttributes(rank=1, step=2)).seal()
    document = json.loads(tsstore_command("info", str(tmp_path / "run"), "--json").stdout)
    assert document["total"] is None, "of one step nobody knows"


def test_info_says_what_a_run_holds(run):
    result = tsstore_command("info", run)
    assert result.returncode == 0
    summary = "300 samples · 1 part · columns id, label, prediction · finished, last commit "
    assert summary in result.stdout
    assert re.search(r"^part-00000-00000 .* finished *$", result.stdout, re.MULTILINE)
    assert "172,800" in result.stdout
    assert "repeat" not in result.stdout


@pytest.fixture
def cut_off(tmp_path):
    """A run whose only part was stopped, with ids that repeat, and a leftover."""
    batch = draw_batch(np.random.default_rng(0), 5, columns={"id": [1, 2, 3, 2, 1]})
    write_run(tmp_path / "run.zarr", [batch], close=False).seal("stopped by \x1b[31mMemoryError")
    (tmp_path / "run.zarr" / "part-00000-00000" / "x.partial").write_bytes(b"")
    return tmp_path / "run.zarr"


def test_info_says_why_a_run_was_cut_off_and_what_repeats(cut_off):
    result = tsstore_command("info", str(cut_off))
    assert result.returncode == 0
    words = " ".join(result.stdout.split())
    assert r"cut off (stopped by \x1b[31mMemoryError), last commit" in words
    assert "2 samples repeat another one of the same id" in words
    assert "\x1b" not in result.stdout


def test_samples_that_repeat_others_are_named_or_left_out(cut_off):
    result = tsstore_command("analyze", str(cut_off))
    first = "2 of 5 samples have the id of another one and other rows"
    assert (result.returncode, result.stdout.startswith(first)) == (0, True)
    each = tsstore_command("analyze", str(cut_off), "--repeats", "each")
    last = '2 samples repeat others, and each counts as a draw of its own (repeats="each").'
    assert " ".join(each.stdout.split()).endswith(last)
    once = tsstore_command("analyze", str(cut_off), "--unique-by", "id")
    assert once.stdout.splitlines()[-1] == "2 samples repeat others (left out)."
    document = json.loads(
        tsstore_command("analyze", str(cut_off), "--unique-by", "id", "--json").stdout
    )
    counted = [layer["samples"] for layer in document["layers"].values()]
    assert (document["samples"], document["samples_left_out"], counted) == (3, 2, [3, 3])
    assert document["repeated_samples"] == 0


def test_verify_of_a_sound_run_is_a_summary(run):
    result = tsstore_command("verify", run)
    assert result.returncode == 0
    assert re.fullmatch(
        r".*run\.zarr: 1 part with 3 layers in all, [\d,]+ chunks, [\d,]+ bytes read, 300 samples: "
        r"0 errors, 0 notes\n",
        result.stdout,
    )
    assert result.stderr.splitlines()[-1].startswith("part-00000-00000: ")


def test_verify_of_a_damaged_run_names_each_file_and_exits_with_1(cut_off):
    for name in ("0000-conv_1", "0001-fc.2"):
        (cut_off / "part-00000-00000" / "layers" / name / "states" / "c" / "0" / "0").unlink()
    result = tsstore_command("verify", str(cut_off))
    assert result.returncode == 1
    *lines, summary = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["error", "error", "note"]
    assert "0000-conv_1/states/c/0/0 (layer conv_1): it is missing; restore" in lines[0]
    assert summary.endswith("5 samples: 2 errors, 1 note")
    result = tsstore_command("verify", str(cut_off), "--json")
    assert (result.returncode, result.stderr) == (1, "")
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert [finding["layer"] for finding in document["findings"]] == ["conv_1", "fc.2", ""]


def test_repair_says_what_it_did(cut_off):
    result = tsstore_command("repair", str(cut_off))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "removed part-00000-00000/x.partial",
        f"{cut_off}: 0 parts sealed, 0 arrays reshaped, 1 file removed",
    ]
    document = json.loads(tsstore_command("repair", str(cut_off), "--json").stdout)
    found = {"run": str(cut_off), "sealed": [], "reshaped": [], "removed": []}
    assert document.items() >= found.items()


def test_repair_of_a_live_run_is_refused(tmp_path):
    batch = draw_batch(np.random.default_rng(0), 5)
    write_run(tmp_path / "run.zarr", [batch], close=False)
    result = tsstore_command("repair", str(tmp_path / "run.zarr"))
    assert (result.returncode, result.stdout) == (2, "")
    assert f"is being written by process {os.getpid()} on" in result.stderr


def test_layers_lists_what_can_be_captured():
    result = CliRunner().invoke(
        commands.app,
        ["layers", "tsstore.demo.model:load_lenet5", "--input", "2,1,28,28", "--samples", "1000"],
    )
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    width, follows = ["1", "its", "width"], ["1", "the", "layer", "it", "follows:", "conv_1"]
    weight = ["576", "1,728", "1,728,000"]
    assert lines[1].split() == ["conv_1", "Conv2d", "20", *width, *weight]
    assert lines[2].split()[:13] == ["elu_1", "ELU", "20", *follows, *weight, "yes"]
    assert lines[9].split() == ["conv_3", "Conv2d", "100", *width, "1", "13", "13,000"]


def test_layers_lists_what_the_modules_tell_where_there_is_no_input():
    result = tsstore_command("layers", "tsstore.demo.model:load_lenet5")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert "_".join(lines[0]) == "_".join(["layer", *tsstore.layers(load_lenet5()).columns])
    assert lines[1][:3] == ["conv_1", "Conv2d", "20"]
    assert lines[2][:3] == ["elu_1", "ELU", "yes"]


def test_a_module_that_cannot_even_be_read_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_network.py").write_text("def load(:\n", encoding="utf-8")
    result = tsstore_command("layers", "broken_network:load")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("tsstore: importing broken_network failed: SyntaxError")
    assert result.stderr.count("\n") == 1


def test_names_cannot_write_to_the_terminal(tmp_path):
    from tsstore.store.files.local import LocalFiles
    from tsstore.store.format.attributes import LayerAttributes, PartAttributes
    from tsstore.store.run import create_run
    from tsstore.store.writing.batch import Batch, LayerBatch
    from tsstore.store.writing.part import PartWriter

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


def test_usage_is_printed_without_a_command():
    result = tsstore_command("--help")
    assert result.returncode == 0
    commands = ["demo", "layers", "info", "verify", "repair", "compact"]
    commands += ["plan", "analyze", "combine", "neurons", "information", "shared-states"]
    commands += ["compare", "steps", "report", "states", "samples", "surprising", "export"]
    listed = result.stdout.partition("Commands:")[2].partition("Exit codes")[0]
    assert re.findall(r"^  ([\w-]+) ", listed, re.MULTILINE) == commands


def test_the_command_line_itself_imports_nothing_heavy():
    code = "import sys, tsstore.cli, tsstore.commands.app; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "typer" in done.stdout.split()
    heavy = {"numpy", "torch", "zarr", "dask", "numba", "pandas", "scipy"}
    assert not heavy & set(done.stdout.split())


JOB = """
import time
import tsstore
from tsstore.cli import main

def analyze(*arguments, **options):
    print("started", flush=True)
    time.sleep(60)

tsstore.analyze = analyze
main()
"""


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_is_one_line_on_stderr_and_exit_code_130(run):
    process = children.start(JOB, "analyze", run, strict=True)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "tsstore: interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize("raised", [KeyboardInterrupt, typer.Abort])
def test_however_typer_is_interrupted_it_ends_likewise(monkeypatch, capsys, raised):
    def interrupt(**options):
        raise raised

    monkeypatch.setattr(commands, "app", interrupt)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "tsstore: interrupted\n")


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch):
    def fail(**options):
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_compact_says_what_has_become_of_parts_files_and_bytes(run, tmp_path):
    out = tmp_path / "out.zarr"
    result = tsstore_command("compact", run, str(out))
    assert result.returncode == 0
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{out}: 1 part → 1, ")
    files, size = disk_usage(out)
    assert f" files → {files:,}, " in line
    assert line.endswith(f" bytes → {size:,}; all entries are the same")
    tasks = [task.partition(":")[0] for task in result.stderr.splitlines()]
    assert tasks == ["write part-00000-00000", "compare part-00000-00000"]
    assert tsstore.open(out).samples == 300


def test_a_report_is_written_where_it_is_told(run, tmp_path):
    result = tsstore_command("report", run, "--output", str(tmp_path / "page.html"))
    assert result.returncode == 0
    assert result.stdout.startswith(f"{tmp_path / 'page.html'}: ")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
