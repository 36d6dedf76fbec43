"""The public function that counts the states of runs, and what it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypedDict, Unpack, overload

from tsstore.analysis.groups.analyze import analyze_groups, asked_groups
from tsstore.analysis.groups.grouping import Bins
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.keeping.cache import cached
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.repeats import deal_groups
from tsstore.analysis.request import (
    Repeats,
    Request,
    countable,
    dependence,
    layer_names,
)
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.runs import analyze_run
from tsstore.analysis.schedulers import PATIENCE_SECONDS
from tsstore.errors import AnalysisError, StoreError
from tsstore.store.files.open import StorePath
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
    count: Callable[[], Analysis | GroupedAnalysis] = partial(analyze_run, store, names, request)
    asked: dict[str, Any] = {}
    if by is not None or window is not None or bins is not None:
        asked = asked_groups(by, bins, window)
        kind = GroupedAnalysis
        count = partial(analyze_groups, store, names, request, by, bins, window)
    if cache is None:
        return count()
    provenance = Provenance.of(store, names, request, **asked)
    return cached(cache, store.path, provenance, kind, count, partial(_is_settled, store))


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


def request_of(options: Options) -> Request:
    """Return what is asked for by the options of `analyze`, but for a cache."""
    if options.get("cache") is not None:
        raise AnalysisError("cache= keeps analyses alone; leave it out")
    asked: dict[str, Any] = dict(options)
    asked.pop("cache", None)
    asked["dependent_by"] = dependence(asked.get("dependent_by"), asked.pop("cluster", None))
    return Request(**asked)
