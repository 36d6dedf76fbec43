"""How a run would be counted, before anything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tsstore.analysis.comparing.drawn_states import DRAWN
from tsstore.analysis.comparing.overlap import PlannedOverlap
from tsstore.analysis.neurons.matrix import PlannedPairs
from tsstore.analysis.planning.cost import START_UP_BYTES
from tsstore.analysis.planning.fitting import LEAST_SLICE_BYTES
from tsstore.analysis.planning.layer_plan import HEADINGS, Plan, PlannedLayer
from tsstore.analysis.planning.layers import PlannedBatch, plan_batches
from tsstore.analysis.planning.planned_report import PlannedReport
from tsstore.analysis.results.by_layer import ByLayer
from tsstore.text import counted, format_memory, listed, printable

WORDS_A_SECOND = 3e9
"""Of two neurons that a core compares, about, as ``benchmarks/neurons.py`` measures."""


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
        it always does: on a cluster with `scratch`, or in this world.
    scratch
        Where scratch is wanted, a folder or a URL; None for the system's folder.
    pairs
        What counting the pairs of each layer's neurons would take, if that was asked.
    groups
        How many groups of samples are analysed as well, each by itself; 0 for none. Their layers
        are counted one after another.
    novelty
        What finding the states of this run and another one would take, if that was asked.
    report
        What a report would take, which counts neurons as well.
    compared
        Samples whose ids come more than once, whose rows are compared before anything is counted.
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
    novelty: Mapping[str, PlannedOverlap] = field(default_factory=dict)
    report: PlannedReport | None = None
    compared: int = 0

    headings = HEADINGS

    @property
    def subject(self) -> str:
        """The run."""
        return self.run

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
            *_comparing(self),
            *_fewer_threads(self),
            *_how_many_at_once(self),
            f"The smallest memory that works is about {format_memory(self.smallest_memory)}.",
            f"A process that starts with this analysis adds {format_memory(start)} at most for "
            f"libraries and loops: {format_memory(start + self.memory)} with the memory.",
            *([] if self.report is None else [self.report.sentence]),
            *_pairs_of_neurons(self),
            *_states_of_two_runs(self),
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
            "samples_compared": self.compared,
            "report": None if self.report is None else self.report.to_dict(),
            "layers": {name: layer.to_dict() for name, layer in self.layers.items()},
            "pairs": {name: asdict(own) for name, own in self.pairs.items()},
            "novelty": {name: asdict(own) for name, own in self.novelty.items()},
            "sentences": self.sentences,
        }

    @property
    def total(self) -> str:
        """What all layers come to, in one line."""
        facts = [
            counted(self.rows, "row"),
            counted(self.tasks, "task"),
            counted(self.threads, "thread"),
            f"memory {format_memory(self.memory)}",
            f"projected peak {format_memory(self.projected_peak)}",
        ]
        if self.scratch_bytes:
            facts.append(f"scratch at most {format_memory(self.scratch_bytes)}")
        return " · ".join(facts)

    @property
    def lines(self) -> list[str]:
        """What stands below the table."""
        return [self.total, *self.sentences]

    @property
    def brief(self) -> list[str]:
        """Three sentences: the work, the memory, where records go; and what else was asked."""
        work = f"{counted(self.rows, 'row')} of {counted(len(self), 'layer')}"
        threads, passes = counted(self.threads, "thread"), max(own.passes for own in self.values())
        if self.groups and self.compared:
            passes += 1
        often = "once" if passes == 1 else f"up to {passes:,} times"
        peak, memory = map(format_memory, (self.projected_peak, self.memory))
        report = "" if self.report is None else f"; {self.report.clause(len(self))}"
        return [
            f"{work} are read {often}, in {counted(self.tasks, 'task')} on {threads}{report}.",
            f"A process adds {peak} at most of the {memory} that it may, and when it starts with "
            f"this {format_memory(self.start_up_bytes)} of libraries.",
            _where_records_go(self),
            *_comparing(self),
            *_pairs_of_neurons(self),
            *_states_of_two_runs(self),
        ]

    def cells(self) -> list[tuple[str, ...]]:
        """Return a line of the table for each layer."""
        return [layer.cells(name) for name, layer in self.layers.items()]

    def __getitem__(self, name: str) -> Plan:
        found: PlannedLayer = self._find(name)
        return found.plan


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
    spilled = [name for name, layer in plan.items() if layer.in_scratch]
    to_objects = any(layer.object_scratch for layer in plan.layers.values())
    things = "objects" if to_objects else "files"
    least = plan.in_memory_from
    if spilled and not plan.shared_memory and (plan.scratch is not None or least is None):
        whose = "Records" if len(spilled) == len(plan) else f"{listed(spilled)}: records"
        return (
            f"{whose} go through {things} whatever the memory, because workers share nothing else; "
            f"they lie {_place_of_scratch(plan)}."
        )
    where = "" if plan.shared_memory else f" {_place_of_scratch(plan)}"
    if not spilled and least is not None:
        stay = "All records stay in memory"
        if room := max(batch.room_bytes for batch in plan.batches):
            stay = (
                "Records are held by the workers, as no scratch= is given and they fit: up to "
                f"{format_memory(room)} by each, which is part of the memory"
            )
        return (
            f"{stay}; with less than {format_memory(least)} some would go through {things}{where}."
        )
    enough = "no memory" if least is None else format_memory(least)
    return (
        f"{listed(spilled)}: records go through {things}{where}, because they and the running "
        f"tasks need more than {format_memory(plan.memory)}; with {enough} nothing would go "
        f"through {things}."
    )


def _place_of_scratch(plan: RunPlan) -> str:
    """Say where a cluster's scratch lies."""
    if plan.scratch is not None:
        return f"below {printable(plan.scratch)}"
    return (
        "in the system's folder for temporary files, unless scratch= names one that all workers "
        "see, or s3://bucket/prefix"
    )


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


def _states_of_two_runs(plan: RunPlan) -> list[str]:
    """Say what finding the new states of another run takes, if that was asked."""
    if not (layers := plan.novelty.values()):
        return []
    scratch = max(own.scratch_bytes for own in layers)
    records = f"go through scratch, up to {format_memory(scratch)}" if scratch else "stay in memory"
    return [
        f"New states of the other run (compare --novelty), layer after layer: "
        f"{counted(sum(own.rows for own in layers), 'row')} of both runs are read, their records "
        f"{records}; then {counted(sum(own.rows_compared for own in layers), 'row')} of the "
        f"first run once more, each compared with up to {DRAWN} states; projected peak "
        f"{format_memory(max(own.projected_peak for own in layers))}."
    ]


def _passes(plan: RunPlan) -> list[str]:
    """Say in how many passes groups of samples are counted."""
    if not plan.groups:
        return []
    groups = counted(plan.groups, "group")
    if plan.compared:
        return [
            f"{groups} are counted one after another, as it differs from group to group which "
            "samples repeat others; all samples together, if they are of one step, by another pass."
        ]
    several = {name: own.passes for name, own in plan.items() if own.passes > 1}
    if not several:
        return [f"{groups} and all samples together are counted in one pass over the rows."]
    return [
        f"{listed(list(several))}: {groups} are counted in up to {max(several.values()):,} passes "
        "over the rows, as the memory holds no more spectra at a time."
    ]


def _comparing(plan: RunPlan) -> list[str]:
    """Say whether rows are read before anything is counted."""
    if not plan.compared:
        return []
    samples = counted(plan.compared, "sample")
    return [
        f"Before, rows of {samples} whose ids come more than once are compared, in as many layers "
        "as it takes to tell copies from others."
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
