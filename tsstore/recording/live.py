"""The recorders of this process that are open: what a cell that was interrupted leaves behind."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Final, Protocol
from weakref import WeakSet

from torch import nn

from tsstore.errors import StoreExistsError, TsstoreError
from tsstore.recording.selection.select import unwrapped
from tsstore.store.files.open import Files

_LOG = logging.getLogger("tsstore")


class Recording(Protocol):
    """What is to be known of a recorder."""

    files: Files
    model: nn.Module
    path: str
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
_RECORDERS: Final[WeakSet[Recording]] = WeakSet()


def note(recorder: Recording) -> None:
    """Note a recorder that has been made."""
    _RECORDERS.add(recorder)


def open_recorders() -> list[Recording]:
    """Return those that take batches in this process."""
    return [recorder for recorder in list(_RECORDERS) if recorder.is_open]


def make_way(files: Files, rank: int, overwrite: bool) -> None:
    """Close the recorders that write where another one is going to, or refuse.

    Parameters
    ----------
    files
        Where the run is going to lie.
    rank
        Of the process; in a thread of their own other ranks may write the same run.
    overwrite
        Whether what is there is going to be deleted.

    Raises
    ------
    StoreExistsError
        If there is one, and what it writes is not to be deleted.
    """
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


def say_who_else_listens(model: nn.Module, path: str) -> None:
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


def _described(recorder: Recording) -> str:
    return f"{recorder.part}, with {recorder.statistics.samples:,} samples so far,"
