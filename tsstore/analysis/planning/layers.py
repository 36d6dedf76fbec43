"""Plans of the layers of runs: what there is to count of each, and which are counted at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tsstore.analysis.execution.beside import Beside, Companion
from tsstore.analysis.memory import all_fit, refuse
from tsstore.analysis.planning.cost import TASK_BYTES, Work
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.request import Request
from tsstore.analysis.schedulers import Scheduler
from tsstore.counting.keys import key_words
from tsstore.errors import MemoryTooSmallError
from tsstore.store.files.open import is_url
from tsstore.store.reading.layer import LayerStates

LEFT_SHARES = 2
"""Shares for each thread that what is left is worth, at least."""
SHARE_ROWS = 1 << 20
"""Of a share, about: longer than some tenths of a second nobody waits for a task to end."""


def layer_work(
    states: LayerStates,
    scheduler: Scheduler,
    request: Request,
    groups: int,
    left_out: int,
    sets: int = 0,
) -> Work:
    """Return what there is to count in a layer, and to make beside it as is requested.

    So many groups of samples are told apart, in each of so many sets, and so many samples of the
    run left out. The rows of each sample are read if they vary.
    """
    beside, scratch = request.beside.of(states), request.scratch
    second, companion = None, request.beside.companions.get(states.name)
    if companion is not None:
        alone, samples = replace(request, beside=Beside()), companion.samples
        of = samples.group_count, samples.sample_filter.planned
        second = _in_step(layer_work(companion.states, scheduler, alone, *of), companion)
    return Work(
        name=states.name,
        rows=states.stored_rows,
        row_bytes=states.row_bytes,
        words=key_words(states.row_bytes, request.exact),
        largest_sample=states.largest_sample,
        chunk_bytes=max(part.states.spec.chunk_bytes for part in states.parts),
        parts=len(states.parts),
        groups=groups,
        sets=sets,
        left_out=left_out,
        all_threads=scheduler.all_threads,
        neurons=states.neurons,
        object_scratch=scratch is not None and is_url(scratch),
        holders=scheduler.holders if scratch is None else 0,
        # Rows are read in whole samples then.
        beside_bytes=sum(
            (one.bytes_beside for one in beside),
            bool(beside) * states.largest_sample * states.row_bytes,
        ),
        result_bytes=sum(one.result_bytes for one in beside),
        companion=second,
    )


def _in_step(work: Work, companion: Companion) -> Work:
    """Return the work of a layer whose rows are held until those of another one are read.

    With it is what passes take that are shown both.
    """
    beside = work.largest_sample * work.row_bytes
    return replace(
        work,
        # No block reads from two stretches, nor from what lies between two.
        parts=work.parts + 2 * len(companion.stretches),
        beside_bytes=beside + sum(one.bytes_beside for one in companion.passes),
        result_bytes=sum(one.result_bytes for one in companion.passes),
        step_row_bytes=work.row_bytes + -(-work.row_bytes // 16),
    )


def layer_plan(
    states: LayerStates,
    memory: int,
    scheduler: Scheduler,
    groups: int = 0,
    left_out: int = 0,
    exact: bool = False,
    scratch: str | os.PathLike[str] | None = None,
    held: int = 0,
) -> Plan:
    """Return how a layer would be counted within so many bytes of memory; see :func:`make_plan`.

    It tells so many groups of samples apart, and leaves out so many samples of the run.
    """
    request = Request(exact=exact, scratch=scratch)
    work = layer_work(states, scheduler, request, groups, left_out)
    return make_plans([work], memory, scheduler, held)[0]


def make_plans(
    works: Sequence[Work], memory: int, scheduler: Scheduler, held: int = 0, kept: int = 0
) -> list[Plan]:
    """Return a plan for each of several layers, by itself; those that are alike have the same.

    Where the memory is too small for some, the MemoryTooSmallError names what suffices for all. So
    many bytes are held all the while: where these are of what else is made of the rows, and too
    many for the count of some layer, it is made afterwards, of all layers, and so many are kept.
    """
    known: dict[Work, Plan] = {}

    def plan_of(work: Work) -> Plan:
        alike = work.unnamed
        if alike not in known:
            threads, shared_memory = scheduler.threads, scheduler.shared_memory
            known[alike] = make_plan(work, memory, threads, shared_memory, held)
        return known[alike]

    try:
        return all_fit(partial(plan_of, work) for work in works)
    except MemoryTooSmallError:
        counting = [work.counting for work in works]
        if counting == list(works):
            raise
    return make_plans(counting, memory, scheduler, kept)


def plan_beside(
    works: Sequence[Work], layers: Sequence[LayerStates], request: Request, scheduler: Scheduler
) -> list[Plan]:
    """Return a plan for each of several layers, and check that what is made apart fits as well."""
    beside, memory = request.beside, scheduler.memory(request.memory)
    held = beside.held_bytes, beside.kept_bytes

    def checks(plans: Iterable[Plan]) -> Iterator[Callable[[], None]]:
        for states, plan in zip(layers, plans, strict=True):
            if not plan.beside:
                yield partial(beside.check, states, memory, scheduler)

    try:
        plans = make_plans(works, memory, scheduler, *held)
    except MemoryTooSmallError as refused:
        # What suffices for that may not suffice for what would then be made apart.
        enough = make_plans(works, refused.needed, scheduler, *held)
        refuse(refused, checks(enough))
    all_fit(checks(plans))
    return plans


@dataclass(frozen=True)
class PlannedBatch:
    """Layers that are counted at once, in one graph, each by the plan that it would have alone.

    Attributes
    ----------
    layers
        Which of all layers, by their places; the largest first.
    threads
        Tasks that one process runs at a time.
    projected_peak
        Bytes that one process adds to its baseline, at most.
    scratch_bytes
        Most bytes of records there can be in scratch.
    room_bytes
        Most bytes of records that each worker of a cluster holds; 0 where none does.
    gives_back
        Whether memory that was freed is given back to the system before and after; as of a `Plan`.
    """

    layers: tuple[int, ...]
    threads: int
    projected_peak: int
    scratch_bytes: int
    room_bytes: int
    gives_back: bool


@dataclass
class _Open:
    """A batch to which layers are added, largest first."""

    layers: list[int] = field(default_factory=list)
    taken: int = 0
    tasks: int = 0
    held: bool | None = None

    def needed(self, plan: Plan, threads: int) -> int:
        """Return what a layer takes: nearly nothing if as many larger ones run at a time."""
        if plan.threads < threads:
            return plan.memory
        return TASK_BYTES if plan.in_one_task and self.tasks >= threads else plan.projected_peak

    def has_room(self, plan: Plan, threads: int) -> bool:
        """Whether a layer fits, and its records go the same way as those of others."""
        goes_along = plan.in_one_task or self.held in (None, plan.room_bytes > 0)
        return goes_along and self.taken + self.needed(plan, threads) <= plan.memory

    def add(self, place: int, plan: Plan, threads: int) -> None:
        """Add a layer."""
        self.layers.append(place)
        self.taken += self.needed(plan, threads)
        if plan.in_one_task:
            self.tasks += 1
        else:
            self.held = plan.room_bytes > 0


def plan_batches(plans: Sequence[Plan], threads: int) -> list[PlannedBatch]:
    """Return in which batches layers are counted one after another, by processes of some threads.

    Largest first, each goes into the first batch that has room for all that it takes, if its
    records go the same way. Of those that a task counts, no more run at a time than there are
    threads. One whose plan does without some of the threads has all of the memory, and is alone.
    """
    batches: list[_Open] = []
    for place in sorted(range(len(plans)), key=lambda place: -plans[place].projected_peak):
        plan = plans[place]
        batch = next((batch for batch in batches if batch.has_room(plan, threads)), None)
        if batch is None:
            batch = _Open()
            batches.append(batch)
        batch.add(place, plan, threads)
    return [_batch(batch, [plans[place] for place in batch.layers]) for batch in batches]


def share_out(plans: Sequence[Plan], all_threads: int, shared_memory: bool) -> list[list[int]]:
    """Return in which shares the layers of a batch are counted that a task counts, by their places.

    To hand a task to another process takes as long as to count some thousand rows: it gets several
    layers, of those that are left for all threads, so that shares get smaller and all threads end
    at about the same time. Within a process each layer has a task of its own.
    """
    small = [place for place, plan in enumerate(plans) if plan.in_one_task]
    left, room = sum(plans[place].block_rows for place in small), 0
    shares: list[list[int]] = []
    for place in small:
        rows = plans[place].block_rows
        if shared_memory or rows > room:
            shares.append([])
            room = min(left // (LEFT_SHARES * all_threads), SHARE_ROWS)
        shares[-1].append(place)
        room, left = room - rows, left - rows
    return shares


def _batch(batch: _Open, plans: Sequence[Plan]) -> PlannedBatch:
    peak = plans[0].projected_peak if len(plans) == 1 else batch.taken
    return PlannedBatch(
        tuple(batch.layers),
        plans[0].threads,
        peak,
        sum(plan.scratch_bytes for plan in plans if plan.in_scratch),
        sum(plan.room_bytes for plan in plans),
        any(plan.gives_back for plan in plans) or 2 * peak > plans[0].memory,
    )
