"""Clusters of worker processes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import dask

LOADED = ["distributed.nanny", "tsstore.analysis.analyze", "tsstore.analysis.neurons.count"]
"""What each worker needs, and takes a second to load."""
QUIET = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.worker.profile.enabled": False,
}
"""Clusters of a session are idle most of the time: let them take no time then."""


@contextmanager
def workers(number: int = 2, **options: Any) -> Iterator[Any]:
    """Give a client of so many workers, one thread each; it is not the current client."""
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": ":0", **options}
    if options.get("processes", True):
        _fork_workers()
        # What was set since the server of workers began.
        options["env"] = dict(os.environ)
    with (
        dask.config.set(QUIET),
        LocalCluster(n_workers=number, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@cache
def _fork_workers() -> None:
    """Let workers be forked by a server that has loaded what they need."""
    from distributed.utils import get_mp_context

    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    # Only the first time that it is asked for, distributed says itself what is loaded.
    get_mp_context().set_forkserver_preload(LOADED)


@contextmanager
def workers_environment(client: Any, settings: Mapping[str, str]) -> Iterator[None]:
    """Let the workers of a client have variables in their environment for a while."""
    client.run(_set, dict(settings))
    try:
        yield
    finally:
        client.run(_unset, list(settings))


def _set(settings: dict[str, str]) -> None:
    os.environ.update(settings)


def _unset(names: list[str]) -> None:
    for name in names:
        os.environ.pop(name, None)
