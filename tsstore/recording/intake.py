"""From the model to the sink: what it gives is collected, batch by batch, and handed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from tsstore.errors import CaptureError
from tsstore.recording.assembly import Assembly
from tsstore.recording.batch import BatchColumns, IgnoredColumns, OpenBatch
from tsstore.recording.listener import Listener
from tsstore.recording.sampler import Sampler
from tsstore.recording.select import Target
from tsstore.recording.settings import Settings
from tsstore.recording.sink import Sink
from tsstore.store.layout import LayerAttributes
from tsstore.store.resume import Earlier


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
        self._assembly = Assembly(targets, settings, accept)
        self._listener = Listener(
            model,
            targets,
            settings.threshold,
            self._begin,
            self._finish,
            _sampler(settings, sink.rank),
            sink.blocks.room,
        )
        self._sink = sink
        self._every = settings.sampling.every
        self._finished = 0
        self.hooks = self._listener.hooks

    @property
    def calls_outside(self) -> int:
        """Calls of captured layers outside any batch."""
        return self._listener.calls_outside

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process was forked off from the one that listens."""
        return self._listener.is_elsewhere

    def attach(self) -> None:
        """Register the hooks on the model and its layers."""
        self._listener.attach()

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
        self, samples: int | None, columns: Mapping[str, Any], mask: Any = None
    ) -> Iterator[BatchColumns]:
        """Hand on what the block gives; see :meth:`tsstore.Recorder.batch`."""
        batch = self._begin(samples)
        if batch is None:
            yield IgnoredColumns()
            return
        with self._listener.block(batch):
            if batch.wanted:
                batch.record(columns, mask)
            yield BatchColumns(batch) if batch.wanted else IgnoredColumns()
        self._finish(batch)

    def _begin(self, samples: int | None = None) -> OpenBatch | None:
        """Return the next batch, or None where nothing is recorded any more."""
        if not self._sink.ready():
            return None
        wanted = self._finished % self._every == 0
        return OpenBatch(samples, self._sink.next_sample, wanted)

    def _finish(self, batch: OpenBatch) -> None:
        if self._sink.detached:
            return
        if batch.wanted:
            self._hand_on(batch)
        # Those that failed are made up for, one after the other.
        self._finished += 1
        self._sink.ready()

    def _hand_on(self, batch: OpenBatch) -> None:
        assembled = self._assembly.assemble(batch)
        while self._assembly.left_out:
            self._listener.leave_out(self._assembly.left_out.pop())
        if assembled is not None:
            self._sink.put(assembled)


def _sampler(settings: Settings, rank: int) -> Sampler | None:
    sampling = settings.sampling
    if sampling.positions is None:
        return None
    return Sampler(sampling.positions, int(sampling.seed), rank)


def _check_first(
    earlier: Earlier,
    complete: bool,
    layers: Mapping[str, LayerAttributes],
    columns: Mapping[str, str],
) -> None:
    """Hold what comes for the first time to what earlier attempts have recorded."""
    earlier.check_columns(columns)
    earlier.check_layers(layers, complete)
