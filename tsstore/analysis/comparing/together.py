"""Two runs counted together, each as if it were alone, and which bits of the same samples differ.

Where both hold their samples in the same order, tasks read the same ones of both, and all of it
comes of one pass over the rows of each. Elsewhere, and where the memory does not hold both, the
rows of both are read once more for the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tsstore.analysis.comparing.flips import (
    LayerFlips,
    check_comparing,
    compare_apart,
    compare_in_step,
    layer_flips,
    unequal_without_rows,
    why_not_compared,
)
from tsstore.analysis.comparing.pairing import (
    Order,
    Pairing,
    check_joining,
    find_pairing,
    kept_bytes,
    order_bytes,
    why_not_paired,
)
from tsstore.analysis.execution.beside import Beside, Companion, Passes
from tsstore.analysis.groups.analyze import analyze_chosen_groups, check_groups
from tsstore.analysis.groups.results import GroupedAnalysis
from tsstore.analysis.layers import analyze_layers
from tsstore.analysis.neurons.firing import firing_bytes
from tsstore.analysis.repeats import choose_samples
from tsstore.analysis.request import Request
from tsstore.analysis.results.network import Analysis
from tsstore.analysis.runs import analysis_of_results, analyze_chosen, plan_runs
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.store.reading.store import StateStore


@dataclass(frozen=True)
class Together:
    """What was found of two runs: of each, and of the bits that differ, by layer."""

    first: Analysis | GroupedAnalysis
    second: Analysis
    flips: dict[str, LayerFlips]

    @property
    def whole(self) -> Analysis:
        """What was found of the first run's samples together."""
        return self.first.whole if isinstance(self.first, GroupedAnalysis) else self.first


def memory_checks(
    first: StateStore,
    second: StateStore,
    request: Request,
    runner: Scheduler,
    passes: Mapping[str, Passes] | None = None,
) -> Iterator[Callable[[], object]]:
    """Yield what raises MemoryTooSmallError where memory is too small to count runs together."""
    kept = bytes_beside(first, second, runner)
    beside = Beside(passes, kept_bytes=kept)
    plan_first = partial(check_groups, first) if request.in_groups else partial(plan_runs, [first])
    yield partial(plan_first, replace(request, beside=beside), runner)
    yield partial(plan_runs, [second], _alone(request, kept), runner)
    yield from comparing_checks(first, second, request, runner, beside.held_bytes)


def comparing_checks(
    first: StateStore, second: StateStore, request: Request, runner: Scheduler, held: int = 0
) -> Iterator[Callable[[], object]]:
    """Yield what raises MemoryTooSmallError where it is too small to compare all layers' rows.

    Nothing does where no sample of one run can be found in the other.
    """
    if why_not_paired(first, second):
        return
    memory, kept = runner.memory(request.memory), held + kept_bytes(first, second)
    yield partial(check_joining, first, second, memory)
    for name, states in first.items():
        yield partial(check_comparing, states, second[name], kept, memory, runner)


def analyze_together(
    first: StateStore,
    second: StateStore,
    request: Request,
    runner: Scheduler,
    beside: Mapping[str, Passes] | None = None,
) -> tuple[Together, Beside]:
    """Count two runs of the same layers, the first one in groups if these are asked for.

    With it comes what passes over the first run gave, which are made beside.
    """
    kept = bytes_beside(first, second, runner)
    pairing, unequal = find_pairing(first, second), dict.fromkeys(first, 0)
    order, reasons = find_order(first, second, pairing)
    if isinstance(pairing, Pairing):
        unequal = {name: unequal_without_rows(first[name], second[name], pairing) for name in first}
    del pairing
    alone = _alone(request, kept)
    chosen, others = choose_samples([first, second], alone, runner, kept)
    wanted = companions(first, second, others, order, reasons)
    found = Beside(beside, wanted, kept)
    asked = replace(request, beside=found)
    analysis: Analysis | GroupedAnalysis
    if request.in_groups:
        analysis = analyze_chosen_groups(first, asked, runner, chosen)
    else:
        (analysis,) = analyze_chosen([first], [chosen], asked, runner)
    left = [name for name in first if name not in found.counted]
    results = {name: own for name, (own, _) in found.counted.items()}
    if left:
        counted = analyze_layers([(second[name], others) for name in left], alone, runner)
        results |= zip(left, counted, strict=True)
    other = analysis_of_results(second, alone, others, [results[name] for name in first])
    flips = {}
    for name, (_, (own,)) in found.counted.items():
        own = replace(own, unequal=own.unequal + unequal[name])
        flips[name] = layer_flips(first[name], own)
    if left:
        apart = first.select(*left)
        flips |= compare_layers(apart, second, request, runner, found.held_bytes)
    return Together(analysis, other, {name: flips[name] for name in first}), found


def find_order(
    first: StateStore, second: StateStore, pairing: Pairing | str
) -> tuple[Order, dict[str, str]]:
    """Return in which order two runs hold their samples, and why layers are not compared, if so."""
    order = pairing.order(second) if isinstance(pairing, Pairing) else Order()
    return order, {name: why_not_compared(first[name], second[name], pairing) for name in first}


def companions(
    first: StateStore,
    second: StateStore,
    samples: Samples,
    order: Order,
    reasons: Mapping[str, str],
) -> dict[str, Companion]:
    """Return which layers of the second run may be read in step with those of the first one."""
    return {
        name: Companion(second[name], samples, order.stretches, (compare_in_step(states, order),))
        for name, states in first.items()
        if order.stretches and not reasons[name]
    }


def compare_layers(
    first: StateStore, second: StateStore, request: Request, runner: Scheduler, held: int = 0
) -> dict[str, LayerFlips]:
    """Compare the rows of layers, which are read for it; so many bytes are held beside."""
    memory, kept = runner.memory(request.memory), held + kept_bytes(first, second)
    pairing, flips = find_pairing(first, second), {}
    for name, states in first.items():
        other, report = second[name], request.report(name)
        reason = why_not_compared(states, other, pairing)
        if reason or isinstance(pairing, str):
            flips[name] = LayerFlips(name, states.neurons, None, reason)
        else:
            found = compare_apart(states, other, pairing, memory, runner, report, kept)
            flips[name] = layer_flips(states, found)
    return flips


def bytes_beside(first: StateStore, second: StateStore, scheduler: Scheduler) -> int:
    """Return what is held while two runs are counted: their order, and what differs by layer."""
    flips = sum(firing_bytes(own.neurons) for own in first.values())
    return order_bytes(first, second, scheduler) + flips


def _alone(request: Request, kept: int) -> Request:
    """Return what is asked of a run without groups, while so many bytes are kept."""
    groups: dict[str, Any] = {"by": None, "bins": None, "window": None}
    return replace(request, beside=Beside(kept_bytes=kept), **groups)
