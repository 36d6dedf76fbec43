"""Recording a run: what the user holds while it lasts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from torch import nn

from tsstore.errors import CaptureError, TsstoreError, TsstoreWarning, WriterError
from tsstore.recording.axes.undecided import Undecided
from tsstore.recording.background.sink import Sink, Statistics
from tsstore.recording.batches.assembly import Assembly, FinishedBatch
from tsstore.recording.batches.open_batch import BatchColumns, IgnoredColumns, OpenBatch
from tsstore.recording.batches.sampler import Sampler
from tsstore.recording.hooks.copies import Copies, why_no_sample
from tsstore.recording.hooks.forward import Listener
from tsstore.recording.identity import fingerprint
from tsstore.recording.live import NamedBlock, names_run, note_recorder
from tsstore.recording.samples.belonging import Belonging
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

    Attributes
    ----------
    model
        The model whose outermost forward pass is a batch, unless :meth:`batch` says otherwise.
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
        self._sink = Sink(files, part, settings)
        self._pipeline = Pipeline(model, targets, settings, self._sink)
        self._listener = self._pipeline.listener
        self._earlier = self._sink.earlier
        self.model = model
        self.path, self.part, self.files = files.location, self._sink.part, files
        self.rank, self.world_size = part.rank, part.world_size
        self.hooks = self._listener.hooks
        self.committed_samples = self._earlier.committed_samples if self._earlier else 0
        self.abandon = self._sink.abandon
        # A part that follows others, as after a reset, may well stay empty.
        self._is_on_its_own = settings.begin != "next"
        note_recorder(self)

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
        return self._listener.in_batch

    def attach(self, layers: bool = True) -> None:
        """Register the hooks on the model and, unless others call them, on its layers."""
        self._listener.attach(layers)
        self._pipeline.copies.watched = self._is_on_its_own

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
        self._check_usable()
        block = self._pipeline.block(samples, columns, mask, sample_index)
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
        self._check_usable()
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
            self._listener.detach()
            if self._listener.current.is_elsewhere:
                self.abandon.detach()
            return
        self._listener.detach()
        self._pipeline.copies.watched = False
        self._sink.close(why)
        if why == CLOSED:
            # Last, when nothing is left open: a warning may raise.
            self._warn_if_empty()

    def _check_usable(self) -> None:
        """Raise CaptureError where nothing can be recorded: it is over, or the process another."""
        if self._sink.closed and not self._sink.detached:
            raise CaptureError("the recorder is closed; open a new one with tsstore.capture")
        if self._listener.current.is_elsewhere:
            raise CaptureError(
                "the recorder belongs to the process that made it; open one of its own here with "
                "tsstore.capture"
            )

    def _warn_if_empty(self) -> None:
        done = self.statistics
        goes_on = self._earlier is not None and any(part.samples for part in self._earlier.parts)
        # Of batches that were dropped an error has told.
        if (
            done.samples
            or self._pipeline.begun > self._pipeline.finished
            or goes_on
            or not self._is_on_its_own
        ):
            return
        why = why_no_sample(done.batches, done.calls_outside, self._pipeline.copies)
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


class Pipeline:
    """From the model to the sink: listens, finishes each batch, and hands it on.

    `begun` and `finished` count batches; those between them ended by an error.
    """

    def __init__(
        self, model: nn.Module, targets: list[Target], settings: Settings, sink: Sink
    ) -> None:
        sampling = settings.sampling
        self.copies = Copies(sink.run)
        self.belonging = Belonging(model, settings.probe, settings.findings)
        self._sampler: Sampler | None = None
        if sampling.positions is not None:
            self._sampler = Sampler(
                sampling.positions, int(sampling.seed), sink.rank, self.belonging
            )
        threshold, earlier = settings.threshold, sink.earlier
        self.listener = Listener(
            model, targets, threshold, self, self.copies, self._sampler, sink.arena, earlier
        )
        self.begun = self.finished = 0
        self._assembly = Assembly(targets, settings, earlier, self.copies)
        self._settings = settings
        self._sink = sink
        sink.hooks = self.listener

    @property
    def settings(self) -> Settings:
        """How to record, with what has been found out."""
        found = self.belonging
        return replace(self._settings, probe=found.probe, findings=found.findings)

    @property
    def statistics(self) -> Statistics:
        """What has been recorded so far."""
        return replace(
            self._sink.statistics,
            calls_outside=self.listener.current.calls_outside,
            left_out=self.belonging.left_out,
        )

    @contextmanager
    def block(
        self, samples: int | None, columns: Mapping[str, Any], mask: Any, sample_index: Any
    ) -> Iterator[BatchColumns]:
        """Hand on what the block gives; see :meth:`tsstore.Recorder.batch`."""
        batch = self.begin(samples)
        if batch is None:
            yield IgnoredColumns()
            return
        with self.listener.block(batch):
            if batch.wanted:
                batch.record(columns, mask, sample_index)
            yield BatchColumns(batch, self._sink.run) if batch.wanted else IgnoredColumns()
        self.finish(batch)

    def begin(self, samples: int | None = None) -> OpenBatch | None:
        """Return the next batch, or None where nothing is recorded any more."""
        if not self._sink.ready():
            return None
        wanted = self.finished % self._settings.sampling.every == 0
        self.begun += 1
        return OpenBatch(samples, self._sink.next_sample, wanted, self._settings.sample_index)

    def finish(self, batch: OpenBatch) -> None:
        """Hand on a batch that is over, if it is wanted."""
        if self._sink.detached:
            return
        if batch.wanted:
            self._hand_on(batch)
        # Those that failed are made up for, one after the other.
        self.finished += 1
        self._sink.ready()
        self.listener.later_hooks.warn()

    def _hand_on(self, batch: OpenBatch) -> None:
        finished = self._assembly.as_before(batch)
        if finished is None:
            finished = self._decide(batch)
        else:
            self.listener.first_look.end()
        while self._assembly.left_out:
            self.listener.leave_out(self._assembly.left_out.pop())
        if finished is not None:
            self._sink.put(finished)

    def _decide(self, batch: OpenBatch) -> FinishedBatch | None:
        """Finish a batch unlike those before, once all that it leaves open is decided."""
        hooks = self.listener.hooks.values()
        undecided = Undecided([hook.target.axes.layer for hook in hooks])
        self.listener.decide(batch, undecided)
        self.belonging.decide(batch, undecided)
        undecided.check()
        if self._sampler is not None:
            self._sampler.choose_late(batch, batch.samples() or 0)
        finished = self._assembly.assemble(batch)
        if finished is not None:
            self.belonging.accept(batch)
            self.listener.first_look.fix(batch)
            # Where layers may come later, what they leave open is found out then.
            late = self._settings.missing == "empty"
            self.listener.keeps_inputs = late or not self.belonging.is_settled
        return finished
