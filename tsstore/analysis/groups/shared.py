"""Which distinct states groups of samples share: how many are of one group, of two, of all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import Index, build_index_graph
from tsstore.analysis.execution.reduction import add_tasks, merge_tree
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.groups.grouping import group
from tsstore.analysis.planning.layers import layer_plan
from tsstore.analysis.request import Bins, Layers, Request, Run, countable, running, with_layers
from tsstore.analysis.results.by_layer import ByLayer
from tsstore.analysis.samples import Samples
from tsstore.analysis.schedulers import Scheduler
from tsstore.analysis.states.distinct import by_subpartition
from tsstore.counting.keys import KeyScheme
from tsstore.counting.tables.aggregate import FIRST_SLOTS, count_in_passes
from tsstore.counting.tables.grouped import GroupedTable
from tsstore.counting.warm_up import warm_up
from tsstore.errors import AnalysisError, CountingError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.text import Progress, printable

if TYPE_CHECKING:
    import pandas as pd

MOST_GROUPS = 100
HEADINGS = ("layer", "distinct states", "of one group alone", "of several groups", "of all groups")
MATRIX_BYTES = 1 << 22
"""Of which groups show which states, at a time."""
FAN_IN = 4

_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerShared:
    """Which distinct states of a layer groups share.

    Attributes
    ----------
    name
        The layer's name.
    matrix
        Distinct states that two groups both show, int64 (groups, groups); on the diagonal those of
        each group.
    by_groups
        How many distinct states are shown by exactly 1, 2, … groups, int64 (groups,).
    """

    name: str
    matrix: _Numbers
    by_groups: _Numbers

    @property
    def distinct(self) -> int:
        """Distinct states of all groups together."""
        return int(self.by_groups.sum())

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        return {
            "distinct": self.distinct,
            "distinct_by_number_of_groups": self.by_groups.tolist(),
            "shared": self.matrix.tolist(),
        }

    @property
    def cells(self) -> tuple[str, ...]:
        """The layer's line in a table, as `HEADINGS` names its columns."""
        one = int(self.by_groups[0])
        numbers = self.distinct, one, self.distinct - one, int(self.by_groups[-1])
        return printable(self.name), *(f"{number:,}" for number in numbers)

    def __repr__(self) -> str:
        return f"<LayerShared {printable(self.name)}: {', '.join(self.cells[1:])}>"


class SharedStates(ByLayer[LayerShared]):
    """Which distinct states groups of samples share: a mapping from layer names.

    Made by `shared_states`.

    Attributes
    ----------
    run, by
        Path of the run, and what the groups are by.
    groups
        What the samples of each group have in common, in order.
    samples
        How many samples each group has, int64 (groups,).
    """

    headings = HEADINGS

    def __init__(
        self,
        run: str,
        by: str,
        groups: tuple[Any, ...],
        samples: _Numbers,
        layers: Mapping[str, LayerShared],
    ) -> None:
        self.run, self.by, self.groups = run, by, groups
        self.samples = samples
        self.subject = f"{run} by {by}"
        self.layers = dict(layers)

    def to_frame(self) -> pd.DataFrame:
        """Return the states that two groups share: indexed by layer and group, a column a group."""
        import pandas as pd

        values = pd.Index(self.groups, name="group" if self.by == "layer" else self.by)
        frames = {
            name: pd.DataFrame(layer.matrix, index=values, columns=values)
            for name, layer in self.items()
        }
        return pd.concat(frames, names=["layer"])

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them; a group's value is a text."""
        return {
            "run": self.run,
            "by": self.by,
            "groups": [str(value) for value in self.groups],
            "samples": self.samples.tolist(),
            "layers": {name: layer.to_dict() for name, layer in self.items()},
        }

    @property
    def sentences(self) -> list[str]:
        """What is to be known beside the table."""
        fewest, most = int(self.samples.min()), int(self.samples.max())
        number = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        return [
            f"{len(self.samples):,} groups of {number} samples: more samples show, and share, more "
            "states."
        ]


