"""A table of what can be captured in a model, with hints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tsstore import bits
from tsstore.errors import OutputError, SelectionError
from tsstore.recording.example import arguments_of
from tsstore.recording.outputs import first_tensor
from tsstore.recording.packed import check_packable
from tsstore.recording.recommended import RECOMMENDED, Firing
from tsstore.recording.select import Target, is_leaf, select

if TYPE_CHECKING:
    import pandas as pd

_NEURON_ATTRIBUTES = (
    "out_channels", "out_features", "num_features", "num_channels", "embedding_dim", "hidden_size",
    "embed_dim",
)  # fmt: skip


def layers(
    model: nn.Module,
    example_input: Any = None,
    samples: int | None = None,
    positions: int | None = None,
) -> pd.DataFrame:
    """Return a table of the layers of a model that can be captured.

    Parameters
    ----------
    model
        The model; its mode, its parameters and its buffers stay as they are.
    example_input
        A batch of inputs, a tuple of arguments, or a mapping of keyword arguments such as
        ``{"input_ids": …}``. With it the model is run once, in evaluation mode, and the table
        knows positions and which layer feeds which.
    samples
        Number of samples of a run that is planned: the table says what it will weigh.
    positions
        As :func:`tsstore.capture` is told to take so many of each sample.

    Returns
    -------
    pandas.DataFrame
        A line for each module without others in it, by public name: its class, neurons, positions
        and bytes of a sample (missing where they are not known), whether it is recommended,
        because a neuron fires just where its value is above 0, and a hint, which says why or what
        to mind. Bytes are those of rows before compression. With `samples` there is a column
        ``bytes`` for all of them. Without `example_input` nobody knows of activations that are
        functions.
    """
    import pandas as pd

    leaves = _leaves(model)
    firing = Firing(model, leaves)
    traces = _run(model, leaves, example_input, firing)
    rows = {}
    for leaf in leaves:
        trace, judgement = traces[leaf.name], firing.judge(leaf.name)
        rows[leaf.name] = _describe(leaf.module, trace, positions) | {
            "recommended": judgement.recommended,
            "hint": _hint(trace, judgement.reason),
        }
    columns = ["class", "neurons", "positions", "bytes_per_sample", "recommended", "hint"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("layer")
    whole = ["neurons", "positions", "bytes_per_sample"]
    table = table.astype(dict.fromkeys(whole, "Int64") | {"recommended": "bool"})
    if samples is not None:
        table.insert(4, "bytes", table["bytes_per_sample"] * samples)
    return table


@dataclass
class _Trace:
    """What one run of the model showed of a layer."""

    neurons: int | None = None
    positions: int | None = None
    calls: int = 0
    problem: str = ""


class _Tracer:
    """Notes what each layer takes and gives, while the model runs."""

    def __init__(self, leaves: list[Target]) -> None:
        self.traces = {leaf.name: _Trace() for leaf in leaves}

    def note(self, leaf: Target, output: Any) -> None:
        """Note a call of a layer."""
        trace = self.traces[leaf.name]
        trace.calls += 1
        try:
            given = first_tensor(output)
            if given is None:
                raise OutputError("gives no tensor")
            check_packable(given)
            neuron_axis, sample_axis = leaf.axes.of(given)
        except OutputError as error:
            trace.problem = str(error)
            return
        trace.neurons = given.shape[neuron_axis]
        entries = trace.neurons * given.shape[sample_axis]
        trace.positions = (trace.positions or 0) + given.numel() // max(entries, 1)


def recommended_layers(model: nn.Module, example_input: Any) -> list[str]:
    """Return the names of the layers whose sign is the firing of their neurons.

    Raises
    ------
    SelectionError
        If there is none, or no example input.
    """
    if example_input is None:
        raise SelectionError(
            f"found layers={RECOMMENDED!r} without an example input; expected capture(…, "
            "example_input=…), a batch on which the model is run once"
        )
    leaves = _leaves(model)
    firing = Firing(model, leaves)
    _run(model, leaves, example_input, firing)
    names = [leaf.name for leaf in leaves if firing.judge(leaf.name).recommended]
    if not names:
        raise SelectionError(
            "no layer's sign is the firing of its neurons: none is an activation with its "
            "threshold at 0, or comes before one; choose layers=, see the hints in "
            "tsstore.layers(model, example_input)"
        )
    return names


def _leaves(model: nn.Module) -> list[Target]:
    return select(model, lambda _, module: is_leaf(module))


def _run(model: nn.Module, leaves: list[Target], example: Any, firing: Firing) -> dict[str, _Trace]:
    """Run the model once, in evaluation mode, and return what it showed of each layer."""
    tracer = _Tracer(leaves)
    if example is None:
        return tracer.traces
    handles = [
        leaf.module.register_forward_hook(
            lambda _, arguments, output, leaf=leaf: tracer.note(leaf, output)
        )
        for leaf in leaves
    ]
    try:
        with torch.no_grad(), _evaluating(model), firing.watching():
            arguments, keywords = arguments_of(example)
            model(*arguments, **keywords)
    finally:
        for handle in handles:
            handle.remove()
    return tracer.traces


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


def _describe(module: nn.Module, trace: _Trace, most: int | None) -> dict[str, Any]:
    neurons, positions = trace.neurons, trace.positions
    if most is not None and positions is not None:
        positions = min(positions, most * trace.calls)
    if not trace.calls:
        neurons = _declared_neurons(module)
    size = None if neurons is None or positions is None else positions * bits.row_bytes(neurons)
    return {
        "class": type(module).__name__,
        "neurons": neurons,
        "positions": positions,
        "bytes_per_sample": size,
    }


def _declared_neurons(module: nn.Module) -> int | None:
    for attribute in _NEURON_ATTRIBUTES:
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    shape = getattr(module, "normalized_shape", None)
    return int(shape[-1]) if isinstance(shape, tuple) and shape else None


def _hint(trace: _Trace, reason: str) -> str:
    if trace.problem:
        return trace.problem
    if trace.calls > 1:
        calls = f"called {trace.calls} times a forward pass: as many layers, or calls='merge'"
        return f"{calls}; {reason}" if reason else calls
    return reason
