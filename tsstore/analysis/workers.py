"""A cluster: its client, and what its workers have and see; whether they are still there."""

from __future__ import annotations

import os
import socket
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tsstore import __version__
from tsstore.analysis.execution.scratch_objects import split_url
from tsstore.analysis.execution.worker_records import make_place, name_of
from tsstore.analysis.memory import available_memory
from tsstore.errors import AccessError, AnalysisError, DamageError, StoreError, TsstoreWarning, warn
from tsstore.store.files.base import Files
from tsstore.store.files.open import is_url
from tsstore.store.format.documents import ZARR_JSON, metadata_key

MOST_PARTS = 100
"""Parts of a run that each worker looks for before it is counted: the first and the last ones."""

LOOK_SECONDS = 1.0
"""How often a cluster is looked at while its tasks run."""

QUIET_SECONDS = 10.0
"""How long it is waited for before that is said."""

HERE = "from here"

ANSWER_SECONDS = 3.0
"""How long a cluster may take to answer before that is said."""


def known_workers(client: Any) -> dict[str, Any]:
    """Return what the scheduler of a client says of each worker, by address; OSError if it is gone.

    What the client itself knows may leave the workers out: it asks for less every few seconds.
    """
    return dict(client.sync(client.scheduler.identity)["workers"])


class Workers:
    """The workers of a ``distributed.Client``: what they see, and hold."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._place = ""

    @contextmanager
    def holding(self, room: int) -> Iterator[str]:
        """Let each worker, also one that joins later, hold records until the end of the block."""
        from tsstore.analysis.execution.record_holder import RecordHolder, let_go

        self._client.register_plugin(RecordHolder())
        self._place = uuid.uuid4().hex
        try:
            yield make_place(self._place, room)
        finally:
            # A worker that is not reached lets go by itself, when nobody has asked for long.
            with suppress(Exception):
                if self._client.status == "running":
                    self._client.run(let_go, self._place, on_error="ignore")
            self._place = ""

    def _keep_records(self, files: Collection[str]) -> set[str]:
        """Return which files of records are held, and let workers hold no others."""
        from tsstore.analysis.execution.record_holder import keep

        names = {name_of(file): file for file in files}
        answers = self._client.run(keep, self._place, set(names), on_error="ignore")
        return {names[name] for held in answers.values() for name in held}

    def check_scratch(self, folder: str) -> None:
        """Raise AnalysisError unless all read a word that is written into scratch now."""
        nonce = uuid.uuid4().hex
        if is_url(folder):
            self._check_objects(folder, nonce)
            return
        path = Path(folder) / "nonce"
        path.write_text(nonce)
        try:
            answers = self._ask(_read_text, str(path))
        finally:
            path.unlink()
        blind = [worker for worker, found in answers.items() if found != nonce]
        if blind:
            raise AnalysisError(
                f"scratch folder {folder} is not seen by {self._named(blind)}; pass a folder on a "
                "file system that all workers share as scratch=, or object storage, such as "
                "s3://bucket/scratch; or without scratch= more memory, so that workers hold the "
                "records (tsstore plan says how much)"
            )

    def _check_objects(self, url: str, nonce: str) -> None:
        """Raise AnalysisError unless all read a word below a URL, and write and remove another."""
        files, key = split_url(url)
        files.write(f"{key}/nonce", nonce.encode())
        for worker, found in self._ask(_use_objects, url).items():
            if found != nonce:
                raise AnalysisError(
                    f"scratch {url} cannot be used by {self._named([worker])}: {found}; give all "
                    "workers what this process has in its environment (credentials, region, "
                    "endpoint) and the extra s3"
                )

    def seeing(self, folder: str) -> str:
        """Say in a clause which of them see a folder."""
        answers = self._ask(os.path.isdir, folder)
        seeing = [worker for worker, found in answers.items() if found is True]
        if len(seeing) == len(answers):
            return "all workers see it"
        return f"{self._named(seeing)} sees it" if seeing else "no worker sees it"

    @contextmanager
    def reading(self, files: Files, parts: Sequence[str]) -> Iterator[None]:
        """Let every worker look for the store; where a file is missing, ask who sees it."""
        self.check_store(files, parts)
        try:
            yield
        except DamageError as error:
            if error.missing is not None:
                self._check_file(files, error.missing)
            raise

    def check_store(self, files: Files, parts: Sequence[str] = ()) -> None:
        """Raise AccessError unless all read the root of a store as it is here, and see its parts.

        What is missing for one worker and there for another is no damage.
        """
        expected = bytes(files.read(ZARR_JSON))
        half = MOST_PARTS // 2
        directories = dict.fromkeys([*parts[:half], *parts[-half:]])
        keys = [metadata_key(directory) for directory in directories]
        for worker, found in self._ask(_look_at, files, keys).items():
            root, unseen = found if isinstance(found, tuple) else (found, None)
            if root != expected:
                raise self._unseen(files.location, [worker], [HERE], root)
            if unseen is not None:
                raise self._unseen(files.where(unseen), [worker], [HERE])

    def _check_file(self, files: Files, key: str) -> None:
        """Raise AccessError if some see a file that others do not: it is not there for a reader."""
        answers = {HERE: _sees(files, key), **self._ask(_sees, files, key)}
        seeing = [worker for worker, found in answers.items() if found is True]
        blind = [worker for worker in answers if worker not in seeing]
        if seeing and blind:
            raise self._unseen(files.where(key), blind, seeing, answers[blind[0]])

    def _unseen(
        self, where: str, blind: Sequence[str], seeing: Sequence[str], why: object = None
    ) -> AccessError:
        said = f": {why}" if isinstance(why, str | OSError) else ""
        return AccessError(
            f"{where} is not seen {self._by(blind)}, but {self._by(seeing)}{said}; it is not "
            "damaged: wait until the file system shows it everywhere, or put the store where all "
            "workers see it under this path"
        )

    def _by(self, places: Sequence[str]) -> str:
        return places[0] if places[0] == HERE else f"by worker {self._named(places)}"

    def _named(self, workers: Sequence[str]) -> str:
        """Return the first of some workers, with its host's name, and how many others there are."""
        hosts = self._client.run(socket.gethostname, on_error="return")
        host = hosts.get(workers[0])
        others = len(workers) - 1
        named = f"{workers[0]} on {host}" if isinstance(host, str) else workers[0]
        return f"{named} and {others} other{'s' * (others > 1)}" if others else named

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Mapping[str, Any]:
        """Return what a function gives on each worker: a value, or an OSError."""
        answers = self._client.run(_answer, __version__, function, *arguments, on_error="return")
        # A worker that went away meanwhile says nothing, and its tasks go to others.
        answers = {worker: found for worker, found in answers.items() if not _is_gone(found)}
        # A worker that cannot even read a task would leave the analysis waiting for ever.
        for worker, found in answers.items():
            if isinstance(found, Exception) and not isinstance(found, OSError):
                raise AnalysisError(
                    f"worker {worker} cannot take part ({found}); install tsstore {__version__} "
                    "and what it needs there, in the same versions as here"
                )
        return answers


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


