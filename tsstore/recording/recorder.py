"""Recording a run: from the model's batches to the background writer."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from tsstore.errors import CaptureError, TsstoreError, WriterError
from tsstore.recording.assembly import Assembly
from tsstore.recording.axes import AxisChoice
from tsstore.recording.background import Background
from tsstore.recording.batch import BatchColumns, OpenBatch
from tsstore.recording.fingerprint import fingerprint
from tsstore.recording.hook import CaptureHook
from tsstore.recording.listener import Listener
from tsstore.recording.select import Selector, Target, Where, select
from tsstore.recording.settings import (
    Calls,
    Missing,
    checked_attributes,
    checked_step,
)
from tsstore.recording.settings import Settings as Settings
from tsstore.store.files import Files, open_files
from tsstore.store.layout import PartAttributes
from tsstore.store.writer import PartWriter, create_run


@dataclass(frozen=True)
class Statistics:
    """What a recorder has done so far.

    Attributes
    ----------
    batches, samples, rows
        Handed to the writer.
    calls_outside
        Calls of captured layers outside any batch; they are not stored.
    waited
        Seconds that the job waited for the writer.
    """

    batches: int = 0
    samples: int = 0
    rows: int = 0
    calls_outside: int = 0
    waited: float = 0.0


def capture(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    layers: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] = (),
    where: Where = "after",
    threshold: float = 0.0,
    step: int | str | None = None,
    attributes: Mapping[str, Any] | None = None,
    neuron_axis: AxisChoice = None,
    sample_axis: AxisChoice = None,
    calls: Calls = "separate",
    missing: Missing = "error",
    commit_every: float = 10.0,
    queue_bytes: int = 256 << 20,
    codec: str = "lz4",
    level: int | None = None,
    durable: bool = True,
) -> Recorder:
    """Begin to record the states of a model's layers; use it as a context manager.

    Parameters
    ----------
    model
        The model; its outputs stay as they are.
    path
        Where to create the store.
    layers
        Names, globs, classes, class names, modules, predicates ``(name, module) -> bool``, or a
        list of them.
    exclude
        Likewise; it wins.
    where
        Capture what comes ``"after"`` the module (its output), ``"before"`` it, or ``"both"``.
    threshold
        A neuron is on where its value is greater; rounded to the tensor's dtype first.
    step
        The training step (or any name) whose weights these are.
    attributes
        Anything of yours that JSON can hold; stored with the part.
    neuron_axis, sample_axis
        An axis, or a mapping from layer names or globs, where a module's class does not tell.
    calls
        A module called n times in one forward pass of the model gives n layers, ``relu#1`` …
        (``"separate"``), or more positions of one (``"merge"``).
    missing
        A layer that gives no rows in a later batch is an error, or ``"empty"``: no positions.
    commit_every
        Seconds between commits.
    queue_bytes
        Bytes of rows that may wait for the writer; then the job waits.
    codec, level
        ``"lz4"`` or ``"zstd"``, and its level.
    durable
        Whether commits survive a loss of power, too.

    Returns
    -------
    Recorder
        Its hooks are on the model until it is closed.

    Raises
    ------
    SelectionError
        If no layer is selected, or a name matches nothing.
    StoreExistsError
        If there is something at `path`.
    CaptureError
        If a setting makes no sense, or JSON cannot hold `attributes`.
    """
    settings = Settings(float(threshold), calls, missing, commit_every, queue_bytes, codec, level)
    settings.check()
    targets = select(model, layers, exclude, where, neuron_axis, sample_axis)
    part = PartAttributes(step=checked_step(step), user=checked_attributes(attributes))
    files = open_files(path, durable)
    create_run(files, {"torch": torch.__version__})
    recorder = Recorder(model, files, targets, part, settings)
    try:
        recorder.attach()
    except BaseException:
        recorder.close("its hooks could not be attached")
        raise
    return recorder


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
        self.model = model
        self._files = files
        self._writer = PartWriter(
            files,
            replace(part, model=fingerprint(model)),
            codec=settings.codec,
            level=settings.level,
        )
        self._assembly = Assembly(targets, settings)
        self._background = Background(
            self._writer.commit, settings.commit_every, settings.queue_bytes
        )
        self._listener = Listener(
            model, targets, settings.threshold, self._background.check, self._finish
        )
        self._statistics = Statistics()
        self.abandon = weakref.finalize(self, _abandon, self._background, self._writer, os.getpid())

    @property
    def path(self) -> str:
        """Where the run lies."""
        return self._files.location

    @property
    def part(self) -> str:
        """The directory of the part that this recorder writes."""
        return self._writer.directory

    @property
    def hooks(self) -> dict[str, CaptureHook]:
        """What captures, by public name of the layer."""
        return self._listener.hooks

    @property
    def statistics(self) -> Statistics:
        """What has been recorded so far."""
        return replace(
            self._statistics,
            calls_outside=self._listener.calls_outside,
            waited=self._background.waited,
        )

    @property
    def closed(self) -> bool:
        """Whether the recorder takes no more batches."""
        return not self.abandon.alive

    def attach(self) -> None:
        """Register the hooks on the model and its layers."""
        self._listener.attach()

    @contextmanager
    def batch(self, samples: int | None = None, /, **columns: Any) -> Iterator[BatchColumns]:
        """Record what the block does as one batch; an exception in it drops the batch whole.

        Parameters
        ----------
        samples
            Number of samples, where neither columns nor the model's input tell.
        **columns
            Sample columns: arrays, tensors or lists of one entry a sample.

        Yields
        ------
        BatchColumns
            Its ``record(**columns)`` adds columns that are known only afterwards.

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
        self._background.check()
        batch = OpenBatch(samples)
        with self._listener.block(batch):
            batch.record(columns)
            yield BatchColumns(batch)
        self._finish(batch)

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
        self._background.commit()

    def close(self, why: str = "closed") -> None:
        """Remove the hooks, write what is left, and seal the part; nothing if closed.

        Raises
        ------
        WriterError
            If the background writer has failed.
        """
        self._listener.detach()
        if self.abandon.detach() is not None and not self._listener.is_elsewhere:
            self._background.stop(last=partial(self._writer.seal, why))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(why=f"stopped by {type(error).__name__}")
        except TsstoreError as failure:
            if not isinstance(error, WriterError):
                error.add_note(f"tsstore: {failure}")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "recording"
        done = self._statistics
        return f"<Recorder {self.path}: {state}, {done.samples:,} samples, {done.rows:,} rows>"

    def _check_usable(self) -> None:
        if self.closed:
            raise CaptureError("the recorder is closed; open a new one with tsstore.capture")
        if self._listener.is_elsewhere:
            raise CaptureError(
                "the recorder belongs to the process that made it; open one of its own here with "
                "tsstore.capture"
            )

    def _finish(self, batch: OpenBatch) -> None:
        assembled = self._assembly.assemble(batch)
        if assembled is None:
            return
        while self._assembly.left_out:
            self._listener.leave_out(self._assembly.left_out.pop())
        if assembled.new_layers or not self._statistics.batches:
            define = partial(
                self._writer.define, assembled.new_layers, assembled.positions, assembled.columns
            )
            self._background.put(define, 0)
        finished = assembled.batch
        self._background.put(partial(self._writer.append, finished), finished.nbytes)
        rows = sum(len(layer.rows) for layer in finished.layers.values())
        self._statistics = replace(
            self._statistics,
            batches=self._statistics.batches + 1,
            samples=self._statistics.samples + finished.samples,
            rows=self._statistics.rows + rows,
        )


def _abandon(background: Background, writer: PartWriter, process: int) -> None:
    """Write what is left of a recorder that nobody closed: at its end, or the interpreter's."""
    if os.getpid() == process:
        background.stop(last=partial(writer.seal, "never closed"))
