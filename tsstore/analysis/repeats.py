"""Samples that come more than once: which of them count, and which depend on each other.

The identity of a sample is its step and id. Of samples of one id whose rows are the same, in all
layers that are analysed, the first one counts and the others are left out: they are copies. Where
the rows differ (augmented views, dropout, ids that are a document's or a patient's) they stay, and
are one cluster.

Equal rows tell of copies only where they would not be equal by chance: narrow layers have few
states, and where the ids do not identify samples, leaving out those that agree would favour the
rare states. With R repeats, V of which differ from all earlier samples of their id, and c the share
of equal pairs among samples of different ids, about V c / (1 - c) repeats are equal by chance.
Where these are more than one in twenty of those that are equal, all of them stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tsstore.analysis.digests import (
    Digests,
    Indices,
    bytes_to_digest,
    digest_samples,
    equal_samples,
)
from tsstore.analysis.memory import too_small
from tsstore.analysis.planning.cost import INDEX_BYTES
from tsstore.analysis.random_groups import RandomGroups, Sets
from tsstore.analysis.request import Request
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import StoreError
from tsstore.store.reading.ids import ID, SameIds, id_dtype, repeated, same_ids
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.store.reading.store import StateStore
from tsstore.text import format_memory

COMPARED_BYTES = 48
"""Of an id, while all are compared: itself, its place in order, itself there, whether it is equal
to the last, and twice its index if it repeats another; and half a place to sort with."""
TEXT_BYTES = 100
"""Of an id of text, besides: enough for some 50 characters."""

HELD = 2
"""A sample whose id occurs more than once takes as much memory as so many that are left out: which
samples these are, and which values of another column belong to one cluster for it."""

BY_CHANCE = 0.05
"""So many of the samples that equal another one of their id may do so by chance."""


Members = Mapping[str, tuple[Indices, Indices]]
"""Samples that count although another one of their id does, by directory of a part: sorted indices,
and the number of the id of each."""


def choose_samples(
    runs: Iterable[StateStore], request: Request, scheduler: Scheduler, kept: int = 0
) -> list[Samples]:
    """Settle which samples of runs count in the layers that are shown, and deal them into groups.

    Which these are is held of all runs; so many bytes are kept beside.
    """
    found: list[Samples] = []
    for run in runs:
        held = kept + INDEX_BYTES * sum(samples.sample_filter.planned for samples in found)
        memory = max(scheduler.memory(request.memory) - held, 0)
        found.append(_choose_samples(run, request, scheduler, memory))
    return found


def _choose_samples(
    store: StateStore, request: Request, scheduler: Scheduler, memory: int
) -> Samples:
    members: Members = {}
    if request.unique_by is not None:
        found = Samples(leave_out_repeated(store, request.unique_by, memory))
    elif request.repeats == "each":
        same = find_same_ids(store, memory)
        found = Samples(staying=None if isinstance(same, str) else same.repeats)
    else:
        found, members = settle_repeats(store, memory, scheduler)
    groups, clusters = deal_groups(store, request), None
    kept = store.view.samples.joined(found.sample_filter)
    if groups is not None:
        groups = groups.joining(members)
    if groups is not None and request.dependent_by:
        clusters = groups.count_clusters(kept)
    elif members:
        clusters = store.samples - found.sample_filter.samples - (found.staying or 0)
    return replace(found, sample_filter=kept, groups=groups, clusters=clusters)


def plan_samples(store: StateStore, request: Request, scheduler: Scheduler) -> Samples:
    """Return which samples are left out for certain, and how many may be at most; read no state."""
    memory, groups = scheduler.memory(request.memory), deal_groups(store, request)
    repeated, problem = ALL_SAMPLES, ""
    if request.unique_by is not None:
        repeated = leave_out_repeated(store, request.unique_by, memory)
    elif request.repeats == "once":
        same = find_same_ids(store, memory)
        if isinstance(same, str):
            problem = same
        else:
            repeated = SampleFilter(most=HELD * same.samples)
    return Samples(store.view.samples.joined(repeated), groups, problem=problem)


def samples_at_most(store: StateStore, request: Request) -> Samples:
    """Return what a plan reckons with where memory is too small to compare ids: most left out."""
    samples = Samples(store.view.samples, deal_groups(store, request))
    return once_compared(samples, store.samples, 1 if request.unique_by else HELD)


def once_compared(samples: Samples, count: int, held: int = HELD) -> Samples:
    """Return what a plan reckons with once there is memory to compare the ids of so many samples.

    Of each it holds so many numbers at most.
    """
    repeated = SampleFilter(most=held * count)
    return replace(samples, sample_filter=samples.sample_filter.joined(repeated), problem="")


def check_ids(runs: Sequence[StateStore], request: Request, memory: int) -> None:
    """Raise MemoryTooSmallError where so many bytes are too few to compare the ids of all runs.

    What is held of those before is at most a number of each sample.
    """
    held = 0
    for run in runs:
        if request.unique_by is not None:
            _check_ids(run, request.unique_by, memory, held)
        held += INDEX_BYTES * run.samples


def _check_ids(store: StateStore, by: str, memory: int, held: int = 0) -> None:
    if (needed := held + _bytes_to_compare(store, by)) > memory:
        purpose = f"to compare the ids of {store.samples:,} samples"
        raise too_small(store.path, memory, purpose, needed)


def deal_groups(store: StateStore, request: Request) -> RandomGroups | None:
    """Return the groups of samples to tell apart; None for none.

    Samples of one id fall into one group, the same one in every run, if there are ids. It is an
    AnalysisError if there is no column `dependent_by`.
    """
    if not request.intervals:
        return None
    by = request.dependent_by or request.unique_by or (ID if request.repeats == "once" else None)
    if request.dependent_by is None and by is not None:
        try:
            id_dtype(store.parts, by)
        except StoreError:
            by = None  # Not all samples have ids that tell them from each other.
    return RandomGroups.of_parts(store.parts, by)


def leave_out_repeated(store: StateStore, by: str, memory: int) -> SampleFilter:
    """Leave out each sample that repeats another one of its step and id, within so many bytes.

    Of several, that of the earliest attempt stays; then that of the lowest rank; then the first.
    """
    _check_ids(store, by, memory)
    return SampleFilter(repeated(store.parts, by, store.view.samples))


def _bytes_to_compare(store: StateStore, by: str) -> int:
    """Return the most bytes that comparing all ids takes; about so many if they are objects.

    They are read of all samples of a part, some at a time, and held of those that are shown.
    """
    columns = [part.columns[by] for part in store.parts if by in part.columns]
    integers = [column.spec.numpy_dtype for column in columns if not column.spec.is_text]
    # Of int64 and uint64 together Python's integers are compared, which take no more than text.
    mixed = len({dtype == np.uint64 for dtype in integers}) == 2
    objects = sum(column.rows for column in columns if mixed or column.spec.is_text)
    return COMPARED_BYTES * store.samples + TEXT_BYTES * objects


def find_same_ids(store: StateStore, memory: int) -> SameIds | str:
    """Return the samples whose id occurs more than once; or why ids cannot be compared.

    The reason is empty where there are no ids.
    """
    if ID not in store.columns:
        return ""
    try:
        id_dtype(store.parts)
    except StoreError as error:
        # What ids there are is the user's business, until they are asked for.
        return str(error)
    needed = _bytes_to_compare(store, ID)
    if needed > memory:
        return f"it takes {format_memory(needed)}, and memory is {format_memory(memory)}"
    return same_ids(store.parts, ID, store.view.samples)


def repeats_by_set(store: StateStore, sets: Sets, count: int) -> list[int]:
    """Return how many samples of each of so many sets have the id of an earlier one of the set."""
    same = same_ids(store.parts, ID, store.view.samples)
    own = np.concatenate([sets[directory][indices] for directory, indices in same.parts.items()])
    pairs = np.unique(np.stack([own, same.number], axis=1)[own >= 0], axis=0)
    samples, ids = (np.bincount(of, minlength=count) for of in (own[own >= 0], pairs[:, 0]))
    repeats: list[int] = (samples - ids).tolist()
    return repeats


def settle_repeats(store: StateStore, memory: int, scheduler: Scheduler) -> tuple[Samples, Members]:
    """Find the samples that come more than once; return which count, and which of them depend.

    Only rows of samples whose id occurs more than once are read, and of those only as many layers
    as it takes to tell them apart.
    """
    same = find_same_ids(store, memory)
    if isinstance(same, str):
        return Samples(staying=None, problem=same), {}
    if not same.samples:
        return Samples(), {}
    states = list(store.values())
    needed = bytes_to_digest(same, states, scheduler)
    if needed > memory:
        problem = (
            f"comparing the rows of {same.samples:,} samples takes {format_memory(needed)}, and "
            f"memory is {format_memory(memory)}"
        )
        return Samples(staying=None, problem=problem), {}
    return _settled(same, digest_samples(same, states, memory, scheduler))


def _settled(same: SameIds, digests: Digests) -> tuple[Samples, Members]:
    """Leave out copies, unless many are equal by chance; the others depend on each other."""
    copies, _ = equal_samples(same.number, digests)
    staying = same.repeats - int(copies.sum())
    if _many_by_chance(same.number, digests, int(copies.sum()), staying):
        copies[:] = False
        staying = same.repeats
    dependent = ~copies
    _, place, often = np.unique(same.number[~copies], return_inverse=True, return_counts=True)
    dependent[dependent] = often[place] > 1
    numbers = same.of_parts(same.number)
    left_out = _chosen(same.parts, same.of_parts(copies))
    staying_on = same.of_parts(dependent)
    members = {
        directory: (indices, numbers[directory][staying_on[directory]])
        for directory, indices in _chosen(same.parts, staying_on).items()
    }
    return Samples(SampleFilter(left_out, HELD * same.samples), staying=staying), members


def _chosen(
    parts: Mapping[str, Indices], chosen: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, Indices]:
    """Return those indices of each part that are chosen, but for parts that have none."""
    found = {directory: indices[chosen[directory]] for directory, indices in parts.items()}
    return {directory: indices for directory, indices in found.items() if len(indices)}


def _many_by_chance(number: Indices, digests: Digests, copies: int, differ: int) -> bool:
    """Whether too many of the copies would be equal if their ids meant nothing."""
    if not copies or not differ:
        return False
    _, first = np.unique(number, return_index=True)
    if len(first) < 2:
        return True
    _, often = np.unique(digests[first], axis=0, return_counts=True)
    equal = float(often @ (often - 1)) / (len(first) * (len(first) - 1))
    return equal == 1 or differ * equal / (1 - equal) > BY_CHANCE * copies
