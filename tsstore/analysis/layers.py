"""Counting layers, several at once in one graph, each to its result."""

from __future__ import annotations

import math
import pickle
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, NoReturn

from tsstore.analysis.execution.beside import Results
from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import Counts, build_graph, count_in_one_task, finish_counts
from tsstore.analysis.execution.in_step import PairJob, build_pair_graph
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.memory import give_back_memory, refuse
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.planning.layers import (
    PlannedBatch,
    layer_work,
    plan_batches,
    plan_beside,
    share_out,
)
from tsstore.analysis.repeats import once_compared
from tsstore.analysis.request import Request, check_rows
from tsstore.analysis.results.estimates import PER_SAMPLE
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.counting.arena import Arena
from tsstore.counting.keys import KeyScheme
from tsstore.counting.warm_up import warm_up
from tsstore.errors import CountingError, MemoryTooSmallError, TsstoreError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_filter import SampleFilter

_Found = tuple[LayerResult, Results, LayerResult | None]
"""Of a layer, of the passes beside, and of the layer that was read in step."""


def analyze_layers(
    layers: Sequence[tuple[LayerStates, Samples]], request: Request, scheduler: Scheduler
) -> list[LayerResult]:
    """Count layers, in the samples that count of each: as many at once as the memory holds.

    What is counted at once is one graph, in which no layer waits for another one. What is wanted
    beside comes of the same reading, or of another one where the plan says so. It is an
    EmptyStoreError if a layer has no rows that count, a MemoryTooSmallError if the memory holds not
    even one task; later a DamageError if a chunk is not what was committed, a CountingError if the
    counts do not add up to the rows. Errors name the layer.
    """
    plans = plan_layers(layers, request, scheduler)
    beside, memory = request.beside, scheduler.memory(request.memory)
    apart = [
        states
        for (states, _), plan in zip(layers, plans, strict=True)
        if beside.of(states) and not plan.beside
    ]
    found: dict[int, LayerResult] = {}
    batches = plan_batches(plans, scheduler.threads)
    progress = _Progress(request, layers, plans)
    for batch in batches:
        chosen = [(*layers[place], plans[place]) for place in batch.layers]
        results = _count_batch(batch, chosen, request, scheduler, progress)
        for place, (result, others, companion) in zip(batch.layers, results, strict=True):
            found[place] = result
            beside.note(result.name, others, companion)
    for states in apart:
        beside.run(states, memory, scheduler, request.report(states.name))
    return [found[place] for place in range(len(layers))]


def plan_layers(
    layers: Sequence[tuple[LayerStates, Samples]], request: Request, scheduler: Scheduler
) -> list[Plan]:
    """Return how layers would be counted, in the samples that count of each.

    Where the memory is too small for some, the MemoryTooSmallError names what suffices for all.
    """
    # Which samples are left out of a run is held all the while, also while others are counted.
    others = [companion.samples for companion in request.beside.companions.values()]
    filters = {id(of): of.sample_filter for of in (*others, *(samples for _, samples in layers))}
    left_out = sum(one.planned for one in filters.values())
    works = []
    for states, samples in layers:
        check_rows(states, samples.sample_filter)
        works.append(layer_work(states, scheduler, request, samples.group_count, left_out))
    try:
        plans = plan_beside(works, [states for states, _ in layers], request, scheduler)
    except MemoryTooSmallError as refused:
        refuse_compared(refused, layers, request, scheduler)
    return [plan.whole for plan in plans]


def refuse_compared(
    refused: MemoryTooSmallError,
    layers: Sequence[tuple[LayerStates, Samples]],
    request: Request,
    scheduler: Scheduler,
) -> NoReturn:
    """Raise a refusal to count layers, or that with more memory, in which ids are compared."""
    if not any(samples.problem for _, samples in layers):
        raise refused
    compared = {
        id(samples): once_compared(samples, states.samples) if samples.problem else samples
        for states, samples in layers
    }
    later = [(states, compared[id(samples)]) for states, samples in layers]
    refuse(refused, [partial(plan_layers, later, request, scheduler)])


