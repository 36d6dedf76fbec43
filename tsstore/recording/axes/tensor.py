"""Which axis of a captured tensor holds the neurons, and which the samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple, TypeVar

import torch
from torch import nn

from tsstore.errors import CaptureError, OutputError
from tsstore.recording.axes import kinds

_Choice = TypeVar("_Choice")

Side = Literal["after", "before"]
"""Which tensors of a module are meant: what it gives, or what it takes."""

AxisChoice = int | Mapping[str, int] | None
"""An axis for all layers, or by layer name (globs allowed), or None to let the layers tell."""

BY_USER: Final = "by the user"
BY_WIDTH: Final = "its width"
BY_CLASS: Final = "its class"
BY_SHAPE: Final = "the only axis beside the samples"
BY_EXPERIMENT: Final = "found by experiment"
BY_OTHERS: Final = "other tensors of its shape"
BY_DEFAULT: Final = "nothing else tells"


class Axis(NamedTuple):
    """An axis, counted from the front, and by what it was decided."""

    axis: int
    why: str


class Decision(NamedTuple):
    """Which axes hold what, counted from the front, and by what that was `decided`.

    Without ``sample_axis`` in it where that is the first one because nothing tells of another.
    """

    neuron_axis: int
    sample_axis: int
    decided: Mapping[str, str]


class UndecidedAxisError(OutputError):
    """Nothing tells which axis holds the neurons, or, as yet, the samples."""


@dataclass(frozen=True)
class Axes:
    """How the axes of one layer's tensors are found: by the user, its module, or a fallback.

    `time_first` is whether 3-D tensors here are (time, sample, neuron), None where only the tensors
    tell; without a `fallback` for the neurons nothing is decided where nothing tells.
    """

    layer: str
    module: nn.Module
    neuron_axis: int | None = None
    sample_axis: int | None = None
    time_first: bool | None = False
    where: Side = "after"
    output: str | None = None
    fallback: int | None = None

    def of(self, tensor: torch.Tensor) -> tuple[int, int]:
        """Return the neuron axis and the sample axis of a tensor; see :meth:`decide`."""
        return self.decide(tensor, self.class_axis)[:2]

    @property
    def are_told(self) -> bool:
        """Whether the axes are told by the user and the layer alone, whatever the tensor."""
        declared = self._declared()
        neurons = self.neuron_axis is not None or self.fallback is not None
        samples = self.sample_axis is not None or self.time_first is not None
        known = declared is not None and None not in declared
        return (neurons or known) and (samples or self._samples_by_class() is not None)

    @property
    def class_axis(self) -> Axis | None:
        """The neuron axis by a class that says no number: less than any tensor that is known."""
        declared = self._declared()
        if declared is None or declared.width is not None or declared.axis is None:
            return None
        return Axis(declared.axis, BY_CLASS)

    @property
    def sure_class_axis(self) -> Axis | None:
        """The same of what works on that axis alone, as pooling does, whatever it is given."""
        return None if kinds.keeps_layout(self.module) else self.class_axis

    def decide(
        self, tensor: torch.Tensor, neurons: Axis | None = None, samples: Axis | None = None
    ) -> Decision:
        """Return a tensor's axes; what is known from elsewhere counts where the layer is silent.

        UndecidedAxisError if nothing tells, OutputError if the tensor has no room for both, or the
        layer cannot have given it.
        """
        _check_number_of_axes(self.module, tensor)
        told = self.samples(tensor) or samples
        if told is None and self.time_first is None and tensor.ndim == 3:
            raise UndecidedAxisError(
                f"nothing tells whether samples or time come first in a {self._kind} with a "
                f"tensor of shape {tuple(tensor.shape)}; say which: "
                f"sample_axis={{{self.layer!r}: 1}}"
            )
        sample_axis, why_samples = told or Axis(0, "")
        neuron_axis, why = self._with_its_width(
            tensor, sample_axis, self.neurons(tensor, sample_axis) or neurons
        )
        if neuron_axis == sample_axis:
            raise OutputError(
                f"axis {neuron_axis} of {tuple(tensor.shape)} cannot hold both samples and "
                "neurons; pass sample_axis= or neuron_axis="
            )
        decided = {"neuron_axis": why}
        if why_samples:
            decided["sample_axis"] = why_samples
        return Decision(neuron_axis, sample_axis, decided)

    def neurons(self, tensor: torch.Tensor, sample_axis: int = 0) -> Axis | None:
        """Return the neuron axis, as far as the user and the layer itself tell it."""
        if self.neuron_axis is not None:
            return Axis(_counted_from_front(self.neuron_axis, tensor), BY_USER)
        declared = self._declared()
        if declared is not None and declared.width is not None:
            return _by_width(tensor, sample_axis, *declared)
        if tensor.ndim == 2:
            return Axis(1 - sample_axis, BY_SHAPE)
        return None

    def samples(self, tensor: torch.Tensor) -> Axis | None:
        """Return the sample axis, as far as the user and the layer itself tell it."""
        if self.sample_axis is not None:
            return Axis(_counted_from_front(self.sample_axis, tensor), BY_USER)
        if (axis := self._samples_by_class()) is not None:
            return Axis(axis if tensor.ndim == 3 else 0, BY_CLASS)
        if self.time_first and tensor.ndim == 3:
            return Axis(1, "the module it lies in")
        return None

    def _declared(self) -> kinds.Declared | None:
        if self.where == "before":
            return kinds.takes(self.module)
        return kinds.gives(self.module, self.output)

    def _samples_by_class(self) -> int | None:
        """Return the sample axis of a module whose class tells it."""
        if kinds.is_sequence_module(self.module):
            first = is_time_first(self.module)
            if self.where == "after":
                first = is_time_first_at(self.module, self.output, first)
            return int(first)
        declared = self._declared()
        if declared is None or declared.axis != 1:
            return None
        # What treats whole channels has its samples where its input has them.
        return None if self.class_axis and not self.sure_class_axis else 0

    def _with_its_width(self, tensor: torch.Tensor, sample_axis: int, axis: Axis | None) -> Axis:
        """Return an axis that was found, if the layer can have given it."""
        declared = None if self.neuron_axis is not None else self._declared()
        width = None if declared is None else declared.width
        if axis is not None and width in (None, tensor.shape[axis.axis]):
            return axis
        if axis is None and self.fallback is not None:
            return Axis(_counted_from_front(self.fallback, tensor), BY_DEFAULT)
        neurons = "" if width is None else f" of {width} neurons"
        raise UndecidedAxisError(
            f"nothing tells which axis holds the neurons of a {self._kind}{neurons} with a tensor "
            f"of shape {tuple(tensor.shape)}"
        )

    @property
    def _kind(self) -> str:
        return type(self.module).__name__


def _by_width(
    tensor: torch.Tensor, sample_axis: int, width: int | None, axis: int | None
) -> Axis | None:
    """Return the axis that has as many entries as the layer declares neurons."""
    if axis is not None:
        axis = axis % tensor.ndim
        if tensor.shape[axis] == width and axis != sample_axis:
            return Axis(axis, BY_WIDTH)
    wide = [n for n, size in enumerate(tensor.shape) if size == width and n != sample_axis]
    return Axis(wide[0], BY_WIDTH) if len(wide) == 1 else None


def _check_number_of_axes(module: nn.Module, tensor: torch.Tensor) -> None:
    if tensor.ndim < 2:
        raise OutputError(
            f"found a tensor of shape {tuple(tensor.shape)}, expected at least a sample axis "
            "and a neuron axis; exclude the layer"
        )
    if tensor.ndim + 1 == kinds.axes_of_a_batch(module):
        raise OutputError(
            f"a {type(module).__name__} with a tensor of shape {tuple(tensor.shape)} has "
            "no sample axis; feed batches, as in input.unsqueeze(0)"
        )


def _counted_from_front(axis: int, tensor: torch.Tensor) -> int:
    if not -tensor.ndim <= axis < tensor.ndim:
        raise OutputError(
            f"there is no axis {axis} in shape {tuple(tensor.shape)}; pass another neuron_axis= "
            "or sample_axis="
        )
    return axis % tensor.ndim


def choose(choice: _Choice | Mapping[str, _Choice] | None, name: str) -> _Choice | None:
    """Return what the user chose for all layers, or for one: by its name, or the first glob."""
    if not isinstance(choice, Mapping):
        return choice
    if name in choice:
        return choice[name]
    return next((axis for pattern, axis in choice.items() if fnmatchcase(name, pattern)), None)


def check_patterns(
    choice: object, names: Iterable[str], said: str, layers: str, error: type[CaptureError]
) -> None:
    """Raise an error where a name or glob has a choice, and fits none of these layers."""
    names = list(names)
    for pattern in choice if isinstance(choice, Mapping) else ():
        if not any(name == pattern or fnmatchcase(name, pattern) for name in names):
            fits = f"which fits none of the {layers}: {', '.join(names)}"
            raise error(f"{said} {str(pattern)!r}, {fits}")


def is_time_first_at(module: nn.Module, output: str | None, time_first: bool) -> bool:
    """Whether what lies at a path of a module's output has its samples in axis 1."""
    if output is None or output.split(".")[0] != "1":
        return time_first
    # Last states are (layer, sample, neuron), attention's weights (sample, target, source): both
    # whatever batch_first says.
    return isinstance(module, nn.RNNBase) or (
        time_first and not isinstance(module, nn.MultiheadAttention)
    )


def is_time_first(module: nn.Module) -> bool:
    """Whether a module takes and gives (time, sample, neuron), by its ``batch_first``."""
    if isinstance(module, nn.TransformerEncoder | nn.TransformerDecoder) and len(module.layers):
        return is_time_first(module.layers[0])
    own = getattr(module, "batch_first", None)
    attention = getattr(getattr(module, "self_attn", None), "batch_first", None)
    return own is False or attention is False
