"""Who writes, and when: this process and the time, as a store names them."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_STARTED_FIELD = 19
"""Of what follows the command's name in ``/proc/<pid>/stat``: field 22 of proc(5)."""


def now() -> str:
    """Return the time as ISO 8601 text in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def this_process() -> dict[str, Any]:
    """Return ``host``, ``pid`` and ``started`` of this process.

    Numbers of processes are used again; together with its start a process is known for certain
    until the host is booted.
    """
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started(os.getpid())}


def process_name() -> str:
    """Return this process as a person would call it."""
    return f"{socket.gethostname()} process {os.getpid()}"


def started(pid: int) -> str | None:
    """Return when a process of this host began, as the number of clock ticks since boot.

    Returns
    -------
    str or None
        None where there is no such process, or the system does not tell.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The command's name stands in brackets, and may hold anything, brackets too.
        return text.rpartition(")")[2].split()[_STARTED_FIELD]
    except (OSError, IndexError):
        return None
