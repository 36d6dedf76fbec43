"""Where a graph runs: this process's threads, this thread alone, or a cluster."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from contextlib import contextmanager
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
"""Takes the number of tasks done, and of all tasks."""

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
        """Run a graph on at most so many threads."""
        import dask
        from dask.threaded import get

        with _reporting(report, len(graph)):
            if threads == 1:
                return dask.get(graph, key)
            return get(graph, key, num_workers=threads)


class Cluster:
    """The workers of a ``distributed.Client``."""

    shared_memory = False

    def __init__(self, client: Any) -> None:
        self._client = client
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if not workers:
            raise AnalysisError(
                f"the cluster at {client.scheduler.address} has no workers; start some first"
            )
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
        blind = [
            worker
            for worker, found in self._client.run(_read_text, str(path)).items()
            if found != nonce
        ]
        path.unlink()
        if blind:
            raise AnalysisError(
                f"scratch folder {folder} is not seen by {', '.join(blind)}; pass a folder on a "
                "file system that all workers share as scratch="
            )

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on the workers."""
        if report is None:
            return self._client.get(graph, key)
        keys = [key, *(other for other, task in graph.items() if isinstance(task, tuple))]
        futures = self._client.get(graph, keys, sync=False)
        counter = _Counter(report, len(set(keys)))
        for future in futures[1:]:
            future.add_done_callback(counter)
        return futures[0].result()


def choose(scheduler: Any) -> Scheduler:
    """Return the scheduler that the user means.

    Parameters
    ----------
    scheduler
        None (the current ``distributed.Client`` if there is one, else threads), ``"threads"``,
        ``"synchronous"``, a client, or the address of a cluster.

    Raises
    ------
    AnalysisError
        If it is none of them.
    """
    if scheduler is None:
        client = _current_client()
        return Local(available_processors()) if client is None else Cluster(client)
    if scheduler == "threads":
        return Local(available_processors())
    if scheduler in ("synchronous", "sync", "single-threaded"):
        return Local(1)
    if isinstance(scheduler, str) and "://" in scheduler:
        return Cluster(_connect(scheduler))
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
        return Client.current()
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
        return Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise AnalysisError(f"no cluster answers at {address}: {error}") from error


def _read_text(path: str) -> str | None:
    return Path(path).read_text() if os.path.exists(path) else None


class _Counter:
    """Counts finished tasks, from whichever thread they finish in."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0

    def __call__(self, *_: Any) -> None:
        self._done += 1
        self._report(min(self._done, self._total), self._total)


@contextmanager
def _reporting(report: Report | None, total: int) -> Any:
    if report is None:
        yield
        return
    from dask.callbacks import Callback

    counter = _Counter(report, total)
    with Callback(posttask=counter):
        yield
