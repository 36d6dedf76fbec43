"""Which distinct states two runs share, and what is new in the second one, out of core.

Both runs' states are recorded with keys of one scheme, the second's by sample, and brought together
by hash: a partition holds all records of a state, whichever run they are of. A table by run tells
which states both show; then the second run's records are looked up, for the samples that show a new
one. Of the new states those are drawn whose hashes, mixed once more, are lowest: a random choice,
the same one however the work is divided. Their rows are read again, and compared with all rows of
the first run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from tsstore.analysis.comparing.drawn_states import (
    DRAWN,
    Drawn,
    nearest_distances,
    nearest_pass,
    read_states,
)
from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import Index, build_index_graph
from tsstore.analysis.execution.reduction import add_tasks, merge_tree
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.memory import all_fit
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.request import Request, check_rows
from tsstore.analysis.results.overlap import LayerOverlap
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.analysis.states.distinct import (
    Pieces,
    SampleJob,
    by_subpartition,
    graph_by_sample,
    without_samples,
    work_by_sample,
)
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import restore_hashes
from tsstore.counting.records import Records
from tsstore.counting.tables.aggregate import FIRST_SLOTS, count_in_passes
from tsstore.counting.tables.grouped import GroupedTable
from tsstore.counting.tables.spectra import Tally
from tsstore.counting.warm_up import warm_up
from tsstore.errors import CountingError
from tsstore.numba_tools.words import splitmix_words
from tsstore.statistics.spectrum import Spectrum, merge
from tsstore.store.reading.layer import LayerStates
from tsstore.text import printable

SAMPLE_BYTES = 4
"""Of a sample of the second run: a bit in each result of a partition that waits to be added up.

There is a byte as well in each task that counts a partition.
"""
FAN_IN = 4
RUNS = FIRST, SECOND = 0, 1

_Numbers = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class _Job:
    """How partitions are counted, and how many samples the second run has."""

    plan: Plan
    words: int
    samples: int


@dataclass(frozen=True, eq=False)
class _Found:
    """What was found in some partitions.

    Spectra of the states that each run alone shows, of those that both show in each; which of the
    second run's samples show a new state, packed; and the states drawn of these.
    """

    alone: tuple[Spectrum, ...]
    shared: tuple[Spectrum, ...]
    has_new: npt.NDArray[np.uint8]
    drawn: Drawn


def find_overlap(
    states: tuple[LayerStates, LayerStates],
    samples: Sequence[Samples],
    request: Request,
    scheduler: Scheduler,
    seed: int,
) -> LayerOverlap:
    """Return what was found of a layer of two runs, of which some samples count."""
    for own, shown in zip(states, samples, strict=True):
        check_rows(own, shown.sample_filter)
    first, second = states
    scheme = KeyScheme.create(first.row_bytes, seed)
    memory = scheduler.memory(request.memory)
    stored = sum(part.samples for part in second.parts)
    plan = _plan(states, samples, scheme, _held(second, scheduler), scheduler, request)
    warm_up(first.row_bytes, False, True, plan.spill)
    firsts = tuple(accumulate((part.samples for part in second.parts), initial=0))
    with planned_scratch(plan, scheduler, request.scratch) as folder:
        one, other = (Samples(own.sample_filter) for own in samples)
        graph, key = _graph(
            LayerJob(first, scheme, plan, folder, one),
            SampleJob(second, scheme, plan, folder, other, firsts=firsts),
            stored,
        )
        report = request.report(first.name)
        scheduler.leave_room(memory, plan.projected_peak)
        found: _Found = scheduler.run(graph, key, plan.threads, report)
    _check(found, states, samples)
    rows = read_states(second, firsts, scheme, found.drawn)
    distances = nearest_distances(first, rows, memory, scheduler, request)
    distinct = sum(spectrum.distinct for spectrum in (*found.alone, found.shared[FIRST]))
    counted = [
        shown.sample_filter.kept_samples(own) for own, shown in zip(states, samples, strict=True)
    ]
    return LayerOverlap(
        first.name,
        first.neurons,
        (counted[FIRST], counted[SECOND]),
        (found.alone[FIRST], found.alone[SECOND]),
        (found.shared[FIRST], found.shared[SECOND]),
        int(np.unpackbits(found.has_new).sum()),
        np.sort(distances),
        scheme.collision_bound(distinct),
    )


@dataclass(frozen=True)
class PlannedOverlap:
    """What finding the states of both runs takes of a layer.

    Attributes
    ----------
    rows
        Of both runs, which are read once each.
    rows_compared
        Of the first run, which are read once more and compared with up to 200 new states each.
    scratch_bytes
        Most bytes that lie in scratch; 0 where records stay in memory.
    projected_peak
        Most bytes that one process adds to its baseline.
    tasks
        Of the count.
    """

    rows: int
    rows_compared: int
    scratch_bytes: int
    projected_peak: int
    tasks: int


def plan_overlap(
    states: tuple[LayerStates, LayerStates],
    samples: Sequence[Samples],
    request: Request,
    scheduler: Scheduler,
) -> PlannedOverlap:
    """Say what `find_overlap` would take; no state is read."""
    first, second = states
    held, scheme = _held(second, scheduler), KeyScheme.create(first.row_bytes, 0)
    memory = scheduler.memory(request.memory)
    last = nearest_pass(first, np.zeros((DRAWN, first.row_bytes), np.uint8))

    planned = partial(_plan, states, samples, scheme, held, scheduler, request)
    all_fit([planned, partial(last.check, memory, scheduler)])
    plan = planned()
    return PlannedOverlap(
        first.stored_rows + second.stored_rows,
        first.stored_rows,
        plan.scratch_bytes if plan.in_scratch else 0,
        plan.projected_peak + held,
        plan.tasks,
    )


def _held(second: LayerStates, scheduler: Scheduler) -> int:
    """Return the bytes that are held all the while for the second run's samples."""
    return (SAMPLE_BYTES + scheduler.threads) * sum(part.samples for part in second.parts)


