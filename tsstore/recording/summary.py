"""A table of what can be captured in a model, with hints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tsstore import bits
from tsstore.errors import OutputError, SelectionError
from tsstore.recording.axes import kinds
from tsstore.recording.axes.layer import LayerAxes, Waiting
from tsstore.recording.axes.tensor import BY_EXPERIMENT, Axes, Decision, UndecidedAxisError
from tsstore.recording.axes.watch import Watch
from tsstore.recording.packing.packed import check_packable
from tsstore.recording.packing.positions import is_share
from tsstore.recording.samples.differences import Findings
from tsstore.recording.samples.experiment import find_samples
from tsstore.recording.samples.inputs import arguments_of
from tsstore.recording.selection.outputs import first_tensor
from tsstore.recording.selection.recommended import RECOMMENDED, Firing
from tsstore.recording.selection.select import Target, is_leaf, select

if TYPE_CHECKING:
    import pandas as pd


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
        A batch of inputs, a tuple of arguments, or a mapping of keyword arguments such as
        ``{"input_ids": …}``. With it the model is run, in evaluation mode, and the table knows
        positions and which layer feeds which; with two samples or more it is run on two of them,
        one of which is replaced, and the table knows which entries are whose.
    samples
        Number of samples of a run that is planned: the table says what it will weigh.
    positions
        As `tsstore.capture` is told to take so many of each sample, or a share of them.

    Returns
    -------
    pandas.DataFrame
        A line for each module without others in it, by public name: its class, neurons, the axis
        that holds them and by what that was decided, which sample the entries along another axis
        belong to, as an experiment found it, positions and bytes of a sample (missing where they
        are not known), whether it is recommended,
        because a neuron fires just where its value is above 0, and a hint, which says why or what
        to mind. Bytes are those of rows before compression. With `samples` there is a column
        ``bytes`` for all of them. Without `example_input` nobody knows of activations that are
        functions.
    """
    import pandas as pd

    leaves = _leaves(model)
    firing = Firing(model, leaves)
    traces = _run(model, leaves, example_input, firing)
    findings = _findings(model, leaves, traces, example_input)
    rows = {}
    for leaf in leaves:
        trace, judgement = traces[leaf.name], firing.judge(leaf.name)
        trace.take(findings, leaf.name)
        rows[leaf.name] = _describe(leaf.module, trace, positions) | {
            "recommended": judgement.recommended,
            "hint": _hint(trace, judgement.reason),
        }
    whole = ["neurons", "neuron_axis", "positions", "bytes_per_sample"]
    columns = ["class", *whole[:2], "decided", *whole[2:], "recommended", "hint"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("layer")
    table = table.astype(dict.fromkeys(whole, "Int64") | {"recommended": "bool"})
    if samples is not None:
        table.insert(columns.index("recommended"), "bytes", table["bytes_per_sample"] * samples)
    return table


@dataclass
class _Trace:
    """What one run of the model showed of a layer."""

    neurons: int | None = None
    positions: int | None = None
    has_positions: bool = False
    calls: int = 0
    problem: str = ""
    decision: Decision | None = None
    samples: str = ""
    _given: list[Waiting] = field(default_factory=list)
    _decided: list[tuple[torch.Size, Decision]] = field(default_factory=list)

    def note(self, output: Any, watch: Watch) -> None:
        """Note a call of the layer, and what others tell of what it gives."""
        self.calls += 1
        try:
            given = first_tensor(output)
            if given is None:
                raise OutputError("gives no tensor")
            check_packable(given)
        except OutputError as error:
            self.problem = str(error)
            return
        shape = torch.empty(given.shape, device="meta")
        self._given.append(Waiting(shape, watch.clues_of(given)))

    def conclude(self, axes: Axes) -> None:
        """Decide which axes hold what, now that all that ran is known."""
        for waiting in self._given:
            try:
                self._add(waiting.tensor.shape, LayerAxes(axes).conclude(waiting))
            except UndecidedAxisError as error:
                self.problem = f"{error}; say which: neuron_axis={{{axes.layer!r}: -1}}"
            except OutputError as error:
                self.problem = str(error)

    def take(self, findings: Findings, name: str) -> None:
        """Take what an experiment found of the layer: its samples, and so its positions."""
        found = findings.found.get(name)
        if found is None:
            self.samples = findings.unclear.get(name, "")
            return
        if found.order != "single":
            self.samples = f"{found.entries} entries each, {found.order}: {BY_EXPERIMENT}"
        elif self.decision is not None and found.axis != self.decision.sample_axis:
            self.samples = f"axis {found.axis}: {BY_EXPERIMENT}"
        self.positions = 0
        for shape, decision in self._decided:
            values = shape[decision.neuron_axis] * shape[found.axis]
            self.positions += found.entries * shape.numel() // max(values, 1)

    def _add(self, shape: torch.Size, decision: Decision) -> None:
        """Add a call that gave a tensor."""
        self.decision = self.decision or decision
        self._decided.append((shape, decision))
        self.neurons = shape[decision.neuron_axis]
        entries = self.neurons * shape[decision.sample_axis]
        self.positions = (self.positions or 0) + shape.numel() // max(entries, 1)
        self.has_positions |= len(shape) > 2


def recommended_layers(model: nn.Module, example_input: Any) -> list[str]:
    """Return layers whose sign is their neurons' firing; SelectionError if none, or no example."""
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
    watch = Watch(model, leaves)
    traces = {leaf.name: _Trace() for leaf in leaves}
    if example is None:
        return traces
    handles = [
        leaf.module.register_forward_hook(
            lambda _, arguments, output, name=leaf.name: traces[name].note(output, watch)
        )
        for leaf in leaves
    ]
    try:
        watch.begin()
        with torch.no_grad(), _evaluating(model), firing.watching():
            arguments, keywords = arguments_of(example)
            model(*arguments, **keywords)
        if watch.following is not None:
            watch.following.by_shape.conclude()
        for leaf in leaves:
            traces[leaf.name].conclude(leaf.axes)
    finally:
        watch.end()
        for handle in handles:
            handle.remove()
    return traces


def _findings(
    model: nn.Module, leaves: list[Target], traces: Mapping[str, _Trace], example: Any
) -> Findings:
    """Return what an experiment finds of those layers that ran."""
    if example is None:
        return Findings()
    known = {name: trace.decision for name, trace in traces.items() if trace.decision}
    axes = {name: decision.neuron_axis for name, decision in known.items()}
    ran = [leaf for leaf in leaves if leaf.name in known]
    return find_samples(model, ran, *arguments_of(example), neuron_axes=axes)


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
        declared = kinds.gives(module)
        neurons = None if declared is None else declared.width
    size = None
    if neurons is not None and positions is not None:
        size = ceil(positions * bits.row_bytes(neurons))
    return {
        "class": type(module).__name__,
        "neurons": neurons,
        "neuron_axis": None if trace.decision is None else trace.decision.neuron_axis,
        "decided": "" if trace.decision is None else _reason(trace.decision, trace.samples),
        "positions": None if positions is None else ceil(positions),
        "bytes_per_sample": size,
    }


def _positions(trace: _Trace, wanted: int | float | None) -> float | None:
    """Return how many positions of a sample are recorded, on average; None if nobody knows."""
    if wanted is None or trace.positions is None:
        return trace.positions
    if is_share(wanted) and trace.has_positions:
        return trace.positions * wanted
    return trace.positions if is_share(wanted) else min(trace.positions, wanted * trace.calls)


def _reason(decision: Decision, samples: str) -> str:
    """Return by what a layer's axes were decided, and whose its entries are where that is seen."""
    why = decision.decided["neuron_axis"]
    if samples:
        return f"{why}; samples: {samples}"
    if decision.sample_axis == 0:
        return why
    return f"{why}; samples along axis {decision.sample_axis}: {decision.decided['sample_axis']}"


def _hint(trace: _Trace, reason: str) -> str:
    if trace.problem:
        return trace.problem
    if trace.calls > 1:
        calls = f"called {trace.calls} times a forward pass: as many layers, or calls='merge'"
        return f"{calls}; {reason}" if reason else calls
    return reason
