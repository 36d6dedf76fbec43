"""Where a graph runs: this process's threads, this thread alone, or a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

from tsstore.analysis.cluster import Cluster
from tsstore.analysis.machine import DEFAULT_SHARE, available_memory, available_processors
from tsstore.analysis.running import Report, Scheduler, task_keys
from tsstore.errors import AnalysisError


class Local:
    """Threads of this process; one thread is the synchronous scheduler."""

    shared_memory = True

    def __init__(self, threads: int) -> None:
        self.threads = self.all_threads = threads

    def memory(self, asked: int | None) -> int:
        """Return what was asked for, or a quarter of what there is."""
        return int(DEFAULT_SHARE * available_memory()) if asked is None else asked

    def check_scratch(self, folder: str) -> None:
        """Do nothing: this process has just made the folder."""

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
