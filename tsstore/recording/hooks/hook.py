"""One hook: from a module's call to rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from tsstore.errors import OutputError, TsstoreError
from tsstore.recording.axes.layer import LayerAxes, Waiting
from tsstore.recording.axes.tensor import Decision, UndecidedAxisError
from tsstore.recording.hooks.copies import CopiedHook, Copies, do_nothing, hook_of_a_copy
from tsstore.recording.hooks.passes import CurrentBatch
from tsstore.recording.packing.packed import Form, Packed, RowMemory
from tsstore.recording.packing.packer import Packer
from tsstore.recording.selection.outputs import first_value
from tsstore.recording.selection.select import Target

Call = Callable[[nn.Module, Any, Any], None]
"""Takes a module, its arguments, and its output or, before its call, keyword arguments."""


_Function = TypeVar("_Function", bound=Callable[..., Any])


def outside_compiled_code(function: _Function) -> _Function:
    """Decorate like ``torch.compiler.disable``, without loading the compiler, which takes seconds.

    What torch uses itself loads it when compiled code calls the function: without need never.
    """
    decorate = getattr(torch, "_disable_dynamo", None) or torch.compiler.disable
    return cast("_Function", decorate(function))


class ModelHook:
    """Passes calls of one module on, outside of compiled code; copies of it capture nothing."""

    def __init__(self, module: nn.Module, call: Call, copies: Copies | None = None) -> None:
        self._module = module
        self.call = call
        self.is_compiled = False
        self._copies = copies

    def __call__(self, module: nn.Module, arguments: Any, value: Any) -> None:
        """Pass a call on, unless it is that of a shallow copy, which shares the hooks."""
        if module is not self._module:
            if self._copies is not None and not torch.compiler.is_compiling():
                self._copies.note()
            return
        if torch.compiler.is_dynamo_compiling():
            self._call_outside(module, arguments, value)
        else:
            self._pass_on(module, arguments, value)

    # A compiled model must not trace into the hook: it would drop or reorder it. Elsewhere this
    # decorator's work is not worth its time.
    @outside_compiled_code
    def _call_outside(self, module: nn.Module, arguments: Any, value: Any) -> None:
        self.is_compiled = True
        self._pass_on(module, arguments, value)

    def _pass_on(self, module: nn.Module, arguments: Any, value: Any) -> None:
        try:
            self.call(module, arguments, value)
        except TsstoreError as error:
            if self._copies is not None:
                error.of_run(self._copies.run)
            raise

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return do_nothing if self._copies is None else CopiedHook(self._copies)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return hook_of_a_copy, ("" if self._copies is None else self._copies.key,)


class CaptureHook(ModelHook):
    """Packs what one module takes or gives, and hands the rows on to the batch that is open.

    The rows are packed before anything else can run, so that an in-place operation that follows
    changes nothing. Set `enabled` to False to leave out this place for a while.
    """

    def __init__(
        self,
        target: Target,
        threshold: float,
        current: CurrentBatch,
        axes: LayerAxes,
        memory: RowMemory,
    ) -> None:
        super().__init__(target.module, self._capture, current.copies)
        self.target = target
        self.enabled = True
        self.axes = axes
        self._current = current
        self._takes_output = target.where == "after" and target.output is None
        self._packer = Packer(threshold, self.axes, memory)

    def pack_at_last(self, waiting: Waiting) -> Packed:
        """Return the rows of a tensor that waited; UndecidedAxisError if nothing tells its axes."""
        decision = self.axes.conclude(waiting)
        try:
            return self._packed(waiting.tensor, decision)
        except OutputError as error:
            raise self._named(error) from None

    def fix(self, form: Form) -> None:
        """Let tensors like that of a finished batch have the same axes from now on."""
        axes = 2 + len(form.position_shape)
        decided = form.decided or {}
        self.axes.fix(axes, Decision(form.neuron_axis, form.sample_axis, decided))
        self._packer.forget()

    def _capture(self, module: nn.Module, arguments: Any, value: Any) -> None:
        if not (self.enabled and self._current.takes_rows()):
            return
        try:
            # What runs first after a module finds nothing in the processor's caches: each function
            # that is called takes microseconds.
            if self._takes_output and type(value) is torch.Tensor:
                found: torch.Tensor | PackedSequence = value
            else:
                found = self._found(self.target.value(arguments, value))
            rows = self._pack_or_wait(found)
        except OutputError as error:
            raise self._named(error) from None
        self._current.take(self.target, rows)

    def _found(self, captured: Any) -> torch.Tensor | PackedSequence:
        found = first_value(captured)
        if found is None:
            before = self.target.where == "before"
            kind = "input" if before else f"output {type(captured).__name__}"
            raise OutputError(
                f"found no tensor in the {kind} of a {type(self.target.module).__name__}, "
                "expected one; exclude the layer"
            )
        return found

    def _pack_or_wait(self, found: torch.Tensor | PackedSequence) -> Packed | Waiting:
        """Return the rows, or what they are to be made of when the batch is over."""
        try:
            if not isinstance(found, torch.Tensor):
                return self._packer.pack_sequences(found)
            if self._current.sampler is None:
                return self._packer.pack(found)
            return self._packed(found)
        except UndecidedAxisError:
            tensor = cast("torch.Tensor", found)
            return Waiting(tensor.detach().clone(), self.axes.clues_of(tensor))

    def _packed(self, tensor: torch.Tensor, decision: Decision | None = None) -> Packed:
        """Pack a tensor, all of it or some positions, by axes that were decided or are now."""
        form = self._packer.form_of(tensor, decision)
        if self._current.sampler is None or self._current.batch is None:
            return self._packer.packed(tensor, form)
        return self._current.sampler.pack(self._current.batch, self.target, tensor, form)

    def _named(self, error: OutputError) -> OutputError:
        """Return an error that names the layer."""
        return OutputError(f"{self.target.name}: {error}")
