"""Where a graph runs: this process's threads, this thread alone, or the workers of a cluster."""

from __future__ import annotations

import os
import sys
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from tsstore import __version__
from tsstore.analysis.machine import (
    DEFAULT_SHARE,
    available_memory,
    available_processors,
    parse_memory,
)
from tsstore.errors import AccessError, AnalysisError, StoreError, TsstoreWarning
from tsstore.store.files.base import Files
from tsstore.store.format.documents import ZARR_JSON
from tsstore.text import format_memory

Report = Callable[[int, int], None]
"""Takes the number of tasks done, and of all tasks; called in the thread that analyses."""

WORKER_SHARE = 0.60
"""Largest share of a worker's memory limit: at more, Dask begins to spill and pause."""

PATIENCE_SECONDS = 600.0
"""How long a cluster that has no workers any more is waited for, unless told."""

LOOK_SECONDS = 1.0
"""How often a cluster is looked at while its tasks run."""

POLL_SECONDS = 0.01
"""How often it is looked for tasks that are done."""

QUIET_SECONDS = 10.0
"""How long it is waited for before that is said."""

SETTLING_SECONDS = 10.0
"""How long tasks that nobody wants any more are waited for."""


class Scheduler(Protocol):
    """What an analysis needs of the place where its graphs run.

    Of tasks one process runs so many at a time, `threads`, and all of them `all_threads`; with
    shared memory that is this process.
    """

    threads: int
    all_threads: int
    shared_memory: bool

    def memory(self, requested: int | str | None) -> int:
        """Return the memory that one process may use, in bytes."""

    def check_scratch(self, folder: str) -> None:
        """Raise AnalysisError if not all processes see the folder."""

    def check_store(self, files: Files) -> None:
        """Raise AccessError if not all processes see the store in these files."""

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph and return the value of a key."""

    def close(self) -> None:
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


class LocalScheduler:
    """Threads of this process; one thread is the synchronous scheduler."""

    shared_memory = True

    def __init__(self, threads: int) -> None:
        self.threads = self.all_threads = threads

    def memory(self, requested: int | str | None) -> int:
        """Return what was asked for, or a quarter of what there is."""
        share = int(DEFAULT_SHARE * available_memory())
        return share if requested is None else parse_memory(requested)

    def check_scratch(self, folder: str) -> None:
        """Do nothing: this process has just made the folder."""

    def check_store(self, files: Files) -> None:
        """Do nothing: this process has just opened the store."""

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on so many threads; none of them is left running, whatever happens."""
        from dask.local import get_sync
        from dask.threaded import get

        callbacks = None if report is None else [_callback(report, len(task_keys(graph)))]
        if threads == 1:
            return get_sync(graph, key, callbacks=callbacks)
        with _thread_pool(threads) as pool:
            return get(graph, key, pool=pool, callbacks=callbacks)

    def close(self) -> None:
        """Do nothing: nothing was opened."""


