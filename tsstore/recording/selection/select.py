"""Which modules of a model are captured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.hooks import RemovableHandle

from tsstore.errors import SelectionError
from tsstore.recording.axes import kinds
from tsstore.recording.axes.tensor import (
    Axes,
    AxisChoice,
    Side,
    check_patterns,
    choose,
    is_time_first,
)
from tsstore.recording.selection.outputs import OutputChoice, value_at

Selector = str | type[nn.Module] | nn.Module | Callable[[str, nn.Module], bool]
"""A name, a glob, a class name, a class, a module, or a predicate (name, module) -> bool.

A class, or its name, means its subclasses, too.
"""

Where = Literal["after", "before", "both"]


@dataclass(frozen=True)
class Target:
    """One place where states are captured: what a module gives, or with ``:before`` what it takes.

    One that the user `named` must run. `output` is the tensor's path; None for the first one.
    """

    name: str
    module: nn.Module
    where: Side
    named: bool
    axes: Axes
    output: str | None = None

    def register(self, hook: Callable[..., None]) -> RemovableHandle:
        """Register a hook that is called where this is."""
        if self.where == "before":
            return self.module.register_forward_pre_hook(hook, with_kwargs=True)
        return self.module.register_forward_hook(hook)

    def value(self, arguments: Any, value: Any) -> Any:
        """Return what to capture of a call, by what a hook is called with; else OutputError."""
        captured = value if self.where == "after" else (arguments, value)
        return captured if self.output is None else value_at(captured, self.output)

    def parameters(self, neurons: int) -> int | None:
        """Count the module's own parameters; None where not each neuron has its share of them.

        A neuron's weights lie along an axis with an entry for each neuron: the first one of most
        layers, the last one of an embedding. What goes into a module has none of its own.
        """
        if self.where == "before":
            return 0
        # What makes the weights of a parametrized module counts as its own.
        own = list(self.module.parameters(recurse=is_leaf(self.module)))
        if not own:
            return 0
        of_others = isinstance(self.module, nn.RNNBase) or not is_leaf(self.module)
        if of_others or any(is_lazy(weights) or neurons not in weights.shape for weights in own):
            return None
        return sum(weights.numel() for weights in own)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile's and DistributedDataParallel's wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model


def public_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module with its public names, without those of wrappers; the model itself last."""
    inner = unwrapped(model)
    yield from _inner_modules(inner, "")
    yield type(inner).__name__, inner


def is_leaf(module: nn.Module) -> bool:
    """Whether no layers lie inside a module."""
    return next(_children(module), None) is None


