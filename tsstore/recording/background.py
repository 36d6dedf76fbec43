"""A background thread that works off a queue bounded in bytes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from tsstore.errors import WriterError

Task = Callable[[], object]

COMMIT_COST_RATIO = 50
"""Commits come no more often than so many times what the last one took."""


class Background:
    """Runs tasks in order on one thread, and a commit from time to time.

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
    """

    def __init__(self, commit: Task, commit_every: float, limit: int) -> None:
        self.waited = 0.0
        self._commit = commit
        self._commit_every = commit_every
        self._limit = limit
        self._tasks: deque[tuple[Task, int]] = deque()
        self._bytes = 0
        self._running = False
        self._stopping = False
        self._error: BaseException | None = None
        self._condition = threading.Condition()
        # A daemon, so that a job which never closes its recorder can still end.
        self._thread = threading.Thread(target=self._work, name="tsstore writer", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise WriterError if the thread has failed."""
        if self._error is not None:
            raise WriterError(
                f"the writer failed: {type(self._error).__name__}: {self._error}; what was "
                "committed before stays readable: run again"
            ) from self._error

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
                self._condition.wait_for(
                    lambda: self._error or not self._bytes or self._bytes + size <= self._limit
                )
                self.waited += time.perf_counter() - begun
            self.check()
            if self._stopping:
                raise WriterError("the recorder is closed; open a new one")
            self._tasks.append((task, size))
            self._bytes += size
            self._condition.notify_all()

    def commit(self) -> None:
        """Commit everything queued so far, and return when it is on disk."""
        self.put(self._commit, 0)
        with self._condition:
            self._condition.wait_for(lambda: self._error or not (self._tasks or self._running))
        self.check()

    def stop(self, last: Task | None = None) -> None:
        """Work off the queue, then a last task, and end the thread; nothing if stopped.

        Raises
        ------
        WriterError
            If the thread has failed.
        """
        with self._condition:
            if last is not None and not self._stopping and self._error is None:
                self._tasks.append((last, 0))
            self._stopping = True
            self._condition.notify_all()
        # Garbage collection may close a recorder on this very thread, which cannot wait for itself.
        if threading.current_thread() is not self._thread:
            self._thread.join()
            self.check()

    def _work(self) -> None:
        due = time.monotonic() + self._commit_every
        try:
            while self._work_off_one(due):
                if time.monotonic() >= due:
                    due = self._commit_now()
        except BaseException as error:
            self._fail(error)

    def _work_off_one(self, due: float) -> bool:
        """Run the next task, if there is one before a commit is due; whether to go on.

        The task holds a batch: when this returns, nothing does.
        """
        with self._condition:
            timeout = min(max(due - time.monotonic(), 0), threading.TIMEOUT_MAX)
            if not self._condition.wait_for(lambda: self._tasks or self._stopping, timeout):
                return True
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

    def _commit_now(self) -> float:
        """Commit, and return when the next commit is due."""
        begun = time.monotonic()
        self._commit()
        now = time.monotonic()
        return now + max(self._commit_every, COMMIT_COST_RATIO * (now - begun))

    def _fail(self, error: BaseException) -> None:
        with self._condition:
            self._error = error
            self._tasks.clear()
            self._bytes = 0
            self._running = False
            self._condition.notify_all()