class DistributedScheduler:
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
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            self.close()
            raise AnalysisError(f"the cluster at {self._address} has no workers; start some first")
        threads = {address: worker["nthreads"] for address, worker in workers.items()}
        self.threads = max(_by_process(threads))
        self.all_threads = sum(threads.values())
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
        """Let every worker of this version read a word that is written into the folder now."""
        nonce = uuid.uuid4().hex
        path = Path(folder) / "nonce"
        path.write_text(nonce)
        try:
            answers = self._ask(_read_text, str(path))
        finally:
            path.unlink()
        blind = [worker for worker, found in answers.items() if found != nonce]
        if blind:
            raise AnalysisError(
                f"scratch folder {folder} is not seen by {', '.join(blind)}; pass a folder on a "
                "file system that all workers share as scratch="
            )

    def check_store(self, files: Files) -> None:
        """Let every worker of this version read the root of the store.

        What is missing for one worker and there for another is no damage.
        """
        expected = bytes(files.read(ZARR_JSON))
        answers = self._ask(_read_root, files)
        blind = {worker: found for worker, found in answers.items() if found != expected}
        for worker, found in blind.items():
            others = f" and {len(blind) - 1} others" if len(blind) > 1 else ""
            what = f": {found}" if isinstance(found, str | OSError) else ""
            raise AccessError(
                f"{files.location} is not seen by worker {worker}{others}, but from here{what}; "
                "put the store where all workers see it under this path"
            )

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Return what a function gives on each worker: a value, or an OSError."""
        answers = self._client.run(function, *arguments, __version__, on_error="return")
        # A worker that cannot even read a task would leave the analysis waiting for ever.
        for worker, found in answers.items():
            if isinstance(found, Exception) and not isinstance(found, OSError):
                raise AnalysisError(
                    f"worker {worker} cannot take part ({found}); install tsstore {__version__} "
                    "and what it needs there, in the same versions as here"
                )
        return dict(answers)

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on the workers, each of which uses all its threads.

        After an error or an interrupt no task begins any more, and those that run are waited for,
        some seconds at most. Workers that die again and again are an AnalysisError, and so is a
        cluster that is closed, restarted, or without workers for too long.
        """
        from distributed.scheduler import KilledWorker

        keys = [key] if report is None else [key, *(task_keys(graph) - {key})]
        watch = _Watch(self._client, self._address, self._patience)
        futures = self._client.get(graph, keys, sync=False)
        try:
            self._follow(futures, report, watch)
            result = futures[0].result()
        except (KilledWorker, CancelledError) as error:
            self._drop(futures, graph)
            raise AnalysisError(watch.why_lost(error)) from error
        except BaseException:
            self._drop(futures, graph)
            raise
        futures[0].release()
        return result

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

    def _follow(self, futures: list[Any], report: Report | None, watch: _Watch) -> None:
        """Wait until all tasks are done, or one has failed; report each that is asked for."""
        from distributed import as_completed

        finished: Any = as_completed(futures, loop=self._client.loop)  # type: ignore[no-untyped-call]
        done = 0
        while done < len(futures):
            if not finished.has_ready():
                watch.look()
                time.sleep(POLL_SECONDS)
                continue
            for future in finished.next_batch(block=False):
                if future.status != "finished":
                    return
                # A worker keeps what a future stands for, though no other task needs it any more.
                if future is not futures[0]:
                    future.release()
                done += 1
                if report is not None:
                    report(done, len(futures))


class _Watch:
    """Looks whether a cluster is still there while its tasks run."""

    def __init__(self, client: Any, address: str, patience: float) -> None:
        self._client = client
        self._address = address
        self._patience = patience
        self._next_look = self._last_seen = time.monotonic()
        self._was_said = False

    def look(self) -> None:
        """Raise where the client was closed, or there were no workers for too long."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if self._client.status in ("closed", "closing"):
            raise CancelledError("its client was closed")
        if self._client.scheduler_info(n_workers=-1).get("workers"):
            self._last_seen, self._was_said = now, False
            return
        missing = now - self._last_seen
        if missing >= self._patience:
            raise AnalysisError(
                f"the cluster at {self._address} has had no workers for {missing:.0f} seconds; "
                "start some and analyse again, or wait longer by patience="
            )
        if missing >= min(QUIET_SECONDS, self._patience / 2) and not self._was_said:
            self._was_said = True
            warnings.warn(
                f"the cluster at {self._address} has no workers any more; the analysis goes on if "
                f"some come within {self._patience - missing:.0f} seconds",
                TsstoreWarning,
                stacklevel=2,
            )

    def why_lost(self, error: BaseException) -> str:
        """Return what an error of tasks that were lost means, and what to do."""
        said = str(error)
        if "scheduler-connection-lost" in said:
            return (
                f"the scheduler at {self._address} is gone: it was closed, or died, or cannot be "
                "reached any more; analyse again when it is back"
            )
        if "restart" in said:
            return f"the cluster at {self._address} was restarted meanwhile; analyse again"
        if self._client.status in ("closed", "closing"):
            return (
                f"the cluster at {self._address}, or its client, "
                "was closed while it was analysing; leave both open until the analysis is done"
            )
        return (
            f"the cluster at {self._address} lost a task ({said}); look into the workers' logs, "
            "and if they ran out of memory give less as memory="
        )


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
        from distributed import Client
    except ImportError:
        raise AnalysisError(
            f"scheduler {address} needs the package distributed; install tsstore[cluster]"
        ) from None
    try:
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


def _check_version(version: str) -> None:
    if version != __version__:
        raise AnalysisError(f"it has tsstore {__version__}, but the analysis {version}")


def _read_root(files: Files, version: str) -> bytes | str:
    """Return the root of a store as it is seen here, or why it is not."""
    _check_version(version)
    try:
        return bytes(files.read(ZARR_JSON))
    except (OSError, StoreError) as error:
        return str(error)


def _read_text(path: str, version: str) -> str | None:
    _check_version(version)
    return Path(path).read_text() if os.path.exists(path) else None


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
