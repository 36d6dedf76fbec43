"""Memory: how much there is, what a user means by an amount, and how too little is refused."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from tsstore.counting.arena import Arena
from tsstore.errors import AnalysisError, MemoryTooSmallError
from tsstore.text import format_memory

DEFAULT_SHARE = 0.25
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`."""
_LARGEST_KEPT = 32 << 20
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


def give_back_memory(arena: Arena | None = None) -> None:
    """Give memory that was freed back to the system: of an arena, and of the C library.

    That keeps it for its threads: what tasks of other threads have freed is of no use to the one
    that goes on.
    """
    if arena is not None:
        arena.trim()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Let the C library keep what arrays of up to 32 MiB have freed for the next ones.

    It does so by itself once one of that size has been freed: until then each is new memory. It
    holds for the whole process, to its end; :func:`give_back_memory` gives back what is kept.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_KEPT)


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def too_small(what: str, memory: int, purpose: str, needed: int) -> MemoryTooSmallError:
    """Return the error that so many bytes are too few for a purpose, which needs more of them."""
    return MemoryTooSmallError(
        f"{what}: memory of {format_memory(memory)} is too small {purpose}; give at least "
        f"memory='{-(-needed // 1024)}KiB'",
        needed,
    )


def all_fit(checks: Iterable[Callable[[], Any]]) -> list[Any]:
    """Return what all checks give; of several refusals the one that needs most is raised."""
    found, refused = [], []
    for check in checks:
        try:
            found.append(check())
        except MemoryTooSmallError as error:
            refused.append(error)
    if refused:
        raise max(refused, key=lambda error: error.needed)
    return found


def refuse(refused: MemoryTooSmallError, checks: Iterable[Callable[[], Any]]) -> NoReturn:
    """Raise a refusal, or that of a check which needs more."""

    def again() -> NoReturn:
        raise refused

    all_fit([again, *checks])
    raise refused
