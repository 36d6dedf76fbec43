"""Which layers are counted at once: as many as the memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tsstore.analysis.planning.layer_plan import Plan


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


def plan_batches(plans: Sequence[Plan], threads: int) -> list[PlannedBatch]:
    """Return in which batches layers are counted one after another, by processes of some threads.

    Largest first, each goes into the first batch that has room for all that it takes, if its
    records go the same way. One whose plan does without some of the threads has all of the memory,
    and is alone.
    """
    batches: list[list[int]] = []
    room: list[int] = []
    held: list[bool] = []
    for place in sorted(range(len(plans)), key=lambda place: -plans[place].projected_peak):
        plan = plans[place]
        needed = plan.projected_peak if plan.threads == threads else plan.memory
        own = plan.room_bytes > 0
        fitting = (n for n, left in enumerate(room) if needed <= left and held[n] == own)
        number = next(fitting, len(batches))
        if number == len(batches):
            batches.append([])
            room.append(plan.memory)
            held.append(own)
        batches[number].append(place)
        room[number] -= needed
    return [_batch(batch, [plans[place] for place in batch]) for batch in batches]


def _batch(layers: Sequence[int], plans: Sequence[Plan]) -> PlannedBatch:
    peak = sum(plan.projected_peak for plan in plans)
    return PlannedBatch(
        tuple(layers),
        plans[0].threads,
        peak,
        sum(plan.scratch_bytes for plan in plans if plan.in_scratch),
        sum(plan.room_bytes for plan in plans),
        any(plan.gives_back for plan in plans) or 2 * peak > plans[0].memory,
    )
