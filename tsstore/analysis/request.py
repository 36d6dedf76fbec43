"""What is asked of a run, checked before anything is read: the same for all that counts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from tsstore.analysis.repeats import NO_REPEATS, RepeatedSamples
from tsstore.analysis.samples import ALL_SAMPLES, RandomGroups, SampleFilter
from tsstore.errors import AnalysisError, EmptyStoreError, StoreError
from tsstore.store.files.open import StorePath
from tsstore.store.reading.ids import ID, id_dtype
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.store import StateStore, open_store


def countable(store: StateStore | StorePath) -> StateStore:
    """Return a run as of its commits now, whatever is committed later.

    Raises
    ------
    EmptyStoreError
        If nothing has been committed.
    AnalysisError
        If it holds several steps.
    """
    store = store.pinned() if isinstance(store, StateStore) else open_store(store)
    if not store.samples:
        raise EmptyStoreError(
            f"{store.path} holds no committed samples; wait for the first commit, or run the "
            "job again"
        )
    if len(store.steps) > 1:
        raise AnalysisError(
            f"{store.path} holds the steps {', '.join(map(repr, store.steps))}, which are not "
            "pooled; analyse one: tsstore.analyze(store.at_step(…))"
        )
    return store


def layer_names(store: StateStore, layers: str | Iterable[str] | None) -> list[str]:
    """Return the public names of the layers asked for, each once; all unless some are given.

    Raises
    ------
    UnknownLayerError
        If there is no such layer.
    AnalysisError
        If none was asked for.
    """
    wanted = [layers] if isinstance(layers, str) else store.layers if layers is None else layers
    names = list(dict.fromkeys(map(store.layer_name, wanted)))
    if not names:
        raise AnalysisError(f"{store.path}: no layer was asked for; it has {list(store.layers)}")
    return names


def sample_groups(
    store: StateStore,
    intervals: bool,
    dependent_by: str | None,
    repeats: RepeatedSamples = NO_REPEATS,
    by_id: str | None = ID,
) -> RandomGroups | None:
    """Return the groups of samples to tell apart; None for none.

    Samples of one id fall into one group, the same one in every run, if there are ids in the column
    `by_id`.

    Raises
    ------
    AnalysisError
        If there is no column `dependent_by`, or nothing that it would be for.
    """
    if intervals:
        ids = by_id if by_id is not None and _have_ids(store, by_id) else None
        return RandomGroups.of_parts(store.parts, dependent_by or ids).joining(repeats.dependent)
    if dependent_by is not None:
        raise AnalysisError(
            f"dependent_by={dependent_by!r:.80} is for intervals, and there are none with "
            "intervals=False; leave one of the two out"
        )
    return None


def _have_ids(store: StateStore, by_id: str) -> bool:
    """Return whether all samples have ids that tell them from each other."""
    try:
        id_dtype(store.parts, by_id)
    except StoreError:
        return False
    return True


def dependence(dependent_by: str | None, cluster: str | None) -> str | None:
    """Return the column that `analyze` and `plan` are told of, by its name or by the old one.

    Raises
    ------
    AnalysisError
        If both are given.
    """
    if cluster is None:
        return dependent_by
    if dependent_by is not None:
        raise AnalysisError("cluster= is the old name of dependent_by=; pass dependent_by= alone")
    warnings.warn("cluster= is called dependent_by= now", DeprecationWarning, stacklevel=3)
    return cluster


def check_rows(states: LayerStates, sample_filter: SampleFilter = ALL_SAMPLES) -> None:
    """Raise EmptyStoreError if a layer has no rows to count."""
    if not sample_filter.kept_rows(states):
        raise EmptyStoreError(f"{states.location}: layer {states.name} has no rows to analyse")
