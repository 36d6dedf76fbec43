"""The workers of a Dask cluster as a scheduler."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from typing import Any

from tsstore.analysis.client import (
    Watch,
    by_process,
    check_usable,
    known_workers,
    memory_limits,
)
from tsstore.analysis.execution.recounting import (
    files_of,
    is_block,
    left_to_do,
    new_name,
    report_later,
)
from tsstore.analysis.execution.worker_records import LostRecordsError, is_held
from tsstore.analysis.memory import DEFAULT_SHARE, parse_memory
from tsstore.analysis.schedulers import PATIENCE_SECONDS, Report, Scheduler, task_keys
from tsstore.analysis.workers import Workers
from tsstore.errors import AnalysisError
from tsstore.text import format_memory

WORKER_SHARE = 0.60
"""Largest share of a worker's memory limit: at more, Dask begins to spill and pause."""

POLL_SECONDS = 0.01
"""How long it is waited for tasks to end before the cluster is looked at, at most."""

MOST_LOSSES = 10
"""Times that records are lost before it is an error."""

SETTLING_SECONDS = 10.0
"""How long tasks that nobody wants any more are waited for."""


class DistributedScheduler(Workers, Scheduler):
    """The workers of a ``distributed.Client``, which is closed at the end if it is `owned`.

    Where all of them go away, others are waited for, `patience` seconds long.
    """

    shared_memory = False

    def __init__(
        self, client: Any, owned: bool = False, patience: float = PATIENCE_SECONDS
    ) -> None:
        check_usable(client)
        super().__init__(client)
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

    def run(self, graph: dict[Any, Any], key: Any, threads: int, report: Report | None) -> Any:
        """Run a graph on the workers, each of which uses all its threads.

        After an error or an interrupt no task begins any more, and those that run are waited for,
        some seconds at most. Workers that die again and again are an AnalysisError, and so is a
        cluster that is closed, restarted, or without workers for too long. Where a worker is lost,
        blocks whose records it held run again.
        """
        wanted = key if isinstance(key, list) else [key]
        run = self._run_again if self._place else self.run_once
        values = run(graph, wanted, report)
        return [values[one] for one in key] if isinstance(key, list) else values[key]

    def _run_again(
        self, graph: dict[Any, Any], wanted: list[Any], report: Report | None
    ) -> dict[Any, Any]:
        """Run a graph; again where records are lost, but for what is known of them and of values.

        Their receipts are kept to the end, so that a worker that is lost does not take them along.
        """
        total, known = len(task_keys(graph)), dict[Any, Any]()
        for lost in range(MOST_LOSSES):
            names = {one: new_name(one, lost) for one in graph}
            missing = [one for one in wanted if one not in known]
            left = left_to_do(graph, missing, known, names) if lost else graph
            tasks = task_keys(left)
            later = None if report is None else report_later(report, total - len(tasks), total)
            kept = filter(is_block, tasks)
            try:
                values = self.run_once(left, [names[one] for one in missing], later, kept)
            except LostRecordsError as error:
                known |= {one: error.values[to] for one, to in names.items() if to in error.values}
                known = self._still_held(known)
                reason = error
            else:
                return known | {one: values[names[one]] for one in missing}
        raise AnalysisError(
            f"workers were lost, with the records that they held, {MOST_LOSSES} times ({reason}); "
            "look into their logs: if they ran out of memory give less as memory=, and if they do "
            "not last or cannot reach each other, a folder or object storage as scratch="
        ) from reason

    def _still_held(self, known: dict[Any, Any]) -> dict[Any, Any]:
        """Return what is known without the receipts of records that no worker holds any more."""
        files = {key: files_of(value) for key, value in known.items()}
        held = self._keep_records([file for own in files.values() for file in own if is_held(file)])
        return {key: value for key, value in known.items() if held.issuperset(files[key])}

    def run_once(
        self,
        graph: dict[Any, Any],
        wanted: list[Any],
        report: Report | None,
        kept: Iterable[Any] = (),
    ) -> dict[Any, Any]:
        """Return the values of the keys that are wanted, and of others that workers keep as well.

        A LostRecordsError has those that were found.
        """
        from dask.base import normalize_token
        from distributed.scheduler import KilledWorker

        normalize_token.register(_Unread, lambda _: uuid.uuid4().hex)  # type: ignore[no-untyped-call]
        kept = set(kept)
        others = kept if report is None else task_keys(graph)
        watch = Watch(self._client, self._address, self._patience)
        keys = [*wanted, *others.difference(wanted)]
        futures = self._client.get(_Unread(graph), keys, sync=False)
        values: dict[Any, Any] = {}
        try:
            self._follow(futures, report, watch, kept.union(wanted), kept, values)
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
        return values

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
            with finished.thread_condition:
                if not finished.has_ready():
                    finished.thread_condition.wait(POLL_SECONDS)
            if not finished.has_ready():
                watch.look()
                continue
            ready = finished.next_batch(block=False)
            found = [each for each in ready if each.key in wanted and each.status == "finished"]
            for future, value in zip(found, self._gathered(found, watch), strict=True):
                values[future.key] = value
            if failed := [each for each in ready if each.status != "finished"]:
                # It raises its error here, wanted or not.
                self._client.gather(failed)
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
