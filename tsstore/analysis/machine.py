"""How much memory there is, and what a user means by an amount of it."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from tsstore.counting.arena import Arena
from tsstore.errors import AnalysisError

DEFAULT_SHARE = 0.25
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def parse_memory(memory: int | str) -> int:
    """Return an amount like ``"2GiB"`` in bytes; AnalysisError if it is no positive amount."""
    from dask.utils import parse_bytes

    try:
        amount = int(parse_bytes(memory))
    except (ValueError, OverflowError, TypeError, AttributeError):
        amount = 0
    if amount <= 0:
        raise AnalysisError(f"memory is {memory!r}; expected a positive amount, such as '2GiB'")
    return amount


def available_memory() -> int:
    """Return the smaller of the machine's memory and this process's cgroup limit, in bytes."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for path in _CGROUP_LIMITS if (limit := _read_limit(path)))])


def peak_memory() -> int | None:
    """Return the most resident memory that this process has had, in bytes; None if not known."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    peaks = [int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else None


def available_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def give_back_memory(arena: Arena | None = None) -> None:
    """Give memory that was freed back to the system: of an arena, and of the C library.

    That keeps it for its threads: what tasks of other threads have freed is of no use to the one
    that goes on.
    """
    if arena is not None:
        arena.trim()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
