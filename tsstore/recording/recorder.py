"""Recording a run: what the user holds while it lasts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final, Self
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
from torch import nn

from tsstore.errors import CaptureError, TsstoreError, TsstoreWarning, WriterError, errors_of, warn
from tsstore.recording.background.sink import Sink, Statistics
from tsstore.recording.hooks.copies import why_no_sample
from tsstore.recording.identity import fingerprint
from tsstore.recording.pipeline import BatchColumns, Pipeline
from tsstore.recording.samples.index import SampleIndexChoices
from tsstore.recording.selection.select import Target
from tsstore.recording.settings import Settings
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import PartAttributes

CLOSED: Final = "closed"
"""What a seal says of a recorder that has come to its end."""


class Recorder:
    """Records batches of a model into one part of a run; made by `capture`.

    It captures from `attach` on, until it is closed.

    Attributes
    ----------
    model
        The model whose outermost forward pass is a batch, unless `batch` says otherwise.
    path
        Where the run lies.
    files
        The files of the run.
    rank, world_size
        Of this process.
    hooks
        What captures, by public name of the layer.
    committed_samples
        How many samples of this step earlier attempts of this rank have left; 0 without resume.
    abandon
        Ends a recorder that nobody has closed, also after it is gone; it runs at most once.
    """

    def __init__(
        self,
        model: nn.Module,
        files: Files,
        targets: list[Target],
        part: PartAttributes,
        settings: Settings,
    ) -> None:
        part = replace(part, model=fingerprint(model), missing=settings.missing)
        self._sink = Sink(files, part, settings)
        self._pipeline = Pipeline(model, targets, settings, self._sink)
        self._listener = self._pipeline.listener
        self._earlier = self._sink.earlier
        self.model = model
        self.path, self.files = files.location, files
        self.rank, self.world_size = part.rank, part.world_size
        self.hooks = self._listener.hooks
        self.committed_samples = self._earlier.committed_samples if self._earlier else 0
        self.abandon = self._sink.abandon
        # A part that follows others, as after a reset, may well stay empty.
        self._is_on_its_own = settings.begin != "next"
        _RECORDERS.add(self)

    @property
    def part(self) -> str:
        """Directory in the run of the part that this recorder writes.

        One that goes on from others begins with the first batch; until then it is the one that
        would be next.
        """
        return self._sink.part

    @property
    def statistics(self) -> Statistics:
        """What has been recorded so far."""
        return self._pipeline.statistics

    @property
    def settings(self) -> Settings:
        """How it records, for a part that goes on: with what has been found out of the layers."""
        return self._pipeline.settings

    @property
    def closed(self) -> bool:
        """Whether the recorder takes no more batches."""
        return self._sink.closed

    @property
    def is_open(self) -> bool:
        """Whether it takes batches in this process."""
        return not self.closed and not self._listener.current.is_elsewhere

    @property
    def error(self) -> WriterError | None:
        """The background writer's error with its cause, if it has failed."""
        return self._sink.error

    def projected_bytes(self, samples: int) -> int:
        """Return what so many samples will weigh: bytes of rows, before compression.

        Parameters
        ----------
        samples
            Number of samples; they are taken to be like those recorded so far.

        Raises
        ------
        CaptureError
            If nothing has been recorded yet; `tsstore.layers` tells before.
        """
        done = self._sink.statistics
        if not done.samples:
            raise CaptureError(
                "no sample has been recorded yet, so nothing tells what one weighs; ask after the "
                "first batch, or before it tsstore.layers(model, example_input, samples)"
            ).of_run(self.path)
        return round(done.bytes / done.samples * samples)

    def missing(self, ids: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return those ids that no earlier attempt has committed for this step, of any rank.

        Share the ids among the ranks first, then ask each for its own: ranks that start at other
        times see other attempts, and would not split the same list.

        Parameters
        ----------
        ids
            Integers or text, one-dimensional, as they are recorded in the column ``id``.

        Raises
        ------
        StoreError
            If earlier attempts recorded no ids, or ids of another kind.
        """
        with errors_of(self.path):
            return self._earlier.missing(ids) if self._earlier else np.asarray(ids)

    @property
    def in_batch(self) -> bool:
        """Whether a batch is open: a block, or a forward pass of the model."""
        return self._listener.in_batch

    def attach(self, layers: bool = True) -> None:
        """Register the hooks on the model and, unless others call them, on its layers."""
        self._listener.attach(layers)
        self._pipeline.copies.watched = self._is_on_its_own

    def batch(
        self,
        samples: int | None = None,
        /,
        *,
        mask: Any = None,
        sample_index: SampleIndexChoices = None,
        **columns: Any,
    ) -> AbstractContextManager[BatchColumns]:
        """Record what the block does as one batch; an exception in it drops the batch whole.

        Parameters
        ----------
        samples
            Number of samples, where neither columns nor the model's input tell.
        mask
            Which positions are there: (samples, positions), 1 for a token and 0 for padding, as
            tokenizers give it in ``attention_mask``; of torch's ``src_key_padding_mask`` the
            contrary. Padding is no state, and is not stored. A mapping from layer names or globs
            to masks leaves other layers as they are; else layers with one position are, and any
            other number of positions than the mask's is an error. A list has a mask for each
            forward pass of the batch, or None where all positions are there.
        sample_index
            Which sample each entry belongs to, in this batch: see `tsstore.capture`.
        **columns
            Sample columns: arrays, tensors or lists of one entry a sample.

        Returns
        -------
        context manager of BatchColumns
            Its ``record(**columns)`` adds columns, a mask and a sample index that are known only
            afterwards.

        Raises
        ------
        ColumnsError
            If columns differ from the first batch's, or do not fit the samples.
        CaptureError
            If the recorder is closed or another process's, or a batch is open already.
        WriterError
            If the background writer has failed.
        """
        self._check_usable()
        return self._pipeline.block(samples, columns, mask, sample_index)

    def commit(self) -> None:
        """Put every finished batch on disk for good; return when it is there.

        Raises
        ------
        CaptureError
            If the recorder is closed, or another process's.
        WriterError
            If the background writer has failed.
        """
        self._check_usable()
        with errors_of(self.path):
            self._sink.commit()

    def close(self, why: str = CLOSED) -> None:
        """Remove the hooks, write what is left, and seal the part; nothing if closed.

        Where no sample was recorded, a warning says what may be the cause; not for a part that
        goes on from others, and not where another reason is given.

        Parameters
        ----------
        why
            Stored with the seal; the part counts as finished if it is ``"closed"``, or begins with
            ``"closed:"``.

        Raises
        ------
        WriterError
            If the background writer has failed.
        """
        is_open = self.is_open
        self._listener.detach()
        if not is_open:
            if self._listener.current.is_elsewhere:
                self.abandon.detach()
            return
        self._pipeline.copies.watched = False
        with errors_of(self.path):
            self._sink.close(why)
        if why == CLOSED:
            # Last, when nothing is left open: a warning may raise.
            self._warn_if_empty()

    def _check_usable(self) -> None:
        """Raise CaptureError where nothing can be recorded: it is over, or the process another."""
        why = ""
        if self._sink.closed and not self._sink.detached:
            why = "the recorder is closed; open a new one"
        elif self._listener.current.is_elsewhere:
            why = "the recorder belongs to the process that made it; open one of its own here"
        if why:
            raise CaptureError(f"{why} with tsstore.capture").of_run(self.path)

    def _warn_if_empty(self) -> None:
        done = self.statistics
        goes_on = self._earlier is not None and any(part.samples for part in self._earlier.parts)
        # Of batches that were dropped an error has told.
        were_dropped = self._pipeline.begun > self._pipeline.finished
        if done.samples or were_dropped or goes_on or not self._is_on_its_own:
            return
        why = why_no_sample(done.batches, done.calls_outside, self._pipeline.copies)
        warn(
            f"{self.path}/{self.part}: the capture ended without a sample: {why}. Where a rank or "
            'a job has no data, say so: recorder.close("closed: no data")',
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(why=f"stopped by {type(error).__name__}")
        except (TsstoreError, TsstoreWarning) as failure:
            if not isinstance(error, WriterError):
                error.add_note(f"tsstore: {failure}")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "recording"
        done = self._sink.statistics
        return f"<Recorder {self.path}: {state}, {done.samples:,} samples, {done.rows:,} rows>"


# Which files a process is writing is a fact about the process. One may be open that was forgotten,
# as after a cell that was interrupted.
_RECORDERS: Final[WeakSet[Recorder]] = WeakSet()


def open_recorders() -> list[Recorder]:
    """Return those that take batches in this process."""
    return [recorder for recorder in list(_RECORDERS) if recorder.is_open]
