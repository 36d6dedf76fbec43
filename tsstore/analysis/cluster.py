"""The workers of a cluster: what memory they have, what they see, and running a graph there."""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

from tsstore import __version__
from tsstore.analysis.machine import DEFAULT_SHARE, available_memory
from tsstore.analysis.running import Report, task_keys
from tsstore.errors import AnalysisError
from tsstore.text import format_memory

WORKER_SHARE = 0.60
"""Largest share of a worker's memory limit: at more, Dask begins to spill and pause."""

SETTLING_SECONDS = 10.0
"""How long tasks that nobody wants any more are waited for."""


class Cluster:
    """The workers of a ``distributed.Client``.

    Parameters
    ----------
    client
        The client: not closed, and not asynchronous.
    owned
        Whether to close it at the end.

    Raises
    ------
    AnalysisError
        If the client cannot be used, or there are no workers.
    """

    shared_memory = False

    def __init__(self, client: Any, owned: bool = False) -> None:
        _check_usable(client)
        self._client = client
        self._owned = owned
        self._address = client.scheduler.address
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            self.close()
            raise AnalysisError(f"the cluster at {self._address} has no workers; start some first")
        threads = {address: worker["nthreads"] for address, worker in workers.items()}
        self.threads = max(_by_process(threads))
        self.all_threads = sum(threads.values())
        self._limit = min(_by_process(_memory_limits(client, workers)))

    def memory(self, asked: int | None) -> int:
        """Return what was asked for, or a quarter of the smallest worker process's limit.

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
        """Let every worker read a word that is written into the folder now.

        Raises
        ------
        AnalysisError
            If one cannot, or has no tsstore, or another version of it.
        """
        nonce = uuid.uuid4().hex
        path = Path(folder) / "nonce"
        path.write_text(nonce)
        answers = self._client.run(_read_text, str(path), __version__, on_error="return")
        path.unlink()
        # A worker that cannot even read a task would leave the analysis waiting for ever.
        for worker, found in answers.items():
            if isinstance(found, Exception) and not isinstance(found, OSError):
                raise AnalysisError(
                    f"worker {worker} cannot take part ({found}); install tsstore {__version__} "
                    "and what it needs there, in the same versions as here"
                )
        blind = [worker for worker, found in answers.items() if found != nonce]
        if blind:
            raise AnalysisError(
                f"scratch folder {folder} is not seen by {', '.join(blind)}; pass a folder on a "
                "file system that all workers share as scratch="
            )

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on the workers, each of which uses all its threads.

        After an error or an interrupt no task begins any more, and those that run are waited for,
        some seconds at most.

        Raises
        ------
        AnalysisError
            If workers die again and again, or the cluster is closed.
        """
        from distributed.scheduler import KilledWorker

        keys = [key] if report is None else [key, *(task_keys(graph) - {key})]
        futures = self._client.get(graph, keys, sync=False)
        try:
            if report is not None:
                self._follow(futures, report)
            result = futures[0].result()
        except (KilledWorker, CancelledError) as error:
            self._drop(futures, graph)
            raise AnalysisError(
                f"the cluster at {self._address} lost a task ({error}); look "
                "into the workers' logs, and if they ran out of memory give less as memory="
            ) from error
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
            while looks < 2 and time.monotonic() < latest:
                running = {key for keys in self._client.call_stack().values() for key in keys}
                looks = 0 if running & graph.keys() else looks + 1
                time.sleep(0.05)

    def _follow(self, futures: list[Any], report: Report) -> None:
        """Report each task as it finishes, until all have or one has failed."""
        from distributed import as_completed

        finished = as_completed(futures, loop=self._client.loop)  # type: ignore[no-untyped-call]
        for done, future in enumerate(finished, 1):
            if future.status != "finished":
                return
            # A worker keeps what a future stands for, though no other task needs it any more.
            if future is not futures[0]:
                future.release()
            report(done, len(futures))


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


def _read_text(path: str, version: str) -> str | None:
    if version != __version__:
        raise AnalysisError(f"it has tsstore {__version__}, but the analysis {version}")
    return Path(path).read_text() if os.path.exists(path) else None