def count_layer(
    states: LayerStates, request: Request, scheduler: Scheduler, samples: Samples | None = None
) -> LayerResult:
    """Count a layer alone, in all samples that it shows unless told; see :func:`analyze_layers`."""
    samples = Samples(states.sample_filter) if samples is None else samples
    return analyze_layers([(states, samples)], request, scheduler)[0]


class _Progress:
    """What is told of all layers that are counted, as if they were one."""

    def __init__(
        self, request: Request, layers: Sequence[tuple[LayerStates, Samples]], plans: Sequence[Plan]
    ) -> None:
        name = layers[0][0].name if len(layers) == 1 else f"{len(layers):,} layers"
        self._report = request.report(name)
        self._done, self._later = 0, sum(plan.tasks for plan in plans)

    def of_batch(self, plans: Iterable[Plan]) -> Report | None:
        """Return what is to be told of the next batch, of layers with these plans."""
        self._later -= sum(plan.tasks for plan in plans)
        before, report = self._done, self._report
        if report is None:
            return None

        def tell(done: int, total: int) -> None:
            self._done = before + done
            report(self._done, before + total + self._later)

        return tell


def _count_batch(
    batch: PlannedBatch,
    layers: Sequence[tuple[LayerStates, Samples, Plan]],
    request: Request,
    scheduler: Scheduler,
    progress: _Progress,
) -> list[_Found]:
    """Count layers at once, whose records share a folder."""
    graph: dict[Any, Any] = {}
    plans = [plan for _, _, plan in layers]
    every = [own for plan in plans for own in plan.both]
    for states, samples, plan in layers:
        # One task of this process loads the loops that it comes to: about half of them.
        if not (plan.in_one_task and scheduler.shared_memory):
            warm_up(states.row_bytes, request.exact, samples.group_count, plan.spill)
        warm_up_companion(states, plan, request)

    def make_room() -> None:
        if batch.gives_back:
            give_back_memory(scheduler.arena)
        else:
            scheduler.leave_room(plans[0].memory, batch.projected_peak)

    make_room()
    # All of them write to the folder if one does: each file has a name of its own.
    spilling = next((plan for plan in every if plan.spill), plans[0])
    with planned_scratch(spilling, scheduler, request.scratch, batch.room_bytes) as folder:
        # Secrets are those of layers of one width: to draw and send them takes a while.
        scheme = cache(partial(KeyScheme.create, seed=request.seed, exact=request.exact))
        jobs = [
            layer_jobs(*layer, request, scheme(layer[0].row_bytes), folder, scheduler.arena)
            for layer in layers
        ]
        large = [place for place, plan in enumerate(plans) if not plan.in_one_task]
        shares = share_out(plans, scheduler.all_threads, scheduler.shared_memory)
        shares.reverse()  # as Dask begins with the last name of tasks that are alike
        token = uuid.uuid4().hex[:12]
        keys = [_add_layer(graph, *jobs[place], token, place) for place in large]
        for number, share in enumerate(shares):
            # Of tasks that are alike Dask hands out a few at a time, to workers that are free.
            keys.append((f"tsstore-small-{token}", f"{number:06}"))
            of_share = [jobs[place][0] for place in share]
            # A cluster's scheduler passes bytes on, where it would make all jobs and send them.
            packed = of_share if scheduler.shared_memory else pickle.dumps(of_share)
            graph[keys[-1]] = (_count_small, packed)
        report = progress.of_batch(plans)
        results = scheduler.run(graph, keys, batch.threads, report)
        make_room()
    found: dict[int, _Found] = dict(zip(large, results[: len(large)], strict=True))
    for share, own in zip(shares, results[len(large) :], strict=True):
        found.update(zip(share, own, strict=True))
    return [found[place] for place in range(len(layers))]


