"""Where a graph runs: this process's threads, this thread alone, or a cluster."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from tsstore.analysis.memory import (
    DEFAULT_SHARE,
    available_memory,
    available_processors,
    format_memory,
)
from tsstore.errors import AnalysisError

Report = Callable[[int, int], None]
"""Takes the number of tasks done, and of all tasks; called in the thread that analyses."""

WORKER_SHARE = 0.60
"""Largest share of a worker's memory limit: at more, Dask begins to spill and pause."""


class Scheduler(Protocol):
    """What an analysis needs of a scheduler."""

    threads: int
    shared_memory: bool

    def memory(self, asked: int | None) -> int:
        """Return the memory that one process may use, in bytes."""

    def check_scratch(self, folder: str) -> None:
        """Raise AnalysisError if not all processes see the folder."""

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph and return the value of a key."""

    def close(self) -> None:
        """Let go of what was opened."""


class Local:
    """Threads of this process; one thread is the synchronous scheduler."""

    shared_memory = True

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def memory(self, asked: int | None) -> int:
        """Return what was asked for, or a quarter of what there is."""
        return int(DEFAULT_SHARE * available_memory()) if asked is None else asked

    def check_scratch(self, folder: str) -> None:
        """Do nothing: this process has just made the folder."""

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on so many threads; none of them is left running, whatever happens."""
        from dask.local import get_sync
        from dask.threaded import get

        callbacks = None if report is None else [_callback(report, len(_tasks(graph)))]
        if threads == 1:
            return get_sync(graph, key, callbacks=callbacks)
        with _thread_pool(threads) as pool:
            return get(graph, key, pool=pool, callbacks=callbacks)

    def close(self) -> None:
        """Do nothing: nothing was opened."""


class Cluster:
    """The workers of a ``distributed.Client``.

    Parameters
    ----------
    client
        The client, which must not be asynchronous.
    owned
        Whether to close it at the end.

    Raises
    ------
    AnalysisError
        If there are no workers.
    """

    shared_memory = False

    def __init__(self, client: Any, owned: bool = False) -> None:
        self._client = client
        self._owned = owned
        self._address = client.scheduler.address
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if not workers:
            self.close()
            raise AnalysisError(f"the cluster at {self._address} has no workers; start some first")
        self.threads = max(worker["nthreads"] for worker in workers)
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        self._limit = min(limits, default=available_memory())

    def memory(self, asked: int | None) -> int:
        """Return what was asked for, or a quarter of the smallest worker's limit.

        Raises
        ------
        AnalysisError
            If more is asked for than a worker can give.
        """
        most = int(WORKER_SHARE * self._limit)
        if asked is None:
            return int(DEFAULT_SHARE * self._limit)
        if asked > most:
            raise AnalysisError(
                f"memory of {format_memory(asked)} is more than the workers can give: their limit "
                f"is {format_memory(self._limit)}; give at most memory={most}"
            )
        return asked

    def check_scratch(self, folder: str) -> None:
        """Let every worker read a word that is written into the folder now."""
        nonce = uuid.uuid4().hex
        path = Path(folder) / "nonce"
        path.write_text(nonce)
        answers = self._client.run(_read_text, str(path), on_error="return")
        path.unlink()
        blind = [worker for worker, found in answers.items() if found != nonce]
        if blind:
            raise AnalysisError(
                f"scratch folder {folder} is not seen by {', '.join(blind)}; pass a folder on a "
                "file system that all workers share as scratch="
            )

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on the workers, each of which uses all its threads.

        Raises
        ------
        AnalysisError
            If workers die again and again, or the cluster is closed.
        """
        from distributed.scheduler import KilledWorker

        keys = [key] if report is None else [key, *(_tasks(graph) - {key})]
        futures = self._client.get(graph, keys, sync=False)
        try:
            if report is not None:
                self._follow(futures, report)
            return futures[0].result()
        except (KilledWorker, CancelledError) as error:
            raise AnalysisError(
                f"the cluster at {self._address} lost a task ({error}); look "
                "into the workers' logs, and if they ran out of memory give less as memory="
            ) from error
        finally:
            # A traceback may keep the futures alive, and they the tasks that are not done yet.
            for future in futures:
                future.release()

    def close(self) -> None:
        """Close the client if it was opened here."""
        if self._owned:
            self._client.close()

    def _follow(self, futures: list[Any], report: Report) -> None:
        """Report each task as it finishes, until all have or one has failed."""
        from distributed import as_completed

        finished = as_completed(futures, loop=self._client.loop)  # type: ignore[no-untyped-call]
        for done, future in enumerate(finished, 1):
            if future.status != "finished":
                return
            report(done, len(futures))


def choose(scheduler: Any) -> Scheduler:
    """Return the scheduler that the user means; close it at the end.

    Parameters
    ----------
    scheduler
        None (the current ``distributed.Client`` if there is one, else threads), ``"threads"``,
        ``"synchronous"``, a client, or the address of a cluster.

    Raises
    ------
    AnalysisError
        If it is none of them, or there is no cluster.
    """
    if scheduler is None:
        client = _current_client()
        return Local(available_processors()) if client is None else Cluster(client)
    if scheduler == "threads":
        return Local(available_processors())
    if scheduler in ("synchronous", "sync", "single-threaded"):
        return Local(1)
    if isinstance(scheduler, str) and "://" in scheduler:
        return Cluster(_connect(scheduler), owned=True)
    if hasattr(scheduler, "scheduler_info") and hasattr(scheduler, "get"):
        return Cluster(scheduler)
    raise AnalysisError(
        f"scheduler is {scheduler!r}; expected None, 'threads', 'synchronous', a "
        "distributed.Client, or an address such as 'tcp://host:8786'"
    )


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


def _read_text(path: str) -> str | None:
    return Path(path).read_text() if os.path.exists(path) else None


def _tasks(graph: dict[Any, Any]) -> set[Any]:
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
