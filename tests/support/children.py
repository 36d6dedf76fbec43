"""Processes of a test that begin with torch and tsstore loaded, where a new one takes seconds.

As a script this file is a server: it loads what they need, starts no thread, and forks a child for
each request. A child runs a script as ``python -c`` would, with folder, environment, streams and
warnings of its own. It ends as an interpreter does, threads and functions at exit included, but for
taking its modules down, which takes longer than most scripts. What is tested by the imports, the
start or the last breath of an interpreter itself needs a cold one: :mod:`subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import types
import warnings
from collections.abc import Collection, Mapping
from functools import cache
from typing import IO, Any

MOST_BYTES = 1 << 17
"""Of a request: script, arguments and environment."""
POLL_SECONDS = 0.003


class Child:
    """A process that the server has forked; what tests use of :class:`subprocess.Popen`.

    Attributes
    ----------
    stdin, stdout, stderr
        Pipes, as text; of standard input and output only where they were asked for.
    returncode
        None while it runs.
    """

    def __init__(self, pid: int, pipes: Mapping[str, IO[str] | None]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = (pipes[name] for name in STREAMS)

    def poll(self) -> int | None:
        """Return how it ended, or None."""
        if self.returncode is None:
            self.returncode = server().ask({"reap": self.pid})
        return self.returncode

    def wait(self, timeout: float = 180) -> int:
        """Return how it ended."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"child {self.pid}", timeout)
            time.sleep(POLL_SECONDS)
        return code

    def communicate(self, timeout: float = 180) -> tuple[str, str]:
        """Return what is left to read of its output and its errors, when it has ended."""
        if self.stdin:
            self.stdin.close()
        read: dict[str, str] = {"stdout": "", "stderr": ""}
        threads = []
        for name, stream in (("stdout", self.stdout), ("stderr", self.stderr)):
            if stream and not stream.closed:
                threads.append(threading.Thread(target=_read_all, args=(stream, read, name)))
                threads[-1].start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            for thread in threads:
                thread.join(timeout)
        return read["stdout"], read["stderr"]

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as by SIGKILL."""
        self.send_signal(signal.SIGKILL)


STREAMS = ("stdin", "stdout", "stderr")


def _read_all(stream: IO[str], read: dict[str, str], name: str) -> None:
    with stream:
        read[name] = stream.read()


def start(
    script: str,
    *arguments: object,
    strict: bool = False,
    pipes: Collection[str] = ("stdout", "stderr"),
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Child:
    """Start a process that runs a script, with `sys.argv` as ``python -c`` gives it.

    Parameters
    ----------
    script
        May be indented.
    *arguments
        Of the script.
    strict
        Whether warnings are errors, as by ``-W error``.
    pipes
        The streams that are pipes; the others are those of this process.
    cwd, env
        As of :class:`subprocess.Popen`; what is on ``PYTHONPATH`` can be imported.
    """
    request = {
        "script": textwrap.dedent(script),
        "arguments": [os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in arguments],
        "strict": strict,
        "interruptible": signal.getsignal(signal.SIGINT) != signal.SIG_IGN,
        "folder": os.fspath(cwd or os.getcwd()),
        "environment": dict(os.environ if env is None else env),
    }
    theirs, ours = [], {}
    for number, name in enumerate(STREAMS):
        if name in pipes:
            read, write = os.pipe()
            theirs.append(write if number else read)
            ours[name] = open(read) if number else open(write, "w")  # noqa: SIM115
        else:
            theirs.append(os.dup(number) if number else os.open(os.devnull, os.O_RDONLY))
            ours[name] = None
    try:
        return Child(server().ask(request, theirs), ours)
    finally:
        for stream in theirs:
            os.close(stream)


def run(script: str, *arguments: object, timeout: float = 180, **options: Any) -> Any:
    """Run a script in a process of its own, and return code and text of both streams.

    Parameters and errors are those of :func:`start`, and of :func:`subprocess.run`.
    """
    child = start(script, *arguments, **options)
    output, errors = child.communicate(timeout)
    return subprocess.CompletedProcess(script, child.returncode, output, errors)


class Server:
    """Forks children of a process that has torch and tsstore, and has no thread but its first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        # NumPy's threads for matrices would be there before the first fork.
        environment |= {"OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )

    def ask(self, request: Mapping[str, Any], streams: list[int] | None = None) -> Any:
        """Return the answer to a request; streams are its child's own."""
        message = json.dumps(request).encode()
        assert len(message) <= MOST_BYTES
        with self._lock:
            socket.send_fds(self._socket, [message], streams or [])
            answer = self._socket.recv(MOST_BYTES)
        assert answer, "the server of children has ended"
        return json.loads(answer)

    def close(self) -> None:
        """Let it end; children go on."""
        self._socket.close()
        self._process.wait()


@cache
def server() -> Server:
    """Return this process's server, which ends with it."""
    started = Server()
    atexit.register(started.close)
    return started


def _load() -> None:
    """Load what children need, and nothing that this package leaves to be loaded on demand."""
    import dask.threaded  # noqa: F401
    import torch
    from numba.core.registry import cpu_target

    import tsstore
    import tsstore.commands.app
    from tsstore.counting.warm_up import warm_up

    for name in tsstore.__all__:
        getattr(tsstore, name)
    # What Numba loads before it runs a loop takes longer than most scripts.
    cpu_target.target_context.refresh()
    warm_up(8, exact=False, groups=0, spill=False)
    assert torch.get_num_threads() > 0


def _become(request: Mapping[str, Any], streams: list[int], own_filters: int) -> Any:
    """Make this process what was asked for; return the code of its script."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, max(streams) + 1)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["-c", *request["arguments"]]
    heeded = signal.default_int_handler if request["interruptible"] else signal.SIG_IGN
    signal.signal(signal.SIGINT, heeded)
    random.seed()
    if request["strict"]:
        # Below what the packages have set when they were imported, above Python's own.
        last = warnings.filters[len(warnings.filters) - own_filters :]
        del warnings.filters[len(warnings.filters) - own_filters :]
        warnings.simplefilter("error", append=True)
        warnings.filters.extend(last)
    sys.modules["__main__"] = types.ModuleType("__main__")
    return compile(request["script"], "<script>", "exec")


def _serve(control: socket.socket) -> Any:
    """Answer requests until there are no more; in a child, return the code that it is to run."""
    own_filters = len(warnings.filters)
    _load()
    # Children need not look for garbage there: that would copy all memory that it lies in.
    gc.freeze()
    while True:
        message, streams, _, _ = socket.recv_fds(control, MOST_BYTES, len(STREAMS))
        if not message:
            return None
        request = json.loads(message)
        if "reap" in request:
            pid, status = os.waitpid(request["reap"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            assert len(os.listdir("/proc/self/task")) == 1, "a fork takes but one thread along"
            answer = os.fork()
            if not answer:
                return _become(request, streams, own_filters)
        for stream in streams:
            os.close(stream)
        control.send(json.dumps(answer).encode())


class _End:
    """The last that is called at the exit of a child whose script has ended by itself."""

    def __init__(self) -> None:
        self.code: int | None = None
        atexit.register(self)

    def __call__(self) -> None:
        if self.code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


if __name__ == "__main__":
    # Registered before anything is imported that registers more, so called when that is done.
    _end = _End()
    _control = socket.socket(fileno=int(sys.argv[1]))
    if (_script := _serve(_control)) is not None:
        # Its descriptor is closed already, and may be that of one of the script's own files.
        _control.detach()
        try:
            exec(_script, vars(sys.modules["__main__"]))
            _end.code = 0
        except Exception as _error:
            _end.code = 1
            # As it is shown where a script ends by an error, without the line above.
            sys.excepthook(type(_error), _error, _error.__traceback__.tb_next)
