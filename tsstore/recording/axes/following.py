"""Following tensors from module to module: what one says of its axes holds where they arrive."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from tsstore.errors import OutputError
from tsstore.recording.axes import kinds
from tsstore.recording.axes.tensor import BY_CLASS, BY_OTHERS, Axes, Axis
from tsstore.recording.selection.outputs import tensors_in


@dataclass(eq=False)
class Clue:
    """What is known of an axis that tensors share, and what speaks `against` guessing it."""

    axis: Axis | None = None
    against: str = ""


class Clues(NamedTuple):
    """What is known of a tensor's axes."""

    neurons: Clue
    samples: Clue


class _Followed(NamedTuple):
    tensor: weakref.ref[torch.Tensor]
    clues: Clues


class SameShape:
    """All tensors of a batch: some tell of others of the very same shape, where they agree."""

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Size, Clues]] = []
        # What treats whole channels, and what its class says: for the end, if nothing tells.
        self.by_class: list[tuple[Clues, Axis]] = []

    def conclude(self) -> None:
        """Let tensors tell of others of the very same shape, where all that are known agree.

        Not of the neurons where another axis has as many entries, nor of the samples where time
        has: such tensors have the same shape whichever way they lie.
        """
        while self._conclude_by_shape() or self._conclude_by_class():
            pass

    def _conclude_by_class(self) -> bool:
        """Fill in what classes tell where nothing else does; whether anything was new."""
        left = [
            (clues, axis)
            for clues, axis in self.by_class
            if clues.neurons.axis is None and not clues.neurons.against
        ]
        for clues, axis in left:
            clues.neurons.axis = axis
            clues.samples.axis = clues.samples.axis or Axis(0, BY_CLASS)
        return bool(left)

    def _conclude_by_shape(self) -> bool:
        """Fill in what tensors tell of others of their shape; whether anything was new."""
        neurons = _axes_by_shape((shape, clues.neurons) for shape, clues in self.seen)
        new = False
        for shape, clues in self.seen:
            axis, clue = neurons.get(shape), clues.neurons
            if clue.axis is not None or clue.against or axis is None:
                continue
            if _is_unlike_others(shape, axis, _axis_of(clues.samples)):
                clue.axis = Axis(axis, BY_OTHERS)
                new = True
        samples = _axes_by_shape((shape, clues.samples) for shape, clues in self.seen)
        for shape, clues in self.seen:
            axis = samples.get(shape)
            if clues.samples.axis is None and axis is not None and _tells_samples_from_time(shape):
                clues.samples.axis = Axis(axis, BY_OTHERS)
                new = True
        return new


class Following:
    """What the modules of a model say of the tensors that pass between them, in one batch.

    A tensor is the same one where its memory, shape and strides are, as long as it lives: it may
    have been changed in place, and its axes have not.
    """

    def __init__(self, axes: Mapping[int, Axes]) -> None:
        self._axes = axes
        self._followed: dict[Hashable, _Followed] = {}
        self.by_shape = SameShape()
        self._pass_began = 0
        self._is_own = True

    def clues_of(self, tensor: torch.Tensor) -> Clues:
        """Return what is known of a tensor's axes; what becomes known later is filled in."""
        followed = self._alive(tensor)
        return self._follow(tensor, Clues(Clue(), Clue())) if followed is None else followed

    def note(self, module: nn.Module, arguments: Any, output: Any) -> None:
        """Note a call that is over; one of another model tells of what it gives alone."""
        axes = self._axes.get(id(module))
        self._is_own = axes is not None
        axes = axes or Axes(type(module).__name__, module)
        taken, given = list(tensors_in(arguments)), list(tensors_in(output))
        if taken and self._is_own:
            self._note_taken(axes, taken[0])
        if given:
            self._note_given(axes, taken, given[0])
        for tensor in given[1:]:
            self.clues_of(tensor)
        self._is_own = True

    def begin_pass(self) -> None:
        """Note that a forward pass begins."""
        self._pass_began = len(self.by_shape.seen)

    def drop_pass(self) -> None:
        """Forget the forward pass that was begun last: it has failed."""
        del self.by_shape.seen[self._pass_began :]
        self._followed.clear()

    def _note_taken(self, axes: Axes, tensor: torch.Tensor) -> None:
        """Note what a module of a known kind says of what it takes."""
        clues = self.clues_of(tensor)
        if tensor.ndim < 2 or kinds.takes(axes.module) is None:
            return
        of_input = replace(axes, where="before", neuron_axis=None, sample_axis=None, output=None)
        why = f"the layer that takes it: {axes.layer}"
        if clues.samples.axis is None and (samples := of_input.samples(tensor)):
            clues.samples.axis = Axis(samples.axis, why)
        neurons = of_input.neurons(tensor, _axis_of(clues.samples) or 0) or of_input.sure_class_axis
        if clues.neurons.axis is None and neurons:
            clues.neurons.axis = Axis(neurons.axis, why)

    def _note_given(self, axes: Axes, taken: list[torch.Tensor], tensor: torch.Tensor) -> None:
        """Note what a module says of what it gives, or else what its inputs say of that."""
        known = self._alive(tensor)
        inherited = known or self._inherited(axes.module, taken, tensor)
        clues = inherited or Clues(Clue(), Clue())
        if kinds.keeps_positions(axes.module) and taken:
            lengths, given = taken[0].shape, tensor.shape
            if given[:-1] in (lengths, lengths[:-1]):
                clues = clues._replace(samples=self.clues_of(taken[0]).samples)
        told = _told(axes, tensor, clues)
        against = self._against(axes, taken[0], tensor) if taken and known is None else ""
        if against:
            clues = clues._replace(neurons=Clue(against=against))
            told.neurons.axis = None
        elif axes.class_axis is not None and told.neurons.axis is None:
            self.by_shape.by_class.append((clues, axes.class_axis))
        if known is not None:
            # A module inside gave it, of which nothing else may tell.
            known.neurons.axis = known.neurons.axis or told.neurons.axis
            known.samples.axis = known.samples.axis or told.samples.axis
        clues = Clues(
            told.neurons if told.neurons.axis else clues.neurons,
            told.samples if told.samples.axis else clues.samples,
        )
        if clues != known:
            self._follow(tensor, clues)

    def _against(self, axes: Axes, taken: torch.Tensor, given: torch.Tensor) -> str:
        """Return what speaks against what a module's class or the sizes say of what it gives."""
        if axes.neuron_axis is not None:
            return ""
        of_input, kind = self.clues_of(taken).neurons.axis, type(axes.module).__name__
        if of_input is None and isinstance(axes.module, nn.Softmax) and given.ndim > 2:
            return "a Softmax may give weights of attention"
        certain = axes.sure_class_axis
        if certain and of_input and taken.ndim == given.ndim and of_input.axis != certain.axis:
            return (
                f"a {kind} works on channels in axis {certain.axis}, and by {of_input.why} the "
                f"neurons of what it takes lie along axis {of_input.axis}"
            )
        width = _width_by_chance(axes.module, taken, given)
        return "" if width is None else f"an axis of what it takes has {width} entries as well"

    def _inherited(
        self, module: nn.Module, taken: list[torch.Tensor], tensor: torch.Tensor
    ) -> Clues | None:
        """Return what a module's inputs say of an output that has their shape; None if nothing."""
        alike = [self.clues_of(one) for one in taken if one.shape == tensor.shape]
        if not alike:
            return None
        if kinds.keeps_layout(module):
            return alike[0]
        neurons = _common([clues.neurons for clues in alike])
        samples = _common([clues.samples for clues in alike])
        shape, beside = tensor.shape, _axis_of(samples)
        # A user's own module may have changed axes for others of the same size.
        sure = _is_unlike_others(shape, _axis_of(neurons), beside)
        in_order = _tells_samples_from_time(shape)
        return Clues(neurons if sure else Clue(), samples if in_order else Clue())

    def _alive(self, tensor: torch.Tensor) -> Clues | None:
        followed = self._followed.get(_identity_of(tensor))
        return None if followed is None or followed.tensor() is None else followed.clues

    def _follow(self, tensor: torch.Tensor, clues: Clues) -> Clues:
        self._followed[_identity_of(tensor)] = _Followed(weakref.ref(tensor), clues)
        if self._is_own:
            self.by_shape.seen.append((tensor.shape, clues))
        return clues


