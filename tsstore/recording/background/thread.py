"""A background thread that works off a queue bounded in bytes."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tsstore.errors import TsstoreError, WriterError
from tsstore.store.chunked.writer import is_encoder_thread

Task = Callable[[], object]

WORTH_WAKING: Final = 4 << 20
"""The thread is woken for so many bytes at once: it runs instead of the job, if only shortly."""

LINGER_SECONDS: Final = 0.1
"""So long fewer bytes wait at most."""


class Background:
    """Runs tasks in order on one thread, and a commit from time to time.

    The thread takes what has come every now and then, or when there is much: to wake it for each
    task would cost more than the task.

    An error in a task or commit ends the thread's work; it is kept, and raised to whoever calls
    next. Tasks that were waiting are dropped: their batches do not count as committed.

    Parameters
    ----------
    commit
        Puts everything done so far on disk.
    commit_every
        Seconds between commits.
    limit
        Bytes of the tasks that wait or run; a single larger task is let in alone.
    failed
        Called on the thread with the error that has ended its work; what it raises is dropped.
    in_a_hurry
        Asked now and then; while it says so, commits come soon.
    """

    def __init__(
        self,
        commit: Task,
        commit_every: float,
        limit: int,
        failed: Callable[[BaseException], object] | None = None,
        in_a_hurry: Callable[[], bool] | None = None,
    ) -> None:
        self.waited = 0.0
        self._commit = commit
        self._schedule = Schedule(commit_every, in_a_hurry)
        self._limit = limit
        self._much = min(WORTH_WAKING, limit // 2)
        self._failed = failed
        self._tasks: deque[tuple[Task, int]] = deque()
        self._bytes = 0
        self._running = False
        self._idle = False
        self._waiting = 0
        self._stopping = False
        self._cause: BaseException | None = None
        self._condition = threading.Condition()
        # A daemon, so that a job which never closes its recorder can still end.
        self._thread = threading.Thread(target=self._work, name="tsstore writer", daemon=True)
        self._thread.start()

    @property
    def error(self) -> WriterError | None:
        """What is raised to whoever calls, if the thread has failed."""
        return None if self._cause is None else _writer_error(self._cause)

    def check(self) -> None:
        """Raise WriterError if the thread has failed."""
        if error := self.error:
            raise error

    def put(self, task: Task, size: int) -> None:
        """Queue a task that holds so many bytes; wait while the queue is full.

        Raises
        ------
        WriterError
            If the thread has failed, or has been stopped.
        """
        with self._condition:
            if self._bytes and self._bytes + size > self._limit:
                begun = time.perf_counter()
                self._wait_until(lambda: not self._bytes or self._bytes + size <= self._limit)
                self.waited += time.perf_counter() - begun
            self.check()
            if self._stopping:
                raise WriterError("the recorder is closed; open a new one")
            self._tasks.append((task, size))
            self._bytes += size
            if self._idle or self._bytes >= self._much:
                self._condition.notify_all()

    def commit(self) -> None:
        """Commit everything queued so far, and return when it is on disk."""
        self.put(self._commit, 0)
        with self._condition:
            self._wait_until(lambda: not (self._tasks or self._running))
        self.check()

    def stop(self, last: Task | None = None) -> None:
        """Work off the queue, then a last task, and end the thread; nothing if stopped.

        Raises
        ------
        WriterError
            If the thread has failed.
        """
        with self._condition:
            if last is not None and not self._stopping and self._cause is None:
                self._tasks.append((last, 0))
            self._stopping = True
            self._condition.notify_all()
        # Garbage collection may close a recorder on this very thread, which cannot wait for itself,
        # or on one that it waits for.
        here = threading.current_thread()
        if here is not self._thread and not is_encoder_thread(here):
            self._thread.join()
            self.check()

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
            self._schedule.run(self._commit)

    def _wait_for_tasks(self) -> bool:
        """Wait for tasks, or until a commit is due; whether to go on."""
        with self._condition:
            if self._schedule.patience > LINGER_SECONDS:
                self._condition.wait_for(self._is_worth_a_turn, LINGER_SECONDS)
            self._idle = not self._tasks
            self._condition.wait_for(lambda: self._tasks or self._stopping, self._schedule.patience)
            self._idle = False
            return bool(self._tasks) or not self._stopping

    def _is_worth_a_turn(self) -> bool:
        return self._stopping or self._waiting > 0 or self._bytes >= self._much

    def _work_off_one(self) -> bool:
        """Run the next task, if there is one.

        The task holds a batch: when this returns, nothing does.
        """
        with self._condition:
            if not self._tasks:
                return False
            self._running = True
            task, size = self._tasks.popleft()
        task()
        with self._condition:
            self._bytes -= size
            self._running = False
            self._condition.notify_all()
        return True

    def _fail(self, error: BaseException) -> None:
        # The failed task's frames hold its batch, and the error may be kept for days.
        traceback.clear_frames(error.__traceback__)
        with self._condition:
            self._cause = error
            self._tasks.clear()
            self._bytes = 0
            self._running = False
            self._condition.notify_all()
        if self._failed is not None:
            with suppress(Exception):
                self._failed(error)


def _writer_error(cause: BaseException) -> WriterError:
    # What tsstore raises says itself what to do.
    advice = "; what was committed before stays readable: run again"
    error = WriterError(
        f"the writer failed: {type(cause).__name__}: {cause}"
        f"{'' if isinstance(cause, TsstoreError) else advice}"
    )
    error.__cause__ = cause
    return error


COMMIT_COST_RATIO = 50
"""Commits come no more often than so many times what the last one took."""

HURRY_SECONDS = 0.5
"""Seconds between commits, and between looks for a reason to, in a hurry."""


class Schedule:
    """Says when a commit is due: by time and by what the last one cost, or soon, in a hurry.

    Parameters
    ----------
    every
        Seconds between commits.
    in_a_hurry
        Asked now and then; while it says so, the other rules do not hold.
    """

    def __init__(self, every: float, in_a_hurry: Callable[[], bool] | None = None) -> None:
        self._every = every
        self._in_a_hurry = in_a_hurry
        self._last = time.monotonic()
        self._due = self._last + every

    @property
    def patience(self) -> float:
        """Seconds that one may wait for something else before one looks again."""
        longest = threading.TIMEOUT_MAX if self._in_a_hurry is None else HURRY_SECONDS
        return min(max(self._due - time.monotonic(), 0), longest)

    @property
    def is_due(self) -> bool:
        """Whether to commit now."""
        hurry = self._in_a_hurry is not None and self._in_a_hurry()
        return time.monotonic() >= (self._last + HURRY_SECONDS if hurry else self._due)

    def run(self, commit: Callable[[], object]) -> None:
        """Commit, and learn from what it takes when the next one is due."""
        begun = time.monotonic()
        commit()
        self._last = time.monotonic()
        self._due = self._last + max(self._every, COMMIT_COST_RATIO * (self._last - begun))