def warm_up_companion(states: LayerStates, plan: Plan, request: Request) -> None:
    """Load the loops that count what is read in step with a layer, if something is."""
    if plan.companion is not None:
        samples = request.beside.companions[states.name].samples
        warm_up(states.row_bytes, request.exact, samples.group_count, plan.companion.spill)


def layer_jobs(
    states: LayerStates,
    samples: Samples,
    plan: Plan,
    request: Request,
    scheme: KeyScheme,
    folder: str,
    arena: Arena | None = None,
) -> tuple[LayerJob, PairJob | None]:
    """Return how a layer is counted, and with it what is read in step if the plan says so."""
    passes = request.beside.of(states) if plan.beside else ()
    job = LayerJob(states, scheme, plan, folder, samples, passes, arena)
    if plan.companion is None:
        return job, None
    of = request.beside.companions[states.name]
    other = LayerJob(of.states, scheme, plan.companion, folder, of.samples, arena=arena)
    job = replace(job, beside=(*passes, *of.passes))
    return job, PairJob(job, other, of.stretches)


def graph_of(job: LayerJob, pair: PairJob | None) -> tuple[Any, ...]:
    """Return the graph of a layer, or of two in step, the keys of its job and of its counts."""
    asked: LayerJob | PairJob = job if pair is None else pair
    graph, *counts = build_graph(job) if pair is None else build_pair_graph(pair)
    shared = next(name for name, value in graph.items() if value is asked)
    return graph, shared, *counts


def _add_layer(
    graph: dict[Any, Any], job: LayerJob, pair: PairJob | None, token: str, number: int
) -> Any:
    """Add the tasks that count a layer to a graph; return the key of its result."""
    of_layer = _run_for_layer, job.states.location, job.states.name
    key = f"tsstore-layer-{token}", number
    own, shared, *counts = graph_of(job, pair)
    if pair is None:
        own[key] = (conclude, shared, *counts)
    else:
        own[key] = (_conclude_pair, shared, *counts)
        of_layer = _run_for_layer, pair.location, job.states.name
    for name, task in own.items():
        # What is no tuple is a value that tasks share.
        graph[name] = (*of_layer, *task) if isinstance(task, tuple) else task
    return key


def _count_small(packed: Sequence[LayerJob] | bytes) -> list[_Found]:
    """Count small layers one after the other, by one task."""
    jobs: Sequence[LayerJob] = pickle.loads(packed) if isinstance(packed, bytes) else packed
    return [_run_for_layer(job.states.location, job.states.name, _count_alone, job) for job in jobs]


def _count_alone(job: LayerJob) -> _Found:
    """Count a layer without a graph."""
    return conclude(job, count_in_one_task(job))


def _run_for_layer(run: str, layer: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task of a layer of a run, whose names its errors say."""
    try:
        return function(*arguments)
    except TsstoreError as error:
        if not re.search(rf"(?<!\w){re.escape(layer)}(?!\w)", str(error)):
            error.args = (f"{run}: layer {layer}: {error}", *error.args[1:])
        raise
    except Exception as error:
        error.add_note(f"It is of layer {layer} of {run}.")
        raise


def conclude(job: LayerJob, counts: Counts) -> _Found:
    """Return what was counted of a layer, checked, when all its tasks are done; and beside."""
    states, samples = job.states, job.samples
    if job.plan.gives_back:
        give_back_memory(job.arena)
    counts = finish_counts(counts, states, samples)
    _check_rows(states, counts, samples.sample_filter)
    held = samples.sample_filter.kept_samples(states)
    result = layer_result(states, counts, job.scheme, held, samples.clusters)
    # All layers are told what one shows: it takes a while, and is kept with the result.
    _ = result.own_dependence
    return result, counts.beside, None


def _conclude_pair(pair: PairJob, first: Counts, second: Counts) -> _Found:
    """Return what was counted of two layers in step, of each as if it were alone; and beside."""
    result, beside, _ = conclude(pair.first, first)
    return result, beside, conclude(pair.second, second)[0]


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
    left = changes.rows_left
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
