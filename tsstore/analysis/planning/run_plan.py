"""How a run would be counted, before anything is."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tsstore.analysis.analyze import layer_work
from tsstore.analysis.machine import parse_memory
from tsstore.analysis.planning import plan_display as display
from tsstore.analysis.planning.layer_plan import Plan, make_plan
from tsstore.analysis.planning.plan_numbers import PlannedLayer, PlanNumbers
from tsstore.analysis.repeats import Repeats, planned_filter
from tsstore.analysis.request import (
    check_rows,
    countable,
    dependence,
    layer_names,
    sample_groups,
)
from tsstore.analysis.schedulers import Scheduler, choose
from tsstore.errors import MemoryTooSmallError
from tsstore.store.files.open import StorePath
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.store import StateStore

if TYPE_CHECKING:
    import pandas as pd

LARGEST_GIB = 10_000
"""More memory than this no advice asks for."""

_Way = Callable[[int], Plan]
"""Takes bytes of memory, and returns the plan of a layer with them."""


class RunPlan(PlanNumbers):
    """How a run would be counted: a mapping from layer names to plans; made by `plan`.

    Layers are counted one after another, each with all the memory and all the threads.
    """

    @property
    def sentences(self) -> list[str]:
        """What goes through files and why, how often it is read, what other memories would do."""
        return display.sentences(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them; amounts are in bytes."""
        return {
            "run": self.run,
            "memory": self.memory,
            "threads": self.threads,
            "rows": self.rows,
            "tasks": self.tasks,
            "scratch_bytes": self.scratch_bytes,
            "projected_peak": self.projected_peak,
            "smallest_memory": self.smallest_memory,
            "in_memory_from": self.in_memory_from,
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
            "sentences": self.sentences,
        }

    def to_json(self) -> str:
        """Return :meth:`to_dict` as a JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_frame(self) -> pd.DataFrame:
        """Return the layers' numbers as a table, one line a layer."""
        import pandas as pd

        rows = {name: layer.to_dict() for name, layer in self.layers.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def __repr__(self) -> str:
        return display.plan_text(self)

    def _repr_html_(self) -> str:
        return display.plan_html(self)


def plan(
    store: StateStore | StorePath,
    layers: str | Iterable[str] | None = None,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    intervals: bool = True,
    dependent_by: str | None = None,
    unique_by: str | None = None,
    repeats: Repeats = "once",
    exact: bool = False,
    cluster: str | None = None,
) -> RunPlan:
    """Say how :func:`tsstore.analyze` would count a run if it had the same arguments.

    No state is read: metadata alone, the rows of each sample where they vary, and the ids. Where
    samples repeat others, the plan is that of the most memory that they can take.

    Parameters
    ----------
    store, layers, memory, scheduler, intervals, dependent_by, unique_by, repeats, exact, cluster
        As :func:`tsstore.analyze` takes them.

    Returns
    -------
    RunPlan
        A mapping from layer names to plans, with ``projected_peak <= memory``.

    Raises
    ------
    MemoryTooSmallError
        If a layer cannot be counted; the message names the smallest memory with which it can.
    StoreError, AnalysisError
        As :func:`tsstore.analyze` does.
    """
    dependent_by = dependence(dependent_by, cluster)
    store = countable(store)
    names = layer_names(store, layers)
    asked = None if memory is None else parse_memory(memory)
    groups = sample_groups(store, intervals, dependent_by)
    count = groups.count if groups else 0
    with closing(choose(scheduler)) as runner:
        amount = runner.memory(asked)
        sample_filter = planned_filter(store, unique_by, repeats, amount)
        found, ways = {}, []
        for name in names:
            check_rows(store[name], sample_filter)
            ways.append(_way(store[name], runner, count, sample_filter.planned, exact))
            states = store[name]
            found[name] = PlannedLayer(states.rows, states.row_bytes, ways[-1](amount))
        smallest = min(amount, _least_memory(ways, lambda plan: True) or amount)
        in_memory = _least_memory(ways, lambda plan: not plan.spill)
        threads, shared_memory = runner.threads, runner.shared_memory
    return RunPlan(store.path, amount, threads, shared_memory, found, smallest, in_memory)


def _way(states: LayerStates, runner: Scheduler, groups: int, left_out: int, exact: bool) -> _Way:
    work = layer_work(states, runner, groups, left_out, exact)
    return lambda memory: make_plan(work, memory, runner.threads, runner.shared_memory)


def _least_memory(ways: Collection[_Way], suits: Callable[[Plan], bool]) -> int | None:
    """Return the fewest bytes, a round amount, with which all plans suit; None if none do."""

    def enough(memory: int) -> bool:
        try:
            return all(suits(way(memory)) for way in ways)
        except MemoryTooSmallError:
            return False

    amounts = _round_amounts()
    place = bisect_left(amounts, True, key=enough)
    return amounts[place] if place < len(amounts) else None


def _round_amounts() -> list[int]:
    """Return all amounts that a person would name: in two digits, or whole KiB, MiB or GiB."""
    digits = [tenths / 10 for tenths in range(10, 100)]
    numbers: list[float] = [*digits, *range(10, 1024)]
    units = [1 << 10, 1 << 20, 1 << 30]
    amounts = [int(number * unit) for unit in units for number in numbers]
    return amounts + [number << 30 for number in range(1024, LARGEST_GIB)]
