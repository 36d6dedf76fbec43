"""Counting what single neurons of a run's layers do."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any, overload

from tsstore.analysis.groups.grouping import Bins, Grouping, group
from tsstore.analysis.neurons.firing import NO_GROUP, ByGroup, count_layer
from tsstore.analysis.neurons.groups import GroupedNeurons
from tsstore.analysis.neurons.results import LayerNeurons, Neurons
from tsstore.analysis.request import Request, check_rows, countable, layer_names
from tsstore.analysis.schedulers import choose
from tsstore.counting.firing import add_firing
from tsstore.store.files.open import StorePath
from tsstore.store.reading.store import StateStore
from tsstore.text import Progress


@overload
def neurons(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: None = None,
    bins: None = None,
    window: None = None,
    memory: int | str | None = None,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> Neurons: ...


@overload
def neurons(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: str,
    bins: Bins = None,
    window: None = None,
    memory: int | str | None = None,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> GroupedNeurons: ...


@overload
def neurons(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: None = None,
    bins: None = None,
    window: int,
    memory: int | str | None = None,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> GroupedNeurons: ...


@overload
def neurons(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
    memory: int | str | None = None,
    scheduler: Any = None,
    progress: Progress | None = None,
) -> Neurons | GroupedNeurons: ...


def neurons(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
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
        Count groups of samples, each as if there were no others: as for :func:`tsstore.analyze`.
    memory
        What one process may add to its baseline, in bytes or as ``"2GiB"``; a quarter of what
        there is unless given. Where it does not hold what is counted of all groups, rows are read
        several times, for some of the groups each.
    scheduler
        As for :func:`tsstore.analyze`.
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
        or memory, scheduler, bins or window make no sense.
    """
    request = Request(memory=memory, scheduler=scheduler, progress=progress)
    store = countable(store, by, "neurons")
    names = layer_names(store, layers)
    grouping = None
    if by is not None or window is not None or bins is not None:
        grouping = group(store, by, bins, window)
        grouping.check_rows(store, names)
    counted = _count_layers(store, names, request, grouping)
    if grouping is None:
        return _together(store, {name: own[NO_GROUP] for name, own in counted.items()})
    groups = {
        value: _together(store, {name: own[number] for name, own in counted.items()})
        for number, value in enumerate(grouping.values)
    }
    whole = None
    if len(store.steps) == 1:
        whole = _together(store, {name: add_firing(own.values()) for name, own in counted.items()})
    return GroupedNeurons(grouping.by, groups, whole, grouping.ungrouped)


def _count_layers(
    store: StateStore, names: list[str], request: Request, grouping: Grouping | None
) -> dict[str, ByGroup]:
    """Return what was counted of each layer, by group."""
    directories = [part.directory for part in store.parts]
    codes, groups = (None, 0) if grouping is None else (grouping.codes, len(grouping.values))
    with (
        closing(choose(request.scheduler)) as runner,
        runner.reading(store.parts[0].files, directories),
    ):
        memory, found = runner.memory(request.memory), {}
        for name in names:
            check_rows(store[name])
            report = request.report(name)
            found[name] = count_layer(store[name], memory, runner, report, codes, groups)
    return found


def _together(store: StateStore, counted: dict[str, Any]) -> Neurons:
    return Neurons(store.path, {name: LayerNeurons(name, own) for name, own in counted.items()})
