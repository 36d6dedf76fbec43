"""Clusters of worker processes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def workers(number: int = 2, **options: Any) -> Iterator[Any]:
    """Give a client of so many workers, one thread each; it is not the current client."""
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": ":0", **options}
    with (
        LocalCluster(n_workers=number, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
