"""How a run would be counted, before anything is."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from tsstore.analysis.groups.count import left_out_of_sets
from tsstore.analysis.groups.grouping import Bins, group
from tsstore.analysis.neurons.firing import firing_bytes
from tsstore.analysis.neurons.matrix import PlannedPairs, plan_pairs
from tsstore.analysis.planning.batches import PlannedBatch, plan_batches
from tsstore.analysis.planning.cost import START_UP_BYTES, Work
from tsstore.analysis.planning.layer_plan import (
    LEAST_SLICE_BYTES,
    Plan,
    find_plan,
    layer_work,
    make_plan,
)
from tsstore.analysis.repeats import plan_samples
from tsstore.analysis.request import (
    Repeats,
    Request,
    check_rows,
    countable,
    dependence,
    layer_names,
)
from tsstore.analysis.results.by_layer import ByLayer
from tsstore.analysis.schedulers import choose
from tsstore.store.files.open import StorePath
from tsstore.store.reading.store import StateStore
from tsstore.text import (
    counted,
    format_memory,
    html_lines,
    html_table,
    html_title,
    listed,
    printable,
    text_table,
)

if TYPE_CHECKING:
    import pandas as pd

Way = Literal["memory", "files", "objects"]
"""Which way a layer's records take from blocks to partitions."""
_RECORDS: dict[Way, str] = {
    "memory": "in memory", "files": "through files", "objects": "through objects",
}  # fmt: skip

WORDS_A_SECOND = 3e9
"""Of two neurons that a core compares, about, as ``benchmarks/neurons.py`` measures."""
LARGEST_GIB = 10_000
"""More memory than this no advice asks for."""


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
            "spill": plan.spill,
            "scratch_bytes": plan.scratch_bytes if plan.spill else 0,
            "slice_bytes": plan.slice_bytes,
            "rounds": plan.rounds,
            "passes": plan.passes,
            "threads": plan.threads,
            "projected_peak": plan.projected_peak,
            "tasks": plan.tasks,
        }


