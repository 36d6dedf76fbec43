"""Counting the states of layers exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import Counts, build_graph, finish_counts
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.machine import give_back_memory
from tsstore.analysis.planning.layer_plan import layer_plan
from tsstore.analysis.request import Request, check_rows
from tsstore.analysis.results.estimates import PER_SAMPLE
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.counting.keys import KeyScheme
from tsstore.counting.warm_up import warm_up
from tsstore.errors import CountingError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_filter import SampleFilter


def analyze_layer(
    states: LayerStates, request: Request, scheduler: Scheduler, samples: Samples
) -> LayerResult:
    """Count a layer of a run, in which there are rows that count."""
    check_rows(states, samples.sample_filter)
    counts, scheme = count_layer(states, request, scheduler, samples)
    held = samples.sample_filter.kept_samples(states)
    return layer_result(states, counts, scheme, held, samples.clusters)


def count_layer(
    states: LayerStates, request: Request, scheduler: Scheduler, samples: Samples | None = None
) -> tuple[Counts, KeyScheme]:
    """Count the distinct states of a layer exactly; return what was counted and by which keys.

    All samples count that the states show, unless it is said which. If there are groups of samples,
    what leaving each of them out changes is counted as well. It is a MemoryTooSmallError if the
    memory holds not even one task, a DamageError if a chunk is not what was committed, a
    CountingError if the counts do not add up to the rows.
    """
    samples = Samples(states.sample_filter) if samples is None else samples
    memory, left_out = scheduler.memory(request.memory), samples.sample_filter.planned
    plan = layer_plan(states, memory, scheduler, samples.group_count, left_out, request.exact)
    scheme = KeyScheme.create(states.row_bytes, request.seed, request.exact)
    warm_up(states.row_bytes, request.exact, samples.group_count > 0, plan.spill)

    if plan.gives_back:
        give_back_memory()
    with planned_scratch(plan, scheduler, request.scratch) as folder:
        job = LayerJob(states, scheme, plan, folder, samples)
        graph, key = build_graph(job)
        counts = scheduler.run(graph, key, plan.threads, request.report(states.name))
        if plan.gives_back:
            give_back_memory()
    counts = finish_counts(counts, states, samples)
    _check_rows(states, counts, samples.sample_filter)
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


def layer_result(
    states: LayerStates, counts: Counts, scheme: KeyScheme, samples: int, clusters: int | None
) -> LayerResult:
    """Return what was counted of a layer, with what else its numbers follow from."""
    return LayerResult(
        name=states.name,
        neurons=states.neurons,
        samples=samples,
        spectrum=counts.spectrum,
        equal_pairs_within_samples=counts.equal_pairs_within_samples,
        pairs_within_samples=counts.pairs_within_samples,
        collision_bound=scheme.collision_bound(counts.spectrum.distinct),
        threshold=states.attributes.threshold["given"],
        sampling=_sampling(states),
        changes=counts.changes,
        clusters=clusters,
    )


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
