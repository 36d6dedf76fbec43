"""Counting the states of a run, layer by layer."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsstore.analysis.execution.exchange import planned_scratch, scratch_parent
from tsstore.analysis.execution.graph import Counts, build_graph, finish_counts
from tsstore.analysis.machine import give_back_memory, parse_memory
from tsstore.analysis.planning.layer_plan import layer_plan
from tsstore.analysis.repeats import Repeats, count_clusters, samples_that_count
from tsstore.analysis.request import (
    check_rows,
    countable,
    dependence,
    layer_names,
    sample_groups,
)
from tsstore.analysis.results.layer import PER_SAMPLE, LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.samples import ALL_SAMPLES, RandomGroups, SampleFilter, count_right
from tsstore.analysis.schedulers import Report, Scheduler, choose
from tsstore.counting.keys import KeyScheme
from tsstore.counting.warm_up import warm_up
from tsstore.errors import CountingError
from tsstore.store.files.open import StorePath
from tsstore.store.reading.ids import ID
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.store import StateStore

Progress = Callable[[str, int, int], None]
"""Takes a layer's name, the number of its tasks that are done, and of all."""


def analyze(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    progress: Progress | None = None,
    scratch: str | os.PathLike[str] | None = None,
    intervals: bool = True,
    dependent_by: str | None = None,
    unique_by: str | None = None,
    repeats: Repeats = "once",
    exact: bool = False,
    seed: int | None = None,
    cluster: str | None = None,
) -> Analysis:
    """Count the distinct states of a run exactly, and say how well each layer uses its neurons.

    Parameters
    ----------
    store
        A run, or its path; what is committed now is analysed.
    layers
        Names of layers; all unless given.
    memory
        What one process may add to its baseline, in bytes or as ``"2GiB"``; a quarter of what
        there is unless given. What does not fit goes through files.
    scheduler
        ``"threads"``, ``"synchronous"``, a ``distributed.Client``, or the address of a cluster;
        unless given, the current client if there is one, else threads.
    progress
        Called as ``progress(layer, tasks done, all tasks)``.
    scratch
        Folder for those files; all workers of a cluster must see it.
    intervals
        Whether to count what confidence intervals need, by 32 random groups of samples. Without,
        an analysis takes about half of the time.
    dependent_by
        Name of a sample column, such as ``"patient"``: samples of one value depend on each other
        and are dealt into one group.
    unique_by
        Name of a sample column, such as ``"id"``: of samples of one value the first of the earliest
        attempt counts, of the lowest rank if there are several, and the others are left out,
        whatever their rows.
    repeats
        What samples are that have the step and ``id`` of another one, unless `unique_by` says it.
        ``"once"``: one counts of those whose rows are the same in all layers that are analysed; if
        others have other rows, they count as well, and depend on each other. ``"each"``: every
        sample is a draw of its own.
    exact
        Whether to count states of more than 128 neurons by themselves, rather than by fingerprints
        of 128 bits. It takes as much more memory, or scratch, as they are wider.
    seed
        Makes keys by the same secrets each time; by others in each analysis unless given. No
        result depends on it.
    cluster
        The old name of `dependent_by`.

    Returns
    -------
    Analysis
        A mapping from layer names to results.

    Raises
    ------
    NotAStoreError, FormatError, DamageError
        If the store cannot be read.
    StoreError
        If there is no column `unique_by`, or it holds neither integers nor text.
    EmptyStoreError
        If nothing has been committed.
    UnknownLayerError
        If there is no such layer.
    AnalysisError
        If the run holds several steps, there is no column `dependent_by`, or memory, scheduler,
        repeats or scratch make no sense.
    """
    dependent_by = dependence(dependent_by, cluster)
    store = countable(store)
    names = layer_names(store, layers)
    asked = None if memory is None else parse_memory(memory)
    folder = scratch_parent(scratch)
    sample_groups(store, intervals, dependent_by)
    with closing(choose(scheduler)) as runner:
        amount = runner.memory(asked)
        found = samples_that_count(store, names, unique_by, repeats, amount, runner)
        by_id = unique_by or (ID if repeats == "once" else None)
        groups = sample_groups(store, intervals, dependent_by, found, by_id)
        sample_filter = found.sample_filter
        clusters = count_clusters(store, groups if dependent_by else None, found)
        way = _Way(amount, runner, progress, folder, groups, sample_filter, clusters, exact, seed)
        results = _told_of_dependence([_analyze_layer(store[name], way) for name in names])
    accuracy = count_right(store.parts, groups, sample_filter)
    return Analysis(
        store.path,
        store.samples - sample_filter.samples,
        results,
        None if accuracy is None else accuracy.share,
        None if groups is None else accuracy,
        samples_left_out=sample_filter.samples,
        repeated_samples=found.staying,
        repeats=repeats,
        not_compared=found.problem,
        dealt=None if groups is None else groups.dealt(sample_filter),
    )


