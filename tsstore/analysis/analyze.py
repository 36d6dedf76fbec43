"""Counting the states of a run, layer by layer."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict, TypeVar, Unpack, overload

import numpy as np

from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import Counts, build_graph, finish_counts
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.groups.count import count_groups
from tsstore.analysis.groups.grouping import Bins, Grouping, group
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.keeping.cache import cached
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.machine import give_back_memory
from tsstore.analysis.planning.layer_plan import layer_plan
from tsstore.analysis.repeats import choose_samples, deal_groups
from tsstore.analysis.request import (
    Repeats,
    Request,
    check_rows,
    countable,
    dependence,
    layer_names,
)
from tsstore.analysis.results.estimates import PER_SAMPLE
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.samples import Dealt, Samples, count_right, count_right_by_set
from tsstore.analysis.schedulers import PATIENCE_SECONDS, Scheduler, choose
from tsstore.counting.keys import KeyScheme
from tsstore.counting.warm_up import warm_up
from tsstore.errors import AnalysisError, CountingError, StoreError
from tsstore.statistics.efficiency import Answers
from tsstore.store.files.open import StorePath
from tsstore.store.reading.ids import id_dtype
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.reading.store import StateStore
from tsstore.text import Progress

_Found = TypeVar("_Found")


class Options(TypedDict, total=False):
    """What `analyze` takes besides a run, its layers and groups."""

    memory: int | str | None
    scheduler: Any
    progress: Progress | None
    scratch: str | os.PathLike[str] | None
    intervals: bool
    dependent_by: str | None
    unique_by: str | None
    repeats: Repeats
    exact: bool
    seed: int | None
    patience: float
    cache: str | os.PathLike[str] | None
    cluster: str | None


@overload
def analyze(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: None = None,
    bins: None = None,
    window: None = None,
    **options: Unpack[Options],
) -> Analysis: ...


@overload
def analyze(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: str,
    bins: Bins = None,
    window: None = None,
    **options: Unpack[Options],
) -> GroupedAnalysis: ...


@overload
def analyze(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: None = None,
    bins: None = None,
    window: int,
    **options: Unpack[Options],
) -> GroupedAnalysis: ...


@overload
def analyze(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
    **options: Unpack[Options],
) -> Analysis | GroupedAnalysis: ...


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
    patience: float = PATIENCE_SECONDS,
    cache: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
) -> Analysis | GroupedAnalysis:
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
    patience
        How many seconds a cluster may be without workers before that is an error; it is a warning
        after ten.
    cache
        A local folder, not within the run, where analyses are kept: the same question about the
        same commit is answered from there at once. Memory, scheduler and what else changes no
        number may differ.
    cluster
        The old name of `dependent_by`.
    by
        Analyse groups of samples, each as if there were no others: by the values of a sample
        column, at most 1,000 of them, or ``"step"``. Samples whose value is missing are in none.
    bins
        Divide the numbers of the column `by`: into so many intervals of one width, or at edges.
        Each interval has its upper edge, and the first one the lower, too.
    window
        Analyse so many samples after another as a group, in the order in which the run holds them:
        part after part.

    Returns
    -------
    Analysis or GroupedAnalysis
        A mapping from layer names to results; with `by` or `window` always an analysis of each
        group, and of all together unless they are of several steps.

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
        If the run holds several steps and is not analysed by step, there is no column
        `dependent_by`, there are more than 1,000 groups, or memory, scheduler, repeats, scratch,
        bins or window make no sense.
    """
    request = Request(
        memory=memory,
        scheduler=scheduler,
        progress=progress,
        scratch=scratch,
        intervals=intervals,
        dependent_by=dependence(dependent_by, cluster),
        unique_by=unique_by,
        repeats=repeats,
        exact=exact,
        seed=seed,
        patience=patience,
    )
    store = countable(store, by)
    names = layer_names(store, layers)
    deal_groups(store, request)  # A column that is not there is an error before anything is read.
    kind: type[Analysis | GroupedAnalysis] = Analysis
    count: Callable[[], Analysis | GroupedAnalysis] = partial(_analyze_run, store, names, request)
    asked: dict[str, Any] = {}
    if by is not None or window is not None or bins is not None:
        asked = _asked(by, bins, window)
        kind = GroupedAnalysis
        count = partial(_analyze_groups, store, names, request, by, bins, window)
    if cache is None:
        return count()
    provenance = Provenance.of(store, names, request, **asked)
    return cached(cache, store.path, provenance, kind, count, partial(_is_settled, store))


def _asked(by: str | None, bins: Bins, window: int | None) -> dict[str, Any]:
    """Return what groups are asked for, whatever it is, as JSON can hold it."""
    return {"by": by, "bins": _plain(bins), "window": _plain(window)}


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


def _is_settled(store: StateStore, found: Analysis | GroupedAnalysis) -> bool:
    """Whether more memory would find the same: ids were compared, or cannot be."""
    every = [found] if isinstance(found, Analysis) else [one for _, one in found.items()]
    if not any(analysis.not_compared for analysis in every):
        return True
    try:
        id_dtype(store.parts)
    except StoreError:
        return True
    return False


