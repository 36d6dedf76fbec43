"""Every error that tsstore raises on purpose.

::

    TsstoreError
    ├── StoreError                what is on disk, or should be
    │   ├── NotAStoreError        the path holds no tsstore run
    │   ├── FormatError           a store that this version cannot read, or hostile metadata
    │   ├── StoreExistsError      the path is taken already
    │   ├── AccessError           the place cannot be read or written; an OSError as well
    │   ├── DamageError           a chunk, record or file is not what was committed
    │   ├── PartSealedError       a part that takes no more batches
    │   ├── RowIndexError         an index that means no rows; an IndexError as well
    │   └── ResumeError           a job that does not go on where an earlier one stopped
    ├── CaptureError              recording states from a model
    │   ├── SelectionError        no such layer, or none selected
    │   ├── OutputError           a module's output cannot be turned into rows
    │   ├── ColumnsError          sample columns that disagree with the batch or with earlier ones
    │   └── WriterError           the background writer failed; its cause is chained
    └── AnalysisError             counting and evaluating
        ├── UnknownLayerError     the store has no such layer
        ├── UnknownRunError       of several runs none has this name
        ├── EmptyStoreError       nothing has been committed
        ├── MemoryTooSmallError   names the smallest value that works
        └── CountingError         an internal check failed; no number is returned

Each message names the thing, what was found, what was expected, and what to do.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, Self

_BETWEEN: Final = ("tsstore", "torch", "contextlib")
"""Packages whose functions lie between the user's line and ours."""


class TsstoreError(Exception):
    """Base class of all errors that tsstore raises on purpose.

    Attributes
    ----------
    run
        Where the run lies that a recorder was writing when it raised this; None elsewhere.
    """

    run: str | None = None

    def of_run(self, run: str) -> Self:
        """Let the message name the run of the recorder that raises it, unless it names one."""
        if self.run is None:
            self.run = run
            if run not in str(self):
                self.args = (f"{run}: {self}", *self.args[1:])
        return self


class StoreError(TsstoreError):
    """Something about a store on disk."""


class NotAStoreError(StoreError):
    """The path holds no tsstore run: check the path."""


class FormatError(StoreError):
    """The store's metadata is of a newer format, or not valid: upgrade, or run the job again."""


class StoreExistsError(StoreError):
    """The path exists already: choose another, or remove it."""


class AccessError(StoreError, OSError):
    """The place cannot be read or written, or must not be: the message names the cause.

    It is an OSError as well, so that what handles a failing disk handles a failing network, too.
    """


class DamageError(StoreError):
    """What is on disk is not what was committed: restore the named file from a copy.

    Attributes
    ----------
    missing
        Key of a file that is not there, within its store; None where it is there.
    """

    missing: str | None = None


class PartSealedError(StoreError):
    """The part is sealed and takes no more batches: start a new part."""


class RowIndexError(StoreError, IndexError):
    """The index means no rows: the message says what would."""


class ResumeError(StoreError):
    """The job differs from the one that it resumes: use its settings, or another step or path."""


class CaptureError(TsstoreError):
    """Something about recording states from a model."""


class SelectionError(CaptureError):
    """No layer was selected, or a named one does not exist: see ``tsstore.layers(model)``."""


class OutputError(CaptureError):
    """A module's output cannot be turned into rows: exclude it, or say where its neurons are."""


class ColumnsError(CaptureError):
    """Sample columns disagree with the batch or with earlier batches: record the same ones."""


class WriterError(CaptureError):
    """The background writer failed; the cause is chained. What was committed stays readable."""


class AnalysisError(TsstoreError):
    """Something about counting and evaluating a store."""


class UnknownLayerError(AnalysisError, KeyError):
    """The store has no layer of that name: see ``store.layers``."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class UnknownRunError(AnalysisError, KeyError):
    """Of several runs that were analysed none has this name: the message lists them."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class EmptyStoreError(AnalysisError):
    """The store holds no committed rows: wait for the first commit, or run the job again."""


class MemoryTooSmallError(AnalysisError):
    """The memory given cannot hold the smallest task: give what the message names.

    Attributes
    ----------
    needed
        Bytes that suffice.
    """

    def __init__(self, message: str, needed: int = 0) -> None:
        super().__init__(message)
        self.needed = needed


class CountingError(AnalysisError):
    """An internal check of the counting failed: no number is returned; report it."""


class TsstoreWarning(UserWarning):
    """Something that the user should know, and that changes no number."""


@contextmanager
def errors_of(run: str) -> Iterator[None]:
    """Let tsstore's errors that leave the block name the run that was recorded."""
    try:
        yield
    except TsstoreError as error:
        error.of_run(run)
        raise


def warn(message: str) -> None:
    """Warn by a TsstoreWarning that points at the user's line which led here."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and _root(frame) in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, TsstoreWarning, stacklevel=level)


def _root(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
