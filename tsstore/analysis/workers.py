"""The workers of a cluster: what they see of a store and of scratch, and hold of records."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tsstore import __version__
from tsstore.analysis.execution.scratch_objects import split_url
from tsstore.analysis.execution.worker_records import make_place, name_of
from tsstore.errors import AccessError, AnalysisError, DamageError, StoreError
from tsstore.store.files.base import Files
from tsstore.store.files.open import is_url
from tsstore.store.format.documents import ZARR_JSON, metadata_key

MOST_PARTS = 100
"""Parts of a run that each worker looks for before it is counted: the first and the last ones."""

HERE = "from here"


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
