"""Analysing runs: which samples count, what their layers show, and what that comes to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.layers import analyze_layers
from tsstore.analysis.repeats import choose_samples_of_runs
from tsstore.analysis.request import Request
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.samples import Dealt, Samples, count_right
from tsstore.analysis.schedulers import Scheduler, choose
from tsstore.statistics.rates import Answers
from tsstore.store.reading.store import StateStore


@dataclass(frozen=True, eq=False)
class AskedRun:
    """A run of which layers are to be analysed, by their names."""

    store: StateStore
    layers: list[str]


def analyze_runs(runs: Sequence[AskedRun], request: Request) -> list[Analysis]:
    """Analyse the samples that are shown of one step of each run; layers of all go together."""
    with chosen([run.store for run in runs], request) as runner:
        return analyze_samples(runs, request, runner)


@contextmanager
def chosen(stores: Sequence[StateStore], request: Request) -> Iterator[Scheduler]:
    """Yield what runs the tasks, which sees the runs."""
    with ExitStack() as opened:
        runner = opened.enter_context(closing(choose(request.scheduler, request.patience)))
        for store in stores:
            directories = [part.directory for part in store.parts]
            opened.enter_context(runner.reading(store.parts[0].files, directories))
        yield runner


def analyze_samples(
    runs: Sequence[AskedRun], request: Request, runner: Scheduler
) -> list[Analysis]:
    """Analyse the samples that are shown of one step of each run, on a scheduler."""
    every = choose_samples_of_runs([(run.store, run.layers) for run in runs], request, runner)
    layers = [
        (run.store[name], samples)
        for run, samples in zip(runs, every, strict=True)
        for name in run.layers
    ]
    results = iter(analyze_layers(layers, request, runner))
    analyses = []
    for run, samples in zip(runs, every, strict=True):
        store, groups, shown = run.store, samples.groups, samples.sample_filter
        accuracy = count_right(store.parts, groups, shown)
        dealt = None if groups is None else groups.dealt(shown)
        own = list(islice(results, len(run.layers)))
        analyses.append(analysis_of(store, request, samples, own, accuracy, dealt))
    return analyses


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
        provenance=Provenance.of(store, [layer.name for layer in results], request),
    )


def _told_of_dependence(layers: list[LayerResult]) -> dict[str, LayerResult]:
    """Return the layers by name; where one shows that samples depend on each other, all know it."""
    shown = next((layer for layer in layers if layer.own_dependence), None)
    if shown is None:
        return {layer.name: layer for layer in layers}
    phrase = f"in layer {shown.name} {shown.own_dependence}"
    told = (layer if layer is shown else replace(layer, dependence=phrase) for layer in layers)
    return {layer.name: layer for layer in told}
