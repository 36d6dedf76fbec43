"""Doing the same with many things, several at a time, and taking what comes of it in order."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

QUICK_SECONDS = 1e-3
"""What reading a small file takes at most where it is at hand."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(
    call: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    """Yield ``call(item)`` for each of `items`, in their order; an error is raised in its place.

    At most twice as many items as threads are taken ahead, so that their results stay few. Where
    the caller stops, by an error or Ctrl-C, no further item is begun, and nobody waits for those
    that are at work: a process can end meanwhile. With one thread nothing is taken ahead.
    """
    if threads <= 1:
        yield from map(call, items)
        return
    tasks: SimpleQueue[tuple[_Item, Future[_Result]] | None] = SimpleQueue()
    pending: deque[Future[_Result]] = deque()
    workers = 0
    try:
        for item in items:
            if workers < threads:
                workers += 1
                # Daemons: what they do is without effect once nobody takes the results.
                threading.Thread(target=_work, args=(call, tasks), daemon=True).start()
            pending.append(Future())
            tasks.put((item, pending[-1]))
            if len(pending) >= 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for _ in range(workers):
            tasks.put(None)


def in_threads_if_slow(
    call: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    """Do the same as `in_threads` with what may be quick, as to read small files: then do it here.

    Handing it to other threads would take longer. They begin as soon as one takes a millisecond, as
    from storage that is far away.
    """
    left = iter(items)
    for item in left:
        begun = time.perf_counter()
        result = call(item)
        slow = time.perf_counter() - begun > QUICK_SECONDS
        yield result
        if slow:
            yield from in_threads(call, left, threads)


def _work(
    call: Callable[[_Item], _Result], tasks: SimpleQueue[tuple[_Item, Future[_Result]] | None]
) -> None:
    while (task := tasks.get()) is not None:
        item, future = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call(item))
            except BaseException as error:
                future.set_exception(error)
        # The result is the caller's from now on.
        del task, item, future
