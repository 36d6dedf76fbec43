"""From the model to the sink: what a recorder does with each batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from tsstore.errors import TsstoreError, errors_of
from tsstore.recording.axes.undecided import Undecided
from tsstore.recording.background.sink import Sink, Statistics
from tsstore.recording.batches.assembly import Assembly, FinishedBatch
from tsstore.recording.batches.open_batch import OpenBatch
from tsstore.recording.batches.sampler import Sampler
from tsstore.recording.hooks.copies import Copies
from tsstore.recording.hooks.forward import Listener
from tsstore.recording.samples.belonging import Belonging
from tsstore.recording.selection.select import Target
from tsstore.recording.settings import Settings


class BatchColumns:
    """What ``with recorder.batch()`` gives: takes columns that are known only afterwards.

    Parameters
    ----------
    batch
        The batch while it lasts; where nothing of it is recorded, anything is taken.
    run
        Where it is recorded: errors name it.
    """

    def __init__(self, batch: OpenBatch | None, run: str = "") -> None:
        self._batch = batch
        self._run = run

    def record(self, *, mask: Any = None, sample_index: Any = None, **columns: Any) -> None:
        """Add sample columns: arrays, tensors or lists of one entry a sample.

        Parameters
        ----------
        mask
            Which positions are there, and which are padding: see :meth:`tsstore.Recorder.batch`.
        sample_index
            Which sample each entry of a layer belongs to: see there.
        **columns
            Sample columns.

        Raises
        ------
        ColumnsError
            If one is there already, or is not a column, a mask or an index.
        """
        if self._batch is not None:
            with errors_of(self._run):
                self._batch.record(columns, mask, sample_index)


class Pipeline:
    """Listens to the model, finishes each batch, and hands it on to the sink.

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
        found = self.belonging.judge
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
        is_inside = False
        try:
            batch = self.begin(samples)
            if batch is None:
                is_inside = True
                yield BatchColumns(None)
                return
            with self.listener.block(batch):
                if batch.wanted:
                    batch.record(columns, mask, sample_index)
                is_inside = True
                yield BatchColumns(batch if batch.wanted else None, self._sink.run)
                is_inside = False
            self.finish(batch)
        except TsstoreError as error:
            # What the block itself raises may be of another run.
            if not is_inside:
                error.of_run(self._sink.run)
            raise

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
        self.listener.first_look.decide(batch, undecided, self.listener.before.is_compiled)
        self.belonging.decide(batch, undecided)
        undecided.check()
        if self._sampler is not None:
            samples = batch.samples() or 0
            batch.calls = [self._sampler.choose_late(batch, samples, call) for call in batch.calls]
        finished = self._assembly.assemble(batch)
        if finished is not None:
            self.belonging.accept(batch)
            self.listener.first_look.fix(batch)
            # Where layers may come later, what they leave open is found out then.
            late = self._settings.missing == "empty"
            self.listener.keeps_inputs = late or not self.belonging.is_settled
        return finished