def _is_gone(found: object) -> bool:
    """Whether what a worker gave is the error that there is no connection to it any more."""
    return isinstance(found, OSError) and type(found).__module__.startswith("distributed.")


def _answer(version: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function gives on this worker, which must be of the same version."""
    if version != __version__:
        raise AnalysisError(f"it has tsstore {__version__}, but the analysis {version}")
    return function(*arguments)


def _look_at(files: Files, keys: Sequence[str]) -> tuple[bytes | str, str | None]:
    """Return the root of a store as it is seen here, or why it is not, and a key that is not."""
    try:
        root = bytes(files.read(ZARR_JSON))
    except (OSError, StoreError) as error:
        return str(error), None
    return root, next((key for key in keys if _sees(files, key) is not True), None)


def _sees(files: Files, key: str) -> bool | str:
    """Whether there is a file, or why that is not known."""
    try:
        return files.exists(key)
    except (OSError, StoreError) as error:
        return str(error)


def _use_objects(url: str) -> str:
    """Return the word that lies below a URL, or why this worker cannot read, write or remove."""
    try:
        files, key = split_url(url)
        files.write(own := f"{key}/nonce-{uuid.uuid4().hex}", b"here")
        files.remove(own)
        return bytes(files.read(f"{key}/nonce")).decode()
    except (OSError, StoreError) as error:
        return str(error)


def _read_text(path: str) -> str | None:
    return Path(path).read_text() if os.path.exists(path) else None


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
