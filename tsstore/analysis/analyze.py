"""The public function that counts the states of runs, and what it takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack, overload

from tsstore.analysis.groups.analyze import analyze_groups, asked_groups
from tsstore.analysis.groups.grouping import Bins
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.keeping.cache import Entry
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.repeats import deal_groups
from tsstore.analysis.request import (
    Repeats,
    Request,
    countable,
    dependence,
    layer_names,
)
from tsstore.analysis.results.analyses import Analyses
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.runs import AskedRun, analyze_runs
from tsstore.analysis.schedulers import PATIENCE_SECONDS
from tsstore.errors import AnalysisError, StoreError
from tsstore.store.files.open import StorePath, is_url
from tsstore.store.reading.ids import id_dtype
from tsstore.store.reading.store import StateStore
from tsstore.text import Progress


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
    store: Mapping[str, StateStore | StorePath],
    layers: str | Iterable[str] | None = None,
    *,
    by: None = None,
    bins: None = None,
    window: None = None,
    **options: Unpack[Options],
) -> Analyses: ...


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
    store: StateStore | StorePath | Mapping[str, StateStore | StorePath],
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
) -> Analysis | Analyses | GroupedAnalysis:
    """Count the distinct states of a run exactly, and say how well each layer uses its neurons.

    Parameters
    ----------
    store
        A run, or its path; what is committed now is analysed. Or several runs by name, as
        ``{"before": "a.zarr", "after": "b.zarr"}``, whose layers are counted together.
    layers
        Names of layers, of each run; all unless given.
    memory
        What one process may add to its baseline, in bytes or as ``"2GiB"``; a quarter of what
        there is unless given. As many layers are counted at once as it holds; what does not fit of
        one goes through files.
    scheduler
        ``"threads"``, ``"synchronous"``, a ``distributed.Client``, or the address of a cluster;
        unless given, the current client if there is one, else threads.
    progress
        Called as ``progress(what, tasks done, all tasks)``: `what` is the layer's name, or how many
        there are, as ``"53 layers"``.
    scratch
        Folder for those files; all workers of a cluster must see it. Or object storage, such as
        ``"s3://bucket/scratch"``, which takes the extra `s3`; see ``docs/how-to/cluster.md``.
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
    Analysis, Analyses or GroupedAnalysis
        A mapping from layer names to results; of several runs a mapping from their names to such;
        with `by` or `window` always an analysis of each group, and of all together unless they are
        of several steps.

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
        `dependent_by`, there are more than 1,000 groups, there is no run or one of them twice, or
        memory, scheduler, repeats, scratch, bins or window make no sense.
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
    in_groups = by is not None or bins is not None or window is not None
    if isinstance(store, Mapping) and not isinstance(store, StateStore):
        if in_groups:
            raise AnalysisError(
                "by=, bins= and window= are for one run; analyse each run by itself, or leave them "
                "out"
            )
        return _analyze_several(store, layers, request, cache)
    if isinstance(store, list | tuple):
        raise AnalysisError(
            f"found a {type(store).__name__} of runs; expected a mapping from names of yours, such "
            'as {"before": "a.zarr", "after": "b.zarr"}'
        )
    run = _asked_run(store, layers, request, by)
    if not in_groups:
        return _find_or_analyze([run], request, cache)[0]
    entry = None
    if cache is not None:
        asked = asked_groups(by, bins, window)
        provenance = Provenance.of(run.store, run.layers, request, **asked)
        entry = Entry(cache, run.store.path, provenance)
        kept = entry.find(GroupedAnalysis)
        if kept is not None:
            return kept
    found = analyze_groups(run.store, run.layers, request, by, bins, window)
    if entry is not None and _is_settled(run.store, [analysis for _, analysis in found.items()]):
        entry.keep(found)
    return found


def _asked_run(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None,
    request: Request,
    by: str | None = None,
) -> AskedRun:
    """Return a run as it is committed now, once it is known that it can be analysed."""
    store = countable(store, by)
    names = layer_names(store, layers)
    deal_groups(store, request)  # A column that is not there is an error before anything is read.
    return AskedRun(store, names)


def _analyze_several(
    runs: Mapping[str, StateStore | StorePath],
    layers: str | Iterable[str] | None,
    request: Request,
    cache: str | os.PathLike[str] | None,
) -> Analyses:
    """Analyse several runs together, each of which is asked for once."""
    if not runs:
        raise AnalysisError("no run was given; expected a mapping from names to runs")
    wanted = layers if layers is None or isinstance(layers, str) else list(layers)
    asked: dict[str, AskedRun] = {}
    known: dict[tuple[str, str], str] = {}
    for name, store in runs.items():
        if not isinstance(name, str):
            raise AnalysisError(f"{name!r:.80} is no name of a run; expected text")
        asked[name] = run = _asked_run(store, wanted, request)
        path = run.store.path
        place = path if is_url(path) else os.path.realpath(path)
        question = place, Provenance.of(run.store, run.layers, request).key
        if question in known:
            raise AnalysisError(
                f"{known[question]!r:.80} and {name!r:.80} are the same run, {path}; expected each "
                "once"
            )
        known[question] = name
    found = _find_or_analyze(list(asked.values()), request, cache)
    return Analyses(dict(zip(asked, found, strict=True)))


def _find_or_analyze(
    runs: Sequence[AskedRun], request: Request, cache: str | os.PathLike[str] | None
) -> list[Analysis]:
    """Return the analysis of each run: those that were kept, and others counted together."""
    if cache is None:
        return analyze_runs(runs, request)
    entries = [
        Entry(cache, run.store.path, Provenance.of(run.store, run.layers, request)) for run in runs
    ]
    found = [entry.find(Analysis) for entry in entries]
    missing = [place for place, analysis in enumerate(found) if analysis is None]
    if missing:
        counted = analyze_runs([runs[place] for place in missing], request)
        for place, analysis in zip(missing, counted, strict=True):
            found[place] = analysis
            if _is_settled(runs[place].store, [analysis]):
                entries[place].keep(analysis)
    return [analysis for analysis in found if analysis is not None]


def _is_settled(store: StateStore, found: Iterable[Analysis]) -> bool:
    """Whether more memory would find the same: ids were compared, or cannot be."""
    if not any(analysis.not_compared for analysis in found):
        return True
    try:
        id_dtype(store.parts)
    except StoreError:
        return True
    return False


def request_of(options: Options) -> Request:
    """Return what is asked for by the options of `analyze`, but for a cache."""
    if options.get("cache") is not None:
        raise AnalysisError("cache= keeps analyses alone; leave it out")
    asked: dict[str, Any] = dict(options)
    asked.pop("cache", None)
    asked["dependent_by"] = dependence(asked.get("dependent_by"), asked.pop("cluster", None))
    return Request(**asked)
