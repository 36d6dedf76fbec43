"""From the model to the sink: what it gives is collected, batch by batch, and handed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from tsstore.errors import CaptureError
from tsstore.recording.axes.undecided import Undecided
from tsstore.recording.background.sink import Sink
from tsstore.recording.batches.assembly import Assembled, Assembly
from tsstore.recording.batches.open_batch import BatchColumns, IgnoredColumns, OpenBatch
from tsstore.recording.batches.sampler import Sampler
from tsstore.recording.hooks.copies import Copies
from tsstore.recording.hooks.forward import Listener
from tsstore.recording.samples.belonging import Belonging
from tsstore.recording.selection.select import Target
from tsstore.recording.settings import Settings
from tsstore.store.format.attributes import LayerAttributes
from tsstore.store.writing.resume import Earlier


class Intake:
    """Listens to a model, and hands each finished batch to a sink.

    Parameters
    ----------
    model
        The model whose outermost forward pass is a batch, unless there is a :meth:`block`.
    targets
        Where to capture.
    settings
        How to record.
    sink
        Takes the batches, and says before each whether it wants one.

    Attributes
    ----------
    hooks
        What captures, by public name of the layer.
    """

    def __init__(
        self, model: nn.Module, targets: list[Target], settings: Settings, sink: Sink
    ) -> None:
        accept = None
        if sink.earlier is not None:
            accept = partial(_check_first, sink.earlier, settings.missing == "error")
        self.copies = Copies(sink.run)
        self._assembly = Assembly(targets, settings, accept, self.copies)
        self._belonging = Belonging(model, settings.probe, settings.findings)
        self._sampler = _sampler(settings, sink.rank, self._belonging)
        self._listener = Listener(
            model,
            targets,
            settings.threshold,
            self,
            self.copies,
            self._sampler,
            sink.arena,
            sink.earlier,
        )
        self._sink = sink
        self._settings = settings
        self._every = settings.sampling.every
        self._begun = self._finished = 0
        self._told = settings.sample_index
        self._late_layers = settings.missing == "empty"
        self.hooks = self._listener.hooks

    @property
    def calls_outside(self) -> int:
        """Calls of captured layers outside any batch."""
        return self._listener.current.calls_outside

    @property
    def left_out(self) -> int:
        """Rows of entries that belong to no sample."""
        return self._belonging.left_out

    @property
    def settings(self) -> Settings:
        """How to record, with what has been found out."""
        found = self._belonging
        return replace(self._settings, probe=found.probe, findings=found.findings)

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process was forked off from the one that listens."""
        return self._listener.current.is_elsewhere

    @property
    def dropped(self) -> int:
        """How many batches ended by an error."""
        return self._begun - self._finished

    @property
    def in_batch(self) -> bool:
        """Whether a batch is open."""
        return self._listener.in_batch

    def attach(self, layers: bool = True) -> None:
        """Register the hooks on the model and, unless others call them, on its layers."""
        self._listener.attach(layers)

    def detach(self) -> None:
        """Remove the hooks, and no others."""
        self._listener.detach()

    def check_usable(self) -> None:
        """Raise CaptureError where nothing can be recorded: it is over, or the process another."""
        if self._sink.closed and not self._sink.detached:
            raise CaptureError("the recorder is closed; open a new one with tsstore.capture")
        if self.is_elsewhere:
            raise CaptureError(
                "the recorder belongs to the process that made it; open one of its own here with "
                "tsstore.capture"
            )

    @contextmanager
    def block(
        self,
        samples: int | None,
        columns: Mapping[str, Any],
        mask: Any = None,
        sample_index: Any = None,
    ) -> Iterator[BatchColumns]:
        """Hand on what the block gives; see :meth:`tsstore.Recorder.batch`."""
        batch = self.begin(samples)
        if batch is None:
            yield IgnoredColumns()
            return
        with self._listener.block(batch):
            if batch.wanted:
                batch.record(columns, mask, sample_index)
            yield BatchColumns(batch, self._sink.run) if batch.wanted else IgnoredColumns()
        self.finish(batch)

    def begin(self, samples: int | None = None) -> OpenBatch | None:
        """Return the next batch, or None where nothing is recorded any more; a listener asks."""
        if not self._sink.ready():
            return None
        wanted = self._finished % self._every == 0
        self._begun += 1
        return OpenBatch(samples, self._sink.next_sample, wanted, self._told)

    def finish(self, batch: OpenBatch) -> None:
        """Hand on a batch that is over, if it is wanted."""
        if self._sink.detached:
            return
        if batch.wanted:
            self._hand_on(batch)
        # Those that failed are made up for, one after the other.
        self._finished += 1
        self._sink.ready()
        self._listener.later_hooks.warn()

    def _hand_on(self, batch: OpenBatch) -> None:
        assembled = self._assembly.as_before(batch)
        if assembled is None:
            assembled = self._decide(batch)
        else:
            self._listener.first_look.end()
        while self._assembly.left_out:
            self._listener.leave_out(self._assembly.left_out.pop())
        if assembled is not None:
            self._sink.put(assembled)

    def _decide(self, batch: OpenBatch) -> Assembled | None:
        """Finish a batch unlike those before, once all that it leaves open is decided."""
        undecided = Undecided([hook.target.axes.layer for hook in self.hooks.values()])
        self._listener.decide(batch, undecided)
        self._belonging.decide(batch, undecided)
        undecided.check()
        if self._sampler is not None:
            self._sampler.choose_late(batch, batch.samples() or 0)
        assembled = self._assembly.assemble(batch)
        if assembled is not None:
            self._belonging.accept(batch)
            self._listener.first_look.fix(batch)
            # Where layers may come later, what they leave open is found out then.
            self._listener.keeps_inputs = self._late_layers or not self._belonging.is_settled
        return assembled


def _sampler(settings: Settings, rank: int, belonging: Belonging) -> Sampler | None:
    sampling = settings.sampling
    if sampling.positions is None:
        return None
    return Sampler(sampling.positions, int(sampling.seed), rank, belonging)


def _check_first(
    earlier: Earlier,
    complete: bool,
    layers: Mapping[str, LayerAttributes],
    columns: Mapping[str, str],
) -> None:
    """Hold what comes for the first time to what earlier attempts have recorded."""
    earlier.check_columns(columns)
    earlier.check_layers(layers, complete)
