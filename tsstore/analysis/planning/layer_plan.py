"""How one layer is counted, and how that is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from tsstore.analysis.planning.cost import HOT_PIECES
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
class Plan:
    """How one layer is counted.

    Attributes
    ----------
    memory, projected_peak
        Bytes that one process may add to its baseline, and that it does add at most.
    threads
        Tasks that one process runs at a time.
    piece_rows
        Rows that a block task turns into records at a time, at most.
    block_rows
        Rows of a block task, at most: some pieces where records stay in memory, many where they go
        through files, so that slices are long.
    largest_sample
        Rows of the sample that has most.
    direct
        Whether rows are few bits and so many that block tasks count them in a table of all states.
    partition_bits
        The keys are counted in ``2 ** partition_bits`` partitions.
    divided_bits
        Where records stay in memory, block tasks divide each partition at once, by so many further
        bits, into subpartitions whose tables are to fit the processor's cache; 0 where those would
        be too many.
    gathered_bytes
        Bytes of a partition's records that may be gathered in memory; what is larger is counted
        slice by slice.
    subpartition_records
        Records of a share of it, whose tables are to fit the processor's cache.
    maximum_slots
        Slots of such a partition's table; beyond it, the partition is counted in several passes.
    spill
        Whether records go through files, in scratch or in the memory of workers, instead of memory.
    room_bytes
        Most bytes of files that each worker of a cluster holds; 0 where they are in scratch.
    scratch_bytes
        Most bytes of records there can be.
    slice_bytes
        Mean bytes of a slice: the records of one block and one partition, were none merged.
    blocks, tasks
        Number of blocks, and of the graph's tasks, about.
    passes
        How often all rows are counted: once, unless the spectra of all sets of samples are more
        than there is memory for.
    beside
        Whether what else is to be made of the rows is made as they are read to be counted, the
        first time; else they are read once more for it, as the memory does not hold both at once.
    gives_back
        Whether memory that was freed is given back to the system: before the layer is counted, and
        after it. Where a layer takes less than half of the memory, what an earlier one has left
        fits beside it, and is used again: memory that is new to a process costs more than most of
        what is done with it.
    companion
        How the layer is counted that is read in step; peak, scratch, room and tasks above are then
        of both. None without one.
    """

    memory: int
    threads: int
    piece_rows: int
    block_rows: int
    largest_sample: int
    direct: bool
    partition_bits: int
    gathered_bytes: int
    subpartition_records: int
    maximum_slots: int
    spill: bool
    scratch_bytes: int
    slice_bytes: int
    blocks: int
    tasks: int
    projected_peak: int
    passes: int = 1
    beside: bool = False
    gives_back: bool = False
    room_bytes: int = 0
    divided_bits: int = 0
    companion: Plan | None = None

    @property
    def both(self) -> tuple[Plan, ...]:
        """Its own, and that of the layer that is read in step if there is one."""
        return (self,) if self.companion is None else (self, self.companion)

    @property
    def in_scratch(self) -> bool:
        """Whether records go through files or objects in scratch."""
        return any(plan.spill and not plan.room_bytes for plan in self.both)

    @property
    def in_one_task(self) -> bool:
        """Whether one task counts the layer: a graph would take longer than what it does."""
        return self.blocks <= 1 >= self.partition_bits and self.companion is None

    @cached_property
    def whole(self) -> Plan:
        """The same where one task counts what it can: records stay within it."""
        if not self.in_one_task:
            return self
        gives_back = 2 * self.projected_peak > self.memory
        return replace(self, spill=False, room_bytes=0, tasks=1, gives_back=gives_back)

    @property
    def hot_rows(self) -> int:
        """Rows at whose end hot keys become records, at least."""
        return min(HOT_PIECES * self.piece_rows, self.block_rows)


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
