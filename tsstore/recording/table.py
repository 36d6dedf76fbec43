"""A table of what can be captured in a model, with hints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tsstore import bits
from tsstore.errors import OutputError
from tsstore.recording.hook import first_tensor
from tsstore.recording.select import select

if TYPE_CHECKING:
    import pandas as pd

_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
_ALWAYS_POSITIVE = (nn.Sigmoid, nn.Softmax, nn.Softmax2d, nn.Softplus, nn.Hardsigmoid)
_NEURON_ATTRIBUTES = (
    "out_channels", "out_features", "num_features", "num_channels", "embedding_dim", "hidden_size",
    "embed_dim",
)  # fmt: skip


def layers(model: nn.Module, example_input: Any = None) -> pd.DataFrame:
    """Return a table of the layers of a model that can be captured.

    Parameters
    ----------
    model
        The model; its mode, its parameters and its buffers stay as they are.
    example_input
        A batch of inputs, or a tuple of arguments. With it the model is run once, in evaluation
        mode, and the table knows positions and which layer feeds which.

    Returns
    -------
    pandas.DataFrame
        A line for each module without children, by public name: its class, neurons, positions
        and bytes of a sample (missing where they are not known), and a hint.
    """
    import pandas as pd

    leaves = _leaves(model)
    traces = {} if example_input is None else _trace(model, leaves, example_input)
    followers = _followers(model, leaves, traces)
    rows = {
        name: _describe(module, traces.get(name), followers.get(name))
        for name, module in leaves.items()
    }
    columns = ["class", "neurons", "positions", "bytes_per_sample", "hint"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("layer")
    whole = ["neurons", "positions", "bytes_per_sample"]
    return table.astype(dict.fromkeys(whole, "Int64"))


@dataclass
class _Trace:
    """What one run of the model showed of a layer."""

    neurons: int | None = None
    positions: int | None = None
    calls: int = 0
    problem: str = ""
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


def _leaves(model: nn.Module) -> dict[str, nn.Module]:
    targets = select(model, lambda _, module: next(module.children(), None) is None)
    return {target.name: target.module for target in targets}


def _trace(model: nn.Module, leaves: dict[str, nn.Module], example: Any) -> dict[str, _Trace]:
    """Run the model once and note what each layer takes and gives."""
    targets = {target.name: target for target in select(model, list(leaves))}
    traces: dict[str, _Trace] = {}
    # Tensors are kept while the model runs: the address of a freed one could be taken again.
    alive: list[torch.Tensor] = []

    def note(name: str, arguments: Any, output: Any) -> None:
        trace = traces.setdefault(name, _Trace())
        trace.calls += 1
        given, taken = first_tensor(output), first_tensor(arguments)
        for tensor, addresses in ((taken, trace.inputs), (given, trace.outputs)):
            if tensor is not None:
                alive.append(tensor)
                addresses.append(id(tensor))
        if given is None:
            trace.problem = "gives no tensor"
            return
        try:
            neuron_axis, sample_axis = targets[name].axes.of(given)
        except OutputError as error:
            trace.problem = str(error).removeprefix(f"{name}: ")
            return
        trace.neurons = given.shape[neuron_axis]
        others = trace.neurons * max(given.shape[sample_axis], 1)
        trace.positions = (trace.positions or 0) + given.numel() // max(others, 1)

    handles = [
        module.register_forward_hook(lambda _, given, output, name=name: note(name, given, output))
        for name, module in leaves.items()
    ]
    try:
        with torch.no_grad(), _evaluating(model):
            model(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
    return traces


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while, then each module back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _followers(
    model: nn.Module, leaves: dict[str, nn.Module], traces: dict[str, _Trace]
) -> dict[str, nn.Module]:
    """Return the module that takes each layer's output: as seen, or next in a Sequential."""
    if traces:
        takers = {
            address: leaves[name] for name, trace in traces.items() for address in trace.inputs
        }
        return {
            name: takers[address]
            for name, trace in traces.items()
            for address in trace.outputs
            if address in takers
        }
    following = {
        id(first): second
        for parent in model.modules()
        if isinstance(parent, nn.Sequential)
        for first, second in zip(list(parent), list(parent)[1:], strict=False)
    }
    return {
        name: following[id(module)] for name, module in leaves.items() if id(module) in following
    }


def _describe(
    module: nn.Module, trace: _Trace | None, follower: nn.Module | None
) -> dict[str, Any]:
    neurons = trace.neurons if trace else _declared_neurons(module)
    positions = trace.positions if trace else None
    size = None if neurons is None or positions is None else positions * bits.row_bytes(neurons)
    return {
        "class": type(module).__name__,
        "neurons": neurons,
        "positions": positions,
        "bytes_per_sample": size,
        "hint": _hint(module, trace, follower),
    }


def _declared_neurons(module: nn.Module) -> int | None:
    for attribute in _NEURON_ATTRIBUTES:
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    shape = getattr(module, "normalized_shape", None)
    return int(shape[-1]) if isinstance(shape, tuple) and shape else None


def _hint(module: nn.Module, trace: _Trace | None, follower: nn.Module | None) -> str:
    if trace and trace.problem:
        return trace.problem
    if isinstance(module, _ALWAYS_POSITIVE):
        return "its output is always on: nothing to count"
    if isinstance(follower, _NORMS):
        return f"feeds {type(follower).__name__}: its sign is not the activation's"
    if trace and trace.calls > 1:
        return f"called {trace.calls} times a forward pass: as many layers, or calls='merge'"
    return ""