def count_layer(
    states: LayerStates,
    memory: int,
    scheduler: Scheduler,
    report: Report | None = None,
    scratch: str | None = None,
    groups: RandomGroups | None = None,
    sample_filter: SampleFilter = ALL_SAMPLES,
    exact: bool = False,
    seed: int | None = None,
) -> tuple[Counts, KeyScheme]:
    """Count the distinct states of a layer exactly; return what was counted and by which keys.

    With groups of samples, what leaving each of them out changes is counted as well. Samples that
    are left out do not count at all.

    Raises
    ------
    MemoryTooSmallError
        If the memory holds not even one task.
    DamageError
        If a chunk is not what was committed.
    CountingError
        If the counts do not add up to the rows.
    """
    count_of_groups = groups.count if groups else 0
    plan = layer_plan(states, memory, scheduler, count_of_groups, sample_filter.planned, exact)
    scheme = KeyScheme.create(states.row_bytes, seed, exact)
    warm_up(states.row_bytes, exact, groups is not None, plan.spill)

    if plan.gives_back:
        give_back_memory()
    with planned_scratch(plan, scheduler, scratch) as folder:
        graph, key = build_graph(states, scheme, plan, folder, groups, sample_filter)
        counts = scheduler.run(graph, key, plan.threads, report)
        if plan.gives_back:
            give_back_memory()
    counts = finish_counts(counts, states, groups, sample_filter)
    _check_rows(states, counts, sample_filter)
    return counts, scheme


def _check_rows(states: LayerStates, counts: Counts, sample_filter: SampleFilter) -> None:
    """Check that all rows that count were counted, and in each group its own."""
    rows, samples = sample_filter.kept_rows(states), sample_filter.kept_samples(states)
    if counts.spectrum.rows != rows:
        raise CountingError(
            f"{states.name}: the multiplicities add up to {counts.spectrum.rows}, but "
            f"{rows} rows are committed and not left out"
        )
    changes = counts.changes
    if changes is None:
        return
    left = changes.rows.copy()
    np.add.at(left, changes.group, changes.states * changes.multiplicity)
    if left.any() or changes.rows.sum() != rows or changes.samples.sum() != samples:
        raise CountingError(
            f"{states.name}: the groups' changes take {changes.rows.tolist()} rows of "
            f"{changes.samples.tolist()} samples away and leave {left.tolist()}, but "
            f"{rows} rows of {samples} samples are committed and not left out"
        )


@dataclass(frozen=True)
class _Way:
    """How each layer is analysed."""

    memory: int
    scheduler: Scheduler
    progress: Progress | None
    scratch: str | None
    groups: RandomGroups | None
    sample_filter: SampleFilter
    clusters: int | None
    exact: bool
    seed: int | None


def _analyze_layer(states: LayerStates, way: _Way) -> LayerResult:
    check_rows(states, way.sample_filter)

    def report(done: int, total: int) -> None:
        if way.progress is not None:
            way.progress(states.name, done, total)

    counts, scheme = count_layer(
        states,
        way.memory,
        way.scheduler,
        report if way.progress else None,
        way.scratch,
        way.groups,
        way.sample_filter,
        way.exact,
        way.seed,
    )
    return LayerResult(
        name=states.name,
        neurons=states.neurons,
        samples=way.sample_filter.kept_samples(states),
        spectrum=counts.spectrum,
        equal_pairs_within_samples=counts.equal_pairs_within_samples,
        pairs_within_samples=counts.pairs_within_samples,
        collision_bound=scheme.collision_bound(counts.spectrum.distinct),
        threshold=states.attributes.threshold["given"],
        sampling=_sampling(states),
        changes=counts.changes,
        clusters=way.clusters,
    )


def _told_of_dependence(layers: list[LayerResult]) -> dict[str, LayerResult]:
    """Return the layers by name; where one shows that samples depend on each other, all know it."""
    shown = next((layer for layer in layers if layer.own_dependence), None)
    if shown is None:
        return {layer.name: layer for layer in layers}
    phrase = f"in layer {shown.name} {shown.own_dependence}"
    told = (layer if layer is shown else replace(layer, dependence=phrase) for layer in layers)
    return {layer.name: layer for layer in told}


def _sampling(states: LayerStates) -> dict[str, Any] | None:
    """Return what was left out on purpose, and of how many positions some were chosen.

    Of samples of different length a fixed number of positions weighs each sample alike: what it
    estimates is the entropy of a position of a sample, not of a row.
    """
    attributes = states.attributes
    if not attributes.sampling:
        return None
    said = dict(attributes.sampling)
    if "positions" in said:
        said["of_positions"] = math.prod(attributes.position_shape)
    if type(said.get("positions")) is int:
        fewest, most = states.lengths or (0, 0)
        if fewest < most:
            said["lengths"] = [fewest, most]
        # Earlier versions did not note lengths: but where some samples gave less, they differ.
        if fewest < most or states.positions is None:
            said["target"] = PER_SAMPLE
    return said
