"""Where a graph runs: this process's threads, this thread alone, or the workers of a cluster."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import count
from typing import Any

from tsstore.analysis.execution.worker_records import LostRecordsError
from tsstore.analysis.memory import (
    DEFAULT_SHARE,
    available_memory,
    give_back_memory,
    parse_memory,
)
from tsstore.analysis.workers import (
    Watch,
    Workers,
    by_process,
    check_usable,
    connect,
    current_client,
    known_workers,
    memory_limits,
)
from tsstore.counting.arena import Arena
from tsstore.errors import AnalysisError, DamageError
from tsstore.store.files.base import Files
from tsstore.store.threads import processors
from tsstore.text import format_memory

Report = Callable[[int, int], None]
"""Takes the number of tasks done, and of all tasks; called in the thread that analyses."""

WORKER_SHARE = 0.60
"""Largest share of a worker's memory limit: at more, Dask begins to spill and pause."""

PATIENCE_SECONDS = 600.0
"""How long a cluster that has no workers any more is waited for, unless told."""

POLL_SECONDS = 0.01
"""How often it is looked for tasks that are done."""

SETTLING_SECONDS = 10.0
"""How long tasks that nobody wants any more are waited for."""


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
    def run(
        self,
        graph: dict[Any, Any],
        key: Any,
        threads: int,
        report: Report | None,
        kept: Collection[Any] = (),
    ) -> Any:
        """Run a graph and return the value of a key, or those of a list of keys.

        What tasks have given is `kept` to the end, so that a worker that is lost does not make all
        of them run again.
        """

    def leave_room(self, memory: int, peak: int) -> None:
        """Keep no more used memory than what a graph leaves of it that takes so much; half at most.

        Call it before each graph, unless all of that memory is given back.
        """
        if self.arena is not None:
            self.arena.trim(max(min(memory // 2, memory - peak), 0))

    def holding(self, room: int) -> AbstractContextManager[str]:
        """Let each worker hold so many bytes of records, and give the place of these."""
        raise NotImplementedError

    @property
    def is_holding(self) -> bool:
        """Whether workers hold records now."""
        return False

    def keep_records(self, files: Collection[str]) -> set[str]:
        """Return which files of records workers hold, and let them hold no others."""
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


def choose(scheduler: Any, patience: float = PATIENCE_SECONDS) -> Scheduler:
    """Return the scheduler that the user means; close it at the end.

    None is the current ``distributed.Client`` if there is one, else threads. A cluster may be so
    many seconds without workers, its patience. AnalysisError if there is no such scheduler, or no
    cluster.
    """
    if scheduler is None:
        scheduler = current_client() or "threads"
    if isinstance(scheduler, Threads):
        if not scheduler.is_open:
            raise AnalysisError(f"scheduler is {scheduler!r}; make another one")
        return LocalScheduler(scheduler.count, scheduler)
    if scheduler == "threads":
        return LocalScheduler(processors())
    if scheduler in ("synchronous", "sync", "single-threaded"):
        return LocalScheduler(1)
    if isinstance(scheduler, str) and "://" in scheduler:
        return DistributedScheduler(connect(scheduler), True, patience)
    if hasattr(scheduler, "scheduler_info") and hasattr(scheduler, "get"):
        return DistributedScheduler(scheduler, patience=patience)
    raise AnalysisError(
        f"scheduler is {scheduler!r}; expected None, 'threads', 'synchronous', a "
        "tsstore.Threads, a distributed.Client, or an address such as 'tcp://host:8786'"
    )


class Threads:
    """Threads of this process that are kept for several analyses, with the memory that they use.

    Memory that is new to a process, and threads that begin, take time: an analysis that follows
    others is faster. It is a scheduler to pass as ``scheduler=``, until it is closed::

        with tsstore.Threads() as threads:
            for path in runs:
                print(tsstore.analyze(path, scheduler=threads))

    What is kept between analyses is never more than half the ``memory=`` of the next one, which it
    counts in.

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

    def run(
        self,
        graph: dict[Any, Any],
        key: Any,
        threads: int,
        report: Report | None,
        kept: Collection[Any] = (),
    ) -> Any:
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


class DistributedScheduler(Scheduler):
    """The workers of a ``distributed.Client``, which is closed at the end if it is `owned`.

    Where all of them go away, others are waited for, `patience` seconds long.
    """

    shared_memory = False

    def __init__(
        self, client: Any, owned: bool = False, patience: float = PATIENCE_SECONDS
    ) -> None:
        check_usable(client)
        self._client = client
        self._owned = owned
        self._patience = patience
        self._address = client.scheduler.address
        try:
            workers = known_workers(client)
        except OSError as error:
            self.close()
            raise AnalysisError(
                f"the cluster at {self._address} cannot be reached ({error}); make another client"
            ) from error
        if not workers:
            self.close()
            raise AnalysisError(f"the cluster at {self._address} has no workers; start some first")
        threads = {address: worker["nthreads"] for address, worker in workers.items()}
        self.threads = max(by_process(threads))
        self.all_threads = sum(threads.values())
        self._workers = Workers(client)
        # Those of one process share a file system, too.
        self.holders = 0 if any(one.startswith("inproc://") for one in workers) else len(workers)
        self._limit = min(by_process(memory_limits(client, workers)))

    def memory(self, requested: int | str | None) -> int:
        """Return what was asked for, or a quarter of the smallest worker process's limit."""
        most = int(WORKER_SHARE * self._limit)
        if requested is None:
            return int(DEFAULT_SHARE * self._limit)
        amount = parse_memory(requested)
        if amount > most:
            raise AnalysisError(
                f"memory of {format_memory(amount)} is more than the workers can give: their limit "
                f"is {format_memory(self._limit)}; give at most memory={most}"
            )
        return amount

    def check_scratch(self, folder: str) -> None:
        """Let every worker read a word that is written into the folder now."""
        self._workers.check_scratch(folder)

    def seeing(self, folder: str) -> str:
        """Say which workers see a folder."""
        return self._workers.seeing(folder)

    @contextmanager
    def reading(self, files: Files, parts: Sequence[str]) -> Iterator[None]:
        """Let every worker look for the store; where a file is missing, ask who sees it."""
        self._workers.check_store(files, parts)
        try:
            yield
        except DamageError as error:
            if error.missing is not None:
                self._workers.check_file(files, error.missing)
            raise

    @contextmanager
    def holding(self, room: int) -> Iterator[str]:
        """Let each worker, also one that joins later, hold records until the end of the block."""
        with self._workers.holding(room) as place:
            yield place

    @property
    def is_holding(self) -> bool:
        """Whether workers hold records now."""
        return bool(self._workers.place)

    def keep_records(self, files: Collection[str]) -> set[str]:
        """Ask each worker which of the files it holds, and let it hold no others."""
        return self._workers.keep_records(files)

    def run(
        self,
        graph: dict[Any, Any],
        key: Any,
        threads: int,
        report: Report | None,
        kept: Collection[Any] = (),
    ) -> Any:
        """Run a graph on the workers, each of which uses all its threads.

        After an error or an interrupt no task begins any more, and those that run are waited for,
        some seconds at most. Workers that die again and again are an AnalysisError, and so is a
        cluster that is closed, restarted, or without workers for too long. A LostRecordsError has
        the values that were found.
        """
        from dask.base import normalize_token
        from distributed.scheduler import KilledWorker

        normalize_token.register(_Unread, lambda _: uuid.uuid4().hex)  # type: ignore[no-untyped-call]
        wanted = key if isinstance(key, list) else [key]
        others = {*kept} if report is None else task_keys(graph)
        watch = Watch(self._client, self._address, self._patience)
        keys = [*wanted, *others.difference(wanted)]
        futures = self._client.get(_Unread(graph), keys, sync=False)
        values: dict[Any, Any] = {}
        try:
            self._follow(futures, report, watch, {*wanted, *kept}, {*kept}, values)
        except LostRecordsError as error:
            self._drop(futures, graph)
            error.values = values
            raise
        except (KilledWorker, CancelledError) as error:
            self._drop(futures, graph)
            raise AnalysisError(watch.why_lost(error)) from error
        except BaseException:
            self._drop(futures, graph)
            raise
        return [values[one] for one in key] if isinstance(key, list) else values[key]

    def close(self) -> None:
        """Close the client if it was opened here."""
        if self._owned:
            self._client.close()

    def _drop(self, futures: list[Any], graph: dict[Any, Any]) -> None:
        """Let no task of a graph begin any more, and wait for those that run."""
        # A traceback may keep the futures alive, and they the tasks that are not done yet.
        for future in futures:
            future.release()
        latest, looks = time.monotonic() + SETTLING_SECONDS, 0
        # What goes wrong now, on a cluster that is closing perhaps, is not the error to report. And
        # as a worker may be between two tasks, it is looked at twice.
        with suppress(Exception):
            # A scheduler that is gone answers nothing, and knows of no task that runs.
            while looks < 2 and time.monotonic() < latest and self._client.status == "running":
                running = {key for keys in self._client.call_stack().values() for key in keys}
                looks = 0 if running & graph.keys() else looks + 1
                time.sleep(0.05)

    def _follow(
        self,
        futures: list[Any],
        report: Report | None,
        watch: Watch,
        wanted: set[Any],
        kept: set[Any],
        values: dict[Any, Any],
    ) -> None:
        """Wait until all tasks are done, or one has failed; add the values that are wanted.

        They are gathered as they come, and workers keep some of them. Each task that is done is
        reported, if that is asked for.
        """
        from distributed import as_completed

        finished: Any = as_completed(futures, loop=self._client.loop)  # type: ignore[no-untyped-call]
        done = 0
        while done < len(futures):
            if not finished.has_ready():
                watch.look()
                time.sleep(POLL_SECONDS)
                continue
            ready = finished.next_batch(block=False)
            found = [each for each in ready if each.key in wanted and each.status == "finished"]
            for future, value in zip(found, self._gathered(found, watch), strict=True):
                values[future.key] = value
            # What has failed raises its error here, wanted or not.
            self._client.gather([each for each in ready if each.status != "finished"])
            for future in ready:
                # A worker keeps what a future stands for, though no other task needs it any more.
                if future.key not in kept:
                    future.release()
                done += 1
                if report is not None:
                    report(done, len(futures))

    def _gathered(self, futures: list[Any], watch: Watch) -> list[Any]:
        """Return what tasks that are done have given, or give again where a worker was lost."""
        if not futures:
            return []
        loop = self._client.loop.asyncio_loop
        asked: Future[list[Any]]
        asked = asyncio.run_coroutine_threadsafe(
            self._client.gather(futures, asynchronous=True), loop
        )
        try:
            while not wait([asked], POLL_SECONDS).done:
                watch.look()
        finally:
            asked.cancel()
        return asked.result()


class _Unread(dict[Any, Any]):
    """A graph that Dask gives any name: to make one of all that is in it would take longer."""

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def task_keys(graph: dict[Any, Any]) -> set[Any]:
    """Return the keys of a graph that stand for tasks, not for constants."""
    return {key for key, value in graph.items() if isinstance(value, tuple)}


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
