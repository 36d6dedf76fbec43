"""The client of a cluster: found or made, and what it says of the workers; whether they last."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from tsstore.analysis.memory import available_memory
from tsstore.errors import AnalysisError, TsstoreWarning, warn

LOOK_SECONDS = 1.0
"""How often a cluster is looked at while its tasks run."""

QUIET_SECONDS = 10.0
"""How long it is waited for before that is said."""

ANSWER_SECONDS = 3.0
"""How long a cluster may take to answer before that is said."""


def current_client() -> Any:
    """Return the client that Dask itself would use, if there is one."""
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


def known_workers(client: Any) -> dict[str, Any]:
    """Return what the scheduler of a client says of each worker, by address; OSError if it is gone.

    What the client itself knows may leave the workers out: it asks for less every few seconds.
    """
    return dict(client.sync(client.scheduler.identity)["workers"])


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


class Watch:
    """Looks whether a cluster is still there while its tasks run."""

    def __init__(self, client: Any, address: str, patience: float) -> None:
        self._client = client
        self._address = address
        self._patience = patience
        self._next_look = self._last_seen = time.monotonic()
        self._was_said = False

    def look(self) -> None:
        """Raise where the client was closed, or there were no workers for too long."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if self._client.status in ("closed", "closing"):
            raise CancelledError("its client was closed")
        try:
            workers = known_workers(self._client)
        except OSError:
            # The tasks' own errors say what was lost.
            return
        if workers:
            self._last_seen, self._was_said = now, False
            return
        missing = now - self._last_seen
        if missing >= self._patience:
            raise AnalysisError(
                f"the cluster at {self._address} has had no workers for {missing:.0f} seconds; "
                "start some and analyse again, or wait longer by patience="
            )
        if missing >= min(QUIET_SECONDS, self._patience / 2) and not self._was_said:
            self._was_said = True
            warnings.warn(
                f"the cluster at {self._address} has no workers any more; the analysis goes on if "
                f"some come within {self._patience - missing:.0f} seconds",
                TsstoreWarning,
                stacklevel=2,
            )

    def why_lost(self, error: BaseException) -> str:
        """Return what an error of tasks that were lost means, and what to do."""
        said = str(error)
        if "scheduler-connection-lost" in said:
            return (
                f"the scheduler at {self._address} is gone: it was closed, or died, or cannot be "
                "reached any more; analyse again when it is back"
            )
        if "restart" in said:
            return f"the cluster at {self._address} was restarted meanwhile; analyse again"
        if self._client.status in ("closed", "closing"):
            return (
                f"the cluster at {self._address}, or its client, "
                "was closed while it was analysing; leave both open until the analysis is done"
            )
        return (
            f"the cluster at {self._address} lost a task ({said}); look into the workers' logs, "
            "and if they ran out of memory give less as memory="
        )