def _told(axes: Axes, tensor: torch.Tensor, clues: Clues) -> Clues:
    """Return what the user and a module itself say of what it gives."""
    why = f"the layer it follows: {axes.layer}"
    told = Clues(Clue(), Clue())
    if tensor.ndim < 2:
        return told
    with suppress(OutputError):
        if samples := axes.samples(tensor):
            told.samples.axis = Axis(samples.axis, why)
        sample_axis = _axis_of(told.samples) or _axis_of(clues.samples) or 0
        if neurons := axes.neurons(tensor, sample_axis) or axes.sure_class_axis:
            told.neurons.axis = Axis(neurons.axis, why)
    return told


def _width_by_chance(module: nn.Module, taken: torch.Tensor, given: torch.Tensor) -> int | None:
    """Return the neurons of a module that split its last axis, where another has their number."""
    declared, of_input = kinds.gives(module), kinds.takes(module)
    if declared is None or declared.width is None or declared.axis is not None:
        return None
    is_split = given.ndim > taken.ndim + (of_input is None)
    own = of_input is not None and of_input.width == declared.width
    return declared.width if is_split and taken.shape[1:].count(declared.width) > own else None


def _axes_by_shape(tensors: Iterable[tuple[torch.Size, Clue]]) -> dict[torch.Size, int]:
    """Return the axis of all tensors of a shape, for shapes of which those that are known agree."""
    known: dict[torch.Size, set[int]] = {}
    for shape, clue in tensors:
        if clue.axis is not None:
            known.setdefault(shape, set()).add(clue.axis.axis)
    return {shape: min(axes) for shape, axes in known.items() if len(axes) == 1}


def _axis_of(clue: Clue) -> int | None:
    return None if clue.axis is None else clue.axis.axis


def _common(clues: list[Clue]) -> Clue:
    """Return the clue of several tensors: of those that are known, if they agree."""
    known = [clue for clue in clues if clue.axis is not None]
    if len({_axis_of(clue) for clue in known}) > 1 or (not known and len(clues) > 1):
        return Clue()
    return (known or clues)[0]


def _is_unlike_others(shape: torch.Size, axis: int | None, samples: int | None) -> bool:
    """Whether no other axis has an axis's size, but for that of the samples; if None, any axis."""
    others = [size for n, size in enumerate(shape) if n != (samples or 0)]
    if axis is None:
        return len(set(others)) == len(others)
    return others.count(shape[axis]) <= 1


def _tells_samples_from_time(shape: torch.Size) -> bool:
    """Whether a tensor whose first two axes are swapped has another shape."""
    return len(shape) < 3 or shape[0] != shape[1]


def _identity_of(tensor: torch.Tensor) -> Hashable:
    try:
        address = tensor.data_ptr()
        return (address, tensor.shape, tensor.stride()) if address else id(tensor)
    except RuntimeError:
        return id(tensor)
