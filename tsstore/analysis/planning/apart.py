"""Plans of layers of whose rows more is made, now or by passes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.layer_plan import Plan, make_plans
from tsstore.analysis.refusals import all_fit, refuse
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import MemoryTooSmallError
from tsstore.store.reading.layer import LayerStates


def plan_beside(
    works: Sequence[Work],
    layers: Sequence[LayerStates],
    beside: Beside,
    memory: int,
    scheduler: Scheduler,
) -> list[Plan]:
    """Return a plan for each of several layers, and check that what is made apart fits as well."""
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
