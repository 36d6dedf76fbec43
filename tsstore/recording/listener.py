"""Listening to a model while it runs: the rows of one batch at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tsstore.errors import CaptureError, OutputError, TsstoreWarning
from tsstore.recording.axes import is_time_first
from tsstore.recording.batch import OpenBatch
from tsstore.recording.hook import CaptureHook, ModelHook
from tsstore.recording.outputs import first_tensor
from tsstore.recording.pack import new_rows, pack
from tsstore.recording.packed import Packed, Room
from tsstore.recording.passes import Passes
from tsstore.recording.sampler import Sampler
from tsstore.recording.select import Target, unwrapped
from tsstore.recording.transfer import Transfer


class Listener:
    """Collects the rows of one batch at a time: of a block, or else of one outermost forward pass.

    A process that was forked off hears nothing: the rows would have no writer.

    Parameters
    ----------
    model
        The model whose outermost forward pass is a batch.
    targets
        Where to capture.
    threshold
        A neuron is on where its value is greater.
    begin
        Called before a forward pass that is a batch; returns it, or None where nothing is recorded
        any more. An error in it stops the pass.
    finish
        Takes the batch that a forward pass was.
    sampler
        Packs some positions of each sample; None for all.
    room
        Gives the rows their memory, on the CPU.

    Attributes
    ----------
    hooks
        What captures, by public name of the layer.
    calls_outside
        Calls of captured layers outside any batch.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Iterable[Target],
        threshold: float,
        begin: Callable[[], OpenBatch | None],
        finish: Callable[[OpenBatch], None],
        sampler: Sampler | None = None,
        room: Room = new_rows,
    ) -> None:
        sample = None if sampler is None else partial(self._sample, sampler)
        self.hooks = {
            target.name: CaptureHook(
                target, threshold, self._receive, self._is_active, room, sample
            )
            for target in targets
        }
        self.calls_outside = 0
        self._model = model
        self._begin = begin
        self._finish = finish
        self._process = os.getpid()
        self._passes = Passes()
        self._transfer = Transfer()
        self._batch: OpenBatch | None = None
        self._is_pass = False
        self._handles: dict[str, RemovableHandle] = {}

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process was forked off from the one that listens."""
        return os.getpid() != self._process

    @property
    def in_batch(self) -> bool:
        """Whether a batch is open."""
        self._drop_what_was_cut_off()
        return self._batch is not None

    def attach(self, layers: bool = True) -> None:
        """Register the hooks on the model and, unless others call them, on its layers."""
        self._handles["model before"] = self._model.register_forward_pre_hook(
            ModelHook(self._model, self._begin_pass), prepend=True, with_kwargs=True
        )
        if layers:
            for name, hook in self.hooks.items():
                self._handles[f"layer {name}"] = hook.attach()
        # Last, so that it runs when the model's own states have been captured.
        self._handles["model after"] = self._model.register_forward_hook(
            ModelHook(self._model, self._end_pass), always_call=True
        )
        _warn_of_lost_fast_path(self._model, self.hooks.values())

    def detach(self) -> None:
        """Remove the hooks, and no others."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self._passes.reset()

    def leave_out(self, target: Target) -> None:
        """Remove the hook of one target."""
        del self.hooks[target.name]
        if handle := self._handles.pop(f"layer {target.name}", None):
            handle.remove()

    @contextmanager
    def block(self, batch: OpenBatch) -> Iterator[None]:
        """Let a batch be what the block gives.

        Raises
        ------
        CaptureError
            If a batch is open already.
        """
        self._drop_what_was_cut_off()
        if self._batch is not None:
            raise CaptureError(
                "a batch is open already, and batches cannot be nested; end it first, or record "
                "all in one"
            )
        self._batch = batch
        try:
            yield
            self._drop_what_was_cut_off()
        finally:
            self._batch = None
            self._passes.reset()

    def _begin_pass(self, module: nn.Module, arguments: Any, keywords: Any) -> None:
        if self.is_elsewhere:
            return
        self._drop_what_was_cut_off()
        if self._batch is None:
            self._batch = self._begin()
            if self._batch is None:
                return
            self._is_pass = True
        if self._passes.begin():
            self._batch.begin_forward(*self._input_shape((arguments, keywords)))

    def _end_pass(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if self.is_elsewhere or not self._passes.end() or self._batch is None:
            return
        if self._passes.failed():
            self._drop_pass()
            return
        self._passes.reset()
        if self._is_pass:
            batch, self._batch, self._is_pass = self._batch, None, False
            self._finish(batch)

    def _drop_what_was_cut_off(self) -> None:
        if self._passes.cut_off():
            self._drop_pass()

    def _drop_pass(self) -> None:
        self._passes.reset()
        if self._batch is not None:
            self._batch.drop_forward()
        if self._is_pass:
            self._batch, self._is_pass = None, False

    def _input_shape(self, values: Any) -> tuple[tuple[int, ...], int]:
        """Return the shape of the first tensor that the model is given, and its sample axis."""
        try:
            tensor = first_tensor(values)
        except OutputError:
            return (), 0
        if tensor is None or tensor.is_nested:
            return (), 0
        time_first = tensor.ndim == 3 and is_time_first(unwrapped(self._model))
        return tuple(tensor.shape), 1 if time_first else 0

    def _is_active(self) -> bool:
        # What runs inside a backward pass runs again, for activation checkpointing.
        if self.is_elsewhere or torch._C._current_graph_task_id() != -1:
            return False
        if self._batch is not None:
            return self._batch.wanted
        self.calls_outside += 1
        if self.calls_outside == 1:
            warnings.warn(
                "a captured layer was called outside of any batch: its states are not stored; "
                "wrap the call in recorder.batch()",
                TsstoreWarning,
                stacklevel=3,
            )
        return False

    def _sample(self, sampler: Sampler, target: Target, *arguments: Any) -> Packed:
        if self._batch is None:
            return pack(*arguments)
        return sampler.pack(self._batch, target, *arguments)

    def _receive(self, target: Target, packed: Packed) -> None:
        if self._batch is None:
            return
        if not self._passes.depth:
            # A part of the model was called by itself: that is a pass of its own.
            self._batch.begin_forward()
        self._batch.add(target, self._transfer.start(packed))


def _warn_of_lost_fast_path(model: nn.Module, hooks: Iterable[CaptureHook]) -> None:
    hooked = {hook.target.module for hook in hooks} | {model}
    for module in model.modules():
        if (
            isinstance(module, nn.TransformerEncoderLayer)
            and module.self_attn.batch_first
            and not module.training
            and not hooked.isdisjoint(module.modules())
        ):
            warnings.warn(
                "with hooks on it, a TransformerEncoderLayer leaves its fast path: in evaluation "
                "mode it is slower, and its outputs may differ in the last bits",
                TsstoreWarning,
                stacklevel=4,
            )
            return
