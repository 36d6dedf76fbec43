"""What a hook is called with that was placed by hand, on one module or several, or on none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from tsstore.errors import OutputError
from tsstore.recording.axes import kinds
from tsstore.recording.axes.tensor import Axes, Side
from tsstore.recording.selection.outputs import first_tensor
from tsstore.recording.selection.select import Target, select


@dataclass(frozen=True)
class ByHand:
    """Finds the tensor in what torch calls a hook with; samples and neurons come to the front."""

    name: str
    neuron_axis: int | None = None
    sample_axis: int | None = None
    _axes: dict[tuple[nn.Module, Side], Axes] = field(default_factory=dict)

    def target(self, module: nn.Module | None, side: Side) -> Target:
        """Return where to capture tensors whose axes are (sample, neuron, ...)."""
        # The axes of an Identity: no class says anything against those that were chosen.
        axes = Axes(self.name, nn.Identity(), neuron_axis=1, sample_axis=0)
        return Target(self.name, axes.module if module is None else module, side, True, axes)

    def side(
        self, hook: Callable[..., object], module: nn.Module | None, values: tuple[Any, ...]
    ) -> Side:
        """Return whether a hook was called before its module or after it."""
        if len(values) == 2 and module is not None:
            # Before the call, with keyword arguments, or after it without them.
            before = hook in module._forward_pre_hooks.values()
            return "before" if before and hook not in module._forward_hooks.values() else "after"
        return "before" if len(values) == 1 else "after"

    def tensor(self, module: nn.Module | None, side: Side, values: tuple[Any, ...]) -> torch.Tensor:
        """Return what there is to capture, with axes (sample, neuron, ...); else OutputError."""
        tensor = first_tensor(values if side == "before" else values[-1])
        if tensor is None:
            raise OutputError(f"{self.name}: found no tensor {side} the call; remove the hook")
        try:
            neurons, samples = self._axes_of(module, side, tensor).of(tensor)
        except OutputError as error:
            raise OutputError(
                f"{self.name}: {error}; tell the hook, as in "
                f"StateCaptureHook({self.name!r}, neuron_axis=…)"
            ) from None
        return tensor.movedim((samples, neurons), (0, 1))

    def _axes_of(self, module: nn.Module | None, side: Side, tensor: torch.Tensor) -> Axes:
        # As in TensorState, but for three axes: (sample, token, neuron) is as usual.
        fallback = None if tensor.ndim == 3 else 1
        choices = self.neuron_axis, self.sample_axis
        if module is None:
            return Axes(self.name, nn.Identity(), *choices, fallback=fallback)
        if (module, side) not in self._axes:
            (target,) = select(module, module, (), side, *choices)
            self._axes[module, side] = replace(target.axes, layer=self.name)
        axes = self._axes[module, side]
        # What it was given is not seen: (sample, height, width, neuron) is as usual as well.
        return replace(axes, fallback=None if kinds.keeps_layout(module) else fallback)
