"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure; and a change is judged by the same examples each time.
settings.register_profile(
    "tsstore",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tsstore")


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """Give a client of two worker processes on this machine; it is not the current client."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plans have many blocks, partitions and passes where there are but a few rows."""
    sizes = {"MAX_BLOCK_ROWS": 64, "MIN_BLOCK_ROWS": 8, "PARTITION_RECORDS": 32}
    for name, value in {**sizes, "MIN_TABLE_SLOTS": 16}.items():
        monkeypatch.setattr(f"tsstore.analysis.plan.{name}", value)
