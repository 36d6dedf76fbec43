"""Where a graph runs: what an analysis needs of a scheduler, and the threads of this process.

These are for one graph each, or kept for several analyses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import Any

from tsstore.analysis.memory import (
    DEFAULT_SHARE,
    available_memory,
    give_back_memory,
    keep_freed_memory,
    parse_memory,
)
from tsstore.counting.arena import Arena
from tsstore.errors import AnalysisError
from tsstore.store.files.base import Files
from tsstore.store.threads import processors
from tsstore.text import format_memory

Report = Callable[[int, int], None]
"""Takes the number of tasks done, and of all tasks; called in the thread that analyses."""

PATIENCE_SECONDS = 600.0
"""How long a cluster that has no workers any more is waited for, unless told."""


class Scheduler(ABC):
    """What an analysis needs of the place where its graphs run; it is closed at the end.

    Of tasks one process runs so many at a time, `threads`, and all of them `all_threads`; with
    shared memory that is this process, and there is no other one that might not see a file. So
    many other processes hold records for each other, `holders`. Tasks of this process use memory
    again that an arena has.
    """

    threads: int
    all_threads: int
    shared_memory = True
    holders = 0
    arena: Arena | None = None

    @abstractmethod
    def memory(self, requested: int | str | None) -> int:
        """Return the memory that one process may use, in bytes: a quarter unless requested."""

    @abstractmethod
    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph and return the value of a key, or those of a list of keys."""

    def leave_room(self, memory: int, peak: int) -> None:
        """Keep no more used memory than what a graph leaves of it that takes so much; half at most.

        Call it before each graph, unless all of that memory is given back.
        """
        if self.arena is not None:
            self.arena.trim(max(min(memory // 2, memory - peak), 0))

    def holding(self, room: int) -> AbstractContextManager[str]:
        """Let each worker hold so many bytes of records, and give the place of these."""
        raise NotImplementedError

    def check_scratch(self, folder: str) -> None:  # noqa: B027 - one process sees its own
        """Raise AnalysisError if not all processes see the folder."""

    def seeing(self, folder: str) -> str:
        """Say in a clause which other processes see a folder; empty if there are none."""
        return ""

    def reading(self, files: Files, parts: Sequence[str]) -> AbstractContextManager[None]:
        """Check that all processes see these parts of a store, before it is read.

        It is an AccessError at once if one does not, and later where a file is missing for one that
        another one sees.
        """
        return nullcontext()

    def close(self) -> None:  # noqa: B027 - nothing need be open
        """Let go of what was opened."""


def task_keys(graph: dict[Any, Any]) -> set[Any]:
    """Return the keys of a graph that stand for tasks, not for constants."""
    return {key for key, value in graph.items() if isinstance(value, tuple)}


class Threads:
    """Threads of this process that are kept for several analyses, with the memory that they use.

    Memory that is new to a process, and threads that begin, take time: an analysis that follows
    others is faster. It is a scheduler to pass as ``scheduler=``, until it is closed::

        with tsstore.Threads() as threads:
            for path in runs:
                print(tsstore.analyze(path, scheduler=threads))

    What is kept between analyses is never more than half the ``memory=`` of the next one, which it
    counts in, besides what the C library keeps of smaller arrays.

    Parameters
    ----------
    threads
        How many; as many as this process may use processors unless given.

    Raises
    ------
    AnalysisError
        For fewer than one thread.
    """

    def __init__(self, threads: int | None = None) -> None:
        count = processors() if threads is None else threads
        if not isinstance(count, int) or count < 1:
            raise AnalysisError(f"threads is {threads!r:.80}; expected a number, 1 at least")
        self.count, self.arena, self.is_open = count, Arena(), True
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="tsstore")
        keep_freed_memory()

    def close(self) -> None:
        """End the threads, and give the memory back to the system.

        An analysis that another thread still has on them is an AnalysisError there.
        """
        self.is_open = False
        self._pool.shutdown(cancel_futures=True)
        give_back_memory(self.arena)

    @contextmanager
    def lend(self, threads: int) -> Iterator[_Lent]:
        """Let a graph use so many threads; when it ends, none of its tasks is left."""
        lent = _Lent(self._pool, threads)
        try:
            yield lent
        except (CancelledError, RuntimeError) as error:
            if self.is_open:
                raise
            raise AnalysisError(
                "tsstore.Threads were closed while an analysis used them; close them when it ends"
            ) from error
        finally:
            lent.settle()

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"{self.count} kept" if self.is_open else "closed"
        return f"<tsstore.Threads: {state}, {format_memory(self.arena.free_bytes)} of memory>"


class _Lent:
    """Some threads of a pool, as Dask uses one: so many tasks of a graph run at a time."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool, self._max_workers = pool, threads
        self._running: set[Future[Any]] = set()

    def submit(self, *task: Any) -> Future[Any]:
        """Let a task run."""
        future = self._pool.submit(*task)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def settle(self) -> None:
        """Let no task begin any more, and wait for those that run."""
        left = list(self._running)
        for future in left:
            future.cancel()
        wait(left)


class LocalScheduler(Scheduler):
    """Threads of this process; one thread is the synchronous scheduler.

    They are lent by those that are kept, with their memory, or else begin and end with each graph.
    """

    def __init__(self, threads: int, kept: Threads | None = None) -> None:
        self.threads = self.all_threads = threads
        self.arena = Arena() if kept is None else kept.arena
        self._pool = _thread_pool if kept is None else kept.lend

    def memory(self, requested: int | str | None) -> int:
        """Return what was asked for, or a quarter of what there is."""
        share = int(DEFAULT_SHARE * available_memory())
        return share if requested is None else parse_memory(requested)

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on so many threads; none of them is left running, whatever happens."""
        from dask.local import get_sync
        from dask.threaded import get

        callbacks = None if report is None else [_callback(report, len(task_keys(graph)))]
        if threads == 1:
            found = get_sync(graph, key, callbacks=callbacks)
        else:
            with self._pool(threads) as pool:
                found = get(graph, key, pool=pool, callbacks=callbacks)
        return list(found) if isinstance(key, list) else found


@contextmanager
def _thread_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Make threads of our own: how many there are is part of the plan."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tsstore")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _callback(report: Report, total: int) -> tuple[Callable[..., None] | None, ...]:
    """Return a Dask callback, of this graph alone, that reports each task when it is done."""
    done = count(1)
    return None, None, None, lambda *_: report(next(done), total), None
