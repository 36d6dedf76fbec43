"""One hook: from a module's call to rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tsstore.errors import OutputError
from tsstore.recording.outputs import first_tensor, value_at
from tsstore.recording.pack import Packed, check_packable, pack, rounded_threshold
from tsstore.recording.select import Target

Receiver = Callable[[Target, Packed], None]
"""Takes the rows of one call."""

Packer = Callable[[Target, torch.Tensor, float, int, int], Packed]
"""Packs a tensor by its threshold, neuron axis and sample axis."""


class ModelHook:
    """A hook on one module, which runs outside of compiled code.

    Copies of the model carry hooks that do nothing.

    Parameters
    ----------
    module
        The module.
    call
        Takes the module, its arguments, and its output or, before its call, keyword arguments.
    """

    def __init__(self, module: nn.Module, call: Callable[[nn.Module, Any, Any], None]) -> None:
        self._module = module
        self._call = call

    # A compiled model must not trace into the hook: it would drop or reorder it.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, module: nn.Module, arguments: Any, value: Any) -> None:
        """Pass a call on, unless it is that of a shallow copy, which shares the hooks."""
        if module is self._module:
            self._call(module, arguments, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return do_nothing

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[()]]:
        return _hook_of_a_copy, ()


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
    packer
        Makes the rows; None for :func:`tsstore.recording.pack.pack`.

    Attributes
    ----------
    enabled
        Set it to False to leave out this place for a while.
    """

    def __init__(
        self,
        target: Target,
        threshold: float,
        receive: Receiver,
        is_active: Callable[[], bool],
        packer: Packer | None = None,
    ) -> None:
        super().__init__(target.module, self._capture)
        self.target = target
        self.enabled = True
        self._threshold = threshold
        self._receive = receive
        self._is_active = is_active
        self._pack = packer or _pack_all
        self._thresholds: dict[torch.dtype, float] = {}

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
            tensor = self._tensor(captured)
            threshold = self._rounded_threshold(tensor.dtype)
            packed = self._pack(self.target, tensor, threshold, *self.target.axes.of(tensor))
        except OutputError as error:
            raise OutputError(f"{self.target.name}: {error}") from None
        self._receive(self.target, packed)

    def _tensor(self, captured: Any) -> torch.Tensor:
        if self.target.output is not None:
            captured = value_at(captured, self.target.output)
        tensor = first_tensor(captured)
        if tensor is None:
            before = self.target.where == "before"
            kind = "input" if before else f"output {type(captured).__name__}"
            raise OutputError(
                f"found no tensor in the {kind} of a {type(self.target.module).__name__}, "
                "expected one; exclude the layer"
            )
        check_packable(tensor)
        return tensor

    def _rounded_threshold(self, dtype: torch.dtype) -> float:
        if dtype not in self._thresholds:
            self._thresholds[dtype] = rounded_threshold(self._threshold, dtype)
        return self._thresholds[dtype]


def _pack_all(target: Target, *arguments: Any) -> Packed:
    return pack(*arguments)


def do_nothing(*arguments: Any) -> None:
    """Stand where a copied model had a hook."""


def _hook_of_a_copy() -> Callable[..., None]:
    return do_nothing