def _plan(
    states: tuple[LayerStates, LayerStates],
    samples: Sequence[Samples],
    scheme: KeyScheme,
    held: int,
    scheduler: Scheduler,
    request: Request,
) -> Plan:
    """Plan for the rows of both runs as if they were one, beside what is held all the while."""
    one, other = (
        work_by_sample(own, scheme, scheduler, request, shown.sample_filter.planned)
        for own, shown in zip(states, samples, strict=True)
    )
    work = replace(
        one,
        rows=one.rows + other.rows,
        largest_sample=max(one.largest_sample, other.largest_sample),
        chunk_bytes=max(one.chunk_bytes, other.chunk_bytes),
        parts=one.parts + other.parts,
        groups=len(RUNS),
        left_out=one.left_out + other.left_out,
    )
    threads, memory = scheduler.threads, scheduler.memory(request.memory)
    return make_plan(work, memory, threads, scheduler.shared_memory, held)


def _graph(first: LayerJob, second: SampleJob, samples: int) -> tuple[dict[Any, Any], Any]:
    """Return the graph that finds what two runs share, and the key of its result."""
    token, plan = uuid4().hex[:12], first.plan
    graph, one = build_index_graph(first)
    more, other = graph_by_sample(second)
    shared = f"tsstore-runs-{token}"
    graph |= more | {shared: _Job(plan, first.scheme.words, samples)}
    counts = (
        (_count_partition, shared, one, other, partition)
        for partition in range(1 << plan.partition_bits)
    )
    level = add_tasks(graph, f"tsstore-shared-{token}", counts)
    return graph, merge_tree(graph, level, FAN_IN, f"tsstore-added-{token}", _add)


