"""The recorders of this process that are open, of which there may be several: errors name theirs.

One may be open that was forgotten, as after a cell that was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar
from weakref import WeakSet

from torch import nn

from tsstore.errors import StoreExistsError, TsstoreError
from tsstore.recording.selection.select import unwrapped
from tsstore.store.files.base import Files

_LOG: Final = logging.getLogger("tsstore")

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Entered = TypeVar("_Entered")


class _Named(Protocol):
    path: str


_Self = TypeVar("_Self", bound=_Named)


class OpenRecorder(_Named, Protocol):
    """What is to be known of a recorder."""

    files: Files
    model: nn.Module
    part: str
    rank: int

    @property
    def is_open(self) -> bool:
        """Whether it takes batches in this process."""

    @property
    def statistics(self) -> Any:
        """What has been recorded so far."""

    def close(self, why: str = "closed") -> None:
        """Write what is left, and seal the part."""


# Which files a process is writing is a fact about the process.
_RECORDERS: Final[WeakSet[OpenRecorder]] = WeakSet()


def note_recorder(recorder: OpenRecorder) -> None:
    """Note a recorder that has been made."""
    _RECORDERS.add(recorder)


def open_recorders() -> list[OpenRecorder]:
    """Return those that take batches in this process."""
    return [recorder for recorder in list(_RECORDERS) if recorder.is_open]


def make_way(files: Files, rank: int, overwrite: bool) -> None:
    """Close recorders that write where another is going to overwrite; else refuse, for one rank."""
    for recorder in open_recorders():
        if not recorder.files.is_same_place(files):
            continue
        if overwrite:
            # Its last batches are deleted as well: whether they arrive does not matter.
            with suppress(TsstoreError):
                recorder.close("overwritten")
        elif recorder.rank == rank:
            raise StoreExistsError(
                f"{files.location} is being recorded by this process: {_described(recorder)} is "
                "open; close it first (recorder.close(), or delete the model and the recorder), "
                "pass overwrite=True, which closes and deletes it, or choose another path"
            )


def warn_of_other_recorders(model: nn.Module, path: str) -> None:
    """Log which other recorders record a model that is about to be captured."""
    for recorder in open_recorders():
        if unwrapped(recorder.model) is unwrapped(model):
            _LOG.warning(
                "%s: the model is recorded into %s as well: %s is open; if that is not meant, "
                "close it (recorder.close())",
                path,
                recorder.path,
                _described(recorder),
            )


def _described(recorder: OpenRecorder) -> str:
    return f"{recorder.part}, with {recorder.statistics.samples:,} samples so far,"


def names_run(
    method: Callable[Concatenate[_Self, _Parameters], _Result],
) -> Callable[Concatenate[_Self, _Parameters], _Result]:
    """Let the errors of a recorder's method name its run."""

    @wraps(method)
    def named(
        self: _Self, /, *arguments: _Parameters.args, **keywords: _Parameters.kwargs
    ) -> _Result:
        try:
            return method(self, *arguments, **keywords)
        except TsstoreError as error:
            error.of_run(self.path)
            raise

    return named


class NamedBlock(AbstractContextManager[_Entered]):
    """A block whose own errors name a run; what is raised inside it stays as it is."""

    def __init__(self, block: AbstractContextManager[_Entered], run: str) -> None:
        self._block = block
        self._run = run

    def __enter__(self) -> _Entered:
        try:
            return self._block.__enter__()
        except TsstoreError as error:
            error.of_run(self._run)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return self._block.__exit__(kind, error, traceback)
        except TsstoreError as raised:
            if raised is not error:
                raised.of_run(self._run)
            raise
