"""Whether a run goes on: told from seals, from the processes that write, and from the clock."""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tsstore.errors import FormatError
from tsstore.store.process import started, system
from tsstore.store.reading.part import Part
from tsstore.text import ago, printable

LIVE = "live"
FINISHED = "finished"
CUT_OFF = "cut off"
CONTINUED = "continued"

RESUMED = "resumed by"
"""Begins what the seal of a part says that a later job goes on from."""

QUIET = timedelta(minutes=10)
"""A writer that cannot be asked counts as live for so long after its last sign of life, …"""
QUIET_COMMITS = 5
"""… or for so many times what it took on average from one commit to the next, …"""
QUIET_AT_MOST = timedelta(days=1)
"""… but no longer than this."""

Probe = Callable[[Mapping[str, Any]], bool | None]
"""Says whether the process that a part names is alive; None where that cannot be known here."""


@dataclass(frozen=True)
class PartStatus:
    """Whether a part goes on: live, finished, cut off, or continued by another one.

    `why` says why it was cut off, `by` is the directory of the part that continues it.
    """

    state: str
    why: str = ""
    by: str = ""

    def __str__(self) -> str:
        if not self.by:
            return f"{self.state}: {self.why}" if self.why else self.state
        # That it was resumed is said already.
        why = "" if self.why.startswith(RESUMED) else f": {self.why}"
        return f"{self.state} by {self.by}{why}"


def part_statuses(
    parts: Sequence[Part], now: datetime | None = None, probe: Probe | None = None
) -> tuple[PartStatus, ...]:
    """Return the status of each of a run's parts; `probe` asks for those not sealed."""
    now, probe = now or datetime.now(UTC), probe or is_alive
    statuses, successors = [], _Successors(parts)
    for part in parts:
        status = _own_status(part, now, probe)
        if status.state == CUT_OFF and (later := successors.of(part)):
            status = PartStatus(CONTINUED, status.why, later.directory)
        statuses.append(status)
    return tuple(statuses)


def run_status(
    parts: Sequence[Part], created: str, now: datetime | None = None, probe: Probe | None = None
) -> str:
    """Return ``"live"``, ``"finished"`` or ``"cut off"``.

    A run is live while one of its parts is, and while there is none soon after it was created.
    It is finished when, at each step, the newest part of every rank of the latest world size was
    closed by its own writer.
    """
    now = now or datetime.now(UTC)
    states = {status.state for status in part_statuses(parts, now, probe)}
    if LIVE in states or (not parts and _is_recent(created, "created", now)):
        return LIVE
    steps = defaultdict(list)
    for part in parts:
        steps[part.step].append(part)
    return FINISHED if parts and all(map(_is_complete, steps.values())) else CUT_OFF


def last_commit(parts: Iterable[Part]) -> datetime | None:
    """Return the time of the latest commit; None where nothing has been committed."""
    times = [
        parse_time(part.record.time, f"{part.directory}: time of the commit")
        for part in parts
        if part.record.time
    ]
    return max(times, default=None)


def status_text(status: str, parts: Iterable[PartStatus], commit: datetime | None) -> str:
    """Return whether a run is live, finished or cut off and why, and when it last committed."""
    reasons = {part.why for part in parts if part.state == CUT_OFF}
    if status == CUT_OFF and reasons:
        status += f" ({'; '.join(sorted(map(printable, reasons)))})"
    if commit is None:
        return f"{status}, nothing committed"
    return f"{status}, last commit {ago(datetime.now(UTC) - commit)}"


def parse_time(text: str, what: str) -> datetime:
    """Return ISO 8601 text with an offset as a time; FormatError where it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise FormatError(f"{what} is {text!r:.80}; expected ISO 8601 with an offset from UTC")
    return time


def is_alive(process: Mapping[str, Any]) -> bool | None:
    """Say whether the process that a part names is alive; None where that cannot be known here.

    Another process may have its number by now: the time at which it started must be the same. And
    in another container, or after another boot, numbers mean other processes.
    """
    pid, began = process.get("pid"), process.get("started")
    here = process.get("host") == socket.gethostname() and process.get("system") == system()
    if not here or type(pid) is not int or began is None:
        return None
    return bool(started(pid) == began)


def _own_status(part: Part, now: datetime, probe: Probe) -> PartStatus:
    """Return a part's status, whatever other parts there are."""
    if part.seal is not None:
        return PartStatus(FINISHED) if is_closed(part) else PartStatus(CUT_OFF, part.seal.why)
    alive = probe(part.attributes.process)
    if alive is None:
        sign_of_life = part.record.time or part.attributes.started
        alive = _is_recent(sign_of_life, part.directory, now, _quiet(part))
        return PartStatus(LIVE) if alive else PartStatus(CUT_OFF, "no commit for a long time")
    return PartStatus(LIVE) if alive else PartStatus(CUT_OFF, "its process is gone")


def is_closed(part: Part) -> bool:
    """Whether its own writer has closed it: having said all, or all that was wanted."""
    return part.seal is not None and closes(part.seal.why)


def closes(why: str) -> bool:
    """Whether the reason of a seal is that its own writer had come to its end."""
    return why.split(":")[0] == "closed"


def _is_recent(text: str, what: str, now: datetime, quiet: timedelta = QUIET) -> bool:
    return now - parse_time(text, f"{what}: its last sign of life") <= quiet


def _quiet(part: Part) -> timedelta:
    """Return how long the part's writer may be silent."""
    if not part.record.generation:
        return QUIET
    begun = parse_time(part.attributes.started, f"{part.directory}: its start")
    committing = parse_time(part.record.time, f"{part.directory}: time of the commit") - begun
    usual = QUIET_COMMITS * committing / part.record.generation
    return min(max(QUIET, usual), QUIET_AT_MOST)


class _Successors:
    """Finds the part that goes on where another one of its step was cut off."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._of_rank: dict[tuple[object, int], list[Part]] = defaultdict(list)
        self._world_sizes: dict[object, set[int]] = defaultdict(set)
        for part in sorted(parts, key=_attempt):
            self._of_rank[part.step, part.attributes.rank].append(part)
            self._world_sizes[part.step].add(part.attributes.world_size)

    def of(self, part: Part) -> Part | None:
        """Return the first part that goes on from one; None where none does."""
        mine = part.attributes
        same_rank = self._of_rank[part.step, mine.rank]
        place = bisect_right(same_rank, mine.attempt, key=_attempt)
        if place < len(same_rank):
            return same_rank[place]
        # In a smaller world, a rank takes over from several.
        heirs = {(part.step, mine.rank % size) for size in self._world_sizes[part.step]}
        later = [
            other
            for heir in heirs - {(part.step, mine.rank)}
            for other in self._of_rank[heir]
            if other.attributes.rank == mine.rank % other.attributes.world_size
            and other.attributes.started > mine.started
        ]
        return min(later, key=lambda other: other.attributes.started, default=None)


def _attempt(part: Part) -> int:
    return part.attributes.attempt


def _is_complete(parts: Sequence[Part]) -> bool:
    """Whether the newest part of each rank of the latest world size was closed."""
    world_size = max(parts, key=lambda part: part.attributes.started).attributes.world_size
    newest: dict[int, Part] = {}
    for part in sorted(parts, key=_attempt):
        newest[part.attributes.rank] = part
    closed = [rank < world_size and is_closed(part) for rank, part in newest.items()]
    return sum(closed) == world_size
