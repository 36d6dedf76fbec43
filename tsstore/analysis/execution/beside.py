"""What else is made of rows that are read to be counted, so that they are read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import Reduction
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

Passes = tuple[Reduction[Any], ...]
Results = tuple[Any, ...]
"""Of several passes, one of each; none at all of rows that nothing was made of."""
Add = Callable[[Iterable[Any]], Any]


class Reduced:
    """What several passes have made so far of the rows that one task reads."""

    def __init__(self, passes: Passes = ()) -> None:
        self._passes = passes
        self.results: Results = ()

    def __bool__(self) -> bool:
        return bool(self._passes)

    def take(self, block: Block, rows: npt.NDArray[np.uint8]) -> None:
        """Add the rows of a block, which may lie where the next ones will."""
        found = tuple(one.of_block(block, rows) for one in self._passes)
        self.results = add_results([one.add for one in self._passes], [self.results, found])


def add_results(adds: Sequence[Add], results: Iterable[Results]) -> Results:
    """Return the results of some rows together."""
    held = [own for own in results if own]
    if len(held) < 2:
        return held[0] if held else ()
    return tuple(add(own) for add, own in zip(adds, zip(*held, strict=True), strict=True))


class Beside:
    """What else is wanted of layers that are counted, and, once they are, what came of it.

    Attributes
    ----------
    passes
        Those over each layer, by its name, whose results are wanted.
    results
        By name of a layer, of each pass.
    """

    def __init__(self, passes: Mapping[str, Passes] | None = None) -> None:
        self.passes = dict(passes or {})
        self.results: dict[str, Results] = {}

    def of(self, states: LayerStates) -> Passes:
        """Return the passes over a layer."""
        return self.passes.get(states.name, ())

    @property
    def held_bytes(self) -> int:
        """Bytes that the results of all layers take."""
        return sum(one.result_bytes for passes in self.passes.values() for one in passes)

    def check(self, states: LayerStates, memory: int, scheduler: Scheduler) -> None:
        """Raise MemoryTooSmallError if a layer's passes cannot read the rows by themselves."""
        for one in self._alone(states):
            one.check(memory, scheduler, one.blocks())

    def run(
        self, states: LayerStates, memory: int, scheduler: Scheduler, report: Report | None
    ) -> None:
        """Let a layer's passes read the rows by themselves, one after the other."""
        passes = self._alone(states)
        self.results[states.name] = tuple(one.run(memory, scheduler, report) for one in passes)

    def _alone(self, states: LayerStates) -> Passes:
        return tuple(replace(one, kept_bytes=self.held_bytes) for one in self.of(states))
