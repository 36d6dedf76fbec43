"""Listening to a model while it runs: the rows of one batch at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tsstore.errors import CaptureError, TsstoreWarning
from tsstore.recording.axes.first_look import FirstLook
from tsstore.recording.axes.layer import LayerAxes, Waiting
from tsstore.recording.axes.undecided import Undecided
from tsstore.recording.axes.watch import Watch
from tsstore.recording.batches.open_batch import OpenBatch
from tsstore.recording.batches.sampler import Sampler
from tsstore.recording.hooks.copies import Copies
from tsstore.recording.hooks.hook import CaptureHook, ModelHook
from tsstore.recording.hooks.later_hooks import LaterHooks
from tsstore.recording.hooks.passes import Passes
from tsstore.recording.packing.packed import Packed, RowMemory
from tsstore.recording.packing.packer import pack
from tsstore.recording.packing.transfer import Transfer
from tsstore.recording.samples.inputs import ModelInput
from tsstore.recording.selection.select import Target
from tsstore.store.format.attributes import LayerAttributes


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
    memory
        Where rows lie, on the CPU.
    earlier
        Returns what earlier attempts of the run say of a layer, by the target's name.
    copies
        Of the model; it names the run.

    Attributes
    ----------
    hooks
        What captures, by public name of the layer.
    calls_outside
        Calls of captured layers outside any batch.
    keeps_inputs
        Whether a batch keeps what the model was called with, while it lasts.
    later_hooks
        Hooks of others that come after ours.
    first_look
        Decides of the layers' axes.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Iterable[Target],
        threshold: float,
        begin: Callable[[], OpenBatch | None],
        finish: Callable[[OpenBatch], None],
        sampler: Sampler | None = None,
        memory: RowMemory | None = None,
        earlier: Callable[[str], Sequence[LayerAttributes]] = lambda _: (),
        copies: Copies | None = None,
    ) -> None:
        targets = list(targets)
        sample = None if sampler is None else partial(self._sample, sampler)
        self._watch = Watch(model, targets)
        self.hooks = {
            target.name: CaptureHook(
                target,
                threshold,
                self._receive,
                self._is_active,
                memory,
                sample,
                LayerAxes(target.axes, self._watch.clues_of, earlier(target.name)),
                copies,
            )
            for target in targets
        }
        self.calls_outside = 0
        self.keeps_inputs = True
        self._copies = copies or Copies("")
        self.later_hooks = LaterHooks(self._copies.run)
        self.first_look = FirstLook(self._watch, self.hooks)
        self._model = model
        self._before = ModelHook(model, self._begin_pass, self._copies)
        self._begin = begin
        self._finish = finish
        self._process = os.getpid()
        self._passes = Passes()
        self._transfer = Transfer()
        self._batch: OpenBatch | None = None
        self._is_pass = False
        self._takes_sequences = self._has_warned = False
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
            self._before, prepend=True, with_kwargs=True
        )
        if layers:
            for name, hook in self.hooks.items():
                self._handles[f"layer {name}"] = hook.attach()
        # Last, so that it runs when the model's own states have been captured.
        self._handles["model after"] = self._model.register_forward_hook(
            ModelHook(self._model, self._end_pass, self._copies), always_call=True
        )
        _warn_of_lost_fast_path(self._model, self.hooks.values())
        self.first_look.end()

    def detach(self) -> None:
        """Remove the hooks, and no others."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self.later_hooks.remove()
        self._passes.reset()
        self._watch.end()

    def leave_out(self, target: Target) -> None:
        """Remove the hook of one target."""
        del self.hooks[target.name]
        if handle := self._handles.pop(f"layer {target.name}", None):
            handle.remove()

    def decide(self, batch: OpenBatch, undecided: Undecided) -> None:
        """Pack what had to wait for the end of the batch, now that all that ran is known.

        Parameters
        ----------
        batch
            The batch, which is over.
        undecided
            Takes what nothing tells.

        Raises
        ------
        OutputError
            If calls of one layer have their neurons along different axes.
        """
        # What is chosen of a sample depends on the batch.
        self._batch = batch
        try:
            compiled = self._before.is_compiled
            self.first_look.decide(batch, undecided, self._transfer.start, compiled)
        finally:
            self._batch = None

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
        self.first_look.begin(batch)
        self.later_hooks.look(self.hooks.values())
        try:
            yield
            self._drop_what_was_cut_off()
        except BaseException:
            self.first_look.end()
            self.later_hooks.forget()
            raise
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
            if not self._before.is_compiled:
                self.first_look.begin(self._batch)
        if self._passes.begin():
            self._copies.original_ran = True
            self._watch.begin_pass()
            self.later_hooks.look(self.hooks.values())
            # Only where no gradients are wanted may the model be run on some of it once more.
            kept = self.keeps_inputs and not torch.is_grad_enabled()
            given = arguments, keywords
            model_input = ModelInput.of(self._model, given)
            self._takes_sequences = model_input.is_packed
            self._batch.begin_forward(model_input, given if kept else None)

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
        self.later_hooks.forget()
        if self._is_pass:
            self.first_look.end()
        else:
            self._watch.drop_pass()
        if self._batch is not None:
            self._batch.drop_forward()
        if self._is_pass:
            self._batch, self._is_pass = None, False

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

    def _receive(self, target: Target, packed: Packed | Waiting) -> None:
        if self._batch is None:
            return
        if not self._passes.depth:
            # A part of the model was called by itself: that is a pass of its own.
            self._copies.original_ran = True
            self._batch.begin_forward()
        if isinstance(packed, Packed):
            self._warn_if_sorted(target, packed)
        ready = packed if isinstance(packed, Waiting) else self._transfer.start(packed)
        self._batch.add(target, ready)

    def _warn_if_sorted(self, target: Target, packed: Packed) -> None:
        if packed.may_be_sorted and not (self._takes_sequences or self._has_warned):
            self._has_warned = True
            warnings.warn(
                f"{target.name}: its packed sequences do not say whether they were sorted by "
                "length; they are taken to be in the order of the batch. If the model sorts them, "
                "let it pack them unsorted: pack_padded_sequence(…, enforce_sorted=False)",
                TsstoreWarning,
                stacklevel=3,
            )


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
