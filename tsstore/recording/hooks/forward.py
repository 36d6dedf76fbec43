"""Listening to a model while it runs, and deciding of its layers' axes in the first batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

from torch import nn
from torch.utils.hooks import RemovableHandle

from tsstore.errors import CaptureError, OutputError, warn
from tsstore.recording.axes.layer import LayerAxes, Waiting
from tsstore.recording.axes.tensor import BY_EXPERIMENT, UndecidedAxisError
from tsstore.recording.axes.undecided import Undecided
from tsstore.recording.axes.watch import Watch
from tsstore.recording.batches.open_batch import OpenBatch
from tsstore.recording.batches.sampler import Sampler
from tsstore.recording.hooks.copies import Copies
from tsstore.recording.hooks.hook import CaptureHook, ModelHook
from tsstore.recording.hooks.later_hooks import LaterHooks
from tsstore.recording.hooks.passes import CurrentBatch
from tsstore.recording.packing.packed import Form, Packed, RowMemory
from tsstore.recording.selection.select import Target
from tsstore.store.writing.resume import Earlier

_IN_COMPILED_CODE: Final = " (seen from compiled code; call the model in recorder.batch() first)"
_MOST_LOOKS: Final = 16
"""Batches after the first that are watched for a layer that has not run yet."""


class Batches(Protocol):
    """Where a listener's batches come from, and where they go."""

    def begin(self) -> OpenBatch | None:
        """Return the next batch, or None where nothing is recorded any more."""

    def finish(self, batch: OpenBatch) -> None:
        """Take a batch that is over."""


