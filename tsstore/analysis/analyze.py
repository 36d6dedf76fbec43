"""The public function that counts the states of runs, and what it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack, overload

from tsstore.analysis.groups.analyze import analyze_groups, grouping_arguments
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.keeping.cache import Entry
from tsstore.analysis.keeping.provenance import Provenance
from tsstore.analysis.repeats import deal_groups
from tsstore.analysis.request import (
    Bins,
    Layers,
    Repeats,
    Request,
    Run,
    Where,
    countable,
    with_layers,
)
from tsstore.analysis.results.combining import Analyses
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.runs import analyze_runs
from tsstore.analysis.schedulers import PATIENCE_SECONDS
from tsstore.errors import AnalysisError
from tsstore.store.files.open import is_url
from tsstore.store.reading.store import StateStore
from tsstore.text import Progress


class Counting(Where, total=False):
    """How the layers of a run are counted, in the words of `analyze`."""

    scratch: str | os.PathLike[str] | None
    intervals: bool
    dependent_by: str | None
    unique_by: str | None
    repeats: Repeats
    exact: bool
    seed: int | None
    patience: float
    cluster: str | None


class Options(Counting, total=False):
    """What `analyze` takes besides a run, its layers and groups."""

    cache: str | os.PathLike[str] | None


class Together(Options, total=False):
    """The same where no groups are analysed."""

    by: None
    bins: None
    window: None


@overload
def analyze(store: Run, layers: Layers = None, **options: Unpack[Together]) -> Analysis: ...
@overload
def analyze(
    store: Mapping[str, Run], layers: Layers = None, **options: Unpack[Together]
) -> Analyses: ...
@overload
def analyze(
    store: Run, layers: Layers = None, *, by: str, bins: Bins = None, **options: Unpack[Options]
) -> GroupedAnalysis: ...
@overload
def analyze(
    store: Run, layers: Layers = None, *, window: int, **options: Unpack[Options]
) -> GroupedAnalysis: ...
@overload
def analyze(
    store: Run,
    layers: Layers = None,
    *,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
    **options: Unpack[Options],
) -> Analysis | GroupedAnalysis: ...
def analyze(
    store: Run | Mapping[str, Run],
    layers: Layers = None,
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
        one goes through files. On a cluster that is each worker, with the records that it holds.
    scheduler
        ``"threads"``, ``"synchronous"``, a :class:`tsstore.Threads`, a ``distributed.Client``, or
        the address of a cluster; unless given, the current client if there is one, else threads.
    progress
        Called as ``progress(what, tasks done, all tasks)``: `what` is the layer's name, or how many
        there are, as ``"53 layers"``.
    scratch
        Folder for those files; all workers of a cluster must see it, and none of them holds
        records where it is given. Or object storage, such as ``"s3://bucket/scratch"``, which
        takes the extra `s3`; see ``docs/how-to/cluster.md``.
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
        dependent_by=dependent_by,
        unique_by=unique_by,
        repeats=repeats,
        exact=exact,
        seed=seed,
        patience=patience,
        by=by,
        bins=bins,
        window=window,
        cluster=cluster,
    )
    if isinstance(store, Mapping) and not isinstance(store, StateStore):
        if request.in_groups:
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
    run = chosen_run(store, layers, request)
    if not request.in_groups:
        return _find_or_analyze([run], request, cache)[0]
    if cache is None:
        return analyze_groups(run, request)
    entry = Entry(cache, run, Provenance.of(run, request, **grouping_arguments(request)))
    found = entry.find(GroupedAnalysis)
    if found is None:
        entry.keep(found := analyze_groups(run, request))
    return found


def chosen_run(store: Run, layers: Layers, request: Request) -> StateStore:
    """Return a run as it is committed now, once it is known that it can be analysed."""
    run = with_layers(countable(store, request.by), layers)
    deal_groups(run, request)  # A column that is not there is an error before anything is read.
    return run


def _analyze_several(
    runs: Mapping[str, Run], layers: Layers, request: Request, cache: str | os.PathLike[str] | None
) -> Analyses:
    """Analyse several runs together, each of which is asked for once."""
    if not runs:
        raise AnalysisError("no run was given; expected a mapping from names to runs")
    wanted = layers if layers is None or isinstance(layers, str) else list(layers)
    chosen: dict[str, StateStore] = {}
    known: dict[tuple[str, str], str] = {}
    for name, store in runs.items():
        if not isinstance(name, str):
            raise AnalysisError(f"{name!r:.80} is no name of a run; expected text")
        chosen[name] = run = chosen_run(store, wanted, request)
        place = run.path if is_url(run.path) else os.path.realpath(run.path)
        question = place, Provenance.of(run, request).key
        if question in known:
            raise AnalysisError(
                f"{known[question]!r:.80} and {name!r:.80} are the same run, {run.path}; expected "
                "each once"
            )
        known[question] = name
    found = _find_or_analyze(list(chosen.values()), request, cache)
    return Analyses(dict(zip(chosen, found, strict=True)))


def _find_or_analyze(
    runs: Sequence[StateStore], request: Request, cache: str | os.PathLike[str] | None
) -> list[Analysis]:
    """Return the analysis of each run: those that were kept, and others counted together."""
    if cache is None:
        return analyze_runs(runs, request)
    entries = [Entry(cache, run, Provenance.of(run, request)) for run in runs]
    found = [entry.find(Analysis) for entry in entries]
    missing = [place for place, analysis in enumerate(found) if analysis is None]
    if missing:
        counted = analyze_runs([runs[place] for place in missing], request)
        for place, analysis in zip(missing, counted, strict=True):
            found[place] = analysis
            entries[place].keep(analysis)
    return [analysis for analysis in found if analysis is not None]
