"""The page on a run: what is counted for it, and how it becomes one file of HTML."""

from __future__ import annotations

import os
import re
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsstore.analysis.analyze import analyze
from tsstore.analysis.comparing.comparison import compare as compare_runs
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.neurons.count import analyze_with_neurons, compare_with_neurons
from tsstore.analysis.neurons.count import neurons as count_neurons
from tsstore.analysis.request import Bins, Request
from tsstore.analysis.results.difference import difference
from tsstore.analysis.results.network import Analysis
from tsstore.errors import AccessError, AnalysisError, UnknownLayerError
from tsstore.reporting.content import Found, page
from tsstore.store.files.open import is_url, open_files
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.targets import check_target, not_writable
from tsstore.text import Progress, listed, printable, silent

if TYPE_CHECKING:
    from tsstore.store.files.open import StorePath

_BREAK = re.compile(r"(?<=[^\W\d_][._/])(?=\w)|(?<=[._/])(?=[^\W\d_])")
"""Where a line may break in a name that is too long for it: after a dot, not in a number."""


def report(
    run: StateStore | StorePath | Analysis | GroupedAnalysis,
    path: str | os.PathLike[str],
    *,
    analysis: Analysis | GroupedAnalysis | None = None,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
    compare: StateStore | StorePath | None = None,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> int:
    """Write a page on a run: one file of HTML that needs nothing else, neither script nor network.

    The run's rows are read once, for its states and for what single neurons do; once more for the
    latter where the memory does not hold both at once, as `tsstore.plan` says. Whether the page can
    be written is tried before anything is counted.

    Parameters
    ----------
    run
        The run, or where it is; or an analysis alone, as one that was loaded: the page then says
        nothing of single neurons, and no row is read.
    path
        Where to write the page, also a URL of an object store; what is there already is replaced,
        as a whole or not at all.
    analysis
        What `analyze` found in the run, if it is there already: rows are then read for the neurons.
    by, bins, window
        Each layer is shown by groups of samples as well, such as ``by="label"``: as for `analyze`.
    compare
        Another run, or a view of this one: how the efficiencies differ, and which bits of the same
        samples. Its rows are read once as well, together with the run's; those of both once more
        for their bits where they hold the samples in another order, or the memory not both at once.
    memory, scheduler, scratch, progress
        As for `analyze`.

    Returns
    -------
    int
        Bytes of the page.

    Raises
    ------
    AccessError, StoreError
        If the page cannot be written; if the path lies within a run.
    AnalysisError
        If Jinja2 is not installed (the extra ``report``), groups are by step, an analysis alone is
        to be compared or grouped, and whatever `analyze` raises.
    """
    _template()
    if by == "step":
        raise AnalysisError(
            "a page is on one step: choose it, tsstore.report(store.at_step(…)) or --step, and "
            "compare it with another one"
        )
    path = os.fspath(path)
    check_target(path, replaces=True)
    if is_url(path):
        # Whether it can be reached, and with which credentials; only writing tells all.
        folder, _, name = path.rpartition("/")
        open_files(folder).exists(name)
    options: dict[str, Any] = {"memory": memory, "scheduler": scheduler, "progress": progress}
    if isinstance(run, Analysis | GroupedAnalysis):
        if any(given is not None for given in (analysis, by, bins, window, compare)):
            raise AnalysisError("an analysis alone tells of nothing else: give its run as well")
        found = Found(*_taken_apart(run))
    else:
        store = run if isinstance(run, StateStore) else open_store(run)
        groups = {"by": by, "bins": bins, "window": window}
        found = _count(store, analysis, groups, compare, scratch, options)
    data = render(found)
    _write(path, data)
    return len(data)


def render(found: Found) -> bytes:
    """Return the page on what was counted; AnalysisError without Jinja2."""
    text: str = _template().render(page(found))
    return text.lstrip().encode()


def _count(
    store: StateStore,
    analysis: Analysis | GroupedAnalysis | None,
    groups: dict[str, Any],
    compare: StateStore | StorePath | None,
    scratch: str | os.PathLike[str] | None,
    options: dict[str, Any],
) -> Found:
    """Count what a page shows of a run, and of another one."""
    other = None if compare is None else _other(compare, store, analysis)
    if analysis is not None:
        return _count_rest(store, analysis, other, scratch, options)
    request = Request(scratch=scratch, **groups, **options)
    if other is None:
        analysis, neurons = analyze_with_neurons(store, request)
        return Found(*_taken_apart(analysis), store, neurons)
    both, compared, neurons = compare_with_neurons(store, other, request)
    found = Found(*_taken_apart(both.first), store, neurons)
    return found._replace(comparison=compared, difference=difference(both.whole, both.second))


def _count_rest(
    store: StateStore,
    analysis: Analysis | GroupedAnalysis,
    other: StateStore | None,
    scratch: str | os.PathLike[str] | None,
    options: dict[str, Any],
) -> Found:
    """Count what is not there already."""
    whole, by_group = _taken_apart(analysis)
    names = list(whole)
    found = Found(whole, by_group, store, count_neurons(store, names, **options))
    if other is None:
        return found
    flips = compare_runs(store, other, names, efficiency=False, scratch=scratch, **options)
    analysed = analyze(other, names, scratch=scratch, **options)
    return found._replace(comparison=flips, difference=difference(whole, analysed))


def _taken_apart(analysis: Analysis | GroupedAnalysis) -> tuple[Analysis, GroupedAnalysis | None]:
    """Return the analysis of all samples, and those of groups if it has some."""
    if isinstance(analysis, GroupedAnalysis):
        return analysis.whole, analysis
    return analysis, None


def _other(
    compare: StateStore | StorePath,
    store: StateStore,
    analysis: Analysis | GroupedAnalysis | None,
) -> StateStore:
    """Open the other run, and look whether it has all layers that are shown."""
    other = compare if isinstance(compare, StateStore) else open_store(compare)
    names = store.layers if analysis is None else _taken_apart(analysis)[0]
    if missing := [name for name in names if name not in other.layers]:
        raise UnknownLayerError(
            f"{printable(other.path)} has no {listed(missing)}, so that layers cannot be compared; "
            "choose layers that both runs have"
        )
    return other


def _write(path: str, data: bytes) -> None:
    """Write a file, whole or not at all."""
    if is_url(path):
        folder, _, name = path.rpartition("/")
    else:
        folder, name = str(Path(path).parent), Path(path).name
    try:
        open_files(folder, durable=False).write(name, data)
    except AccessError:
        raise
    except OSError as error:
        raise not_writable(Path(path), error.strerror) from error


def _template() -> Any:
    try:
        from jinja2 import Environment
        from markupsafe import Markup
    except ImportError:
        raise AnalysisError(
            "a report needs Jinja2, which is not installed; install tsstore[report]"
        ) from None
    source = (package_files("tsstore.reporting") / "page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = lambda text: Markup("<wbr>").join(_BREAK.split(text))
    return environment.from_string(source)
