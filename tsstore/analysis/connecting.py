"""The client of a cluster: found or made; and what its workers have of memory and threads."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import suppress
from typing import Any

from tsstore.analysis.machine import available_memory
from tsstore.errors import AnalysisError, warn

ANSWER_SECONDS = 3.0
"""How long a cluster may take to answer before that is said."""


def current_client() -> Any:
    """Return the client that Dask itself would use; without distributed there is none."""
    if "distributed" not in sys.modules:
        return None
    from distributed import Client

    try:
        return Client.current()  # type: ignore[no-untyped-call]
    except ValueError:
        return None


def connect(address: str) -> Any:
    """Return a client of its own of the cluster at an address."""
    try:
        import dask
        from dask.utils import parse_timedelta
        from distributed import Client
    except ImportError:
        raise AnalysisError(
            f"scheduler {address} needs the package distributed; install tsstore[cluster]"
        ) from None
    patience = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    try:
        if patience > ANSWER_SECONDS:
            with suppress(OSError):
                return Client(address, timeout=ANSWER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
            warn(f"no cluster answers at {address} yet; it is tried for {patience:g} s more")
        return Client(address, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise AnalysisError(f"no cluster answers at {address} ({error}); is it running?") from error


def check_usable(client: Any) -> None:
    """Raise AnalysisError if a client is closed, or asynchronous."""
    if client.status == "closed":
        raise AnalysisError(f"the client {client!r} is closed; make another one")
    if client.asynchronous:
        raise AnalysisError(
            f"the client {client!r} is asynchronous; make one with asynchronous=False, or analyse "
            "in another thread"
        )


def memory_limits(client: Any, workers: dict[str, Any]) -> dict[str, int]:
    """Return each worker's memory limit; of one without, its share of what its machine has."""
    limits = {address: worker["memory_limit"] for address, worker in workers.items()}
    unlimited = [address for address, limit in limits.items() if not limit]
    if unlimited:
        hosts = Counter(worker["host"] for worker in workers.values())
        for address, amount in client.run(available_memory, workers=unlimited).items():
            limits[address] = amount // hosts[workers[address]["host"]]
    return limits


def by_process(amounts: dict[str, int]) -> list[int]:
    """Add up what workers of one process have: they are at ``inproc://host/process/number``."""
    sums: Counter[str] = Counter()
    for address, amount in amounts.items():
        within = address.startswith("inproc://")
        sums[address.rpartition("/")[0] if within else address] += amount
    return list(sums.values())
