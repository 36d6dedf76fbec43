"""The thread that writes: it works off a queue of finished batches, bounded in bytes."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from tsstore.errors import TsstoreError, WriterError
from tsstore.recording.background.sigterm import Termination
from tsstore.recording.batches.assembly import FinishedBatch
from tsstore.store.chunked.writer import is_encoder_thread
from tsstore.store.writing.part import PartWriter

WORTH_WAKING: Final = 4 << 20
"""The thread is woken for so many bytes at once: it runs instead of the job, if only shortly."""

LINGER_SECONDS: Final = 0.1
"""So long fewer bytes wait at most."""

COMMIT_COST_RATIO: Final = 50
"""Commits come no more often than so many times what the last one took."""

HURRY_SECONDS: Final = 0.5
"""Seconds between commits, and between looks for a reason to, in a hurry."""


class WriterThread:
    """Writes batches in order on one thread, and commits from time to time.

    The thread takes what has come every now and then, or when there is much: to wake it for each
    batch would cost more than the batch. An error ends its work; it is kept, and raised to whoever
    calls next. Batches that were waiting are dropped: they do not count as committed. At most
    `limit` bytes wait or are being written; a single larger batch is let in alone.
    """

    def __init__(
        self,
        writer: PartWriter,
        commit_every: float,
        limit: int,
        termination: Termination | None = None,
    ) -> None:
        self.writer = writer
        writer.waited = 0.0
        self._schedule = Schedule(commit_every, termination)
        self._limit = limit
        self._much = min(WORTH_WAKING, limit // 2)
        self._tasks: deque[tuple[Callable[[], object], int]] = deque()
        self._bytes = 0
        self._is_defined = self._is_running = self._is_idle = self._is_closing = False
        self._waiting = 0
        self._cause: BaseException | None = None
        self._condition = threading.Condition()
        # A daemon, so that a job which never closes its recorder can still end.
        self._thread = threading.Thread(target=self._work, name="tsstore writer", daemon=True)
        self._thread.start()

    @property
    def waited(self) -> float:
        """Seconds that the job has waited for the thread."""
        return self.writer.waited or 0.0

    @property
    def error(self) -> WriterError | None:
        """What is raised to whoever calls, if the thread has failed."""
        if self._cause is None:
            return None
        # What tsstore raises says itself what to do.
        advice = "; what was committed before stays readable: run again"
        error = WriterError(
            f"the writer failed: {type(self._cause).__name__}: {self._cause}"
            f"{'' if isinstance(self._cause, TsstoreError) else advice}"
        )
        error.__cause__ = self._cause
        return error

    def check(self) -> None:
        """Raise WriterError if the thread has failed."""
        if error := self.error:
            raise error

    def put(self, batch: FinishedBatch) -> None:
        """Queue a batch; wait while the queue is full. WriterError if the thread has ended."""
        self._put(partial(self._write, batch), batch.batch.nbytes)

    def commit(self) -> None:
        """Commit everything queued so far, and return when it is on disk."""
        self._put(self.writer.commit, 0)
        with self._condition:
            self._wait_until(lambda: not (self._tasks or self._is_running))
        self.check()

    def close(self, why: str) -> None:
        """Write what is queued, seal the part, and end the thread; nothing if closed."""
        with self._condition:
            if not self._is_closing and self._cause is None:
                self._tasks.append((lambda: self.writer.seal(why), 0))
            self._is_closing = True
            self._condition.notify_all()
        # Garbage collection may close a recorder on this very thread, which cannot wait for itself,
        # or on one that it waits for.
        here = threading.current_thread()
        if here is not self._thread and not is_encoder_thread(here):
            self._thread.join()
            self.check()

    def _put(self, task: Callable[[], object], size: int) -> None:
        with self._condition:
            if self._bytes and self._bytes + size > self._limit:
                begun = time.perf_counter()
                self._wait_until(lambda: not self._bytes or self._bytes + size <= self._limit)
                self.writer.waited = self.waited + time.perf_counter() - begun
            self.check()
            if self._is_closing:
                raise WriterError("the recorder is closed; open a new one")
            self._tasks.append((task, size))
            self._bytes += size
            if self._is_idle or self._bytes >= self._much:
                self._condition.notify_all()

    def _wait_until(self, fulfilled: Callable[[], bool]) -> None:
        """Let the thread work until a condition is fulfilled, or it has failed."""
        self._waiting += 1
        self._condition.notify_all()
        try:
            self._condition.wait_for(lambda: self._cause or fulfilled())
        finally:
            self._waiting -= 1

    def _work(self) -> None:
        try:
            while self._wait_for_tasks():
                while self._work_off_one():
                    self._commit_if_due()
                self._commit_if_due()
        except BaseException as error:
            self._fail(error)

    def _commit_if_due(self) -> None:
        if self._schedule.is_due:
            self._schedule.commit(self.writer)

    def _wait_for_tasks(self) -> bool:
        """Wait for tasks, or until a commit is due; whether to go on."""
        with self._condition:
            if self._schedule.patience > LINGER_SECONDS:
                self._condition.wait_for(
                    lambda: self._is_closing or self._waiting > 0 or self._bytes >= self._much,
                    LINGER_SECONDS,
                )
            self._is_idle = not self._tasks
            patience = self._schedule.patience
            self._condition.wait_for(lambda: self._tasks or self._is_closing, patience)
            self._is_idle = False
            return bool(self._tasks) or not self._is_closing

    def _work_off_one(self) -> bool:
        """Run the next task, if there is one: when this returns, nothing holds its batch."""
        with self._condition:
            if not self._tasks:
                return False
            self._is_running = True
            task, size = self._tasks.popleft()
        task()
        with self._condition:
            self._bytes -= size
            self._is_running = False
            self._condition.notify_all()
        return True

    def _write(self, batch: FinishedBatch) -> None:
        if batch.new_layers or not self._is_defined:
            self.writer.define(batch.new_layers, batch.positions, batch.columns)
            self._is_defined = True
        self.writer.append(batch.batch)

    def _fail(self, error: BaseException) -> None:
        # The failed task's frames hold its batch, and the error may be kept for days.
        traceback.clear_frames(error.__traceback__)
        with self._condition:
            self._cause = error
            self._tasks.clear()
            self._bytes = 0
            self._is_running = False
            self._condition.notify_all()
        with suppress(Exception):
            self.writer.fail(f"the writer failed: {type(error).__name__}: {error}")


class Schedule:
    """Says when a commit is due: by time and by what the last one cost, or soon, before the end."""

    def __init__(self, every: float, termination: Termination | None = None) -> None:
        self._every = every
        self._termination = termination
        self._last = time.monotonic()
        self._due = self._last + every

    @property
    def patience(self) -> float:
        """Seconds that one may wait for something else before one looks again."""
        longest = threading.TIMEOUT_MAX if self._termination is None else HURRY_SECONDS
        return min(max(self._due - time.monotonic(), 0), longest)

    @property
    def is_due(self) -> bool:
        """Whether to commit now."""
        hurry = self._termination is not None and self._termination.is_requested()
        return time.monotonic() >= (self._last + HURRY_SECONDS if hurry else self._due)

    def commit(self, writer: PartWriter) -> None:
        """Commit, and learn from what it takes when the next one is due."""
        begun = time.monotonic()
        writer.commit()
        self._last = time.monotonic()
        self._due = self._last + max(self._every, COMMIT_COST_RATIO * (self._last - begun))
