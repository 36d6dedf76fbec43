from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tsstore.store import process
from tsstore.store.process import process_name, started, system, this_process

has_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the system has no /proc"
)


def test_a_process_knows_itself():
    known = this_process()
    assert set(known) == {"host", "pid", "started", "system"}
    assert known["pid"] == os.getpid()
    assert process_name() == f"{known['host']} process {os.getpid()}"
    assert this_process() == known


@has_proc
def test_processes_of_one_number_differ_in_when_they_started():
    script = "from tsstore.store.process import this_process; print(this_process()['started'])"
    environment = {**os.environ, "PYTHONPATH": str(Path(process.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert int(done.stdout) >= int(started(os.getpid())) > 0


@has_proc
def test_a_name_with_brackets_and_blanks_confuses_nobody(monkeypatch):
    fields = " ".join(map(str, range(3, 53)))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"12 (a) b (c)) {fields}")
    assert started(12) == "22"


def test_a_process_that_is_not_there_has_no_start():
    assert started(1 << 30) is None


@pytest.mark.parametrize("text", ["", "12 (python)", "12 (python) S 1 2"])
def test_what_cannot_be_read_is_not_known(monkeypatch, text):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert started(12) is None


@has_proc
def test_a_process_that_has_ended_is_none_also_before_its_parent_asks():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert started(child.pid) is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}/stat").exists()
    assert started(child.pid) is None
    child.communicate()


@has_proc
def test_a_system_is_a_boot_and_a_namespace_or_not_known(monkeypatch):
    boot, namespace = system().split()
    assert len(boot) == 36
    assert namespace.startswith("pid:[")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "ü".encode().decode("ascii"))
    assert system() is None
