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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from tsstore.analysis.sample_digests import (
    Digests,
    Indices,
    bytes_to_digest,
    digest_samples,
    follows_its_like,
)
from tsstore.analysis.samples import ALL_SAMPLES, RandomGroups, SampleFilter
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import AnalysisError, MemoryTooSmallError, StoreError
from tsstore.store.reading.ids import ID, SameIds, id_dtype, repeated, same_ids
from tsstore.store.reading.store import StateStore
from tsstore.text import format_memory

Repeats = Literal["once", "each"]
"""Whether samples of one id and the same rows count once, or each sample is a draw of its own."""

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


@dataclass(frozen=True, eq=False)
class RepeatedSamples:
    """Which samples come more than once, and what becomes of them.

    Attributes
    ----------
    sample_filter
        Those that do not count.
    dependent
        By directory of a part: those that count although another one of their id does, as sorted
        indices, and the number of the id of each; int64.
    staying
        How many samples count although an earlier one of their id does; None if it is not known.
    problem
        Why ids were not compared, in a phrase; empty if they were, or if there are none.
    """

    sample_filter: SampleFilter = ALL_SAMPLES
    dependent: Mapping[str, tuple[Indices, Indices]] = field(default_factory=dict)
    staying: int | None = 0
    problem: str = ""


NO_REPEATS = RepeatedSamples()
"""Every sample counts, and depends on no other."""


def samples_that_count(
    store: StateStore,
    layers: Sequence[str],
    unique_by: str | None,
    repeats: Repeats,
    memory: int,
    scheduler: Scheduler,
) -> RepeatedSamples:
    """Return which samples are left out, and which of the others depend on each other.

    Raises
    ------
    AnalysisError
        If `repeats` is neither of its two values, or is for ids and `unique_by` is given.
    StoreError, DamageError, MemoryTooSmallError
        As `leave_out_repeated` and `settle_repeats`.
    """
    _check_repeats(repeats)
    if unique_by is not None:
        return RepeatedSamples(leave_out_repeated(store, unique_by, memory))
    if repeats == "each":
        same = find_same_ids(store, memory)
        return RepeatedSamples(staying=None if isinstance(same, str) else same.repeats)
    return settle_repeats(store, layers, memory, scheduler)


def planned_filter(
    store: StateStore, unique_by: str | None, repeats: Repeats, memory: int
) -> SampleFilter:
    """Return the samples that are left out for certain, and how many may be at most.

    No state is read. Arguments and errors as `samples_that_count`.
    """
    _check_repeats(repeats)
    if unique_by is not None:
        return leave_out_repeated(store, unique_by, memory)
    same = find_same_ids(store, memory) if repeats == "once" else ""
    return SampleFilter(most=0 if isinstance(same, str) else HELD * same.samples)


def _check_repeats(repeats: Repeats) -> None:
    if repeats not in ("once", "each"):
        raise AnalysisError(f"repeats is {repeats!r:.80}; expected 'once' or 'each'")


def find_same_ids(store: StateStore, memory: int) -> SameIds | str:
    """Return the samples whose id occurs more than once; or why ids cannot be compared.

    The reason is empty where there are no ids.

    Raises
    ------
    DamageError
        If a chunk of ids is not what was committed.
    """
    if ID not in store.columns:
        return ""
    try:
        id_dtype(store.parts)
    except StoreError as error:
        # What ids there are is the user's business, until they are asked for.
        return str(error)
    needed = bytes_to_compare(store, ID)
    if needed > memory:
        return f"it takes {format_memory(needed)}, and memory is {format_memory(memory)}"
    return same_ids(store.parts)


def leave_out_repeated(store: StateStore, by: str, memory: int) -> SampleFilter:
    """Leave out each sample that repeats another one of its step and id.

    Of several, that of the earliest attempt stays; then that of the lowest rank; then the first.

    Parameters
    ----------
    store
        The run.
    by
        The sample column that holds the ids, integers or text.
    memory
        What comparing them may take, in bytes.

    Raises
    ------
    MemoryTooSmallError
        If the ids are too many.
    StoreError
        If a part has samples and no such column, or it is of no one type of integers or text.
    DamageError
        If a chunk of ids is not what was committed.
    """
    needed = bytes_to_compare(store, by)
    if needed > memory:
        raise MemoryTooSmallError(
            f"{store.path}: memory of {format_memory(memory)} is too small to compare the ids of "
            f"{store.samples:,} samples; give at least memory='{-(-needed // 1024)}KiB'"
        )
    found = repeated(store.parts, by).left_out
    return SampleFilter(
        {directory: indices for directory, indices in found.items() if len(indices)}
    )


