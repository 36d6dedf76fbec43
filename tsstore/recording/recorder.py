"""Recording a run: from the model's batches to the background writer."""

from __future__ import annotations

import math
import os
import sys
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tsstore.errors import CaptureError, SelectionError, TsstoreError, TsstoreWarning
from tsstore.recording.axes import AxisChoice, is_time_first
from tsstore.recording.background import Background
from tsstore.recording.batch import (
    Calls,
    NamedRows,
    OpenBatch,
    changed_calls,
    layer_attributes,
    layer_batch,
    same_layer,
)
from tsstore.recording.columns import ColumnSchema
from tsstore.recording.fingerprint import fingerprint
from tsstore.recording.hook import CaptureHook, first_tensor
from tsstore.recording.pack import Packed
from tsstore.recording.select import Selector, Target, Where, select
from tsstore.store.files import Files, open_files
from tsstore.store.layout import LayerAttributes, PartAttributes
from tsstore.store.writer import Batch, LayerBatch, PartWriter, check_codec, create_run


@dataclass(frozen=True)
class Settings:
    """How to record; see :func:`capture`."""

    threshold: float = 0.0
    calls: Calls = "separate"
    missing: Literal["error", "empty"] = "error"
    commit_every: float = 10.0
    queue_bytes: int = 256 << 20
    codec: str = "lz4"
    level: int | None = None

    def check(self) -> None:
        """Raise TsstoreError where a setting makes no sense."""
        if not math.isfinite(self.threshold):
            raise CaptureError(f"threshold is {self.threshold}; expected a finite number")
        if self.calls not in ("separate", "merge"):
            raise CaptureError(f"calls is {self.calls!r}; expected 'separate' or 'merge'")
        if self.missing not in ("error", "empty"):
            raise CaptureError(f"missing is {self.missing!r}; expected 'error' or 'empty'")
        if not (self.commit_every > 0 and self.queue_bytes > 0):
            raise CaptureError("commit_every and queue_bytes must be greater than 0")
        check_codec(self.codec, self.level)


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
    missing: Literal["error", "empty"] = "error",
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
        Names, globs, classes, class names, predicates ``(name, module) -> bool``, or a list.
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
        A module called n times in one forward pass gives n layers, ``relu#1`` … (``"separate"``),
        or more positions of one (``"merge"``).
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
    """
    settings = Settings(threshold, calls, missing, commit_every, queue_bytes, codec, level)
    settings.check()
    targets = select(model, layers, exclude, where, neuron_axis, sample_axis)
    files = open_files(path, durable)
    create_run(files, {"torch": torch.__version__})
    part = PartAttributes(step=step, user=dict(attributes or {}))
    recorder = Recorder(model, files, targets, part, settings)
    recorder.attach()
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
    hooks
        What captures, by public name of the layer.
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
        self.model = model
        self._settings = settings or Settings()
        self._files = files
        self.hooks = {
            target.name: CaptureHook(
                target, self._settings.threshold, self._receive, self._is_active
            )
            for target in targets
        }
        self._writer = PartWriter(
            files,
            replace(part, model=fingerprint(model)),
            codec=self._settings.codec,
            level=self._settings.level,
        )
        self._background = Background(
            self._writer.commit, self._settings.commit_every, self._settings.queue_bytes
        )
        self._process = os.getpid()
        self.abandon = weakref.finalize(
            self, _abandon, self._background, self._writer, self._process
        )
        self._schema = ColumnSchema()
        self._layers: dict[str, LayerAttributes] = {}
        self._open: OpenBatch | None = None
        self._passes = _PassTracker()
        self._statistics = Statistics()
        self._handles: dict[str, RemovableHandle] = {}

    @property
    def path(self) -> str:
        """Where the run lies."""
        return self._files.location

    @property
    def part(self) -> str:
        """The directory of the part that this recorder writes."""
        return self._writer.directory

    @property
    def statistics(self) -> Statistics:
        """What has been recorded so far."""
        return replace(self._statistics, waited=self._background.waited)

    @property
    def closed(self) -> bool:
        """Whether the recorder takes no more batches."""
        return not self.abandon.alive

    def attach(self) -> None:
        """Register the hooks on the model and its layers."""
        self._handles["root before"] = self.model.register_forward_pre_hook(
            _RootHook(self.model, self._begin_pass), prepend=True, with_kwargs=True
        )
        for name, hook in self.hooks.items():
            self._handles[f"capture {name}"] = hook.attach()
        # Last, so that it runs when the model's own states have been captured.
        self._handles["root after"] = self.model.register_forward_hook(
            _RootHook(self.model, self._end_pass), always_call=True
        )

    @contextmanager
    def batch(self, samples: int | None = None, /, **columns: Any) -> Iterator[_BatchColumns]:
        """Record what the block does as one batch; an exception in it drops the batch whole.

        Parameters
        ----------
        samples
            Number of samples, where neither columns nor the model's input tell.
        **columns
            Sample columns: arrays, tensors or lists of one entry a sample.

        Yields
        ------
        object
            Its ``record(**columns)`` adds columns that are known only afterwards.

        Raises
        ------
        ColumnsError
            If columns differ from the first batch's, or do not fit the samples.
        CaptureError
            If the recorder is closed, or a batch is open already.
        WriterError
            If the background writer has failed.
        """
        if self.closed:
            raise CaptureError("the recorder is closed; open a new one with tsstore.capture")
        if self._open is not None:
            raise CaptureError("a batch is open already; batches cannot be nested")
        self._background.check()
        self._open = batch = OpenBatch(explicit_samples=samples)
        try:
            batch.record(columns)
            yield _BatchColumns(batch)
            self._finish(batch)
        finally:
            self._open = None
            self._passes.reset()

    def commit(self) -> None:
        """Put every finished batch on disk for good; return when it is there.

        Raises
        ------
        WriterError
            If the background writer has failed.
        """
        self._background.commit()

    def close(self, why: str = "closed") -> None:
        """Remove the hooks, write what is left, and seal the part; nothing if closed.

        Raises
        ------
        WriterError
            If the background writer has failed.
        """
        self._detach()
        if self.abandon.detach() is None or os.getpid() != self._process:
            return
        try:
            self._background.put(partial(self._writer.seal, why), 0)
        finally:
            self._background.stop()

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
            error.add_note(f"tsstore: {failure}")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "recording"
        done = self._statistics
        return f"<Recorder {self.path}: {state}, {done.samples:,} samples, {done.rows:,} rows>"

    def _detach(self) -> None:
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    def _begin_pass(self, module: nn.Module, arguments: Any, keywords: Any) -> None:
        if os.getpid() != self._process or not self._passes.begin():
            return
        if self._open is None:
            self._background.check()
            self._open = OpenBatch()
            self._passes.implicit = True
        self._open.forward += 1
        tensor = first_tensor((arguments, keywords))
        if tensor is not None and tensor.ndim and self._open.input_shape is None:
            axis = 1 if is_time_first(module) and tensor.ndim == 3 else 0
            self._open.input_shape = tuple(tensor.shape)
            self._open.input_samples = tensor.shape[axis]

    def _end_pass(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if os.getpid() != self._process or not self._passes.end():
            return
        batch, failed = self._open, self._passes.failed()
        if batch is None:
            return
        if failed:
            batch.drop_forward()
        if self._passes.implicit:
            self._open = None
            self._passes.reset()
            if not failed:
                self._finish(batch)

    def _is_active(self) -> bool:
        if os.getpid() != self._process:
            return False
        if self._open is not None:
            return True
        if not self._statistics.calls_outside:
            warnings.warn(
                "a captured layer was called outside of any batch: its states are not stored; "
                "wrap the call in recorder.batch()",
                TsstoreWarning,
                stacklevel=3,
            )
        outside = self._statistics.calls_outside + 1
        self._statistics = replace(self._statistics, calls_outside=outside)
        return False

    def _receive(self, target: Target, packed: Packed) -> None:
        if self._open is not None:
            if not self._passes.depth:
                # A part of the model was called by itself: that is a pass of its own.
                self._open.forward += 1
            self._open.add(target, packed)

    def _finish(self, batch: OpenBatch) -> None:
        samples = batch.samples()
        if samples is None:
            return
        named = {rows.name: rows for rows in batch.named_rows(self._settings.calls)}
        if not named and not batch.columns and self._settings.missing == "empty":
            return
        found = {
            name: layer_attributes(rows, samples, self._settings.threshold)
            for name, rows in named.items()
        }
        if self._schema.dtypes is None:
            self._check_selected_ran(named)
        self._check_same_layers(found)
        layers = self._layers | found
        rows = {
            name: layer_batch(named[name], samples, batch.counts_by_columns)
            if name in named
            else _no_rows(attributes, samples)
            for name, attributes in layers.items()
        }
        columns = self._schema.conform(batch.columns)
        self._define({name: found[name] for name in found if name not in self._layers}, rows)
        finished = Batch(samples, rows, columns)
        self._background.put(partial(self._writer.append, finished), finished.nbytes)
        self._statistics = replace(
            self._statistics,
            batches=self._statistics.batches + 1,
            samples=self._statistics.samples + samples,
            rows=self._statistics.rows + sum(len(layer.rows) for layer in rows.values()),
        )

    def _define(self, layers: dict[str, LayerAttributes], rows: Mapping[str, LayerBatch]) -> None:
        """Have the arrays created of layers that are new, and of all columns."""
        if self._statistics.batches and not layers:
            return
        self._layers |= layers
        positions = {
            name: int(rows[name].positions[0]) if len(rows[name].positions) else 0
            for name in layers
        }
        columns = self._schema.dtypes or {}
        self._background.put(partial(self._writer.define, layers, positions, columns), 0)

    def _check_selected_ran(self, named: Mapping[str, NamedRows]) -> None:
        """Leave out what never ran, unless the user named it, or layers may be empty."""
        ran = {rows.target.name for rows in named.values()}
        silent = [hook.target for name, hook in self.hooks.items() if name not in ran]
        if not silent or self._settings.missing == "empty":
            return
        for target in silent:
            if target.named:
                raise SelectionError(
                    f"{target.name} was named but did not run in the first batch; "
                    "leave it out, or capture what runs in its place"
                )
        if not ran:
            raise SelectionError("none of the selected layers ran in the first batch")
        names = ", ".join(target.name for target in silent)
        warnings.warn(
            f"selected layers that did not run in the first batch are left out: {names}",
            TsstoreWarning,
            stacklevel=4,
        )
        for target in silent:
            del self.hooks[target.name]
            self._handles.pop(f"capture {target.name}").remove()

    def _check_same_layers(self, found: Mapping[str, LayerAttributes]) -> None:
        """Check a batch's layers against those of earlier ones."""
        for name, attributes in found.items():
            known = self._layers.get(name)
            if known is None:
                self._check_new(name)
            elif not same_layer(known, attributes):
                raise CaptureError(
                    f"{name}: {attributes.neurons} neurons of {attributes.dtype} along axis "
                    f"{attributes.neuron_axis} in this batch, but {known.neurons} of "
                    f"{known.dtype} along axis {known.neuron_axis} in the first one"
                )
        silent = [name for name in self._layers if name not in found]
        if silent and self._settings.missing == "error":
            raise CaptureError(
                f"{', '.join(silent)} gave no states in this batch but did in the first one; pass "
                "missing='empty' if that is meant"
            )

    def _check_new(self, name: str) -> None:
        """Check that a new layer is no further call of a known one."""
        base, _, call = name.rpartition("#")
        base = base or name
        before = sum(base in (known, known.rpartition("#")[0]) for known in self._layers)
        if before:
            now = max(int(call), before + 1) if base != name else 1
            raise changed_calls(base, before, now)


