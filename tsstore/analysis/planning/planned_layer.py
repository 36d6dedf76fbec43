"""What there is to count in one layer, and how: a line of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tsstore.analysis.planning.layer_plan import Plan
from tsstore.text import format_memory, printable

Way = Literal["memory", "files", "objects", "workers"]
"""Which way a layer's records take from blocks to partitions."""
_RECORDS: dict[Way, str] = {
    "memory": "in memory", "files": "through files", "objects": "through objects",
    "workers": "held by workers",
}  # fmt: skip

HEADINGS = (
    "layer",
    "rows",
    "bytes a row",
    "blocks",
    "rows a block",
    "partitions",
    "records",
    "scratch",
    "mean slice",
    "projected peak",
    "tasks",
)


@dataclass(frozen=True)
class PlannedLayer:
    """What there is to count in one layer, and how.

    Rows are the committed ones: those of samples that are left out are read as well.
    """

    rows: int
    row_bytes: int
    plan: Plan
    object_scratch: bool = False

    @property
    def way(self) -> Way:
        """Which way the records take."""
        if not self.plan.spill:
            return "memory"
        if self.plan.room_bytes:
            return "workers"
        return "objects" if self.object_scratch else "files"

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
            "records": self.way,
            "spill": plan.in_scratch,
            "scratch_bytes": plan.scratch_bytes if plan.in_scratch else 0,
            "room_bytes": plan.room_bytes,
            "slice_bytes": plan.slice_bytes,
            "passes": plan.passes,
            "threads": plan.threads,
            "projected_peak": plan.projected_peak,
            "tasks": plan.tasks,
        }

    def cells(self, name: str) -> tuple[str, ...]:
        """Return a line of the table, of which :data:`HEADINGS` are the headings."""
        plan = self.plan
        return (
            printable(name),
            f"{self.rows:,}",
            f"{self.row_bytes:,}",
            f"{plan.blocks:,}",
            f"{plan.block_rows:,}",
            f"{1 << plan.partition_bits:,}",
            _RECORDS[self.way],
            format_memory(plan.scratch_bytes) if plan.in_scratch else "",
            format_memory(plan.slice_bytes),
            format_memory(plan.projected_peak),
            f"{plan.tasks:,}",
        )