def bytes_to_compare(store: StateStore, by: str) -> int:
    """Return the most bytes that comparing all ids takes; about so many if they are of text."""
    columns = [part.columns[by] for part in store.parts if by in part.columns]
    of_text = sum(column.rows for column in columns if column.spec.is_text)
    return COMPARED_BYTES * store.samples + TEXT_BYTES * of_text


def settle_repeats(
    store: StateStore, layers: Sequence[str], memory: int, scheduler: Scheduler
) -> RepeatedSamples:
    """Find the samples that come more than once, and settle which of them count.

    Only rows of samples whose id occurs more than once are read, and of those only as many layers
    as it takes to tell them apart.

    Raises
    ------
    DamageError
        If a chunk is not what was committed.
    """
    same = find_same_ids(store, memory)
    if isinstance(same, str):
        return RepeatedSamples(staying=None, problem=same)
    if not same.samples:
        return NO_REPEATS
    states = [store[name] for name in layers]
    needed = bytes_to_digest(same, states, scheduler)
    if needed > memory:
        problem = (
            f"comparing the rows of {same.samples:,} samples takes {format_memory(needed)}, and "
            f"memory is {format_memory(memory)}"
        )
        return RepeatedSamples(staying=None, problem=problem)
    return _settled(same, digest_samples(same, states, memory, scheduler))


def count_clusters(
    store: StateStore, groups: RandomGroups | None, repeats: RepeatedSamples
) -> int | None:
    """Return how many clusters the samples that count are of; None if each is its own.

    Parameters
    ----------
    store
        The run.
    groups
        Those of a column whose values are clusters, if there is one.
    repeats
        Samples that are left out, or depend on each other.
    """
    if groups is not None:
        return groups.count_clusters(repeats.sample_filter)
    if not repeats.dependent:
        return None
    return store.samples - repeats.sample_filter.samples - (repeats.staying or 0)


def _settled(same: SameIds, digests: Digests) -> RepeatedSamples:
    """Leave out copies, unless many are equal by chance; the others depend on each other."""
    copies = _equal_to_earlier(same.number, digests)
    staying = same.repeats - int(copies.sum())
    if _many_by_chance(same.number, digests, int(copies.sum()), staying):
        copies[:] = False
        staying = same.repeats
    dependent = ~copies
    dependent[dependent] = _several(same.number[~copies])
    numbers = same.of_parts(same.number)
    left_out = _chosen(same.parts, same.of_parts(copies))
    staying_on = same.of_parts(dependent)
    members = {
        directory: (indices, numbers[directory][staying_on[directory]])
        for directory, indices in _chosen(same.parts, staying_on).items()
    }
    return RepeatedSamples(SampleFilter(left_out, HELD * same.samples), members, staying)


def _chosen(
    parts: Mapping[str, Indices], chosen: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, Indices]:
    """Return those indices of each part that are chosen, but for parts that have none."""
    found = {directory: indices[chosen[directory]] for directory, indices in parts.items()}
    return {directory: indices for directory, indices in found.items() if len(indices)}


def _equal_to_earlier(number: Indices, digests: Digests) -> npt.NDArray[np.bool_]:
    """Return which samples equal an earlier one of their id."""
    order = np.lexsort((digests[:, 1], digests[:, 0], number))
    same = follows_its_like(number[order], digests[order])
    copies = np.zeros(len(number), bool)
    copies[order] = same
    return copies


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


def _several(number: Indices) -> npt.NDArray[np.bool_]:
    """Return which entries occur more than once."""
    _, place, often = np.unique(number, return_inverse=True, return_counts=True)
    return np.asarray(often[place] > 1)
