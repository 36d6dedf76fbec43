"""Planning how a run would be counted, before anything is."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from tsstore.analysis.comparing.comparison import common_layers
from tsstore.analysis.comparing.overlap import PlannedOverlap, plan_overlap
from tsstore.analysis.comparing.together import bytes_beside
from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.groups.count import work_of_sets
from tsstore.analysis.groups.grouping import group
from tsstore.analysis.memory import all_fit, refuse
from tsstore.analysis.neurons.firing import firing_bytes, layer_pass
from tsstore.analysis.neurons.matrix import plan_pairs
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.fitting import find_plan
from tsstore.analysis.planning.layer_plan import Plan, PlannedLayer
from tsstore.analysis.planning.layers import make_plans
from tsstore.analysis.planning.planned_report import plan_other_run, plan_report
from tsstore.analysis.planning.run_plan import RunPlan
from tsstore.analysis.repeats import HELD, once_compared, plan_samples
from tsstore.analysis.request import (
    Bins,
    Layers,
    Repeats,
    Request,
    Run,
    check_rows,
    choose,
    countable,
    with_layers,
)
from tsstore.analysis.runs import plan_or_refuse
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.errors import MemoryTooSmallError
from tsstore.store.reading.store import StateStore

LARGEST_GIB = 10_000
"""More memory than this no advice asks for."""


def plan(
    store: Run,
    layers: Layers = None,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    intervals: bool = True,
    dependent_by: str | None = None,
    unique_by: str | None = None,
    repeats: Repeats = "once",
    exact: bool = False,
    cluster: str | None = None,
    scratch: str | os.PathLike[str] | None = None,
    joint: bool = False,
    novelty: Run | None = None,
    compare: Run | None = None,
    by: str | None = None,
    bins: Bins = None,
    window: int | None = None,
) -> RunPlan:
    """Say how `tsstore.analyze` would count a run if it had the same arguments.

    No state is read: metadata alone, the rows of each sample where they vary, ids, and the column
    that groups are by. Where samples repeat others, the plan is that of the most memory that they
    can take; groups are then counted one after another, each in less.

    Parameters
    ----------
    store, layers, memory, scheduler, intervals, dependent_by, unique_by, repeats, exact, cluster, \
    scratch, by, bins, window
        As `tsstore.analyze` takes them. Nothing is written to scratch, nor is it looked for.
    joint
        Whether to say as well what ``tsstore.neurons(store, joint=True)`` would take.
    novelty
        Another run, or its path: say as well what new states of it would take, as
        ``tsstore.compare(store, other, novelty=True)`` finds them.
    compare
        Another run, or its path, that has the same layers: `report` of the plan is then what
        ``tsstore.report(store, path, compare=other)`` would take.

    Returns
    -------
    RunPlan
        A mapping from layer names to plans, with ``projected_peak <= memory``.

    Raises
    ------
    MemoryTooSmallError
        If a layer cannot be counted; the message names the smallest memory with which it can.
    StoreError, AnalysisError
        As `tsstore.analyze` does.
    """
    request = Request(
        memory=memory,
        scheduler=scheduler,
        scratch=scratch,
        intervals=intervals,
        dependent_by=dependent_by,
        unique_by=unique_by,
        repeats=repeats,
        exact=exact,
        by=by,
        bins=bins,
        window=window,
        cluster=cluster,
    )
    store = with_layers(countable(store, by), layers)
    grouping = group(store, request) if request.in_groups else None
    with closing(choose(request.scheduler)) as runner:
        amount = runner.memory(request.memory)
        (samples,) = plan_or_refuse([store], request, runner)
        if grouping is not None:
            samples = grouping.divided(samples)
        repeated = samples.sample_filter.planned - store.view.samples.samples
        compared = repeated // HELD if unique_by is None else 0
        passes = {name: (layer_pass(states),) for name, states in store.items()}
        reported, other = replace(request, beside=Beside(passes)), None
        if compare is not None:
            second = with_layers(countable(compare), list(store))
            common_layers(store, second, None)
            other, in_step = plan_other_run(store, second, request, runner)
            beside = Beside(passes, in_step, bytes_beside(store, second, runner))
            reported = replace(request, beside=beside)
        works = _works(store, request, samples, runner)
        report = None
        if by != "step":
            report_works = _works(store, reported, samples, runner)
            report = plan_report(store, report_works, reported, runner, other)
        pairs, kept = {}, 0
        for name, states in store.items() if joint else ():
            kept += firing_bytes(states.neurons)
            pairs[name] = plan_pairs(states, amount, runner, kept)
            kept += pairs[name].matrix_bytes
        checks: list[Callable[[], Any]] = [partial(_plans, works, store, request, samples, runner)]
        if novelty is not None:
            checks.append(partial(_plan_overlap, store, novelty, layers, request, runner))
        plans, overlap = [*all_fit(checks), {}][:2]
        # Sets of samples are counted one layer after another.
        sets = samples.set_count
        plans = [_as_counted(plan, sets) for plan in plans]
        threads, shared_memory = runner.threads, runner.shared_memory

    def found(work: Work, memory: int) -> Plan | None:
        plan = find_plan(work, memory, threads, shared_memory)
        return None if plan is None else _as_counted(plan, sets)

    planned = {
        work.name: PlannedLayer(work.rows, work.row_bytes, own, work.object_scratch)
        for work, own in zip(works, plans, strict=True)
    }
    smallest = min(amount, _least_memory(works, found, lambda plan: True) or amount)
    in_memory = _least_memory(works, found, lambda plan: not plan.in_scratch)
    where = None if scratch is None else os.fspath(scratch)
    told = threads, shared_memory, planned, smallest, in_memory, where, pairs, sets
    return RunPlan(store.path, amount, *told, overlap, report, compared)


def _works(store: StateStore, request: Request, samples: Samples, runner: Scheduler) -> list[Work]:
    """Return what there is to count in each layer."""
    for states in store.values():
        check_rows(states, samples.sample_filter)
    return [work_of_sets(states, runner, request, samples) for states in store.values()]


def _plans(
    works: list[Work], store: StateStore, request: Request, samples: Samples, runner: Scheduler
) -> list[Plan]:
    """Return how layers would be counted; a refusal is also for what comes of comparing ids."""
    memory = runner.memory(request.memory)
    try:
        return make_plans(works, memory, runner)
    except MemoryTooSmallError as refused:
        if not samples.problem:
            raise
        # With more memory ids are compared, and samples may be left out.
        works = _works(store, request, once_compared(samples, store.samples), runner)
        refuse(refused, [partial(make_plans, works, memory, runner)])


def _as_counted(plan: Plan, sets: int) -> Plan:
    """Return the plan of a layer in an analysis, which counts sets of samples one by one."""
    return plan if sets else plan.whole


def _plan_overlap(
    store: StateStore, other: Run, layers: Layers, request: Request, runner: Scheduler
) -> dict[str, PlannedOverlap]:
    """Say what finding the states of both runs would take, of each layer that both have."""
    request = Request(request.memory, scratch=request.scratch, intervals=False)
    stores = countable(store), countable(other)
    samples = [plan_samples(own, request, runner) for own in stores]
    pairs = common_layers(*stores, layers)
    return {pair[0].name: plan_overlap(pair, samples, request, runner) for pair in pairs}


def _least_memory(
    works: Collection[Work],
    found: Callable[[Work, int], Plan | None],
    suits: Callable[[Plan], bool],
) -> int | None:
    """Return the fewest bytes, a round amount, with which all plans suit; None if none do."""

    def enough(memory: int) -> bool:
        plans = (found(work, memory) for work in works)
        return all(plan is not None and suits(plan) for plan in plans)

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
