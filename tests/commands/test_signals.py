"""However a command is stopped, it ends with a line and an exit code, and leaves nothing behind."""

from __future__ import annotations

import signal
import sys
from itertools import product
from pathlib import Path

import children
import pytest
from synthetic import draw_layer, write_layers

from tsstore import cli
from tsstore.commands import app as commands

ENDS = {
    signal.SIGINT: (130, "tsstore: interrupted\n"),
    signal.SIGTERM: (143, "tsstore: terminated (SIGTERM)\n"),
    signal.SIGHUP: (129, "tsstore: the terminal is gone (SIGHUP)\n"),
}
KINDS = ("parquet", "zarr", "compact")
EACH_ONCE = list(zip(KINDS, ENDS, strict=True))
WHEN_SOMETHING_IS_THERE = """
import os, signal, sys, threading, time
from pathlib import Path

from tsstore import cli

number, folder, *arguments = sys.argv[1:]
before = set(os.listdir(folder))
signal.signal(signal.SIGINT, signal.default_int_handler)
# What is started in the background, or under nohup, inherits that signals are ignored.
for ignored in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(ignored, signal.SIG_DFL)


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


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        pytest.param(*pair, marks=[] if pair in EACH_ONCE else pytest.mark.slow)
        for pair in product(KINDS, ENDS)
    ],
)
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
        "import tsstore.analysis.planning.fitting as p; p.MAX_PIECE_ROWS = 1024\n"
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


@pytest.mark.parametrize("kind", ["analyze", "parquet", "zarr", "compact"])
def test_nothing_is_left_wherever_it_is_interrupted(tmp_path, folder, kind):
    """At lines of all phases, in the thread that would get the signal."""
    run = tmp_path / "run.zarr"
    write_layers(run, {"a": draw_layer(3, 60, 9, distinct=300)})
    script = """
    import sys
    from pathlib import Path
    import interrupting
    interrupting.main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    """
    done = children.run(script, kind, run, folder, timeout=300)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
