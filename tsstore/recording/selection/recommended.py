"""Which layers' sign is the firing of their neurons, and where "> 0" is a mere convention."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tsstore.recording.axes.watch import as_written
from tsstore.recording.selection.outputs import first_tensor, tensors_in, version_of
from tsstore.recording.selection.select import Target, class_names

RECOMMENDED = "recommended"
"""What :func:`tsstore.capture` takes as `layers` for those that are."""

_RECTIFIER = re.compile("ReLU|Relu|GELU|Gelu|ELU|SiLU|Silu|Mish|[Ss]wish")
"""In the names of activations, also of libraries' own, which let through what is above zero, and
hold at or near zero what is below."""

_RECTIFYING = {
    "relu", "relu6", "leaky_relu", "rrelu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish",
    "hardswish",
}  # fmt: skip
"""The same as functions; those in place have one more underscore."""

_ALWAYS_POSITIVE = (nn.Sigmoid, nn.Softmax, nn.Softmax2d, nn.Softplus, nn.Hardsigmoid)
_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
_CONVENTIONS: dict[str, tuple[type[nn.Module], ...]] = {
    "its states go from -1 to 1, and have no threshold": (nn.RNNBase, nn.RNNCellBase),
    "it is a table of numbers, which have no threshold": (nn.Embedding, nn.EmbeddingBag),
    "what it gives lies around 0, which is no threshold": (nn.LayerNorm, nn.RMSNorm),
    "it passes on the sign of what comes": (nn.modules.dropout._DropoutNd,),
    "it is alike on both sides of 0": (nn.Tanh, nn.Hardtanh, nn.Softsign, nn.Tanhshrink),
}

_NOTHING: tuple[str, Any] = "", None


class Judgement(NamedTuple):
    """Whether a layer's sign is the firing, and why."""

    recommended: bool
    reason: str


class Firing:
    """Finds out, while a model runs, which of its layers' signs are their neurons' firing.

    A neuron fires just where its value is above zero behind an activation that has its threshold
    there: one that lets through what is above, and holds at or near zero what is below (ReLU and
    its kin, ELU, GELU, SiLU, Mish, Hardswish; not tanh, which is as large on either side). Where
    that is a function, the layer before has the same signs. What a norm moves before its
    activation comes does not have them. What does not depend on the input is nothing of a sample,
    such as a network of relative positions. Of the layers none lies inside another.
    """

    def __init__(self, model: nn.Module, layers: Iterable[Target]) -> None:
        self._modules = {layer.name: layer.module for layer in layers}
        self._functions: dict[nn.Module, str] = {}
        self._followers: dict[nn.Module, nn.Module] = {}
        self._sequences = {
            first: second
            for parent in model.modules()
            if isinstance(parent, nn.Sequential)
            for first, second in pairwise(parent)
        }
        # By the tensor's address. The tensor is kept: an address that is freed is taken again.
        self._origins: dict[int, tuple[torch.Tensor, nn.Module, int | None]] = {}
        self._inside: nn.Module | None = None
        self._latest = _NOTHING
        self._constants = _Constants([*model.parameters(), *model.buffers()])
        self._constant: dict[nn.Module, bool] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what the model does meanwhile."""
        # What runs shows more than in what order modules stand.
        self._sequences.clear()
        handles = []
        for module in set(self._modules.values()):
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with as_written(), _Functions(self, self._constants):
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._origins.clear()
            self._constants.clear()

    def judge(self, name: str) -> Judgement:
        """Return whether a layer's sign is the firing, by its name."""
        module = self._modules[name]
        follower = self._followers.get(module) or self._sequences.get(module)
        if self._constant.get(module):
            return Judgement(False, "it is the same whatever the input is: nothing of a sample")
        if isinstance(module, _ALWAYS_POSITIVE):
            return Judgement(False, "its output is always on: nothing to count")
        if any(_RECTIFIER.search(name) and "GLU" not in name for name in class_names(module)):
            return Judgement(True, "an activation with its threshold at 0: on is firing")
        # An activation's sign is its own; what has weights gets its activation after the norm.
        if isinstance(follower, _NORMS) and next(module.parameters(), None) is not None:
            kind = type(follower).__name__
            return Judgement(False, f"feeds {kind}: its sign is not the activation's")
        if function := self._functions.get(module):
            return Judgement(True, f"{function} with its threshold at 0: on is firing")
        for reason, kinds in _CONVENTIONS.items():
            if isinstance(module, kinds):
                return Judgement(False, f'"> 0" is a convention here: {reason}')
        return Judgement(False, "")

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        self._inside = module
        taken = first_tensor(arguments)
        if taken is not None and (origin := self._origin_of(taken)) is not None:
            self._followers.setdefault(origin, module)

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        given, (name, result) = first_tensor(output), self._latest
        self._inside, self._latest = None, _NOTHING
        if given is None:
            return
        self._origins[id(given)] = given, module, version_of(given)
        self._constant[module] = given in self._constants and self._constant.get(module, True)
        if given is result:
            self._functions[module] = name

    def note_function(self, name: str, given: Any, result: Any) -> None:
        """Note a call of a function with its threshold at zero: of the layer before, or in it."""
        if self._inside is not None:
            self._latest = name, result
        elif (origin := self._origin_of(given, is_written=given is result)) is not None:
            self._functions.setdefault(origin, name)

    def _origin_of(self, tensor: Any, is_written: bool = False) -> nn.Module | None:
        """Return the layer that gave a tensor; None if others have written to it since."""
        if id(tensor) not in self._origins:
            return None
        _, module, version = self._origins[id(tensor)]
        expected = None if version is None else version + is_written
        return module if version_of(tensor) == expected else None


class _Constants:
    """Tensors that do not depend on the input: parameters, buffers, and what is made of them alone.

    Of what is not known to be one it is not believed: of a table of positions made anew, say.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        # Kept, as an address that is freed is taken again.
        self._held: dict[int, tuple[torch.Tensor, int | None]] = {}
        self.hold(tensors)

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._held and self._held[id(tensor)][1] == version_of(tensor)

    def clear(self) -> None:
        """Let all of them go."""
        self._held.clear()

    def hold(self, tensors: Iterable[torch.Tensor]) -> None:
        """Take in some tensors, as they are now: what is written to later is none any more."""
        self._held |= {id(tensor): (tensor, version_of(tensor)) for tensor in tensors}


class _Functions(TorchFunctionMode):
    """Notes calls of functions with their threshold at zero, and what is made of constants."""

    def __init__(self, firing: Firing, constants: _Constants) -> None:
        super().__init__()
        self._firing = firing
        self._constants = constants

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = keywords or {}
        taken = list(tensors_in((arguments, keywords)))
        is_constant = bool(taken) and all(tensor in self._constants for tensor in taken)
        result = function(*arguments, **keywords)
        name = getattr(function, "__name__", "")
        if is_constant:
            self._constants.hold([*taken, *tensors_in(result)])
        if name.rstrip("_") in _RECTIFYING:
            given = arguments[0] if arguments else keywords.get("input")
            self._firing.note_function(name.rstrip("_"), given, result)
        return result
