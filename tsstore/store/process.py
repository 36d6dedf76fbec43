"""Who writes: this process, as a store names it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

_STARTED_FIELD = 19
"""Of what follows the command's name in ``/proc/<pid>/stat``: field 22 of proc(5)."""
_ENDED = ("Z", "X")
"""States there of processes that have ended, for which their parent has not asked yet."""


def this_process() -> dict[str, Any]:
    """Return ``host``, ``pid``, ``started`` and ``system`` of this process.

    Numbers of processes are used again, and containers may have the name of their host and numbers
    of their own; together with its start and its system a process is known for certain.
    """
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": started(pid), "system": system()}


def system() -> str | None:
    """Return which boot of the system this is, and in which namespace processes have numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except (OSError, ValueError):
        return None


def process_name() -> str:
    """Return this process as a person would call it."""
    return f"{socket.gethostname()} process {os.getpid()}"


def started(pid: int) -> str | None:
    """Return when a process of this host began, as the number of clock ticks since boot.

    None where there is no such process, it has ended, or the system does not tell.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The command's name stands in brackets, and may hold anything, brackets too.
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in _ENDED else fields[_STARTED_FIELD]
    except (OSError, IndexError):
        return None
