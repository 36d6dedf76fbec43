"""Scratch in the memory of a cluster's workers: a block's scratch file that one of them holds."""

from __future__ import annotations

import mmap
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tsstore.analysis.execution.scratch_objects import SpanReader
from tsstore.errors import AnalysisError
from tsstore.text import format_memory

SCHEME = "workers:"
"""Begins the place of an analysis, with the room that each worker has for it, and each file."""

ROOM_SECONDS = 60.0
"""How long room is waited for: workers that went away may come back."""

POLL_SECONDS = 0.25


class LostRecordsError(AnalysisError):
    """A worker that held records is gone, or cannot be reached: they have to be counted again.

    Attributes
    ----------
    values
        What has been found all the same, by the keys of tasks.
    """

    values: dict[Any, Any]


def make_place(name: str, room: int) -> str:
    """Return the place of an analysis for which each worker holds so many bytes."""
    return f"{SCHEME}{name}:{room}"


def is_held(place: str) -> bool:
    """Whether a place, or a file, is in the memory of workers."""
    return place.startswith(SCHEME)


def name_of(file: str) -> str:
    """Return the name of a file that a worker holds."""
    return file.split("@", 1)[0].rsplit(":", 1)[1]


def this_holder() -> Any:
    """Return what holds records for the worker that runs this task."""
    from distributed import get_worker

    from tsstore.analysis.execution.record_holder import NAME

    plugins = get_worker().plugins
    latest = time.monotonic() + ROOM_SECONDS
    # Another client may have asked for it a moment before.
    while NAME not in plugins and time.monotonic() < latest:
        time.sleep(POLL_SECONDS)
    return plugins[NAME]


class HeldWriter:
    """Writes a scratch file of so many bytes at most into memory, and lets a worker hold it."""

    def __init__(self, place: str, name: str, most_bytes: int) -> None:
        _, self._place, room = place.split(":")
        self._room, self._name = int(room), name
        # Memory of its own, which the system has back when nobody needs the file any more.
        self._memory = mmap.mmap(-1, most_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.tell, self.write = self._memory.tell, self._memory.write

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Add pieces one after the other."""
        for piece in pieces:
            self.write(piece)

    def hold(self) -> str:
        """Let this worker hold the file, or another one that has room; return where it is then."""
        holder, data = this_holder(), memoryview(self._memory)[: self.tell()]
        of, latest = (self._place, self._room), time.monotonic() + ROOM_SECONDS
        while True:
            if holder.reserve(*of, len(data)) and holder.put(self._place, self._name, data):
                return self._at(holder.address)
            if holder.has_ended(self._place):
                raise AnalysisError("the analysis has ended: nobody needs these records any more")
            if address := holder.put_elsewhere(*of, self._name, data):
                return self._at(address)
            if time.monotonic() >= latest:
                raise AnalysisError(
                    f"no worker has room for {format_memory(len(data))} of records, as seen from "
                    f"{socket.gethostname()}: there are fewer workers than when the analysis "
                    "began; start some and analyse again, or give scratch="
                )
            time.sleep(POLL_SECONDS)

    def _at(self, address: str) -> str:
        return f"{SCHEME}{self._place}:{self._name}@{address}"


class HeldReader(SpanReader):
    """Reads spans of a scratch file that a worker holds."""

    def __init__(self, file: str, holder: Any) -> None:
        super().__init__()
        where, self._address = file.split("@", 1)
        _, self._place, self._name = where.split(":")
        self._holder = holder

    def _fetched(self, size: int) -> Iterator[bytes | memoryview]:
        data = self._holder.read(self._address, self._place, self._name, self._at, size)
        if data is None:
            raise LostRecordsError(f"worker {self._address} does not hold its records any more")
        self._at += len(data)
        yield memoryview(data)
