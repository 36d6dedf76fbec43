"""Where finished batches go: a part's writer on a thread of its own, and what its errors do."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from tsstore.errors import WriterError, warn
from tsstore.recording.background.arena import Arena
from tsstore.recording.background.sigterm import Termination
from tsstore.recording.background.thread import WriterThread
from tsstore.recording.batches.assembly import FinishedBatch
from tsstore.recording.hooks.copies import why_nothing_ran
from tsstore.recording.hooks.forward import Listener
from tsstore.recording.settings import Settings
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import PartAttributes
from tsstore.store.writing.part import PartWriter
from tsstore.store.writing.resume import Earlier, resume_part
from tsstore.text import format_memory

_LOG = logging.getLogger("tsstore")


@dataclass(frozen=True)
class Statistics:
    """What a recorder has done so far.

    Attributes
    ----------
    batches, samples, rows, bytes
        Handed to the writer; bytes are those of rows, before compression.
    calls_outside
        Calls of captured layers outside any batch; they are not stored.
    waited
        Seconds that the job waited for the writer.
    left_out
        Rows of entries that belong to no sample, as the user said; they are not stored.
    """

    batches: int = 0
    samples: int = 0
    rows: int = 0
    bytes: int = 0
    calls_outside: int = 0
    waited: float = 0.0
    left_out: int = 0


class Sink:
    """Takes finished batches, and writes them into one part of a run in the background.

    The writer's error is raised by each call, or, where `settings` say so, ends the recording with
    one warning: then it is `detached`, and all calls do nothing. `hooks`, set by their owner, are
    removed before anything else where the recording ends before the job. `abandon` ends a sink that
    nobody has closed, also after it is gone; it runs at most once.
    """

    hooks: Listener

    def __init__(self, files: Files, part: PartAttributes, settings: Settings) -> None:
        writer, self.earlier = _begin_part(files, part, settings)
        self.run, self.rank = files.location, part.rank
        self.detached = False
        self.arena = Arena()
        self._max_bytes = settings.sampling.max_bytes
        self._may_detach = settings.on_error == "detach"
        self._done = Statistics()
        self._termination = Termination() if settings.commit_on_sigterm else None
        self._thread = WriterThread(
            writer, settings.commit_every, settings.queue_bytes, self._termination
        )
        self.abandon = weakref.finalize(
            self,
            _abandon,
            self._thread,
            self._termination,
            self.run,
            settings.begin == "first",
            os.getpid(),
        )

    @property
    def part(self) -> str:
        """Directory in the run of the part that is written, or would be with a first batch."""
        return self._thread.writer.directory

    @property
    def _where(self) -> str:
        return f"{self.run}/{self.part}"

    @property
    def statistics(self) -> Statistics:
        """What has been put in so far."""
        return replace(self._done, waited=self._thread.waited)

    @property
    def next_sample(self) -> int:
        """Running number of the next sample, in all parts from which this rank goes on."""
        committed = self.earlier.committed_samples if self.earlier else 0
        return committed + self._done.samples

    @property
    def closed(self) -> bool:
        """Whether it takes no more batches."""
        return not self.abandon.alive

    @property
    def error(self) -> WriterError | None:
        """What is raised to whoever calls, if the writer has failed."""
        return self._thread.error

    def ready(self) -> bool:
        """Between batches: whether to record another one; obeys SIGTERM."""
        return self._try(self._look_around) and not self._is_full()

    def put(self, batch: FinishedBatch) -> None:
        """Queue a finished batch; wait while the queue is full."""
        self._try(partial(self._put, batch))

    def commit(self) -> None:
        """Put all finished batches on disk for good; return when they are there."""
        self._try(self._thread.commit)

    def close(self, why: str) -> None:
        """Write what is left and seal the part; nothing if closed."""
        self._try(partial(self._close, why))

    def _look_around(self) -> None:
        self._thread.check()
        if self._termination is not None:
            self._termination.obey(self._thread.commit)

    def _is_full(self) -> bool:
        """Whether `max_bytes` are there; then end the recording."""
        if self._max_bytes is None:
            return False
        size = self._done.bytes + (self.earlier.committed_bytes if self.earlier else 0)
        if size < self._max_bytes:
            return False
        self.hooks.detach()
        if self._try(partial(self._close, f"closed: max_bytes={self._max_bytes} reached")):
            self.detached = True
            warn(
                f"nothing more is recorded, the job goes on: {self._where} has {size:,} bytes of "
                f"rows, and max_bytes is {self._max_bytes:,}",
            )
        return True

    def _put(self, batch: FinishedBatch) -> None:
        kept = FinishedBatch(self.arena.copy(batch.batch), batch.new_layers, batch.columns)
        self._thread.put(kept)
        done, rows, size = self._done, 0, 0
        for layer in kept.batch.layers.values():
            rows += len(layer.rows)
            size += layer.rows.nbytes
        self._done = Statistics(
            done.batches + 1, done.samples + kept.batch.samples, done.rows + rows, done.bytes + size
        )

    def _close(self, why: str) -> None:
        if self.abandon.detach() is not None:
            _end(self._thread, self._termination, why)
            done = self.statistics
            _LOG.info(
                "%s: %s samples, %s of rows, waited %.1f s for the writer",
                self._where,
                f"{done.samples:,}",
                format_memory(done.bytes),
                done.waited,
            )

    def _try(self, act: Callable[[], object]) -> bool:
        """Act unless detached, and detach where the writer has failed; whether to go on."""
        if self.detached:
            return False
        try:
            act()
        except WriterError as error:
            if not self._may_detach or self.error is None:
                raise
            self._detach(error)
        return not self.detached

    def _detach(self, error: WriterError) -> None:
        """End the recording; say so only when nothing of it is left, as a warning may raise."""
        self.detached = True
        self.hooks.detach()
        with suppress(WriterError):
            self._close("")
        warn(
            f"nothing more is recorded, the job goes on: {error}; {self._where} holds at least "
            f"{self._thread.writer.record.samples:,} committed samples",
        )


def _begin_part(
    files: Files, part: PartAttributes, settings: Settings
) -> tuple[PartWriter, Earlier | None]:
    """Begin a part, and say from what earlier ones it goes on."""
    compression = settings.compression
    if settings.begin == "resume":
        return resume_part(files, part, threshold=settings.threshold, compression=compression)
    attempt = 0 if settings.begin == "first" else None
    return PartWriter(files, part, compression=compression, attempt=attempt), None


def _end(thread: WriterThread, termination: Termination | None, why: str) -> None:
    try:
        thread.close(why)
    finally:
        if termination is not None:
            termination.release()


def _abandon(
    thread: WriterThread,
    termination: Termination | None,
    run: str,
    is_whole: bool,
    process: int,
) -> None:
    """Write what is left of a recorder that nobody closed: at its end, or the interpreter's."""
    if os.getpid() != process:
        return
    where = f"{run}/{thread.writer.directory}"
    try:
        _end(thread, termination, "never closed")
    except Exception as error:
        # There is nobody who could handle it, and nothing of the job that it should end.
        _LOG.error("%s was never closed, and could not be: %s", where, error)
        return
    # A part that follows others may well stay empty.
    if is_whole and not thread.writer.record.samples:
        _LOG.warning(
            "%s was never closed, and no sample was recorded: %s", where, why_nothing_ran()
        )
