"""Analysing groups of samples, each as if there were no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from tsstore.analysis.accuracy import count_right
from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.groups.count import count_groups, plan_groups
from tsstore.analysis.groups.grouping import Grouping, group
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.layers import layer_result, plan_layers
from tsstore.analysis.memory import all_fit, refuse
from tsstore.analysis.random_groups import Dealt
from tsstore.analysis.repeats import repeats_by_set, samples_at_most
from tsstore.analysis.request import Request, running
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.runs import (
    analysis_of,
    analyze_chosen,
    analyze_samples,
    choose_or_refuse,
    plan_or_refuse,
    plan_runs,
)
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import MemoryTooSmallError
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.reading.store import StateStore


def grouping_arguments(request: Request) -> dict[str, Any]:
    """Return what groups are asked for, whatever it is, as JSON can hold it."""
    bins, window = _plain(request.bins), _plain(request.window)
    return {"by": request.by, "bins": bins, "window": window}


def _plain(value: object) -> Any:
    """Return a number, or the edges of bins, as JSON can hold them: to the last bit."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    try:
        # As text, since edges may be infinite.
        return list(map(str, np.asarray(value, np.float64).reshape(-1).tolist()))
    except (TypeError, ValueError):
        return f"{value!r:.80}"


def analyze_groups(store: StateStore, request: Request) -> GroupedAnalysis:
    """Analyse each group as if there were no others, and all together if they are of one step.

    They are counted in one pass, unless samples repeat others: which of them count then differs
    from group to group.
    """
    with running(request, store) as runner:
        return analyze_chosen_groups(store, request, runner)


def analyze_chosen_groups(
    store: StateStore, request: Request, runner: Scheduler, samples: Samples | None = None
) -> GroupedAnalysis:
    """Do so on a scheduler; it may be known already which samples count."""
    found = _count_grouping(store, request, group(store, request), runner, samples)
    found.provenance = Provenance.of(store, request, **grouping_arguments(request))
    return found


def analyze_grouping(store: StateStore, request: Request, grouping: Grouping) -> GroupedAnalysis:
    """Analyse groups that are known."""
    with running(request, store) as runner:
        return _count_grouping(store, request, grouping, runner)


def check_groups(store: StateStore, request: Request, runner: Scheduler) -> None:
    """Raise MemoryTooSmallError where memory is too small to count groups; no state is read."""
    grouping = group(store, request)
    in_one_pass = partial(_plan_in_one_pass, store, request, runner, grouping)
    (samples,) = plan_or_refuse([store], request, runner, in_one_pass)
    if _are_alike(store, request, samples):
        plan_groups(store.values(), request, runner, grouping.divided(samples))
    else:
        _check_one_by_one(store, request, grouping, runner, samples)


def _are_alike(store: StateStore, request: Request, samples: Samples) -> bool:
    """Whether the same samples of a group count alone and with others, so that one pass will do."""
    depends = samples.problem or (samples.staying and request.repeats == "once")
    return not depends and samples.sample_filter.planned == store.view.samples.planned


def _plan_in_one_pass(
    store: StateStore, request: Request, runner: Scheduler, grouping: Grouping
) -> None:
    """Raise MemoryTooSmallError where memory is too small to count groups, whatever is left out."""
    samples = grouping.divided(samples_at_most(store, request))
    plan_groups(store.values(), request, runner, samples)


def _check_one_by_one(
    store: StateStore, request: Request, grouping: Grouping, runner: Scheduler, samples: Samples
) -> None:
    """Raise MemoryTooSmallError where memory is too small to count groups one by one.

    If they are of one step, all samples together are counted as well.
    """
    alone = replace(request, beside=Beside())
    checks: Iterator[Callable[[], object]]
    checks = (partial(plan_runs, [view], alone, runner) for view in grouping.views(store))
    if len(store.steps) == 1:
        layers = [(states, samples) for states in store.values()]
        checks = chain(checks, [partial(plan_layers, layers, request, runner)])
    try:
        all_fit(checks)
    except MemoryTooSmallError as refused:
        if not samples.problem:
            raise
        # With more memory ids are compared, and none may be left out.
        refuse(refused, [partial(_plan_in_one_pass, store, request, runner, grouping)])


def _count_grouping(
    store: StateStore,
    request: Request,
    grouping: Grouping,
    runner: Scheduler,
    samples: Samples | None = None,
) -> GroupedAnalysis:
    """Analyse groups; it is settled which samples count unless it is known.

    Too little memory for that is refused once, also for counting groups.
    """
    grouping.check_rows(store)
    if samples is None:
        in_one_pass = partial(_plan_in_one_pass, store, request, runner, grouping)
        (samples,) = choose_or_refuse([store], request, runner, in_one_pass)
    has_whole = len(store.steps) == 1
    if _are_alike(store, request, samples):
        found = _analyze_in_one_pass(store, request, runner, grouping, samples)
        groups, whole = found[:-1], found[-1] if has_whole else None
    else:
        _check_one_by_one(store, request, grouping, runner, samples)
        alone = replace(request, beside=Beside())
        groups = [analyze_samples([view], alone, runner)[0] for view in grouping.views(store)]
        whole = analyze_chosen([store], [samples], request, runner)[0] if has_whole else None
    by_value = dict(zip(grouping.values, groups, strict=True))
    return GroupedAnalysis(grouping.by, by_value, whole, grouping.ungrouped)


def _analyze_in_one_pass(
    store: StateStore, request: Request, runner: Scheduler, grouping: Grouping, samples: Samples
) -> list[Analysis]:
    """Return the analysis of each group, and at last that of all samples together."""
    count, sets, random = len(grouping.values), grouping.codes, samples.groups
    samples = grouping.divided(samples)
    shown, has_whole = samples.sample_filter, len(store.steps) == 1
    answers = count_right(store.parts, random, shown, sets, count)
    answers += count_right(store.parts, random, shown)
    dealt: list[Dealt | None] = [None] * (count + 1)
    if random is not None:
        dealt = random.dealt(shown, sets, count) + random.dealt(shown)
    clusters = [samples.clusters] * (count + 1)
    if request.dependent_by and random is not None:
        for number in range(count):
            # A view of a step leaves out whole parts, of which its filter says nothing.
            others = {name: np.flatnonzero(codes != number) for name, codes in sets.items()}
            clusters[number] = random.count_clusters(SampleFilter(others))
    staying = [samples.staying] * (count + 1)
    if samples.staying:
        staying[:count] = repeats_by_set(store, sets, count)
    held = [*grouping.samples.tolist(), store.samples]
    results: list[list[LayerResult]] = [[] for _ in held]
    layers = list(store.values())
    plans = plan_groups(layers, request, runner, samples)
    for states, plan in zip(layers, plans, strict=True):
        counts, scheme = count_groups(states, plan, request, runner, samples, has_whole)
        for number, found in enumerate(counts):
            of = held[number], clusters[number]
            results[number].append(layer_result(states, found, scheme, *of))
    analyses = []
    views = chain(grouping.views(store), [store])
    for number, (view, of_layers) in enumerate(zip(views, results, strict=True)):
        one = replace(samples, sample_filter=view.view.samples, staying=staying[number])
        analyses.append(analysis_of(view, request, one, of_layers, answers[number], dealt[number]))
    return analyses
