"""One hook: from a module's call to rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from tsstore.errors import OutputError, TsstoreError
from tsstore.recording.axes.layer import LayerAxes, Waiting
from tsstore.recording.axes.tensor import Decision, UndecidedAxisError
from tsstore.recording.hooks.copies import CopiedHook, Copies, do_nothing, hook_of_a_copy
from tsstore.recording.packing.packed import Form, Packed, RowMemory
from tsstore.recording.packing.packer import Packer
from tsstore.recording.selection.outputs import first_value, value_at
from tsstore.recording.selection.select import Target

Call = Callable[[nn.Module, Any, Any], None]
"""Takes a module, its arguments, and its output or, before its call, keyword arguments."""

Receiver = Callable[[Target, Packed | Waiting], None]
"""Takes the rows of one call, or what they are to be made of when its batch is over."""

Sample = Callable[[Target, torch.Tensor, float, int, int], Packed]
"""Packs some positions of a tensor by its threshold, neuron axis and sample axis."""


_Function = TypeVar("_Function", bound=Callable[..., Any])


def outside_compiled_code(function: _Function) -> _Function:
    """Decorate what compiled code calls as it is, like ``torch.compiler.disable``.

    That one loads the compiler, which takes seconds. What torch uses itself loads it when the
    function is called: without need never, where only compiled code calls it.
    """
    decorate = getattr(torch, "_disable_dynamo", None) or torch.compiler.disable
    return cast("_Function", decorate(function))


class ModelHook:
    """A hook on one module, which runs outside of compiled code.

    Copies of the model carry hooks that capture nothing.

    Parameters
    ----------
    module
        The module.
    call
        Takes the module, its arguments, and its output or, before its call, keyword arguments.
    copies
        Of the model; told where one runs. Its run is named by all errors.

    Attributes
    ----------
    call
        What a call is passed on to.
    is_compiled
        Whether it was called from compiled code.
    """

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
            # As in the other branch, without another call: in a forward pass each is dear.
            try:
                self.call(module, arguments, value)
            except TsstoreError as error:
                self._name_run(error)
                raise

    # A compiled model must not trace into the hook: it would drop or reorder it. Elsewhere this
    # decorator's work is not worth its time.
    @outside_compiled_code
    def _call_outside(self, module: nn.Module, arguments: Any, value: Any) -> None:
        self.is_compiled = True
        try:
            self.call(module, arguments, value)
        except TsstoreError as error:
            self._name_run(error)
            raise

    def _name_run(self, error: TsstoreError) -> None:
        if self._copies is not None:
            error.of_run(self._copies.run)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return do_nothing if self._copies is None else CopiedHook(self._copies)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return hook_of_a_copy, ("" if self._copies is None else self._copies.key,)


class CaptureHook(ModelHook):
    """Packs what one module takes or gives, and hands the rows on.

    The rows are packed before anything else can run, so that an in-place operation that follows
    changes nothing.

    Parameters
    ----------
    target
        Where to capture.
    threshold
        A neuron is on where its value is greater.
    receive
        Takes the rows of each call.
    is_active
        Whether rows are wanted at this moment.
    memory
        Where rows lie, on the CPU.
    sample
        Makes the rows of some positions; None for those of all.
    axes
        What is decided of the layer's axes; None to let the user and the layer alone tell.
    copies
        Of the model.

    Attributes
    ----------
    enabled
        Set it to False to leave out this place for a while.
    axes
        What is decided of the layer's axes.
    """

    def __init__(
        self,
        target: Target,
        threshold: float,
        receive: Receiver,
        is_active: Callable[[], bool],
        memory: RowMemory | None = None,
        sample: Sample | None = None,
        axes: LayerAxes | None = None,
        copies: Copies | None = None,
    ) -> None:
        super().__init__(target.module, self._capture, copies)
        self.target = target
        self.enabled = True
        self.axes = axes or LayerAxes(target.axes)
        self._packer = Packer(threshold, self.axes, memory or RowMemory())
        self._sample = sample
        self._receive = receive
        self._is_active = is_active

    def attach(self) -> RemovableHandle:
        """Register the hook on its module."""
        if self.target.where == "before":
            return self.target.module.register_forward_pre_hook(self, with_kwargs=True)
        return self.target.module.register_forward_hook(self)

    def _capture(self, module: nn.Module, arguments: Any, value: Any) -> None:
        if not (self.enabled and self._is_active()):
            return
        captured = value if self.target.where == "after" else (arguments, value)
        try:
            packed = self._pack_or_wait(self._found(captured))
        except OutputError as error:
            raise self._named(error) from None
        self._receive(self.target, packed)

    def _pack_or_wait(self, found: torch.Tensor | PackedSequence) -> Packed | Waiting:
        """Return the rows, or what they are to be made of when the batch is over."""
        try:
            if isinstance(found, torch.Tensor):
                return self._pack(found)
            return self._packer.pack_sequences(found)
        except UndecidedAxisError:
            tensor = cast("torch.Tensor", found)
            return Waiting(tensor.detach().clone(), self.axes.clues_of(tensor))

    def pack_at_last(self, waiting: Waiting) -> Packed:
        """Return the rows of a tensor that waited for the end of its batch.

        Raises
        ------
        UndecidedAxisError
            If nothing tells its axes.
        OutputError
            If it cannot be packed.
        """
        decision = self.axes.conclude(waiting)
        try:
            threshold = self._packer.threshold_for(waiting.tensor)
            return self._packed(waiting.tensor, threshold, decision)
        except OutputError as error:
            raise self._named(error) from None

    def fix(self, form: Form) -> None:
        """Let tensors like that of a finished batch have the same axes from now on."""
        axes = 2 + len(form.position_shape)
        decided = form.decided or {}
        self.axes.fix(axes, Decision(form.neuron_axis, form.sample_axis, decided))
        self._packer.forget()

    def _named(self, error: OutputError) -> OutputError:
        """Return an error that names the layer."""
        return OutputError(f"{self.target.name}: {error}")

    def _found(self, captured: Any) -> torch.Tensor | PackedSequence:
        if self.target.output is not None:
            captured = value_at(captured, self.target.output)
        found = first_value(captured)
        if found is None:
            before = self.target.where == "before"
            kind = "input" if before else f"output {type(captured).__name__}"
            raise OutputError(
                f"found no tensor in the {kind} of a {type(self.target.module).__name__}, "
                "expected one; exclude the layer"
            )
        return found

    def _pack(self, tensor: torch.Tensor) -> Packed:
        if self._sample is None:
            return self._packer.pack(tensor)
        return self._packed(tensor, *self._packer.look_at(tensor))

    def _packed(self, tensor: torch.Tensor, threshold: float, decision: Decision) -> Packed:
        """Pack a tensor whose axes are decided, all of it or some positions."""
        neurons, samples, decided = decision
        if self._sample is None:
            return self._packer.packed(tensor, threshold, decision)
        packed = self._sample(self.target, tensor, threshold, neurons, samples)
        return replace(packed, form=replace(packed.form, decided=decided))
