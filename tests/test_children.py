"""The tests' own way to start processes: they are like those of an interpreter that was started."""

from __future__ import annotations

import signal
import subprocess
import sys

import children
import pytest

SCRIPT = """
import atexit, os, sys, threading, time, warnings

def speak():
    spoken.wait()
    time.sleep(0.05)
    print("thread")

atexit.register(print, "exit")
spoken = threading.Event()
threading.Thread(target=speak).start()
print(sys.argv[1:], os.getcwd(), os.environ.get("OTHER"), __name__, flush=True)
spoken.set()
{end}
"""
ENDS = {
    "pass": 0,
    "raise SystemExit(3)": 3,
    "raise ValueError('mine')": 1,
    "warnings.warn('mine')": 1,
    "os.kill(os.getpid(), 15)": -15,
    "os._exit(7)": 7,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_child_does_and_ends_as_a_cold_interpreter(end, tmp_path):
    script = SCRIPT.format(end=end)
    environment = {"OTHER": "given", "PATH": ""}
    child = children.run(script, 1, "b", strict=True, cwd=tmp_path, env=environment)
    cold = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, "1", "b"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert (child.returncode, child.stdout) == (cold.returncode, cold.stdout)
    assert child.returncode == ENDS[end]
    assert child.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]


def test_a_child_has_torch_and_tsstore_and_may_be_spoken_to_and_killed():
    script = """
    import sys
    print("torch" in sys.modules and "tsstore" in sys.modules, flush=True)
    print(input(), flush=True)
    input()
    """
    child = children.start(script, pipes=("stdin", "stdout", "stderr"))
    assert child.stdout.readline() == "True\n"
    child.stdin.write("hello\n")
    child.stdin.flush()
    assert child.stdout.readline() == "hello\n"
    assert child.poll() is None
    child.kill()
    assert child.communicate() == ("", "")
    assert child.returncode == -signal.SIGKILL


def test_a_child_that_does_not_end_is_killed():
    child = children.start("import time; time.sleep(60)")
    with pytest.raises(subprocess.TimeoutExpired):
        child.communicate(timeout=0.2)
    assert child.wait() == -signal.SIGKILL