class _BatchColumns:
    """What ``with recorder.batch()`` gives: takes columns that are known only afterwards."""

    def __init__(self, batch: OpenBatch) -> None:
        self._batch = batch

    def record(self, **columns: Any) -> None:
        """Add sample columns: arrays, tensors or lists of one entry a sample.

        Raises
        ------
        ColumnsError
            If one is there already, or is not a column.
        """
        self._batch.record(columns)


@dataclass
class _PassTracker:
    """Tells the outermost forward pass of the model from those inside it, and whether it failed."""

    depth: int = 0
    implicit: bool = False
    _before: BaseException | None = field(default=None, repr=False)

    def begin(self) -> bool:
        """Note a call of the model; whether it is the outermost."""
        self.depth += 1
        if self.depth == 1:
            self._before = sys.exception()
        return self.depth == 1

    def end(self) -> bool:
        """Note the end of a call; whether it was the outermost."""
        self.depth = max(self.depth - 1, 0)
        return self.depth == 0

    def failed(self) -> bool:
        """Whether the pass ends by an exception: hooks that are always called see it."""
        return sys.exception() is not self._before

    def reset(self) -> None:
        """Forget a pass that an interrupt may have cut off."""
        self.depth, self.implicit, self._before = 0, False, None


class _RootHook:
    """A hook on the model itself; copies of the model carry one that does nothing."""

    def __init__(self, model: nn.Module, call: Any) -> None:
        self._model = model
        self._call = call

    def __call__(self, module: nn.Module, arguments: Any, value: Any) -> None:
        if module is self._model:
            self._call(module, arguments, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        from tsstore.recording.hook import do_nothing

        return do_nothing

    def __reduce__(self) -> Any:
        from tsstore.recording.hook import do_nothing

        return do_nothing.__reduce__()


def _no_rows(attributes: LayerAttributes, samples: int) -> LayerBatch:
    rows = np.empty((0, attributes.row_bytes), dtype=np.uint8)
    return LayerBatch(rows, np.zeros(samples, dtype=np.int64))


def _abandon(background: Background, writer: PartWriter, process: int) -> None:
    """Write what is left of a recorder that nobody closed: at its end, or the interpreter's."""
    if os.getpid() == process:
        background.put(partial(writer.seal, "never closed"), 0)
        background.stop()
