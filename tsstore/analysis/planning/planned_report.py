"""What a report would take, which counts neurons beside the states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tsstore.analysis.comparing.pairing import Order, find_pairing, joining_bytes
from tsstore.analysis.comparing.together import companions, comparing_checks, find_order
from tsstore.analysis.execution.beside import Companion
from tsstore.analysis.memory import all_fit
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.planning.layers import layer_work, make_plans, plan_batches, plan_beside
from tsstore.analysis.repeats import plan_samples
from tsstore.analysis.request import Request
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import MemoryTooSmallError
from tsstore.store.reading.store import StateStore
from tsstore.text import format_memory, listed


@dataclass(frozen=True)
class PlannedReport:
    """What a report would take.

    Attributes
    ----------
    read_again
        Layers whose rows are read once more for their neurons: the memory does not hold both at
        once.
    projected_peak
        Bytes that one process adds to its baseline, at most; None if the memory does not hold that.
    compares
        Whether the report compares the run with another one, whose states are counted as well.
    compared_again
        Layers whose rows are read once more in both runs, to compare them.
    same_order
        Whether both runs hold the same samples in the same order, so far as they do.
    """

    read_again: tuple[str, ...] = ()
    projected_peak: int | None = None
    compares: bool = False
    compared_again: tuple[str, ...] = ()
    same_order: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "read_again": list(self.read_again),
            "projected_peak": self.projected_peak,
            "compares": self.compares,
            "compared_again": list(self.compared_again),
        }

    def clause(self, layers: int) -> str:
        """Say how often the rows of so many layers are read."""
        if self.projected_peak is None:
            return "a report needs more memory"

        def of(names: tuple[str, ...], all_of_them: str) -> str:
            return all_of_them if len(names) == layers else f"those of {listed(names)}"

        more = []
        if self.read_again:
            more.append(f"{of(self.read_again, 'them')} once more")
        if self.compared_again:
            rows = of(self.compared_again, "the rows of both")
            more.append(f"{rows} once more to compare both runs")
        if more:
            return f"a report reads {' and '.join(more)}"
        return f"a report reads them{' and the other run' * self.compares} as often"

    @property
    def sentence(self) -> str:
        """Say what it takes."""
        said = "A report counts neurons as well"
        if self.compares:
            said = "A report counts neurons and the other run's states as well, and compares both"
        if self.projected_peak is None:
            return f"{said}, for which there is too little memory."
        peak = f"projected peak {format_memory(self.projected_peak)}"
        both = "the memory does not hold both at once"
        more = []
        if self.read_again:
            layers = listed(self.read_again)
            neurons = "the neurons" if self.compares else "them"
            more.append(f"the rows of {layers} are read once more for {neurons}, as {both}")
        if self.compared_again:
            why = both if self.same_order else "samples are in another order there"
            layers = listed(self.compared_again)
            more.append(f"the rows of {layers} are read once more in both runs, as {why}")
        if more:
            return f"{said}: {'; '.join(more)}; {peak}."
        return f"{said}, from the rows as they are read; {peak}."


@dataclass(frozen=True, eq=False)
class OtherRun:
    """The run that a report compares: what is to be counted, and what keeps rows from comparing.

    There is a work for each layer, and a reason for each that cannot be compared.
    """

    store: StateStore
    works: Sequence[Work]
    reasons: Mapping[str, str]
    order: Order


def plan_other_run(
    store: StateStore, other: StateStore, request: Request, scheduler: Scheduler
) -> tuple[OtherRun, dict[str, Companion]]:
    """Return what there is to count and compare of another run, and what may be read in step.

    Ids are joined if the memory holds them.
    """
    alone = replace(request, by=None, bins=None, window=None)
    samples = plan_samples(other, alone, scheduler)
    order, reasons = Order(), dict.fromkeys(store, "")
    if joining_bytes(store, other) <= scheduler.memory(request.memory):
        order, reasons = find_order(store, other, find_pairing(store, other))
    of = alone, samples.group_count, samples.sample_filter.planned
    works = [layer_work(states, scheduler, *of) for states in other.values()]
    wanted = companions(store, other, samples, order, reasons)
    return OtherRun(other, works, reasons, order), wanted


def plan_report(
    store: StateStore,
    works: Sequence[Work],
    request: Request,
    scheduler: Scheduler,
    other: OtherRun | None = None,
) -> PlannedReport:
    """Plan to count the layers of a run and their neurons, and another run to compare it with.

    There is a work for each layer, and all of them are counted together unless by group.
    """
    memory, beside, compares = scheduler.memory(request.memory), request.beside, other is not None
    try:
        plans = plan_beside(works, list(store.values()), request, scheduler)
        plans = plans if request.in_groups else [plan.whole for plan in plans]
        apart = [place for place, plan in enumerate(plans) if plan.companion is None]
        others: list[Plan] = []
        if other is not None and apart:
            kept = beside.kept_bytes
            others = make_plans([other.works[n] for n in apart], memory, scheduler, kept, kept)
            others = [plan.whole for plan in others]
            rest = store.select(*(store.layers[n] for n in apart))
            all_fit(comparing_checks(rest, other.store, request, scheduler, beside.held_bytes))
    except MemoryTooSmallError:
        return PlannedReport(compares=compares)
    # What was counted of neurons is held all the while.
    peaks = [
        _peak(own, one_by_one, scheduler) + memory - own[0].memory
        for own, one_by_one in ((plans, request.in_groups), (others, False))
        if own
    ]
    again = tuple(name for name, plan in zip(store, plans, strict=True) if not plan.beside)
    if other is None:
        return PlannedReport(again, max(peaks))
    names = [store.layers[place] for place in apart]
    compared = tuple(name for name in names if not other.reasons[name])
    return PlannedReport(again, max(peaks), compares, compared, bool(other.order.stretches))


def _peak(plans: Sequence[Plan], one_by_one: bool, scheduler: Scheduler) -> int:
    """Return what counting layers adds at most, all of them together unless one by one."""
    if one_by_one:
        return max(plan.projected_peak for plan in plans)
    return max(batch.projected_peak for batch in plan_batches(plans, scheduler.threads))
