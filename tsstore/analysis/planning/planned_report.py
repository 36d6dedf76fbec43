"""What a report would take, which counts neurons beside the states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.planning.batches import plan_batches
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.layer_plan import make_plans
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
    """

    read_again: tuple[str, ...] = ()
    projected_peak: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"read_again": list(self.read_again), "projected_peak": self.projected_peak}

    def clause(self, layers: int) -> str:
        """Say how often the rows of so many layers are read."""
        if self.projected_peak is None:
            return "a report needs more memory"
        if not self.read_again:
            return "a report reads them as often"
        rows = "them" if len(self.read_again) == layers else f"those of {listed(self.read_again)}"
        return f"a report reads {rows} once more"

    @property
    def sentence(self) -> str:
        """Say what it takes."""
        said = "A report counts neurons as well"
        if self.projected_peak is None:
            return f"{said}, for which there is too little memory."
        if self.read_again:
            said += f": the rows of {listed(self.read_again)} are read once more for them, as the "
            said += "memory does not hold both at once"
        else:
            said += ", from the rows as they are read"
        return f"{said}; projected peak {format_memory(self.projected_peak)}."


def plan_report(
    store: StateStore,
    works: Sequence[Work],
    beside: Beside,
    memory: int,
    scheduler: Scheduler,
    one_by_one: bool,
) -> PlannedReport:
    """Plan to count the layers of a run and their neurons, within so many bytes.

    There is a work for each layer, and all of them are counted together unless one by one.
    """
    try:
        plans = make_plans(works, memory, scheduler, beside.held_bytes)
        plans = plans if one_by_one else [plan.whole for plan in plans]
        for states, plan in zip(store.values(), plans, strict=True):
            if not plan.beside:
                beside.check(states, memory, scheduler)
    except MemoryTooSmallError:
        return PlannedReport()
    again = tuple(name for name, plan in zip(store, plans, strict=True) if not plan.beside)
    peaks = [plan.projected_peak for plan in plans]
    if not one_by_one:
        peaks = [batch.projected_peak for batch in plan_batches(plans, scheduler.threads)]
    # What was counted of neurons is held all the while.
    return PlannedReport(again, max(peaks) + memory - plans[0].memory)
