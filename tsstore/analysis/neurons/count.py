"""Counting what single neurons of a run's layers do: by itself, or as states are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, Unpack, overload

import numpy as np
import numpy.typing as npt

from tsstore.analysis.analyze import chosen_run
from tsstore.analysis.comparing.comparison import Comparison, common_layers, warnings_of
from tsstore.analysis.comparing.together import Together, analyze_together, memory_checks
from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.groups.analyze import analyze_groups
from tsstore.analysis.groups.grouping import Grouping, group
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.memory import all_fit
from tsstore.analysis.neurons.firing import count_by_group, firing_bytes, layer_pass, plan_by_group
from tsstore.analysis.neurons.layer import LayerNeurons
from tsstore.analysis.neurons.matrix import (
    check_positions,
    count_joint_firing,
    count_with_positions,
    plan_pairs,
    plan_positions,
)
from tsstore.analysis.neurons.results import GroupedNeurons, Neurons
from tsstore.analysis.request import (
    Bins,
    Layers,
    Request,
    Run,
    Where,
    check_rows,
    countable,
    running,
    with_layers,
)
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.runs import analyze_runs
from tsstore.analysis.schedulers import Scheduler
from tsstore.counting.firing import Firing, add_firing
from tsstore.errors import AnalysisError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.store import StateStore
from tsstore.text import Progress


class Ungrouped(Where, total=False):
    """What else may be asked for where no groups are counted."""

    by: None
    bins: None
    window: None
    joint: bool
    maps: bool


@overload
def neurons(store: Run, layers: Layers = None, **options: Unpack[Ungrouped]) -> Neurons: ...
@overload
def neurons(
    store: Run, layers: Layers = None, *, by: str, bins: Bins = None, **options: Unpack[Where]
) -> GroupedNeurons: ...
@overload
def neurons(
    store: Run, layers: Layers = None, *, window: int, **options: Unpack[Where]
) -> GroupedNeurons: ...
@overload
def neurons(
    store: Run,
    layers: Layers = None,
    *,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
    joint: bool = False,
    maps: bool = False,
    **options: Unpack[Where],
) -> Neurons | GroupedNeurons: ...
def neurons(
    store: Run,
    layers: Layers = None,
    *,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
    joint: bool = False,
    maps: bool = False,
    memory: int | str | None = None,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> Neurons | GroupedNeurons:
    """Count how often each neuron fires, and find dead, always-on and duplicate ones.

    Each layer's rows are read once. All samples count, those that repeat others as well.

    Parameters
    ----------
    store
        A run, or its path; what is committed now is counted.
    layers
        Names of layers; all unless given.
    by, bins, window
        Count groups of samples, each as if there were no others: as for `tsstore.analyze`.
    joint
        Whether to count in how many rows two neurons fire, of all pairs of a layer, for
        `LayerNeurons.joint` and `LayerNeurons.near_identical`: a pass of its own, whose work grows
        with the square of the neurons.
    maps
        Whether to count how often each neuron fires at each position of the samples, for
        `LayerNeurons.map`, in the same pass.
    memory
        What one process may add to its baseline, in bytes or as ``"2GiB"``; a quarter of what
        there is unless given. Where it does not hold what is counted of all groups, pairs or
        positions, rows are read several times, for some of them each.
    scheduler
        As for `tsstore.analyze`.
    progress
        Called as ``progress(layer, tasks done, all tasks)``.

    Returns
    -------
    Neurons or GroupedNeurons
        A mapping from layer names to what their neurons did; with `by` or `window` always one of
        each group, and of all together unless they are of several steps.

    Raises
    ------
    NotAStoreError, FormatError, DamageError
        If the store cannot be read.
    EmptyStoreError
        If nothing has been committed.
    UnknownLayerError
        If there is no such layer.
    MemoryTooSmallError
        If the memory holds not even one task.
    AnalysisError
        If the run holds several steps and is not counted by step, there are more than 1,000 groups,
        pairs or maps are asked for by group, a layer has no map as its samples have other
        positions, or memory, scheduler, bins or window make no sense.
    """
    request = Request(memory, scheduler, progress, by=by, bins=bins, window=window)
    store = with_layers(countable(store, by, "neurons"), layers)
    if not request.in_groups:
        with running(request, store) as runner:
            return _count_run(store, request, runner, joint, maps)
    if joint or maps:
        raise AnalysisError(
            "joint= and maps= count all samples together; leave out by= and window=, and filter "
            "those of a group: tsstore.neurons(store.filter(label=3), joint=True)"
        )
    grouping = group(store, request)
    grouping.check_rows(store)
    with running(request, store) as runner:
        return _count_groups(store, request, runner, grouping)


def _count_run(
    store: StateStore, request: Request, runner: Scheduler, joint: bool, maps: bool
) -> Neurons:
    """Count all samples together."""
    memory = runner.memory(request.memory)
    for states in store.values():
        check_rows(states)
        if maps:
            check_positions(states)
    all_fit(_checks_of_run(store, memory, runner, joint, maps))
    found, kept = {}, 0
    for name, states in store.items():
        report = request.report(name)
        pairs = by_position = None
        if maps:
            counted, by_position = count_with_positions(states, memory, runner, report, kept)
            kept += by_position.nbytes
        else:
            counted = layer_pass(states, kept).run(memory, runner, report)
        kept += firing_bytes(states.neurons)
        if joint:
            pairs = count_joint_firing(states, memory, runner, report, kept)
            kept += pairs.nbytes
        found[name] = of_layer(states, counted, pairs, by_position)
    return Neurons(store.path, found)


def _checks_of_run(
    store: StateStore, memory: int, runner: Scheduler, joint: bool, maps: bool
) -> Iterator[Callable[[], object]]:
    """Yield what raises MemoryTooSmallError where :func:`_count_run` has too little memory."""
    kept = 0
    for states in store.values():
        if maps:
            yield partial(plan_positions, states, memory, runner, kept)
            kept += 8 * check_positions(states) * states.neurons
        else:
            yield partial(layer_pass(states, kept).check, memory, runner)
        kept += firing_bytes(states.neurons)
        if joint:
            yield partial(plan_pairs, states, memory, runner, kept)
            kept += 8 * states.neurons**2


def of_layer(
    states: LayerStates,
    counted: Firing,
    pairs: npt.NDArray[np.int64] | None = None,
    by_position: npt.NDArray[np.int64] | None = None,
) -> LayerNeurons:
    """Return what was counted of a layer, with what else is told of its neurons."""
    told = states.attributes.position_shape, states.attributes.parameters
    return LayerNeurons(states.name, counted, pairs, by_position, *told)


def _count_groups(
    store: StateStore, request: Request, runner: Scheduler, grouping: Grouping
) -> GroupedNeurons:
    """Count each group, and all samples together where they are of one step."""
    number, codes, memory = len(grouping.values), grouping.codes, runner.memory(request.memory)
    groups: list[dict[str, LayerNeurons]] = [{} for _ in grouping.values]
    # Of those that are in no group, and of all together, too.
    held = [(number + 2) * firing_bytes(states.neurons) for states in store.values()]
    before = list(accumulate(held[:-1], initial=0))
    layers = list(zip(store.values(), before, strict=True))
    all_fit(
        partial(plan_by_group, states, memory, runner, kept, codes, number)
        for states, kept in layers
    )
    whole = {}
    for states, kept in layers:
        name, report = states.name, request.report(states.name)
        counted = count_by_group(states, memory, runner, report, kept, codes, number)
        parameters = states.attributes.parameters
        whole[name] = LayerNeurons(name, add_firing(counted.values()), parameters=parameters)
        for place, found in enumerate(groups):
            found[name] = LayerNeurons(name, counted[place], parameters=parameters)
    by_value = {
        value: Neurons(store.path, found)
        for value, found in zip(grouping.values, groups, strict=True)
    }
    together = Neurons(store.path, whole) if len(store.steps) == 1 else None
    return GroupedNeurons(grouping.by, by_value, together, grouping.ungrouped)


def analyze_with_neurons(
    store: Run, request: Request, layers: Layers = None
) -> tuple[Analysis | GroupedAnalysis, Neurons]:
    """Return what `analyze` finds in a run, and what `neurons` finds in all its samples together.

    Where the memory does not hold both at once, rows are read once more for the neurons.
    """
    run = chosen_run(store, layers, request)
    beside = Beside({name: (layer_pass(states),) for name, states in run.items()})
    request = replace(request, beside=beside)
    found: Analysis | GroupedAnalysis
    found = analyze_groups(run, request) if request.in_groups else analyze_runs([run], request)[0]
    counted = {name: of_layer(run[name], *beside.results[name]) for name in run}
    return found, Neurons(run.path, counted)


def compare_with_neurons(
    store: Run, other: Run, request: Request, layers: Layers = None
) -> tuple[Together, Comparison, Neurons]:
    """Return what is found in two runs, which bits differ, and what the first one's neurons did.

    The rows of both are read once, where they hold their samples in the same order and the memory
    holds what is made of them at once.
    """
    run = chosen_run(store, layers, request)
    second = chosen_run(other, list(run), replace(request, by=None, bins=None, window=None))
    pairs = common_layers(run, second, None)
    passes = {name: (layer_pass(states),) for name, states in run.items()}
    with running(request, run, second) as runner:
        all_fit(memory_checks(run, second, request, runner, passes))
        found, beside = analyze_together(run, second, request, runner, passes)
    counted = {name: of_layer(run[name], *beside.results[name]) for name in run}
    compared = Comparison((run.path, second.path), found.flips, None, warnings_of(pairs))
    return found, compared, Neurons(run.path, counted)
