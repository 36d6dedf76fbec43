"""Analysing a run: which samples count, what its layers show, and what that comes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.layers import analyze_layers
from tsstore.analysis.repeats import choose_samples
from tsstore.analysis.request import Request
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.samples import Dealt, Samples, count_right
from tsstore.analysis.schedulers import Scheduler, choose
from tsstore.statistics.efficiency import Answers
from tsstore.store.reading.store import StateStore


def analyze_run(store: StateStore, names: list[str], request: Request) -> Analysis:
    """Analyse layers of a run."""
    with chosen(store, request) as runner:
        return analyze_samples(store, names, request, runner)


@contextmanager
def chosen(store: StateStore, request: Request) -> Iterator[Scheduler]:
    """Yield what runs the tasks, which sees the run."""
    directories = [part.directory for part in store.parts]
    with (
        closing(choose(request.scheduler, request.patience)) as runner,
        runner.reading(store.parts[0].files, directories),
    ):
        yield runner


def analyze_samples(
    store: StateStore, names: list[str], request: Request, runner: Scheduler
) -> Analysis:
    """Analyse the samples that are shown of one step."""
    samples = choose_samples(store, names, request, runner)
    results = analyze_layers([(store[name], samples) for name in names], request, runner)
    accuracy = count_right(store.parts, samples.groups, samples.sample_filter)
    dealt = None if samples.groups is None else samples.groups.dealt(samples.sample_filter)
    return analysis_of(store, request, samples, results, accuracy, dealt)


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
