"""Where a graph runs: this process's threads, this thread alone, or the workers of a cluster."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import count
from typing import Any

from tsstore.analysis.machine import (
    DEFAULT_SHARE,
    available_memory,
    available_processors,
    parse_memory,
)
from tsstore.analysis.workers import Watch, Workers, known_workers
from tsstore.errors import AnalysisError, DamageError, warn
from tsstore.store.files.base import Files
from tsstore.text import format_memory

Report = Callable[[int, int], None]
"""Takes the number of tasks done, and of all tasks; called in the thread that analyses."""

WORKER_SHARE = 0.60
"""Largest share of a worker's memory limit: at more, Dask begins to spill and pause."""

PATIENCE_SECONDS = 600.0
"""How long a cluster that has no workers any more is waited for, unless told."""

POLL_SECONDS = 0.01
"""How often it is looked for tasks that are done."""

ANSWER_SECONDS = 3.0
"""How long a cluster may take to answer before that is said."""

SETTLING_SECONDS = 10.0
"""How long tasks that nobody wants any more are waited for."""


class Scheduler(ABC):
    """What an analysis needs of the place where its graphs run; it is closed at the end.

    Of tasks one process runs so many at a time, `threads`, and all of them `all_threads`; with
    shared memory that is this process, and there is no other one that might not see a file.
    """

    threads: int
    all_threads: int
    shared_memory = True

    @abstractmethod
    def memory(self, requested: int | str | None) -> int:
        """Return the memory that one process may use, in bytes: a quarter unless requested."""

    @abstractmethod
    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph and return the value of a key, or those of a list of keys."""

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
        scheduler = _current_client() or "threads"
    if scheduler == "threads":
        return LocalScheduler(available_processors())
    if scheduler in ("synchronous", "sync", "single-threaded"):
        return LocalScheduler(1)
    if isinstance(scheduler, str) and "://" in scheduler:
        return DistributedScheduler(_connect(scheduler), True, patience)
    if hasattr(scheduler, "scheduler_info") and hasattr(scheduler, "get"):
        return DistributedScheduler(scheduler, patience=patience)
    raise AnalysisError(
        f"scheduler is {scheduler!r}; expected None, 'threads', 'synchronous', a "
        "distributed.Client, or an address such as 'tcp://host:8786'"
    )


class LocalScheduler(Scheduler):
    """Threads of this process; one thread is the synchronous scheduler."""

    def __init__(self, threads: int) -> None:
        self.threads = self.all_threads = threads

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
            with _thread_pool(threads) as pool:
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
        _check_usable(client)
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
        self.threads = max(_by_process(threads))
        self.all_threads = sum(threads.values())
        self._workers = Workers(client)
        self._limit = min(_by_process(_memory_limits(client, workers)))

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

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on the workers, each of which uses all its threads.

        After an error or an interrupt no task begins any more, and those that run are waited for,
        some seconds at most. Workers that die again and again are an AnalysisError, and so is a
        cluster that is closed, restarted, or without workers for too long.
        """
        from distributed.scheduler import KilledWorker

        wanted = key if isinstance(key, list) else [key]
        others = [] if report is None else task_keys(graph).difference(wanted)
        watch = Watch(self._client, self._address, self._patience)
        futures = self._client.get(graph, [*wanted, *others], sync=False)
        try:
            values = self._follow(futures, report, watch, set(wanted))
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
        self, futures: list[Any], report: Report | None, watch: Watch, wanted: set[Any]
    ) -> dict[Any, Any]:
        """Wait until all tasks are done, or one has failed; return the values that are wanted.

        They are gathered as they come. Each task that is done is reported, if that is asked for.
        """
        from distributed import as_completed

        finished: Any = as_completed(futures, loop=self._client.loop)  # type: ignore[no-untyped-call]
        values: dict[Any, Any] = {}
        done = 0
        while done < len(futures):
            if not finished.has_ready():
                watch.look()
                time.sleep(POLL_SECONDS)
                continue
            ready = finished.next_batch(block=False)
            # What has failed raises its error here, wanted or not.
            found = [each for each in ready if each.key in wanted or each.status != "finished"]
            for future, value in zip(found, self._client.gather(found), strict=True):
                values[future.key] = value
            for future in ready:
                # A worker keeps what a future stands for, though no other task needs it any more.
                future.release()
                done += 1
                if report is not None:
                    report(done, len(futures))
        return values


def task_keys(graph: dict[Any, Any]) -> set[Any]:
    """Return the keys of a graph that stand for tasks, not for constants."""
    return {key for key, value in graph.items() if isinstance(value, tuple)}


def _current_client() -> Any:
    """Return the client that Dask itself would use; without distributed there is none."""
    if "distributed" not in sys.modules:
        return None
    from distributed import Client

    try:
        return Client.current()  # type: ignore[no-untyped-call]
    except ValueError:
        return None


def _connect(address: str) -> Any:
    try:
        import dask
        from dask.utils import parse_timedelta
        from distributed import Client
    except ImportError:
        raise AnalysisError(
            f"scheduler {address} needs the package distributed; install tsstore[cluster]"
        ) from None
    patience = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    try:
        if patience > ANSWER_SECONDS:
            with suppress(OSError):
                return Client(address, timeout=ANSWER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
            warn(f"no cluster answers at {address} yet; it is tried for {patience:g} s more")
        return Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise AnalysisError(f"no cluster answers at {address} ({error}); is it running?") from error


def _check_usable(client: Any) -> None:
    if client.status == "closed":
        raise AnalysisError(f"the client {client!r} is closed; make another one")
    if client.asynchronous:
        raise AnalysisError(
            f"the client {client!r} is asynchronous; make one with asynchronous=False, or analyse "
            "in another thread"
        )


def _memory_limits(client: Any, workers: dict[str, Any]) -> dict[str, int]:
    """Return each worker's memory limit; of one without, its share of what its machine has."""
    limits = {address: worker["memory_limit"] for address, worker in workers.items()}
    unlimited = [address for address, limit in limits.items() if not limit]
    if unlimited:
        hosts = Counter(worker["host"] for worker in workers.values())
        for address, amount in client.run(available_memory, workers=unlimited).items():
            limits[address] = amount // hosts[workers[address]["host"]]
    return limits


def _by_process(amounts: dict[str, int]) -> list[int]:
    """Add up what workers of one process have: they are at ``inproc://host/process/number``."""
    sums: Counter[str] = Counter()
    for address, amount in amounts.items():
        within = address.startswith("inproc://")
        sums[address.rpartition("/")[0] if within else address] += amount
    return list(sums.values())


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
