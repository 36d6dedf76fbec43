"""Analysing runs: which samples count, the layers of all runs together, what was found of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NoReturn

from tsstore.analysis.accuracy import count_right
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.layers import analyze_layers, plan_layers
from tsstore.analysis.memory import refuse
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.random_groups import Dealt
from tsstore.analysis.repeats import check_ids, choose_samples, plan_samples, samples_at_most
from tsstore.analysis.request import Request, running
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import MemoryTooSmallError
from tsstore.statistics.rates import Answers
from tsstore.store.reading.store import StateStore


def analyze_runs(runs: Sequence[StateStore], request: Request) -> list[Analysis]:
    """Analyse what is shown of each run, which is of one step; layers of all go together."""
    with running(request, *runs) as runner:
        return analyze_samples(runs, request, runner)


def analyze_samples(
    runs: Sequence[StateStore], request: Request, runner: Scheduler
) -> list[Analysis]:
    """Do so on a scheduler."""
    return analyze_chosen(runs, choose_or_refuse(runs, request, runner), request, runner)


def choose_or_refuse(
    runs: Sequence[StateStore], request: Request, runner: Scheduler, *later: Callable[[], Any]
) -> list[Samples]:
    """Settle which samples of runs count; too little memory is refused once, also for counting.

    What else comes later raises a MemoryTooSmallError of its own.
    """
    try:
        return choose_samples(runs, request, runner)
    except MemoryTooSmallError as refused:
        _refuse_all(refused, runs, request, runner, *later)


def plan_or_refuse(
    runs: Sequence[StateStore], request: Request, runner: Scheduler, *later: Callable[[], Any]
) -> list[Samples]:
    """Return what a plan reckons with of the samples of runs; too little memory is refused once."""
    try:
        return [plan_samples(run, request, runner) for run in runs]
    except MemoryTooSmallError as refused:
        _refuse_all(refused, runs, request, runner, *later)


def _refuse_all(
    refused: MemoryTooSmallError,
    runs: Sequence[StateStore],
    request: Request,
    runner: Scheduler,
    *later: Callable[[], Any],
) -> NoReturn:
    """Raise the refusal to compare ids, or that of what comes once they are, and needs more."""
    every = [(states, samples_at_most(run, request)) for run in runs for states in run.values()]
    ids = partial(check_ids, runs, request, runner.memory(request.memory))
    refuse(refused, [ids, partial(plan_layers, every, request, runner), *later])


def analyze_chosen(
    runs: Sequence[StateStore], every: Sequence[Samples], request: Request, runner: Scheduler
) -> list[Analysis]:
    """Analyse runs of which it is known which samples count."""
    layers = [
        (states, samples)
        for run, samples in zip(runs, every, strict=True)
        for states in run.values()
    ]
    results = iter(analyze_layers(layers, request, runner))
    return [
        analysis_of_results(run, request, samples, list(islice(results, len(run))))
        for run, samples in zip(runs, every, strict=True)
    ]


def analysis_of_results(
    run: StateStore, request: Request, samples: Samples, results: list[LayerResult]
) -> Analysis:
    """Return what was found of the samples that count, given the results of all layers."""
    groups, shown = samples.groups, samples.sample_filter
    (accuracy,) = count_right(run.parts, groups, shown)
    (dealt,) = [None] if groups is None else groups.dealt(shown)
    return analysis_of(run, request, samples, results, accuracy, dealt)


def analysis_of(
    store: StateStore,
    request: Request,
    samples: Samples,
    results: list[LayerResult],
    accuracy: Answers | None,
    dealt: Dealt | None,
) -> Analysis:
    """Return what was found of the samples that are shown."""
    repeated = samples.sample_filter.samples - store.view.samples.samples
    return Analysis(
        store.path,
        store.samples - repeated,
        _told_of_dependence(results),
        None if accuracy is None else accuracy.share,
        None if samples.groups is None else accuracy,
        samples_left_out=repeated,
        repeated_samples=samples.staying,
        repeats=request.repeats,
        not_compared=samples.problem,
        dealt=dealt,
        chosen=", ".join(store.view.told),
        provenance=Provenance.of(store, request),
    )


def _told_of_dependence(layers: list[LayerResult]) -> dict[str, LayerResult]:
    """Return the layers by name; where one shows that samples depend on each other, all know it."""
    shown = next((layer for layer in layers if layer.own_dependence), None)
    if shown is None:
        return {layer.name: layer for layer in layers}
    phrase = f"in layer {shown.name} {shown.own_dependence}"
    told = (layer if layer is shown else replace(layer, dependence=phrase) for layer in layers)
    return {layer.name: layer for layer in told}


def plan_runs(runs: Sequence[StateStore], request: Request, scheduler: Scheduler) -> list[Plan]:
    """Return how all layers of runs would be counted; no state is read."""
    every = zip(runs, plan_or_refuse(runs, request, scheduler), strict=True)
    layers = [(states, samples) for run, samples in every for states in run.values()]
    return plan_layers(layers, request, scheduler)