class Listener:
    """Collects the rows of one batch at a time: of a block, or else of one outermost forward pass.

    `batches` are asked before a forward pass that is a batch, where an error stops the pass, and
    take it after. `keeps_inputs` is whether a batch keeps what the model was called with.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: list[Target],
        threshold: float,
        batches: Batches,
        copies: Copies,
        sampler: Sampler | None,
        memory: RowMemory,
        earlier: Earlier | None,
    ) -> None:
        self._model = model
        self._batches = batches
        self._copies = copies
        self._watch = Watch(model, targets)
        self.current = CurrentBatch(copies, sampler)
        self.hooks: dict[str, CaptureHook] = {}
        for target in targets:
            recorded = earlier.layers_named(target.name) if earlier is not None else ()
            axes = LayerAxes(target.axes, self._watch, recorded)
            self.hooks[target.name] = CaptureHook(target, threshold, self.current, axes, memory)
        self.keeps_inputs = True
        self.first_look = FirstLook(self._watch, self.hooks, self.current)
        self.later_hooks = LaterHooks(copies.run)
        self.before = ModelHook(model, self._begin_pass, copies)
        self._passes = self.current.passes
        self._is_pass = False
        self._handles: dict[str, RemovableHandle] = {}

    @property
    def in_batch(self) -> bool:
        """Whether a batch is open."""
        self._drop_what_was_cut_off()
        return self.current.batch is not None

    def attach(self, layers: bool = True) -> None:
        """Register the hooks on the model and, unless others call them, on its layers."""
        self._handles["model before"] = self._model.register_forward_pre_hook(
            self.before, prepend=True, with_kwargs=True
        )
        if layers:
            for name, hook in self.hooks.items():
                self._handles[f"layer {name}"] = hook.target.register(hook)
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

    @contextmanager
    def block(self, batch: OpenBatch) -> Iterator[None]:
        """Let a batch be what the block gives; CaptureError if one is open already."""
        self._drop_what_was_cut_off()
        if self.current.batch is not None:
            raise CaptureError(
                "a batch is open already, and batches cannot be nested; end it first, or record "
                "all in one"
            )
        self.current.batch = batch
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
            self.current.batch = None
            self._passes.reset()

    def _begin_pass(self, module: nn.Module, arguments: Any, keywords: Any) -> None:
        current = self.current
        if current.is_elsewhere:
            return
        self._drop_what_was_cut_off()
        if current.batch is None:
            current.batch = self._batches.begin()
            if current.batch is None:
                return
            self._is_pass = True
            if not self.before.is_compiled:
                self.first_look.begin(current.batch)
        if self._passes.begin():
            if (following := self._watch.following) is not None:
                following.begin_pass()
            self.later_hooks.look(self.hooks.values())
            current.begin_forward(self._model, (arguments, keywords), self.keeps_inputs)

    def _end_pass(self, module: nn.Module, arguments: Any, output: Any) -> None:
        current = self.current
        if current.is_elsewhere or not self._passes.end() or current.batch is None:
            return
        if self._passes.failed():
            self._drop_pass()
            return
        self._passes.reset()
        if self._is_pass:
            batch, current.batch, self._is_pass = current.batch, None, False
            self._batches.finish(batch)

    def _drop_what_was_cut_off(self) -> None:
        if self._passes.cut_off():
            self._drop_pass()

    def _drop_pass(self) -> None:
        self._passes.reset()
        self.later_hooks.forget()
        if self._is_pass:
            self.first_look.end()
        elif (following := self._watch.following) is not None:
            following.drop_pass()
        if self.current.batch is not None:
            self.current.batch.drop_forward()
        if self._is_pass:
            self.current.batch, self._is_pass = None, False


class FirstLook:
    """Decides of layers' axes in the first batch that reaches them, by what all modules tell."""

    def __init__(
        self, watch: Watch, hooks: Mapping[str, CaptureHook], current: CurrentBatch
    ) -> None:
        self._watch = watch
        self._hooks = hooks
        self._current = current
        self._has_open = any(not hook.axes.are_fixed for hook in hooks.values())
        self._is_first = True
        self._later_looks = 0

    def begin(self, batch: OpenBatch) -> None:
        """Watch all modules while a batch lasts, if they may tell of a layer what it does not."""
        if batch.wanted and self._needs_clues and (self._is_first or not self._watch.is_compiled):
            self._watch.begin()
            self._later_looks += not self._is_first

    def end(self) -> None:
        """Watch no longer; before the first batch is complete, be ready to."""
        if self._is_first or self._watch.following is not None:
            self._watch.end()
        if self._is_first and self._needs_clues:
            self._watch.leave_compiled_code()

    def decide(self, batch: OpenBatch, undecided: Undecided, is_compiled: bool) -> None:
        """Pack what had to wait for the end of the batch, now that all that ran is known."""
        # What is chosen of a sample depends on the batch.
        self._current.batch = batch
        try:
            if self._watch.following is not None:
                self._watch.following.by_shape.conclude()
            batch.wait_no_longer(partial(self._pack, undecided, is_compiled))
        finally:
            self._current.batch = None
            self.end()
        _check_alike(batch)

    def fix(self, batch: OpenBatch) -> None:
        """Let what was decided in a batch that is complete hold for all that follow."""
        for call in batch.calls:
            hook, form = self._hooks.get(call.target.name), call.packed.form
            found = (form.decided or {}).get("sample_axis", "").startswith(BY_EXPERIMENT)
            if hook is not None and (found or not hook.axes.are_fixed):
                hook.fix(form)
        self._is_first = False
        self._has_open = any(not hook.axes.are_fixed for hook in self._hooks.values())
        self._watch.end()

    @property
    def _needs_clues(self) -> bool:
        return (
            self._has_open
            and self._later_looks < _MOST_LOOKS
            and any(hook.axes.need_clues for hook in self._hooks.values())
        )

    def _pack(
        self, undecided: Undecided, is_compiled: bool, target: Target, waiting: Waiting
    ) -> Packed | None:
        """Return the rows of a call that waited; None where nothing tells its axes."""
        try:
            return self._current.transfer.start(self._hooks[target.name].pack_at_last(waiting))
        except UndecidedAxisError as error:
            hidden = waiting.clues is None and is_compiled
            found = str(error) + (_IN_COMPILED_CODE if hidden else "")
            undecided.add("neuron_axis", target.axes.layer, found, "…")
            return None


def _check_alike(batch: OpenBatch) -> None:
    """Refuse calls of a layer whose tensors have as many axes, and others for the neurons."""
    known: dict[tuple[str, int], Form] = {}
    for target, _, packed in batch.calls:
        form = packed.form
        first = known.setdefault((target.name, len(form.position_shape)), form)
        if (form.neuron_axis, form.sample_axis) != (first.neuron_axis, first.sample_axis):
            raise OutputError(
                f"{target.name}: one of its calls has its neurons along axis "
                f"{first.neuron_axis} and its samples along axis {first.sample_axis}, another "
                f"along axes {form.neuron_axis} and {form.sample_axis}; expected the same in "
                "all: let each call have a module of its own, or exclude the layer"
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
            warn(
                "with hooks on it, a TransformerEncoderLayer leaves its fast path: in evaluation "
                "mode it is slower, and its outputs may differ in the last bits",
            )
            return
