"""A table of what can be captured in a model, with hints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tsstore import bits
from tsstore.errors import OutputError
from tsstore.recording.outputs import first_tensor
from tsstore.recording.packed import check_packable
from tsstore.recording.sampling import is_share
from tsstore.recording.select import Target, select

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


def layers(
    model: nn.Module,
    example_input: Any = None,
    samples: int | None = None,
    positions: int | float | None = None,
) -> pd.DataFrame:
    """Return a table of the layers of a model that can be captured.

    Parameters
    ----------
    model
        The model; its mode, its parameters and its buffers stay as they are.
    example_input
        A batch of inputs, or a tuple of arguments. With it the model is run once, in evaluation
        mode, and the table knows positions and which layer feeds which.
    samples
        Number of samples of a run that is planned: the table says what it will weigh.
    positions
        As :func:`tsstore.capture` is told to take so many of each sample, or a share of them.

    Returns
    -------
    pandas.DataFrame
        A line for each module without children, by public name: its class, neurons, positions
        and bytes of a sample (missing where they are not known), and a hint. Bytes are those of
        rows before compression. With `samples` there is a column ``bytes`` for all of them.
    """
    import pandas as pd

    leaves = select(model, lambda _, module: next(module.children(), None) is None)
    if example_input is None:
        traces = _followers_in_sequences(model, leaves)
    else:
        traces = _run(model, leaves, example_input)
    rows = {leaf.name: _describe(leaf.module, traces[leaf.name], positions) for leaf in leaves}
    columns = ["class", "neurons", "positions", "bytes_per_sample", "hint"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("layer")
    whole = ["neurons", "positions", "bytes_per_sample"]
    table = table.astype(dict.fromkeys(whole, "Int64"))
    if samples is not None:
        table.insert(len(columns) - 1, "bytes", table["bytes_per_sample"] * samples)
    return table


@dataclass
class _Trace:
    """What is known of a layer: what one run of the model showed, and which module it feeds."""

    neurons: int | None = None
    positions: int | None = None
    has_positions: bool = False
    calls: int = 0
    problem: str = ""
    follower: nn.Module | None = None


class _Tracer:
    """Notes what each layer takes and gives, while the model runs."""

    def __init__(self, leaves: list[Target]) -> None:
        self.traces = {leaf.name: _Trace() for leaf in leaves}
        # By the tensor's address. The tensor is kept: an address that is freed is taken again.
        self._origins: dict[int, tuple[torch.Tensor, _Trace]] = {}

    def note(self, leaf: Target, arguments: Any, output: Any) -> None:
        """Note a call of a layer."""
        trace = self.traces[leaf.name]
        trace.calls += 1
        try:
            taken, given = first_tensor(arguments), first_tensor(output)
            if taken is not None and (origin := self._origins.get(id(taken))):
                origin[1].follower = origin[1].follower or leaf.module
            if given is None:
                raise OutputError("gives no tensor")
            self._origins[id(given)] = given, trace
            check_packable(given)
            neuron_axis, sample_axis = leaf.axes.of(given)
        except OutputError as error:
            trace.problem = str(error)
            return
        trace.neurons = given.shape[neuron_axis]
        entries = trace.neurons * given.shape[sample_axis]
        trace.positions = (trace.positions or 0) + given.numel() // max(entries, 1)
        trace.has_positions |= given.ndim > 2


def _run(model: nn.Module, leaves: list[Target], example: Any) -> dict[str, _Trace]:
    """Run the model once, in evaluation mode, and return what it showed of each layer."""
    tracer = _Tracer(leaves)
    handles = [
        leaf.module.register_forward_hook(
            lambda _, arguments, output, leaf=leaf: tracer.note(leaf, arguments, output)
        )
        for leaf in leaves
    ]
    try:
        with torch.no_grad(), _evaluating(model):
            model(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
    return tracer.traces


def _followers_in_sequences(model: nn.Module, leaves: list[Target]) -> dict[str, _Trace]:
    """Return the module that comes next, for layers directly in a Sequential."""
    following = {
        id(first): second
        for parent in model.modules()
        if isinstance(parent, nn.Sequential)
        for first, second in pairwise(parent)
    }
    return {leaf.name: _Trace(follower=following.get(id(leaf.module))) for leaf in leaves}


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


def _describe(module: nn.Module, trace: _Trace, wanted: int | float | None) -> dict[str, Any]:
    neurons, positions = trace.neurons, _positions(trace, wanted)
    if not trace.calls:
        neurons = _declared_neurons(module)
    size = None
    if neurons is not None and positions is not None:
        size = ceil(positions * bits.row_bytes(neurons))
    return {
        "class": type(module).__name__,
        "neurons": neurons,
        "positions": None if positions is None else ceil(positions),
        "bytes_per_sample": size,
        "hint": _hint(module, trace),
    }


def _positions(trace: _Trace, wanted: int | float | None) -> float | None:
    """Return how many positions of a sample are recorded, on average; None if nobody knows."""
    if wanted is None or trace.positions is None:
        return trace.positions
    if is_share(wanted) and trace.has_positions:
        return trace.positions * wanted
    return trace.positions if is_share(wanted) else min(trace.positions, wanted * trace.calls)


def _declared_neurons(module: nn.Module) -> int | None:
    for attribute in _NEURON_ATTRIBUTES:
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    shape = getattr(module, "normalized_shape", None)
    return int(shape[-1]) if isinstance(shape, tuple) and shape else None


def _hint(module: nn.Module, trace: _Trace) -> str:
    if trace.problem:
        return trace.problem
    if isinstance(module, _ALWAYS_POSITIVE):
        return "its output is always on: nothing to count"
    # An activation's sign is its own; what has weights gets its activation after the norm.
    if isinstance(trace.follower, _NORMS) and next(module.parameters(), None) is not None:
        return f"feeds {type(trace.follower).__name__}: its sign is not the activation's"
    if trace.calls > 1:
        return f"called {trace.calls} times a forward pass: as many layers, or calls='merge'"
    return ""
