"""What else is made of rows that are read to be counted, so that they are read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import InStep, Reduction
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

Passes = tuple[Reduction[Any], ...]
Results = tuple[Any, ...]
"""Of several passes, one of each; none at all of rows that nothing was made of."""
Add = Callable[[Iterable[Any]], Any]


class Taker(Protocol):
    """What gets the rows that a task reads, as they are read."""

    def take(self, block: Block, rows: npt.NDArray[np.uint8]) -> None:
        """Take the rows of a block, which may lie where the next ones will."""


class Reduced:
    """What several passes have made so far of the rows that one task reads.

    They are shown what is read in step.
    """

    def __init__(self, passes: Passes = (), other: InStep | None = None) -> None:
        self._passes = passes
        self._other = other
        self.results: Results = ()

    def __bool__(self) -> bool:
        return bool(self._passes)

    def take(self, block: Block, rows: npt.NDArray[np.uint8]) -> None:
        """Add the rows of a block, which may lie where the next ones will."""
        found = tuple(one.of_block(block, rows, self._other) for one in self._passes)
        self.results = add_results([one.add for one in self._passes], [self.results, found])


def add_results(adds: Sequence[Add], results: Iterable[Results]) -> Results:
    """Return the results of some rows together."""
    held = [own for own in results if own]
    if len(held) < 2:
        return held[0] if held else ()
    return tuple(add(own) for add, own in zip(adds, zip(*held, strict=True), strict=True))


@dataclass(frozen=True)
class Stretch:
    """Samples that two layers hold in the same order: where they begin, in which parts."""

    first_part: str
    first_sample: int
    second_part: str
    second_sample: int
    samples: int


@dataclass(frozen=True, eq=False)
class Companion:
    """A layer of another run that is counted as well: in step, where samples are the same.

    The passes are over the first layer, and are shown both.
    """

    states: LayerStates
    samples: Samples
    stretches: Sequence[Stretch]
    passes: Passes = ()


class Beside:
    """What else is wanted of layers that are counted, and, once they are, what came of it.

    Attributes
    ----------
    passes
        Those over each layer, by its name, whose results are wanted.
    companions
        By name, what is read in step with a layer where the memory holds both.
    kept_bytes
        Bytes that are held all the while besides, with what passes over companions give.
    results
        By name of a layer, of each pass.
    counted
        By name, what was counted of a companion that was read in step, and of each of its passes.
    """

    def __init__(
        self,
        passes: Mapping[str, Passes] | None = None,
        companions: Mapping[str, Companion] | None = None,
        kept_bytes: int = 0,
    ) -> None:
        self.passes = dict(passes or {})
        self.companions = dict(companions or {})
        self.kept_bytes = kept_bytes
        self.results: dict[str, Results] = {}
        self.counted: dict[str, tuple[Any, Results]] = {}

    def note(self, name: str, results: Results, companion: Any) -> None:
        """Keep what came of a layer's passes, and what was counted of its companion, or None."""
        if companion is not None:
            own = len(results) - len(self.companions[name].passes)
            self.counted[name], results = (companion, results[own:]), results[:own]
        if results:
            self.results[name] = results

    def of(self, states: LayerStates) -> Passes:
        """Return the passes over a layer."""
        return self.passes.get(states.name, ())

    @property
    def held_bytes(self) -> int:
        """Bytes that are held all the while, with the results of all layers."""
        results = (one.result_bytes for passes in self.passes.values() for one in passes)
        return self.kept_bytes + sum(results)

    def check(self, states: LayerStates, memory: int, scheduler: Scheduler) -> None:
        """Raise MemoryTooSmallError if a layer's passes cannot read the rows by themselves."""
        for one in self._alone(states):
            one.check(memory, scheduler)

    def run(
        self, states: LayerStates, memory: int, scheduler: Scheduler, report: Report | None
    ) -> None:
        """Let a layer's passes read the rows by themselves, one after the other."""
        passes = self._alone(states)
        self.results[states.name] = tuple(one.run(memory, scheduler, report) for one in passes)

    def _alone(self, states: LayerStates) -> Passes:
        return tuple(replace(one, kept_bytes=self.held_bytes) for one in self.of(states))
