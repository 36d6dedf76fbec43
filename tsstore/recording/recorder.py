"""Recording a run: what the user holds while it lasts."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from torch import nn

from tsstore.errors import CaptureError, TsstoreError, TsstoreWarning, WriterError
from tsstore.recording.background.sink import Sink, Statistics
from tsstore.recording.batches.open_batch import BatchColumns
from tsstore.recording.hooks.copies import why_no_sample
from tsstore.recording.identity import fingerprint
from tsstore.recording.intake import Intake
from tsstore.recording.live import NamedBlock, names_run, note_recorder
from tsstore.recording.samples.index import SampleIndexChoices
from tsstore.recording.selection.select import Target
from tsstore.recording.settings import Settings as Settings
from tsstore.store.files.base import Files
from tsstore.store.format.attributes import PartAttributes

CLOSED: Final = "closed"
"""What a seal says of a recorder that has come to its end."""


class Recorder:
    """Records batches of a model into one part of a run; made by :func:`capture`.

    It captures from :meth:`attach` on, until it is closed.

    Parameters
    ----------
    model
        The model whose outermost forward pass is a batch, unless :meth:`batch` says otherwise.
    files
        Where the run lies; its root exists.
    targets
        Where to capture.
    part
        What the part says of this process.
    settings
        How to record.

    Attributes
    ----------
    model
        The model.
    path, part
        Where the run lies, and the directory in it of the part that this recorder writes.
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
        settings: Settings | None = None,
    ) -> None:
        settings = settings or Settings()
        part = replace(part, model=fingerprint(model), missing=settings.missing)
        self._sink = Sink(files, part, settings, let_go=lambda: self._intake.detach())
        self._intake = Intake(model, targets, settings, self._sink)
        self._earlier = self._sink.earlier
        self.model = model
        self.path, self.part, self.files = files.location, self._sink.part, files
        self.rank, self.world_size = part.rank, part.world_size
        self.hooks = self._intake.hooks
        self.committed_samples = self._earlier.committed_samples if self._earlier else 0
        self.abandon = self._sink.abandon
        # A part that follows others, as after a reset, may well stay empty.
        self._is_on_its_own = settings.begin != "next"
        note_recorder(self)

    @property
    def statistics(self) -> Statistics:
        """What has been recorded so far."""
        return replace(
            self._sink.statistics,
            calls_outside=self._intake.calls_outside,
            left_out=self._intake.left_out,
        )

    @property
    def settings(self) -> Settings:
        """How it records, for a part that goes on: with what has been found out of the layers."""
        return self._intake.settings

    @property
    def closed(self) -> bool:
        """Whether the recorder takes no more batches."""
        return self._sink.closed

    @property
    def is_open(self) -> bool:
        """Whether it takes batches in this process."""
        return not self.closed and not self._intake.is_elsewhere

    @property
    def error(self) -> WriterError | None:
        """The background writer's error with its cause, if it has failed."""
        return self._sink.error

    @names_run
    def projected_bytes(self, samples: int) -> int:
        """Return what so many samples will weigh: bytes of rows, before compression.

        Parameters
        ----------
        samples
            Number of samples; they are taken to be like those recorded so far.

        Raises
        ------
        CaptureError
            If nothing has been recorded yet; :func:`tsstore.layers` tells before.
        """
        done = self._sink.statistics
        if not done.samples:
            raise CaptureError(
                "no sample has been recorded yet, so nothing tells what one weighs; ask after the "
                "first batch, or before it tsstore.layers(model, example_input, samples)"
            )
        return round(done.bytes / done.samples * samples)

    @names_run
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
        return self._earlier.missing(ids) if self._earlier else np.asarray(ids)

    @property
    def in_batch(self) -> bool:
        """Whether a batch is open: a block, or a forward pass of the model."""
        return self._intake.in_batch

    def attach(self, layers: bool = True) -> None:
        """Register the hooks on the model and, unless others call them, on its layers."""
        self._intake.attach(layers)
        self._intake.copies.watched = self._is_on_its_own

    @names_run
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
            Which sample each entry belongs to, in this batch: see :func:`tsstore.capture`.
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
        self._intake.check_usable()
        block = self._intake.block(samples, columns, mask, sample_index)
        return NamedBlock(block, self.path)

    @names_run
    def commit(self) -> None:
        """Put every finished batch on disk for good; return when it is there.

        Raises
        ------
        CaptureError
            If the recorder is closed, or another process's.
        WriterError
            If the background writer has failed.
        """
        self._intake.check_usable()
        self._sink.commit()

    @names_run
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
        if not self.is_open:
            self._intake.detach()
            if self._intake.is_elsewhere:
                self.abandon.detach()
            return
        self._intake.detach()
        self._intake.copies.watched = False
        self._sink.close(why)
        if why == CLOSED:
            # Last, when nothing is left open: a warning may raise.
            self._warn_if_empty()

    def _warn_if_empty(self) -> None:
        done = self.statistics
        goes_on = self._earlier is not None and any(part.samples for part in self._earlier.parts)
        # Of batches that were dropped an error has told.
        if done.samples or self._intake.dropped or goes_on or not self._is_on_its_own:
            return
        why = why_no_sample(done.batches, done.calls_outside, self._intake.copies)
        warnings.warn(
            f"{self.path}/{self.part}: the capture ended without a sample: {why}. Where a rank or "
            'a job has no data, say so: recorder.close("closed: no data")',
            TsstoreWarning,
            stacklevel=4,
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