@contextmanager
def _chosen(store: StateStore, request: Request) -> Iterator[Scheduler]:
    """Yield what runs the tasks, which sees the run."""
    directories = [part.directory for part in store.parts]
    with (
        closing(choose(request.scheduler, request.patience)) as runner,
        runner.reading(store.parts[0].files, directories),
    ):
        yield runner


def _analyze_run(store: StateStore, names: list[str], request: Request) -> Analysis:
    with _chosen(store, request) as runner:
        return _analyze(store, names, request, runner)


def _analyze(store: StateStore, names: list[str], request: Request, runner: Scheduler) -> Analysis:
    """Analyse the samples that are shown of one step."""
    samples = choose_samples(store, names, request, runner)
    results = [_analyze_layer(store[name], request, runner, samples) for name in names]
    accuracy = count_right(store.parts, samples.groups, samples.sample_filter)
    dealt = None if samples.groups is None else samples.groups.dealt(samples.sample_filter)
    return _analysis(store, request, samples, results, accuracy, dealt)


def _analyze_groups(
    store: StateStore,
    names: list[str],
    request: Request,
    by: str | None,
    bins: Bins,
    window: int | None,
) -> GroupedAnalysis:
    """Analyse each group as if there were no others, and all together if they are of one step.

    They are counted in one pass, unless samples repeat others: which of them count then differs
    from group to group.
    """
    found = analyze_grouping(store, names, request, group(store, by, bins, window))
    found.provenance = Provenance.of(store, names, request, **_asked(by, bins, window))
    return found


def analyze_grouping(
    store: StateStore, names: list[str], request: Request, grouping: Grouping
) -> GroupedAnalysis:
    """Analyse groups that are known."""
    has_whole = len(store.steps) == 1
    grouping.check_rows(store, names)
    with _chosen(store, request) as runner:
        samples = choose_samples(store, names, request, runner)
        alike = not (samples.staying or samples.problem)
        if alike and samples.sample_filter.samples == store.view.samples.samples:
            found = _analyze_in_one_pass(store, names, request, runner, grouping, samples)
            groups, whole = found[:-1], found[-1] if has_whole else None
        else:
            views = (grouping.view(store, number) for number in range(len(grouping.values)))
            groups = [_analyze(view, names, request, runner) for view in views]
            whole = _analyze(store, names, request, runner) if has_whole else None
    by_value = dict(zip(grouping.values, groups, strict=True))
    return GroupedAnalysis(grouping.by, by_value, whole, grouping.ungrouped)


def request_of(options: Options) -> Request:
    """Return what is asked for by the options of `analyze`, but for a cache."""
    if options.get("cache") is not None:
        raise AnalysisError("cache= keeps analyses alone; leave it out")
    asked: dict[str, Any] = dict(options)
    asked.pop("cache", None)
    asked["dependent_by"] = dependence(asked.get("dependent_by"), asked.pop("cluster", None))
    return Request(**asked)


def _analyze_in_one_pass(
    store: StateStore,
    names: list[str],
    request: Request,
    runner: Scheduler,
    grouping: Grouping,
    samples: Samples,
) -> list[Analysis]:
    """Return the analysis of each group, and at last that of all samples together."""
    count, sets, random = len(grouping.values), grouping.codes, samples.groups
    shown, has_whole = samples.sample_filter, len(store.steps) == 1
    answers = _or_none(count_right_by_set(store.parts, sets, count, random, shown), count)
    answers.append(count_right(store.parts, random, shown))
    dealt: list[Dealt | None] = [None] * (count + 1)
    if random is not None:
        dealt = _or_none(random.dealt_by_set(sets, count, shown), count)
        dealt.append(random.dealt(shown))
    clusters = [samples.clusters] * (count + 1)
    if request.dependent_by and random is not None:
        for number in range(count):
            # A view of a step leaves out whole parts, of which its filter says nothing.
            others = {name: np.flatnonzero(codes != number) for name, codes in sets.items()}
            clusters[number] = random.count_clusters(SampleFilter(others))
    held = [*grouping.samples.tolist(), store.samples]
    results: list[list[LayerResult]] = [[] for _ in held]
    for name in names:
        states = store[name]
        counts, scheme = count_groups(states, request, runner, samples, sets, count, has_whole)
        for number, found in enumerate(counts):
            of = held[number], clusters[number]
            results[number].append(_layer_result(states, found, scheme, *of))
    analyses = []
    for number, layers in enumerate(results):
        # One view at a time: it holds the numbers of all samples that are not in it.
        view = grouping.view(store, number) if number < count else store
        one = replace(samples, sample_filter=view.view.samples)
        analyses.append(_analysis(view, request, one, layers, answers[number], dealt[number]))
    return analyses


def _or_none(found: list[_Found] | None, count: int) -> list[_Found | None]:
    return [None] * count if found is None else [*found]


def _analysis(
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


def _analyze_layer(
    states: LayerStates, request: Request, scheduler: Scheduler, samples: Samples
) -> LayerResult:
    check_rows(states, samples.sample_filter)
    counts, scheme = count_layer(states, request, scheduler, samples)
    held = samples.sample_filter.kept_samples(states)
    return _layer_result(states, counts, scheme, held, samples.clusters)


def _layer_result(
    states: LayerStates, counts: Counts, scheme: KeyScheme, samples: int, clusters: int | None
) -> LayerResult:
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
