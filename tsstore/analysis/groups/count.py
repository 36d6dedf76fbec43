"""Counting sets of a layer's samples, each by itself and all together, in one pass over its rows.

A record tells the set of its sample besides the random group, so that one count gives the spectrum
of each set, and what leaving a group out changes in it, as well as the whole's. Where the spectra
of all sets are more than there is memory for, there is a pass for some sets after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.graph import Counts, group_numbers
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.layers import conclude, graph_of, layer_jobs, warm_up_companion
from tsstore.analysis.memory import all_fit, give_back_memory
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.planning.layers import layer_work, plan_beside
from tsstore.analysis.request import Request
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.counting.keys import KeyScheme
from tsstore.counting.tables.spectra import join_entries
from tsstore.counting.warm_up import warm_up
from tsstore.errors import CountingError
from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.statistics.spectrum import Spectrum
from tsstore.store.reading.layer import LayerStates

_Numbers = npt.NDArray[np.int64]


def work_of_sets(
    states: LayerStates, scheduler: Scheduler, request: Request, samples: Samples
) -> Work:
    """Return what there is to count in a layer: in all samples, and in each set if there are some.

    The numbers of their sets are held all the while, two bytes a sample: reckoned as samples that
    are left out.
    """
    (groups, sets), left_out = samples.told, samples.sample_filter.planned
    if sets:
        left_out += sum(part.samples for part in states.parts) // 4
    return layer_work(states, scheduler, request, groups, left_out, sets)


def plan_groups(
    layers: Iterable[LayerStates], request: Request, scheduler: Scheduler, samples: Samples
) -> list[Plan]:
    """Return how the sets of each layer's samples are counted; see :func:`count_groups`.

    Where the memory is too small for some layers, the MemoryTooSmallError names what suffices for
    all.
    """

    def plan_of(states: LayerStates) -> Plan:
        work = work_of_sets(states, scheduler, request, samples)
        return plan_beside([work], [states], request, scheduler)[0]

    return all_fit(partial(plan_of, states) for states in layers)


def count_groups(
    states: LayerStates,
    plan: Plan,
    request: Request,
    scheduler: Scheduler,
    samples: Samples,
    whole: bool = True,
) -> tuple[list[Counts], KeyScheme]:
    """Return what was counted of each of the sets of samples, and at last of all of them.

    `samples` say which samples count and which random groups are told apart; both are the same for
    all sets. All together are counted as well unless they are of several steps. What is wanted
    beside comes of the first pass, or of one of its own.
    """
    memory, beside = scheduler.memory(request.memory), request.beside
    count = samples.set_count
    at_once = -(-count // plan.passes)
    counts: list[Counts] = []
    scheme = KeyScheme.create(states.row_bytes, request.seed, request.exact)
    later = replace(plan, beside=False, companion=None)
    for first in range(0, count, at_once):
        now = later if first else plan
        some = _some(samples, first, at_once)
        warm_up(states.row_bytes, request.exact, some.code_count, plan.spill, sets=True)
        warm_up_companion(states, now, request)
        if plan.gives_back:
            give_back_memory(scheduler.arena)
        else:
            scheduler.leave_room(memory, plan.projected_peak)
        spilling = next((own for own in now.both if own.spill), now)
        with planned_scratch(spilling, scheduler, request.scratch, now.room_bytes) as folder:
            job, pair = layer_jobs(states, some, now, request, scheme, folder, scheduler.arena)
            graph, _, *keys = graph_of(job, pair)
            report = request.report(states.name)
            found, *others = scheduler.run(graph, keys, plan.threads, report)
            if plan.gives_back:
                give_back_memory(scheduler.arena)
        *of_sets, of_all = _by_set(found, states, some)
        counts += of_sets[: count - first]
        companion = None if pair is None else conclude(pair.second, *others)[0]
        beside.note(states.name, found.beside, companion)
    rows = rows_by_set(states, samples)
    for own, expected in zip(counts, rows.tolist(), strict=True):
        _check(own, expected, states)
    if whole:
        _check(of_all, samples.sample_filter.kept_rows(states), states)
    if not plan.beside:
        beside.run(states, memory, scheduler, request.report(states.name))
    return [*counts, of_all], scheme


def _some(samples: Samples, first: int, count: int) -> Samples:
    """Return samples in so many sets from one on; others are in none, which is one more."""
    some = {}
    for name, own in (samples.sets or {}).items():
        chosen = (own >= first) & (own < first + count)
        some[name] = np.where(chosen, own - first, count).astype(np.int16)
    return replace(samples, sets=some, set_count=count)


def _by_set(counts: Counts, states: LayerStates, samples: Samples) -> list[Counts]:
    """Return what was counted of each set, and at last of all samples; changes are sorted."""
    groups, sets = samples.told
    numbers = group_numbers(counts, states, samples).reshape(4, sets + 1, groups)
    if not counts.entries:
        return [Counts(Spectrum.empty())] * (sets + 1)
    entries = join_entries(counts.entries)
    found = []
    for own in range(sets):
        first = groups + own * (groups + 1)
        spectrum = entries.of(first + groups, first + groups + 1)
        of_set = Spectrum.from_arrays(*spectrum.columns)
        found.append((of_set, numbers[:, own], entries.of(first, first + groups)))
    found.append((counts.spectrum, numbers.sum(axis=1), entries.of(0, groups)))
    return [
        Counts(
            spectrum,
            int(own[2].sum()),
            int(own[3].sum()),
            None
            if samples.groups is None
            else SpectrumDelta.from_groups(own, changed.ends, *changed.columns),
        )
        for spectrum, own, changed in found
    ]


def _check(counts: Counts, rows: int, states: LayerStates) -> None:
    """Check that all rows of a set were counted, and in each random group its own."""
    if counts.spectrum.rows != rows:
        raise CountingError(
            f"{states.name}: the multiplicities add up to {counts.spectrum.rows}, but {rows} rows "
            "of a group are committed"
        )
    if counts.changes is not None and (left := counts.changes.rows_left).any():
        raise CountingError(f"{states.name}: random groups leave {left.tolist()} rows of a group")


def rows_by_set(states: LayerStates, samples: Samples) -> _Numbers:
    """Return the rows of each set of samples, int64 (sets,), from the rows of samples alone.

    Samples whose number is -1 are in none.
    """
    rows, sets = np.zeros(samples.set_count, np.int64), samples.sets or {}
    for part in states.parts:
        first = 0
        for positions in part.position_pieces():
            own = sets[part.directory][first : first + len(positions)]
            chosen = own >= 0
            kept = samples.sample_filter.kept(part.directory, first, len(positions))
            if kept is not None:
                chosen &= kept
            np.add.at(rows, own[chosen], positions[chosen])
            first += len(positions)
    return rows
