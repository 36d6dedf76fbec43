"""What there is to count in a run, how, and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tsstore.analysis.planning.layer_plan import Plan
from tsstore.errors import UnknownLayerError
from tsstore.store.reading.store import aliases
from tsstore.text import printable


@dataclass(frozen=True)
class PlannedLayer:
    """What there is to count in one layer, and how.

    Attributes
    ----------
    rows
        Committed rows; those of samples that are left out are read as well.
    row_bytes
        Bytes of a row.
    plan
        How the layer is counted.
    """

    rows: int
    row_bytes: int
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        plan = self.plan
        return {
            "rows": self.rows,
            "row_bytes": self.row_bytes,
            "blocks": plan.blocks,
            "block_rows": plan.block_rows,
            "piece_rows": plan.piece_rows,
            "partitions": 1 << plan.partition_bits,
            "spill": plan.spill,
            "scratch_bytes": plan.scratch_bytes if plan.spill else 0,
            "slice_bytes": plan.slice_bytes,
            "rounds": plan.rounds,
            "threads": plan.threads,
            "projected_peak": plan.projected_peak,
            "tasks": plan.tasks,
        }


@dataclass(frozen=True, eq=False, repr=False)
class PlanNumbers(Mapping[str, Plan]):
    """How a run would be counted: a mapping from layer names to plans.

    Attributes
    ----------
    run
        Path of the run.
    memory
        Bytes that one process may add to its baseline.
    threads
        Tasks that one process can run at a time; a layer's plan may use fewer.
    shared_memory
        Whether all tasks run in this process, so that records can stay in memory.
    layers
        What there is to count, and how, by layer.
    smallest_memory
        About the fewest bytes, a round amount, with which there is a plan for every layer.
    in_memory_from
        About the fewest bytes, a round amount, with which nothing goes through files; None where it
        always does: on a cluster, or in this world.
    """

    run: str
    memory: int
    threads: int
    shared_memory: bool
    layers: Mapping[str, PlannedLayer]
    smallest_memory: int
    in_memory_from: int | None

    @property
    def rows(self) -> int:
        """Rows of all layers."""
        return sum(layer.rows for layer in self.layers.values())

    @property
    def tasks(self) -> int:
        """Tasks of all layers."""
        return sum(plan.tasks for plan in self.values())

    @property
    def scratch_bytes(self) -> int:
        """Most bytes that lie in the scratch folder at a time: of the layer that needs most."""
        return max(plan.scratch_bytes if plan.spill else 0 for plan in self.values())

    @property
    def projected_peak(self) -> int:
        """Most bytes that one process adds to its baseline."""
        return max(plan.projected_peak for plan in self.values())

    def __getitem__(self, name: str) -> Plan:
        for candidate in aliases(name):
            if candidate in self.layers:
                return self.layers[candidate].plan
        held = ", ".join(map(printable, self.layers))
        raise UnknownLayerError(f"the plan has no layer {name!r}; it has {held}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)
