"""Which distinct states groups of samples share: how many are of one group, of two, of all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import Index, build_index_graph
from tsstore.analysis.execution.reduction import merge_tree
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.groups.grouping import Bins, group
from tsstore.analysis.planning.layer_plan import Plan, layer_plan
from tsstore.analysis.request import Request, countable, layer_names
from tsstore.analysis.results.by_layer import ByLayer
from tsstore.analysis.runs import chosen
from tsstore.analysis.samples import RandomGroups, Samples, Sets
from tsstore.analysis.schedulers import Scheduler
from tsstore.analysis.states.distinct import shares
from tsstore.counting.keys import KeyScheme
from tsstore.counting.tables.aggregate import FIRST_SLOTS, count_in_passes
from tsstore.counting.tables.grouped import GroupedTable
from tsstore.counting.warm_up import warm_up
from tsstore.errors import AnalysisError, CountingError
from tsstore.store.files.open import StorePath
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_filter import SampleFilter
from tsstore.store.reading.store import StateStore
from tsstore.text import (
    Progress,
    html_lines,
    html_table,
    html_title,
    printable,
    text_table,
)

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
        self.layers = dict(layers)

    def __getitem__(self, name: str) -> LayerShared:
        found: LayerShared = self._find(name, f"{self.run}: no layer {name!r:.80}; there are")
        return found

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

    def __repr__(self) -> str:
        title = f"<SharedStates {printable(self.run)} by {printable(self.by)}>"
        rows = [HEADINGS, *(layer.cells for layer in self.values())]
        return "\n".join([title, *text_table(rows), *(f"  {line}" for line in self.sentences)])

    def _repr_html_(self) -> str:
        title = html_title("SharedStates", f"{self.run} by {self.by}")
        table = html_table(HEADINGS, [layer.cells for layer in self.values()])
        return title + table + html_lines(self.sentences)


def shared_states(
    store: StateStore | StorePath,
    by: str | None = None,
    layers: str | Iterable[str] | None = None,
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
    request = Request(memory, scheduler, progress, scratch, intervals=False)
    store = countable(store, by)
    names = layer_names(store, layers)
    grouping = group(store, by, bins, window)
    groups = len(grouping.values)
    if groups > MOST_GROUPS:
        raise AnalysisError(
            f"{store.path}: {groups:,} groups by {printable(grouping.by)}; expected {MOST_GROUPS} "
            "at most for the states that they share"
        )
    grouping.check_rows(store, names)
    left_out = {directory: np.flatnonzero(own < 0) for directory, own in grouping.codes.items()}
    # Copies of samples show no other states than these do: it need not be known which they are.
    sample_filter = store.view.samples.joined(SampleFilter(left_out))
    samples = Samples(sample_filter, _KnownGroups(groups, sets=grouping.codes))
    with chosen([store], request) as runner:
        found = {name: _share(store[name], request, runner, samples) for name in names}
    return SharedStates(store.path, grouping.by, grouping.values, grouping.samples, found)


@dataclass(frozen=True)
class _KnownGroups(RandomGroups):
    """Groups that are known: of each sample its set."""

    sets: Sets = field(default_factory=dict)

    def of_samples(self, directory: str, first_sample: int, samples: int) -> npt.NDArray[np.uint8]:
        """Return the groups of consecutive samples of a part; of those left out any number."""
        return self.sets[directory][first_sample : first_sample + samples].astype(np.uint8)


@dataclass(frozen=True)
class _Job:
    """How partitions are counted: by keys of so many words, and by group."""

    plan: Plan
    words: int
    groups: int


@dataclass(frozen=True, eq=False)
class _Counted:
    """What was counted of some partitions; `rows` must be all in the end."""

    matrix: _Numbers
    by_groups: _Numbers
    rows: int


def _share(
    states: LayerStates, request: Request, scheduler: Scheduler, samples: Samples
) -> LayerShared:
    """Count which states of a layer groups share."""
    memory, left_out = scheduler.memory(request.memory), samples.sample_filter.planned
    groups = samples.group_count
    held = 2 * MATRIX_BYTES * (1 if scheduler.shared_memory else scheduler.threads)
    room = max(memory - held, 1)
    plan = layer_plan(states, room, scheduler, groups, left_out, scratch=request.scratch)
    scheme = KeyScheme.create(states.row_bytes)
    warm_up(states.row_bytes, False, True, plan.spill)
    with planned_scratch(plan, scheduler, request.scratch) as folder:
        graph, index = build_index_graph(LayerJob(states, scheme, plan, folder, samples))
        token = uuid.uuid4().hex[:12]
        graph[f"tsstore-groups-{token}"] = _Job(plan, scheme.words, groups)
        level: list[Any] = []
        for partition in range(1 << plan.partition_bits):
            level.append((f"tsstore-shared-{token}", partition))
            graph[level[-1]] = (_count_partition, f"tsstore-groups-{token}", index, partition)
        key = merge_tree(graph, level, FAN_IN, f"tsstore-added-{token}", _add)
        found: _Counted = scheduler.run(graph, key, plan.threads, request.report(states.name))
    rows = samples.sample_filter.kept_rows(states)
    if found.rows != rows:
        raise CountingError(
            f"{states.location}: layer {printable(states.name)}: {found.rows} rows were counted, "
            f"of {rows} that are committed and in a group"
        )
    return LayerShared(states.name, found.matrix, found.by_groups)


def _count_partition(job: _Job, index: Index, partition: int) -> _Counted:
    """Count which states of a partition are of which groups."""
    plan, groups, rows = job.plan, job.groups, 0
    matrix, by_groups = np.zeros((groups, groups), np.int64), np.zeros(groups, np.int64)
    new_table = partial(GroupedTable, job.words, groups, plan.maximum_slots, FIRST_SLOTS)
    for (share,), bits in shares([(index, job.words)], plan, partition):
        for table in count_in_passes(new_table, share, bits, plan.maximum_slots):
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
    return _Counted(
        np.sum([one.matrix for one in counted], axis=0),
        np.sum([one.by_groups for one in counted], axis=0),
        sum(one.rows for one in counted),
    )