def shared_states(
    store: Run,
    by: str | None = None,
    layers: Layers = None,
    *,
    bins: Bins = None,
    window: int | None = None,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> SharedStates:
    """Count which distinct states groups of samples share, exactly.

    Parameters
    ----------
    store
        A run, or its path.
    by, layers, bins, window
        As for `tsstore.analyze`: of 100 groups at most. Samples in no group do not count.
    memory, scheduler, scratch, progress
        As for `tsstore.analyze`.

    Returns
    -------
    SharedStates
        A mapping from layer names to the states that groups share, of each two, and of how many.

    Raises
    ------
    StoreError, AnalysisError
        As `tsstore.analyze` does; AnalysisError for more than 100 groups.
    """
    where = memory, scheduler, progress, scratch
    request = Request(*where, intervals=False, by=by, bins=bins, window=window)
    store = with_layers(countable(store, by), layers)
    grouping = group(store, request)
    groups = len(grouping.values)
    if groups > MOST_GROUPS:
        raise AnalysisError(
            f"{store.path}: {groups:,} groups by {printable(grouping.by)}; expected {MOST_GROUPS} "
            "at most for the states that they share"
        )
    grouping.check_rows(store)
    left_out = {directory: np.flatnonzero(own < 0) for directory, own in grouping.codes.items()}
    # Copies of samples show no other states than these do: it need not be known which they are.
    sample_filter = store.view.samples.joined(SampleFilter(left_out))
    samples = grouping.divided(Samples(sample_filter))
    with running(request, store) as runner:
        found = {name: _share(states, request, runner, samples) for name, states in store.items()}
    return SharedStates(store.path, grouping.by, grouping.values, grouping.samples, found)


class _Counted(NamedTuple):
    """What was counted of some partitions; `rows` must be all in the end."""

    matrix: _Numbers
    by_groups: _Numbers
    rows: int


def _share(
    states: LayerStates, request: Request, scheduler: Scheduler, samples: Samples
) -> LayerShared:
    """Count which states of a layer groups share."""
    memory, left_out = scheduler.memory(request.memory), samples.sample_filter.planned
    groups = samples.set_count
    held = 2 * MATRIX_BYTES * (1 if scheduler.shared_memory else scheduler.threads)
    where = request.scratch
    plan = layer_plan(states, memory, scheduler, groups, left_out, scratch=where, held=held)
    scheme = KeyScheme.create(states.row_bytes)
    warm_up(states.row_bytes, False, True, plan.spill)
    with planned_scratch(plan, scheduler, request.scratch) as folder:
        job = LayerJob(states, scheme, plan, folder, samples)
        graph, index = build_index_graph(job)
        token = uuid.uuid4().hex[:12]
        shared = f"tsstore-groups-{token}"
        graph[shared] = job
        partitions = range(1 << plan.partition_bits)
        counts = ((_count_partition, shared, index, partition) for partition in partitions)
        level = add_tasks(graph, f"tsstore-shared-{token}", counts)
        key = merge_tree(graph, level, FAN_IN, f"tsstore-added-{token}", _add)
        report = request.report(states.name)
        scheduler.leave_room(memory, plan.projected_peak)
        found: _Counted = scheduler.run(graph, key, plan.threads, report)
    rows = samples.sample_filter.kept_rows(states)
    if found.rows != rows:
        raise CountingError(
            f"{states.location}: layer {printable(states.name)}: {found.rows} rows were counted, "
            f"of {rows} that are committed and in a group"
        )
    return LayerShared(states.name, found.matrix, found.by_groups)


def _count_partition(job: LayerJob, index: Index, partition: int) -> _Counted:
    """Count which states of a partition are of which groups."""
    plan, words, groups, rows = job.plan, job.scheme.words, job.samples.set_count, 0
    matrix, by_groups = np.zeros((groups, groups), np.int64), np.zeros(groups, np.int64)
    new_table = partial(GroupedTable, words, groups, plan.maximum_slots, FIRST_SLOTS)
    for (pieces,), bits in by_subpartition([(index, words)], plan, partition):
        for table in count_in_passes(new_table, pieces, bits, plan.maximum_slots):
            state, of_group, *_ = table.entries
            held_by = np.bincount(state)
            by_groups += np.bincount(held_by - 1, minlength=groups)
            shared = held_by[state] > 1
            alone: _Numbers = np.bincount(of_group[~shared], minlength=groups)
            matrix += np.diag(alone)
            matrix += _pairs_of_groups(state[shared], of_group[shared], groups)
            rows += int(table.counts[0].sum())
    return _Counted(matrix, by_groups, rows)


def _pairs_of_groups(state: _Numbers, group: _Numbers, groups: int) -> _Numbers:
    """Return how many states each two groups both have, int64 (groups, groups)."""
    found = np.zeros((groups, groups), np.int64)
    order = np.argsort(state)
    state, group = state[order], group[order]
    step = MATRIX_BYTES // (4 * groups)
    last = int(state[-1]) + 1 if len(state) else 0
    for first in range(0, last, step):
        own = slice(*np.searchsorted(state, [first, first + step]))
        # Whole numbers of no more than a step are exact.
        shown = np.zeros((min(step, last - first), groups), np.float32)
        shown[state[own] - first, group[own]] = 1
        found += (shown.T @ shown).astype(np.int64)
    return found


def _add(counted: Sequence[_Counted]) -> _Counted:
    matrices, by_groups, rows = zip(*counted, strict=True)
    return _Counted(sum(matrices), sum(by_groups), sum(rows))