def _children(parent: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules in a module by name; what makes its weights is none of them."""
    # Not named_children(): it gives a module that has two names under the first one only.
    parametrized = is_parametrized(parent)
    for name, child in parent._modules.items():
        if child is not None and not (parametrized and name == "parametrizations"):
            yield name, child


def _inner_modules(parent: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in _children(parent):
        module = unwrapped(child)
        yield prefix + name, module
        yield from _inner_modules(module, f"{prefix}{name}.")


def select(
    model: nn.Module,
    layers: Selector | Iterable[Selector] | None,
    exclude: Selector | Iterable[Selector] = (),
    where: Where = "after",
    neuron_axis: AxisChoice = None,
    sample_axis: AxisChoice = None,
    outputs: OutputChoice = None,
) -> list[Target]:
    """Return the places of a model where states are captured, in the order of its modules.

    Arguments are those of :func:`tsstore.capture`. SelectionError if nothing is selected, a name
    matches nothing, or a module cannot be hooked.
    """
    if where not in ("after", "before", "both"):
        raise SelectionError(f"where is {where!r}; expected 'after', 'before' or 'both'")
    _refuse_unhookable(model)
    modules = list(public_modules(model))
    wanted = _as_list(layers)
    chosen = _choose(modules, wanted, _as_list(exclude))
    _check_outputs(outputs, [name for name, _ in chosen])
    time_first = time_first_modules(model)
    sides: tuple[Side, ...] = ("before", "after") if where == "both" else (where,)
    targets = []
    for name, module in chosen:
        axes = Axes(
            name,
            module,
            choose(neuron_axis, name),
            choose(sample_axis, name),
            time_first(module),
        )
        named = any(
            selector == name or (isinstance(selector, nn.Module) and unwrapped(selector) is module)
            for selector in wanted
        )
        output = choose(outputs, name)
        targets += [_target(side, named, axes, output) for side in sides]
    return targets


def _target(side: Side, named: bool, axes: Axes, output: str | None) -> Target:
    name = f"{axes.layer}:before" if side == "before" else axes.layer
    output = None if side == "before" else output
    axes = replace(axes, where=side, output=output)
    return Target(name, axes.module, side, named, axes, output)


def _choose(
    modules: list[tuple[str, nn.Module]], wanted: list[Selector], unwanted: list[Selector]
) -> list[tuple[str, nn.Module]]:
    """Return what is selected: each module once, under the first name that was."""
    for selector in wanted:
        by_name = isinstance(selector, str | nn.Module)
        if by_name and not any(_matches(selector, *module) for module in modules):
            raise _nothing_matches(selector, modules)
    chosen: dict[int, tuple[str, nn.Module]] = {}
    for name, module in modules:
        if _any(wanted, name, module) and not _any(unwanted, name, module):
            chosen.setdefault(id(module), (name, module))
    if not chosen:
        raise SelectionError(f"no layer is selected; there are {_listing(modules)}")
    for name, module in chosen.values():
        _refuse_scripted(name, module)
    return list(chosen.values())


def _refuse_scripted(name: str, module: nn.Module) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise SelectionError(
            f"{name} is a ScriptModule, which cannot be hooked; capture the model before "
            "torch.jit.script"
        )


def _refuse_unhookable(model: nn.Module) -> None:
    _refuse_scripted("the model", model)
    if any(isinstance(module, nn.DataParallel) for module in model.modules()):
        raise SelectionError(
            "the model is, or holds, a DataParallel, whose replicas share no hooks; capture its "
            ".module on one device, or use DistributedDataParallel"
        )


def _check_outputs(outputs: OutputChoice, names: list[str]) -> None:
    """Raise SelectionError where a path is none, or is for a layer that is not captured."""
    paths = outputs if isinstance(outputs, Mapping) else {"*": outputs} if outputs else {}
    for pattern, path in paths.items():
        if not isinstance(path, str) or not path:
            raise SelectionError(
                f"outputs has {path!r:.80} for {pattern!r}; expected a path: keys, indices or "
                "attributes with dots between them, as in '1.0'"
            )
    check_patterns(paths, names, "outputs names", "layers that are captured", SelectionError)


def _as_list(selectors: Selector | Iterable[Selector] | None) -> list[Selector]:
    if selectors is None:
        return []
    if isinstance(selectors, str) or not isinstance(selectors, Iterable) or callable(selectors):
        return [selectors]
    return list(selectors)


def _any(selectors: list[Selector], name: str, module: nn.Module) -> bool:
    return any(_matches(selector, name, module) for selector in selectors)


def _matches(selector: Selector, name: str, module: nn.Module) -> bool:
    if isinstance(selector, str):
        names = (name, *class_names(module))
        return selector in names or any(fnmatchcase(each, selector) for each in names)
    if isinstance(selector, nn.Module):
        return unwrapped(selector) is module
    if isinstance(selector, type):
        return isinstance(module, selector)
    if callable(selector):
        return bool(selector(name, module))
    raise SelectionError(
        f"{selector!r:.80} selects no layer; expected a name, a glob, a class, a module or a "
        "predicate"
    )


def class_names(module: nn.Module) -> list[str]:
    """Return the names of a module's class and its bases: parametrisations derive classes anew."""
    own, *bases = type(module).__mro__
    return [own.__name__, *(base.__name__ for base in bases if base not in (nn.Module, object))]


def _nothing_matches(selector: Selector, modules: list[tuple[str, nn.Module]]) -> SelectionError:
    if not isinstance(selector, str):
        return SelectionError(
            f"the selected {type(selector).__name__} is no module of the model; there are "
            f"{_listing(modules)}"
        )
    names = [name for name, _ in modules] + sorted({type(module).__name__ for _, module in modules})
    close = get_close_matches(selector, names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {_listing(modules)}"
    return SelectionError(f"no module is named or matched by {selector!r}; {hint}")


def _listing(modules: list[tuple[str, nn.Module]], most: int = 40) -> str:
    leaves = [f"{name} ({type(module).__name__})" for name, module in modules if is_leaf(module)]
    more = f" and {len(leaves) - most} more" if len(leaves) > most else ""
    return ", ".join(leaves[:most]) + more + "; see tsstore.layers(model)"


def time_first_modules(model: nn.Module) -> Callable[[nn.Module], bool | None]:
    """Return what tells whether 3-D tensors of a module are (time, sample, neuron); None: maybe."""
    known = [module for module in model.modules() if is_time_first(module)]
    inside = {
        id(inner)
        for module in known
        for inner in (module.modules() if kinds.is_sequence_module(module) else (module,))
    }
    return lambda module: True if id(module) in inside else (None if known else False)
