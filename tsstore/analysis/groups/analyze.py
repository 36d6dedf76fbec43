"""Analysing groups of samples, each as if there were no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.groups.count import count_groups
from tsstore.analysis.groups.grouping import Grouping, group
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.request import Request, running
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.runs import (
    analysis_of,
    analyze_chosen,
    analyze_samples,
    choose_or_refuse,
    layer_result,
)
from tsstore.analysis.samples import Dealt, Samples, count_right
from tsstore.analysis.schedulers import Scheduler
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
    grouping = group(store, request)
    grouping.check_rows(store)
    if samples is None:
        (samples,) = choose_or_refuse([store], request, runner)
    found = _count_grouping(store, request, grouping, runner, samples)
    found.provenance = Provenance.of(store, request, **grouping_arguments(request))
    return found


def analyze_grouping(store: StateStore, request: Request, grouping: Grouping) -> GroupedAnalysis:
    """Analyse groups that are known."""
    grouping.check_rows(store)
    with running(request, store) as runner:
        (samples,) = choose_or_refuse([store], request, runner)
        return _count_grouping(store, request, grouping, runner, samples)


def _count_grouping(
    store: StateStore, request: Request, grouping: Grouping, runner: Scheduler, samples: Samples
) -> GroupedAnalysis:
    """Analyse groups that are known, of samples that are."""
    has_whole = len(store.steps) == 1
    alike = not (samples.staying or samples.problem)
    if alike and samples.sample_filter.samples == store.view.samples.samples:
        found = _analyze_in_one_pass(store, request, runner, grouping, samples)
        groups, whole = found[:-1], found[-1] if has_whole else None
    else:
        views = (grouping.view(store, number) for number in range(len(grouping.values)))
        alone = replace(request, beside=Beside())
        groups = [analyze_samples([view], alone, runner)[0] for view in views]
        whole = analyze_chosen([store], [samples], request, runner)[0] if has_whole else None
    by_value = dict(zip(grouping.values, groups, strict=True))
    return GroupedAnalysis(grouping.by, by_value, whole, grouping.ungrouped)


def _analyze_in_one_pass(
    store: StateStore, request: Request, runner: Scheduler, grouping: Grouping, samples: Samples
) -> list[Analysis]:
    """Return the analysis of each group, and at last that of all samples together."""
    count, sets, random = len(grouping.values), grouping.codes, samples.groups
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
    held = [*grouping.samples.tolist(), store.samples]
    results: list[list[LayerResult]] = [[] for _ in held]
    for states in store.values():
        counts, scheme = count_groups(states, request, runner, samples, sets, count, has_whole)
        for number, found in enumerate(counts):
            of = held[number], clusters[number]
            results[number].append(layer_result(states, found, scheme, *of))
    analyses = []
    for number, layers in enumerate(results):
        # One view at a time: it holds the numbers of all samples that are not in it.
        view = grouping.view(store, number) if number < count else store
        one = replace(samples, sample_filter=view.view.samples)
        analyses.append(analysis_of(view, request, one, layers, answers[number], dealt[number]))
    return analyses
