"""One hook: from a module's call to rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tsstore.errors import OutputError
from tsstore.recording.pack import Packed, pack, rounded_threshold
from tsstore.recording.select import Target

Receiver = Callable[[Target, Packed], None]
"""Takes the rows of one call."""


def first_tensor(value: Any) -> torch.Tensor | None:
    """Return the first tensor in a module's input or output, however nested; None if none."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        return next((found for found in map(first_tensor, value) if found is not None), None)
    return None


class CaptureHook:
    """Packs what one module takes or gives, and hands the rows on.

    The rows are packed before anything else can run, so that an in-place operation that follows
    changes nothing. Copies of the hook, which copies of the model carry, do nothing.

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

    Attributes
    ----------
    enabled
        Set it to False to leave out this place for a while.
    """

    def __init__(
        self, target: Target, threshold: float, receive: Receiver, is_active: Callable[[], bool]
    ) -> None:
        self.target = target
        self.enabled = True
        self._threshold = threshold
        self._receive = receive
        self._is_active = is_active
        self._thresholds: dict[torch.dtype, float] = {}
        # A compiled model must not trace into the hook: it would drop or reorder it.
        self._capture_eagerly = torch.compiler.disable(self._capture)  # type: ignore[no-untyped-call]

    def attach(self) -> RemovableHandle:
        """Register the hook on its module."""
        if self.target.where == "before":
            return self.target.module.register_forward_pre_hook(self, with_kwargs=True)
        return self.target.module.register_forward_hook(self)

    def __call__(self, module: nn.Module, arguments: Any, value: Any) -> None:
        """Capture a call; `value` is the output, or the keyword arguments of a pre-hook."""
        if module is self.target.module and self.enabled and self._is_active():
            before = self.target.where == "before"
            self._capture_eagerly((arguments, value) if before else value)

    def _capture(self, value: Any) -> None:
        target = self.target
        tensor = first_tensor(value)
        if tensor is None:
            kind = "input" if target.where == "before" else f"output {type(value).__name__}"
            raise OutputError(
                f"{target.name}: found no tensor in the {kind} of a "
                f"{type(target.module).__name__}, expected one; exclude the layer"
            )
        threshold = self._thresholds.get(tensor.dtype)
        if threshold is None:
            threshold = rounded_threshold(self._threshold, tensor.dtype)
            self._thresholds[tensor.dtype] = threshold
        try:
            packed = pack(tensor, threshold, *target.axes.of(tensor))
        except OutputError as error:
            if str(error).startswith(target.axes.layer):
                raise
            raise OutputError(f"{target.name}: {error}; exclude the layer") from None
        self._receive(target, packed)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return do_nothing

    def __reduce__(self) -> str:
        return "do_nothing"


def do_nothing(*arguments: Any) -> None:
    """Stand where a copied model had a hook."""
