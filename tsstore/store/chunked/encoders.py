"""Encoding chunks: at once, or on threads of their own while the writer goes on."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.store.chunked import chunk as chunks
from tsstore.store.format.arrays import ArraySpec

Then = Callable[[bytes], object]
"""Takes an encoded chunk: writes its file."""


class Encoder:
    """Encodes each chunk at once, on the thread that asks for it."""

    def put(self, spec: ArraySpec, entries: npt.NDArray[Any], then: Then) -> None:
        """Encode a whole chunk, and pass it on.

        Parameters
        ----------
        spec
            What the chunk is.
        entries
            Its entries, shape (chunk_rows, *row_shape); they may be changed afterwards.
        then
            Takes the encoded bytes, on the thread that calls a method here.
        """
        then(chunks.encode(spec, entries))

    def drain(self) -> None:
        """Return when all chunks have been passed on."""

    def close(self) -> None:
        """End its threads, and drop what has not been passed on."""


class EncoderPool(Encoder):
    """Encodes chunks on threads of its own; whoever puts them in passes them on, in their order.

    What is done on the disk, and in which order, does not depend on how fast the threads are. There
    are never more chunks on the way than threads: a copy of each, in memory that is used again.

    After an error, of an encoder or in passing a chunk on, every later call raises it: a chunk is
    missing, and nothing that comes after it may be committed.

    Parameters
    ----------
    threads
        How many chunks are encoded at a time.
    """

    def __init__(self, threads: int) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._pending: deque[_Job] = deque()
        self._limit = threads
        self._error: BaseException | None = None
        # Daemons, as the writer's thread is: the last chunks may come at the interpreter's end.
        self._threads = [EncoderThread(self._jobs) for _ in range(threads)]
        for thread in self._threads:
            thread.start()
        self._stop = weakref.finalize(self, _stop, self._jobs, threads)
        self._stop.atexit = False

    def put(self, spec: ArraySpec, entries: npt.NDArray[Any], then: Then) -> None:
        """Encode a chunk on another thread; pass the oldest on first if there are enough."""
        with self._keeping_errors():
            oldest = self._oldest() if len(self._pending) == self._limit else None
            job = _Job(spec, entries, then, oldest.room if oldest else None)
            # The encoder begins while the oldest chunk is being written.
            self._pending.append(job)
            self._jobs.put(job)
            if oldest is not None:
                oldest.pass_on()

    def drain(self) -> None:
        """Pass on all chunks."""
        with self._keeping_errors():
            while self._pending:
                self._oldest().pass_on()

    def close(self) -> None:
        """End the threads, each after the chunk at hand, and drop what has not been passed on."""
        self._stop()
        for thread in self._threads:
            thread.join()
        self._pending.clear()

    def _oldest(self) -> _Job:
        """Take the oldest chunk, when it has been encoded."""
        job = self._pending.popleft()
        job.done.acquire()
        return job

    @contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        if self._error is not None:
            raise self._error
        try:
            yield
        except BaseException as error:
            self._error = error
            raise


class _Job:
    """A copy of a chunk, and what has become of it."""

    def __init__(
        self,
        spec: ArraySpec,
        entries: npt.NDArray[Any],
        then: Then,
        room: npt.NDArray[np.uint8] | None,
    ) -> None:
        if room is None or len(room) < entries.nbytes:
            room = np.empty(entries.nbytes, np.uint8)
        self.room = room
        self.done = threading.Lock()
        self.done.acquire()
        self._spec = spec
        self._then = then
        self._entries = room[: entries.nbytes].view(entries.dtype).reshape(entries.shape)
        self._entries[...] = entries
        self._encoded: bytes | BaseException = b""

    def run(self) -> None:
        """Encode the chunk; an error is the result's."""
        try:
            self._encoded = chunks.encode(self._spec, self._entries)
        except BaseException as error:
            self._encoded = error
        self.done.release()

    def pass_on(self) -> None:
        """Pass on the encoded chunk, or raise the encoder's error."""
        if isinstance(self._encoded, BaseException):
            raise self._encoded
        self._then(self._encoded)


class EncoderThread(threading.Thread):
    """Encodes one chunk after the other; a daemon, as the writer's thread is.

    The last chunks may come at the interpreter's end.
    """

    def __init__(self, jobs: SimpleQueue[_Job | None]) -> None:
        super().__init__(name="tsstore encoder", daemon=True)
        self._jobs = jobs

    def run(self) -> None:
        """Work until there is no job but None."""
        while (job := self._jobs.get()) is not None:
            job.run()
            # The next one may take long to come.
            del job


def make_encoder(threads: int) -> Encoder:
    """Return what encodes chunks on so many threads: with one, on that of the writer."""
    return Encoder() if threads == 1 else EncoderPool(threads)


def _stop(jobs: SimpleQueue[_Job | None], threads: int) -> None:
    for _ in range(threads):
        jobs.put(None)