@dataclass(frozen=True, eq=False, repr=False)
class RunPlan(ByLayer[Plan]):
    """How a run would be counted: a mapping from layer names to plans; made by `plan`.

    As many layers are counted at once as the memory holds, each by its own plan.

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
        About the fewest bytes, a round amount, with which nothing goes through scratch; None where
        it always does: on a cluster, or in this world.
    scratch
        Where scratch is wanted, a folder or a URL; None for the system's folder.
    pairs
        What counting the pairs of each layer's neurons would take, if that was asked.
    groups
        How many groups of samples are analysed as well, each by itself; 0 for none. Their layers
        are counted one after another.
    """

    run: str
    memory: int
    threads: int
    shared_memory: bool
    layers: Mapping[str, PlannedLayer]
    smallest_memory: int
    in_memory_from: int | None
    scratch: str | None = None
    pairs: Mapping[str, PlannedPairs] = field(default_factory=dict)
    groups: int = 0

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
        """Most bytes that lie in scratch at a time: of the batch that needs most."""
        return max(batch.scratch_bytes for batch in self.batches)

    @property
    def projected_peak(self) -> int:
        """Most bytes that one process adds to its baseline."""
        return max(batch.projected_peak for batch in self.batches)

    @property
    def batches(self) -> list[PlannedBatch]:
        """Which layers are counted at once, batch after batch."""
        if self.groups:
            plans = enumerate(self.values())
            return [replace(plan_batches([own], self.threads)[0], layers=(n,)) for n, own in plans]
        return plan_batches(list(self.values()), self.threads)

    @property
    def layers_at_once(self) -> int:
        """The most layers that are counted at once."""
        return max(len(batch.layers) for batch in self.batches)

    @property
    def start_up_bytes(self) -> int:
        """Most bytes that come on top in a process whose first analysis it is.

        They are of libraries and of loops. Where these have to be compiled first, which is once for
        each installation and kind of rows, the compiler takes some 100 MiB more.
        """
        return START_UP_BYTES

    @property
    def sentences(self) -> list[str]:
        """What goes through scratch and why, and what other memories would do, a line each."""
        start = self.start_up_bytes
        return [
            _where_records_go(self),
            *_length_of_slices(self),
            *_passes(self),
            *_fewer_threads(self),
            *_how_many_at_once(self),
            f"The smallest memory that works is about {format_memory(self.smallest_memory)}.",
            f"A process that starts with this analysis adds {format_memory(start)} at most for "
            f"libraries and loops: {format_memory(start + self.memory)} with the memory.",
            *_pairs_of_neurons(self),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them; amounts are in bytes."""
        return {
            "run": self.run,
            "memory": self.memory,
            "threads": self.threads,
            "rows": self.rows,
            "tasks": self.tasks,
            "layers_at_once": self.layers_at_once,
            "scratch_bytes": self.scratch_bytes,
            "projected_peak": self.projected_peak,
            "start_up_bytes": self.start_up_bytes,
            "smallest_memory": self.smallest_memory,
            "in_memory_from": self.in_memory_from,
            "scratch": self.scratch,
            "sample_groups": self.groups,
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
            "pairs": {name: asdict(own) for name, own in self.pairs.items()},
            "sentences": self.sentences,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the layers' numbers as a table, one line a layer."""
        import pandas as pd

        rows = {name: layer.to_dict() for name, layer in self.layers.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")

    def __getitem__(self, name: str) -> Plan:
        found: PlannedLayer = self._find(name, f"the plan has no layer {name!r}; it has")
        return found.plan

    def __repr__(self) -> str:
        lines = [total_line(self), *self.sentences]
        title = f"<RunPlan {printable(self.run)}>"
        table = text_table([HEADINGS, *plan_rows(self)])
        return "\n".join([title, *table, *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        table = html_table(HEADINGS, plan_rows(self))
        lines = html_lines([total_line(self), *self.sentences])
        return f"{html_title('RunPlan', self.run)}{table}{lines}"


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
    scratch: str | os.PathLike[str] | None = None,
    joint: bool = False,
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
        dependent_by=dependence(dependent_by, cluster),
        unique_by=unique_by,
        repeats=repeats,
        exact=exact,
    )
    store = countable(store, by)
    is_grouped = by is not None or window is not None or bins is not None
    sets = len(group(store, by, bins, window).values) if is_grouped else 0
    names = layer_names(store, layers)
    with closing(choose(request.scheduler)) as runner:
        amount = runner.memory(request.memory)
        samples = plan_samples(store, request, runner)
        groups, left_out = samples.group_count, samples.sample_filter.planned
        works = []
        for name in names:
            check_rows(states := store[name], samples.sample_filter)
            if sets:
                groups, left_out = groups or 1, left_out_of_sets(states, samples)
            works.append(layer_work(states, runner, groups, left_out, exact, scratch, sets))
        pairs, kept = {}, 0
        for name in names if joint else ():
            kept += firing_bytes(store[name].neurons)
            pairs[name] = plan_pairs(store[name], amount, runner, kept)
            kept += pairs[name].matrix_bytes
        threads, shared_memory = runner.threads, runner.shared_memory

    def found(work: Work, memory: int) -> Plan | None:
        return find_plan(work, memory, threads, shared_memory)

    planned = {
        work.name: PlannedLayer(
            work.rows,
            work.row_bytes,
            make_plan(work, amount, threads, shared_memory),
            work.object_scratch,
        )
        for work in works
    }
    smallest = min(amount, _least_memory(works, found, lambda plan: True) or amount)
    in_memory = _least_memory(works, found, lambda plan: not plan.spill)
    where = None if scratch is None else os.fspath(scratch)
    told = threads, shared_memory, planned, smallest, in_memory, where, pairs, sets
    return RunPlan(store.path, amount, *told)


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


def plan_rows(plan: RunPlan) -> list[tuple[str, ...]]:
    """Return a line of the table for each layer, with `HEADINGS`."""
    return [_layer_cells(name, layer) for name, layer in plan.layers.items()]


def total_line(plan: RunPlan) -> str:
    """Return what all layers come to, in one line."""
    facts = [
        counted(plan.rows, "row"),
        counted(plan.tasks, "task"),
        counted(plan.threads, "thread"),
        f"memory {format_memory(plan.memory)}",
        f"projected peak {format_memory(plan.projected_peak)}",
    ]
    if plan.scratch_bytes:
        facts.append(f"scratch at most {format_memory(plan.scratch_bytes)}")
    return " · ".join(facts)


def _layer_cells(name: str, layer: PlannedLayer) -> tuple[str, ...]:
    plan = layer.plan
    return (
        printable(name),
        f"{layer.rows:,}",
        f"{layer.row_bytes:,}",
        f"{plan.blocks:,}",
        f"{plan.block_rows:,}",
        f"{1 << plan.partition_bits:,}",
        _RECORDS[layer.way],
        format_memory(plan.scratch_bytes) if plan.spill else "",
        format_memory(plan.slice_bytes),
        format_memory(plan.projected_peak),
        f"{plan.tasks:,}",
    )


def _how_many_at_once(plan: RunPlan) -> list[str]:
    """Say how many layers are counted at once, if there are several."""
    most = plan.layers_at_once
    if len(plan) == 1 or plan.groups:
        return []
    if most == len(plan):
        return [f"All {most:,} layers are counted at once."]
    if most == 1:
        return ["Layers are counted one after another: the memory holds one at a time."]
    batches = len(plan.batches)
    return [
        f"Of the {len(plan):,} layers up to {most:,} are counted at once, in {batches:,} batches, "
        "the largest first: the memory holds no more."
    ]


def _where_records_go(plan: RunPlan) -> str:
    """Say which layers' records go through scratch, and with what memory none or some would."""
    spilled = [name for name, layer in plan.items() if layer.spill]
    things = "objects" if _object_scratch(plan) else "files"
    if not plan.shared_memory:
        where = (
            "they lie in the system's folder for temporary files, unless scratch= names one that "
            "all workers see, or s3://bucket/prefix"
        )
        if plan.scratch is not None:
            where = f"they lie below {printable(plan.scratch)}"
        return (
            f"Records go through {things} whatever the memory, because workers share nothing else; "
            f"{where}."
        )
    least = plan.in_memory_from
    if not spilled and least is not None:
        return (
            f"All records stay in memory; with less than {format_memory(least)} some would go "
            f"through {things}."
        )
    enough = "no memory" if least is None else format_memory(least)
    return (
        f"{listed(spilled)}: records go through {things}, because they and the running tasks need "
        f"more than {format_memory(plan.memory)}; with {enough} nothing would go through {things}."
    )


def _object_scratch(plan: RunPlan) -> bool:
    return any(layer.object_scratch for layer in plan.layers.values())


def _length_of_slices(plan: RunPlan) -> list[str]:
    """Say what object storage means for the slices, and which layers' are short all the same."""
    layers = {name: layer for name, layer in plan.layers.items() if layer.way == "objects"}
    if not layers:
        return []
    least = format_memory(LEAST_SLICE_BYTES)
    said = (
        f"In object storage each slice takes two requests: so that slices have {least} at least, "
        "there are no more partitions than that leaves, unless memory needs more"
    )
    short = [name for name, layer in layers.items() if layer.plan.slice_bytes < LEAST_SLICE_BYTES]
    return [f"{said}; shorter are those of {listed(short)}." if short else f"{said}."]


def _pairs_of_neurons(plan: RunPlan) -> list[str]:
    """Say what counting the pairs of neurons takes, if that was asked."""
    if not plan.pairs:
        return []
    words = sum(own.words for own in plan.pairs.values())
    matrix = max(own.matrix_bytes for own in plan.pairs.values())
    passes = max(own.passes for own in plan.pairs.values())
    peak = max(own.projected_peak for own in plan.pairs.values())
    seconds = words / WORDS_A_SECOND
    time = f"about {seconds:,.0f} s" if seconds >= 1 else "less than 1 s"
    return [
        f"Pairs of neurons (joint firing): {words:,} words of 64 rows to compare, {time} of one "
        f"core; the largest matrix has "
        f"{format_memory(matrix)}, rows are read {counted(passes, 'time')} at most, projected peak "
        f"{format_memory(peak)}."
    ]


def _passes(plan: RunPlan) -> list[str]:
    """Say in how many passes groups of samples are counted."""
    if not plan.groups:
        return []
    groups = counted(plan.groups, "group")
    several = {name: own.passes for name, own in plan.items() if own.passes > 1}
    if not several:
        return [f"{groups} and all samples together are counted in one pass over the rows."]
    return [
        f"{listed(list(several))}: {groups} are counted in up to {max(several.values()):,} passes "
        "over the rows, as the memory holds no more spectra at a time."
    ]


def _fewer_threads(plan: RunPlan) -> list[str]:
    """Say which layers use fewer threads than there are, if any do."""
    fewer = {name: own.threads for name, own in plan.items() if own.threads < plan.threads}
    if not fewer:
        return []
    return [
        f"{listed(list(fewer))}: {min(fewer.values()):,} of {plan.threads:,} threads, because the "
        "memory holds no more tasks of a good size."
    ]
