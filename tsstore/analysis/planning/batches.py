"""Which layers are counted at once: as many as the memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tsstore.analysis.planning.cost import TASK_BYTES
from tsstore.analysis.planning.layer_plan import Plan

SHARES_OF_A_THREAD = 8
"""So many, so that all threads end at about the same time."""
SHARE_ROWS = 1 << 20
"""Of a share, about: longer than some tenths of a second nobody waits for a task to end."""


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
    layers, as long as there are enough shares. Within a process each layer has a task of its own.
    """
    small = [place for place, plan in enumerate(plans) if plan.in_one_task]
    rows = sum(plans[place].block_rows for place in small)
    most = max(SHARES_OF_A_THREAD * all_threads, rows // SHARE_ROWS)
    shares = len(small) if shared_memory else min(len(small), most)
    return [small[number::shares] for number in range(shares)]


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
