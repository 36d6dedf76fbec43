"""What has been decided of one layer's axes: for good, once its first batch is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from tsstore.recording.axes.following import Clue, Clues
from tsstore.recording.axes.tensor import BY_SHAPE, Axes, Axis, Decision, UndecidedAxisError
from tsstore.recording.axes.watch import Watch
from tsstore.recording.samples.index import AS_MANY
from tsstore.store.format.attributes import LayerAttributes

_FIRST: Final = Axis(0, "")
"""Where samples are, if nothing tells of another axis."""
_EARLIER: Final = "earlier attempts"


class LayerAxes:
    """Decides which axes of one layer's tensors hold what.

    Until its first batch is over this may take what other modules say of its tensors, or what
    `earlier` attempts of the run recorded. From then on tensors with as many axes are treated
    alike, and nothing is looked for.
    """

    def __init__(
        self, axes: Axes, watch: Watch | None = None, earlier: Sequence[LayerAttributes] = ()
    ) -> None:
        self.axes = axes
        self._watch = watch
        self._earlier = earlier
        self._fixed: dict[int, Decision] = {}

    @property
    def are_fixed(self) -> bool:
        """Whether nothing that other modules say changes what is decided."""
        return self.axes.are_told or bool(self._fixed)

    @property
    def need_clues(self) -> bool:
        """Whether what other modules say is needed."""
        return not (self.are_fixed or self._earlier)

    def clues_of(self, tensor: torch.Tensor) -> Clues | None:
        """Return what is known of a tensor from others; None where nobody looks at these."""
        return None if self._watch is None else self._watch.clues_of(tensor)

    def fix(self, axes: int, decision: Decision) -> None:
        """Decide for good of all tensors with so many axes."""
        self._fixed[axes] = decision

    def decide(self, tensor: torch.Tensor) -> Decision:
        """Return a tensor's axes; UndecidedAxisError if nothing tells, OutputError if none fit."""
        if (fixed := self._fixed.get(tensor.ndim)) is not None:
            return fixed
        if self.axes.are_told:
            return self.axes.decide(tensor)
        if earlier := self._earlier_axes(tensor):
            return self.axes.decide(tensor, *earlier)
        if (clues := self.clues_of(tensor)) is None:
            return self.axes.decide(tensor)
        return self.axes.decide(tensor, self._neurons(tensor, clues.neurons), clues.samples.axis)

    def conclude(self, waiting: Waiting) -> Decision:
        """Return the axes of a tensor when its batch is over; see :meth:`decide`."""
        neurons = of_samples = None
        if waiting.clues is not None:
            neurons = self._neurons(waiting.tensor, waiting.clues.neurons)
            of_samples = waiting.clues.samples.axis
        neurons = neurons or self.axes.class_axis or _pooled(waiting.tensor)
        return self.axes.decide(waiting.tensor, neurons, of_samples or _FIRST)

    def _neurons(self, tensor: torch.Tensor, clue: Clue) -> Axis | None:
        """Return what others tell of the neurons, unless something speaks against all of it."""
        certain = self.axes.sure_class_axis
        # Its own width would be met by chance; else an axis that the next module tells is right.
        doubted = clue.axis is None or self.axes.neurons(tensor) is not None
        if clue.against and doubted and self.axes.neuron_axis is None:
            raise UndecidedAxisError(
                "nothing tells which axis holds the neurons of a "
                f"{type(self.axes.module).__name__} with a tensor of shape {tuple(tensor.shape)}: "
                f"{clue.against}"
            )
        return certain if certain and clue.axis and certain.axis == clue.axis.axis else clue.axis

    def _earlier_axes(self, tensor: torch.Tensor) -> tuple[Axis, Axis] | None:
        for layer in self._earlier:
            axes = layer.neuron_axis, layer.sample_axis
            if (
                _may_be_of(layer, tensor)
                and tensor.ndim > max(axes)
                and tensor.shape[layer.neuron_axis] == layer.neurons
            ):
                why = layer.decided or {"neuron_axis": _EARLIER}
                return (
                    Axis(layer.neuron_axis, why.get("neuron_axis", _EARLIER)),
                    Axis(layer.sample_axis, why.get("sample_axis", "")),
                )
        return None


@dataclass(frozen=True)
class Waiting:
    """A copy of a tensor whose axes nothing tells yet, and what others say of it, now or later."""

    tensor: torch.Tensor
    clues: Clues | None


def _may_be_of(layer: LayerAttributes, tensor: torch.Tensor) -> bool:
    """Whether a tensor has as many axes as those of a layer that was recorded, as far as known."""
    # One axis of positions may be that of several calls, and the first one several entries each.
    positions = len(layer.position_shape)
    one_each = (layer.decided or {}).get("sample_index") == AS_MANY
    return positions == 1 or tensor.ndim == positions + 2 or not one_each


def _pooled(tensor: torch.Tensor) -> Axis | None:
    """Return the neuron axis of pooled maps, (samples, neurons, 1, 1), of which nothing tells."""
    _, *sizes = tensor.shape
    is_pooled = len(sizes) > 2 and sizes[0] > 1 and set(sizes[1:]) == {1}
    return Axis(1, BY_SHAPE) if is_pooled else None
