"""However a command is stopped, it ends with a line and an exit code, and leaves nothing behind."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import children
import numpy as np
import pytest
from synthetic import draw_layer, write_layers

import tsstore
from tsstore import cli
from tsstore.commands import app as commands

ENDS = {
    signal.SIGINT: (130, "tsstore: interrupted\n"),
    signal.SIGTERM: (143, "tsstore: terminated (SIGTERM)\n"),
    signal.SIGHUP: (129, "tsstore: the terminal is gone (SIGHUP)\n"),
}
WHEN_SOMETHING_IS_THERE = """
import os, signal, sys, threading, time
from pathlib import Path

from tsstore import cli

number, folder, *arguments = sys.argv[1:]
before = set(os.listdir(folder))
signal.signal(signal.SIGINT, signal.default_int_handler)


def stop():
    while set(os.listdir(folder)) == before:
        time.sleep(0.0005)
    os.kill(os.getpid(), int(number))


threading.Thread(target=stop, daemon=True).start()
sys.argv = ["tsstore", *arguments]
cli.main()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("signals") / "run.zarr"
    write_layers(path, *({"a": draw_layer(seed, 4000, 9, distinct=9000)} for seed in (1, 2)))
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def command(kind: str, run: Path, folder: Path) -> list[object]:
    return {
        "analyze": ["analyze", run, "--memory", "24MiB", "--scratch", folder],
        "parquet": ["export", run, "--layer", "a", "--states", folder / "states.parquet"],
        "zarr": ["export", run, "--layer", "a", "--states", folder / "states.zarr"],
        "compact": ["compact", run, folder / "compacted.zarr"],
        "demo": ["demo", "--output", folder / "demo.zarr"],
    }[kind]


@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("kind", ["parquet", "zarr", "compact"])
def test_nothing_is_left_when_a_signal_comes_as_a_file_appears(run, folder, kind, number):
    done = children.run(WHEN_SOMETHING_IS_THERE, int(number), folder, *command(kind, run, folder))
    assert (done.returncode, done.stderr.splitlines(True)[-1]) == ENDS[number]
    assert list(folder.iterdir()) == []
    again = children.run(
        "import sys; from tsstore import cli; sys.argv[0] = 'tsstore'; cli.main()",
        *command(kind, run, folder),
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_scratch_is_removed(run, folder, number, monkeypatch):
    done = children.run(
        "import tsstore.analysis.schedulers as s; s.LocalScheduler.shared_memory = False\n"
        + WHEN_SOMETHING_IS_THERE,
        *(int(number), folder, *command("analyze", run, folder)),
    )
    assert (done.returncode, done.stderr.splitlines(True)[-1]) == ENDS[number]
    assert list(folder.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tsstore"])
    seen = []
    monkeypatch.setattr(
        commands, "app", lambda **_: seen.append(signal.getsignal(signal.SIGHUP)) or 0
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit):
            cli.main()
        assert seen == [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGHUP, before)


class Stopper:
    """Interrupts this thread when so many lines of tsstore have been run."""

    def __init__(self, line: float) -> None:
        self.lines = 0
        self.line = line

    def __call__(self, frame, event, argument):
        if "/tsstore/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def lines_of(call, stop_at: float = float("inf")) -> int:
    stopper = Stopper(stop_at)
    sys.settrace(stopper)
    try:
        call()
    finally:
        sys.settrace(None)
    return stopper.lines


# An interrupt between the opening of a file and its first holder leaves the closing to Python.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["analyze", "parquet", "zarr", "compact"])
def test_nothing_is_left_wherever_it_is_interrupted(tmp_path, folder, kind, monkeypatch):
    """At lines of all phases, in the thread that would get the signal."""
    run = tmp_path / "run.zarr"
    write_layers(run, {"a": draw_layer(3, 60, 9, distinct=300)})
    monkeypatch.setattr("tsstore.analysis.schedulers.LocalScheduler.shared_memory", False)

    def call():
        where = command(kind, run, folder)[-1]
        if kind == "analyze":
            tsstore.analyze(run, scratch=folder, scheduler="threads")
        elif kind == "compact":
            tsstore.compact(run, where)
        else:
            from tsstore.analysis.states.distinct import export_states

            export_states(tsstore.open(run)["a"], where, scratch=folder, scheduler="threads")

    call()  # what is imported or compiled once is not counted
    clear(folder)
    lines = lines_of(call)
    clear(folder)
    points = np.unique(np.linspace(1, lines, 40).astype(int))
    for point in points.tolist():
        try:
            lines_of(call, point)
        except KeyboardInterrupt:
            left = list(folder.iterdir())
            assert left == [], f"interrupted at line {point} of {lines}"
        else:
            clear(folder)


def clear(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
