"""What each worker of a cluster holds of records in its memory, for all workers: a plugin."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import WorkerPlugin
from distributed.protocol.serialize import to_serialize
from distributed.utils import sync
from tornado.ioloop import PeriodicCallback

NAME = "tsstore-records"

IDLE_SECONDS = 600.0
"""After so long without a question, records are those of an analysis whose process is gone."""

LOOK_SECONDS = 1.0
"""How often it is looked whether a worker that does not answer is still there."""

_MOST_ENDED = 1 << 10
"""Analyses that ended, of which a task may still run."""


@dataclass
class _Place:
    """The files that are held for one analysis, by name; of `room` bytes so many are taken."""

    room: int
    taken: int = 0
    files: dict[str, memoryview] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)


class RecordHolder(WorkerPlugin):
    """Holds files of records in the memory of a worker, up to the room of each analysis.

    Names of places and files are random and never used again: a worker that was started anew at the
    same address holds none of them.
    """

    name = NAME
    idempotent = True

    def setup(self, worker: Any) -> None:
        """Begin to answer the other workers."""
        self._worker = worker
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._ended: deque[str] = deque(maxlen=_MOST_ENDED)
        handlers = {"reserve": self.reserve, "put": self.put, "read": self._read}
        worker.handlers.update({f"tsstore_{name}": own for name, own in handlers.items()})
        self._watch = PeriodicCallback(self._forget_idle, 1e3 * min(60.0, IDLE_SECONDS / 10))
        self._watch.start()

    def teardown(self, worker: Any) -> None:
        """Let go of everything."""
        self._watch.stop()
        self._places = {}

    def reserve(self, place: str, room: int, size: int) -> bool:
        """Take so many bytes of the room that this worker has for an analysis, if they are free."""
        with self._lock:
            if place in self._ended:
                return False
            own = self._places.setdefault(place, _Place(room))
            own.used = time.monotonic()
            if own.taken + size > room:
                return False
            own.taken += size
            return True

    def put(self, place: str, name: str, data: Any) -> bool:
        """Hold a file for which room was reserved; not if the analysis has ended meanwhile."""
        with self._lock:
            if place not in self._places:
                return False
            self._places[place].files[name] = memoryview(data)
            return True

    def put_elsewhere(self, place: str, room: int, name: str, data: memoryview) -> str | None:
        """Let any other worker hold a file; return its address, or None where none has room."""
        return sync(self._worker.loop, self._put_elsewhere, place, room, name, data)

    async def _put_elsewhere(
        self, place: str, room: int, name: str, data: memoryview
    ) -> str | None:
        others = [one for one in await self._worker.scheduler.ncores() if one != self.address]
        random.shuffle(others)
        for address in others:
            if await self._ask(address, "reserve", place=place, room=room, size=len(data)) and (
                await self._ask(address, "put", place=place, name=name, data=_sent(data))
            ):
                return str(address)
        return None

    async def _ask(self, address: str, question: str, **details: Any) -> Any:
        """Return what another worker answers; None if it is gone, or goes meanwhile."""
        ask = getattr(self._worker.rpc(address), f"tsstore_{question}")
        answer = asyncio.ensure_future(ask(**details))
        try:
            while not (await asyncio.wait([answer], timeout=LOOK_SECONDS))[0]:
                # To connect to one that is not there would take half a minute.
                if address not in await self._worker.scheduler.ncores():
                    return None
            return answer.result()
        except OSError:
            return None
        finally:
            answer.cancel()

    @property
    def address(self) -> str:
        """The address of this worker."""
        return str(self._worker.address)

    def read(self, address: str, place: str, name: str, start: int, size: int) -> Any:
        """Return a span of a file that a worker holds, shorter at its end; None if it is lost."""
        if address == self.address:
            return self._span(place, name, start, size)
        of: dict[str, Any] = {"place": place, "name": name, "start": start, "size": size}
        return sync(self._worker.loop, self._ask, address, "read", **of)

    def keep(self, place: str, names: set[str]) -> list[str]:
        """Let go of all files of an analysis but these; return those that are held."""
        with self._lock:
            own = self._places.get(place, _Place(0))
            own.files = {name: own.files[name] for name in own.files.keys() & names}
            own.taken = sum(map(len, own.files.values()))
            return list(own.files)

    def drop(self, place: str) -> None:
        """Let go of all files of an analysis, which has ended: a task of it may still run."""
        with self._lock:
            self._places.pop(place, None)
            self._ended.append(place)

    def has_ended(self, place: str) -> bool:
        """Whether nobody needs the records of an analysis any more."""
        with self._lock:
            return place in self._ended

    def _read(self, place: str, name: str, start: int, size: int) -> Any:
        span = self._span(place, name, start, size)
        return None if span is None else _sent(span)

    def _span(self, place: str, name: str, start: int, size: int) -> memoryview | None:
        with self._lock:
            own = self._places.get(place)
            if own is None or name not in own.files:
                return None
            own.used = time.monotonic()
            return own.files[name][start : start + size]

    def _forget_idle(self) -> None:
        """Let go of what nobody has asked for in a long time."""
        latest = time.monotonic() - IDLE_SECONDS
        with self._lock:
            self._places = {key: own for key, own in self._places.items() if own.used > latest}


def _sent(data: memoryview) -> Any:
    """Return bytes as they are sent without a copy."""
    return to_serialize(np.frombuffer(data, np.uint8))  # type: ignore[no-untyped-call]


def let_go(place: str, dask_worker: Any) -> None:
    """Let a worker hold no records of an analysis any more."""
    if holder := dask_worker.plugins.get(NAME):
        holder.drop(place)


def keep(place: str, names: set[str], dask_worker: Any) -> list[str]:
    """Return which of some files a worker holds, and let it hold no others of an analysis."""
    holder = dask_worker.plugins.get(NAME)
    return holder.keep(place, names) if holder else []