def _count_partition(job: _Job, first: Index, second: Index, partition: int) -> _Found:
    """Find which states of a partition both runs show, and which samples show new ones."""
    plan, words = job.plan, job.words
    alone, shared = ([Tally() for _ in RUNS] for _ in range(2))
    has_new = np.zeros(job.samples, np.bool_)
    none = np.empty((0, words), np.uint64)
    drawn = Drawn(none[:, 0], none, np.empty(0, np.int64))
    for runs, bits in by_subpartition([(first, words), (second, words + 1)], plan, partition):
        records = partial(_by_run, *runs)
        new_table = partial(GroupedTable, words, len(RUNS), plan.maximum_slots, FIRST_SLOTS)
        for table in count_in_passes(new_table, records, bits, plan.maximum_slots):
            _tally(table, alone, shared)
            drawn = _new_states(table, runs[SECOND](), has_new, drawn)
    drawn = replace(drawn, keys=restore_hashes(drawn.keys, partition, plan.partition_bits))
    spectra = [[Spectrum.from_arrays(*own.spectrum()) for own in both] for both in (alone, shared)]
    return _Found(tuple(spectra[0]), tuple(spectra[1]), np.packbits(has_new), drawn)


def _by_run(first: Pieces, second: Pieces) -> Iterator[Records]:
    """Yield records of keys alone, by run."""
    for run, pieces in enumerate((first, second)):
        for piece in pieces():
            own = piece if run == FIRST else without_samples(piece)[0]
            yield replace(own, group=np.full(len(own), run, np.uint8))


def _tally(table: GroupedTable, alone: Sequence[Tally], shared: Sequence[Tally]) -> None:
    """Add up the states of a table, which one run alone shows, and which both do."""
    state, run_of, *counts = table.entries
    in_both = _are_shared(state)
    for run in RUNS:
        for tallies, chosen in ((alone, ~in_both), (shared, in_both)):
            tallies[run].add(*(own[chosen & (run_of == run)] for own in counts))


def _are_shared(state: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return whether the state of each entry has another one."""
    found: npt.NDArray[np.bool_] = np.bincount(state)[state] > 1
    return found


def _new_states(
    table: GroupedTable, second: Iterable[Records], has_new: npt.NDArray[np.bool_], drawn: Drawn
) -> Drawn:
    """Mark the second run's samples that show a new state of a table; draw of these as well.

    Another pass counts the states that are not in this table: the last kind is theirs.
    """
    known, run, *_ = table.entries
    kind = np.zeros(table.distinct + 1, np.uint8)
    kind[known[(run == SECOND) & ~_are_shared(known)]] = 1
    states = np.flatnonzero(kind)
    order = splitmix_words(table.keys[states, 0])
    if len(drawn.order) == DRAWN > 0:
        lower = order < drawn.order[-1]
        states, order = states[lower], order[lower]
    if len(states) > DRAWN:
        lowest = np.argpartition(order, DRAWN)[:DRAWN]
        states, order = states[lowest], order[lowest]
    kind[states] = 2
    shown_by = np.full(table.distinct, len(has_new))
    for piece in second:
        records, sample = without_samples(piece)
        state = table.find(records.keys)
        found = kind[state]
        has_new[sample[found > 0]] = True
        hits = np.flatnonzero(found == 2)
        np.minimum.at(shown_by, state[hits], sample[hits])
    return Drawn.together([drawn, Drawn(order, table.keys[states], shown_by[states])])


def _add(found: Iterable[_Found]) -> _Found:
    """Return what was found in some partitions together."""
    held = list(found)

    def added(name: str, run: int) -> Spectrum:
        return merge(getattr(one, name)[run] for one in held)

    return _Found(
        tuple(added("alone", run) for run in RUNS),
        tuple(added("shared", run) for run in RUNS),
        np.bitwise_or.reduce([one.has_new for one in held]),
        Drawn.together([one.drawn for one in held]),
    )


def _check(
    found: _Found, states: tuple[LayerStates, LayerStates], samples: Sequence[Samples]
) -> None:
    """Check that all rows that count were counted."""
    for run, own in enumerate(states):
        rows = samples[run].sample_filter.kept_rows(own)
        counted = found.alone[run].rows + found.shared[run].rows
        if counted != rows:
            raise CountingError(
                f"{own.location}: layer {printable(own.name)}: {counted} rows were counted, of "
                f"{rows} that are committed and not left out"
            )
