"""The samples whose states are least expected, given all other samples: out of core, in two passes.

The first one reads the rows, and makes a record of each state of each sample: its key, the sample,
in how many of its rows. All records of one state meet in one partition. The second pass goes over
these: it counts each state in all samples, and then looks up what every sample finds in the others.
"""

from __future__ import annotations

import operator
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.graph import Index
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.request import Request, Run, check_rows, countable, running
from tsstore.analysis.samples import Samples
from tsstore.analysis.states.distinct import (
    SampleJob,
    by_partition,
    by_subpartition,
    graph_by_sample,
    without_samples,
    work_by_sample,
)
from tsstore.counting.keys import KeyScheme
from tsstore.counting.records import LATER, Records
from tsstore.counting.tables.aggregate import count_tables
from tsstore.counting.tables.spectra import Tally
from tsstore.counting.warm_up import warm_up
from tsstore.errors import AnalysisError, CountingError, TsstoreWarning
from tsstore.statistics.information import mean_surprisal, unseen
from tsstore.statistics.spectrum import Spectrum
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_frame import frame_of_samples
from tsstore.text import Progress, printable

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_BYTES = 48
"""Of each sample: what is added up, and what is worked out of it."""
DIGITS = 9
"""Decimals of the bits that are told: sums of another order differ in later ones."""

_Words = npt.NDArray[np.uint64]
_Numbers = npt.NDArray[np.int64]


def surprising(
    store: Run,
    layer: str,
    n: int = 20,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Find the samples whose states in a layer are least expected, given all other samples.

    All samples count, those that repeat others as well: a copy is no surprise.

    Parameters
    ----------
    store
        A run, or its path.
    layer
        Name of the layer.
    n
        How many samples to return, at most.
    memory, scheduler, scratch, progress
        As for `tsstore.analyze`.

    Returns
    -------
    pandas.DataFrame
        A line a sample, the most surprising first, indexed as `StateStore.samples_frame` is:
        `bits`, the mean surprisal of its rows; `new`, the share of its rows whose state no other
        sample shows; `rows`; then its sample columns. Of equally surprising samples the first ones
        are there; ``frame.attrs["equally_surprising"]`` is how many more are as the last one is.

    Raises
    ------
    UnknownLayerError, EmptyStoreError
        If there is no such layer, or it has no rows.
    DamageError
        If a chunk is not what was committed.
    MemoryTooSmallError, AnalysisError
        If `n` is less than 1, one sample alone has rows, or memory, scheduler or scratch make no
        sense.

    Warns
    -----
    TsstoreWarning
        If no state occurs in two samples: none is then more surprising than another.

    Notes
    -----
    A row whose state is in K of all N rows, k of them in its own sample of r rows, has a surprisal
    of ``-log2((1 - u) (K - k) / (N - r))`` bits if another sample shows the state (K > k), else of
    ``-log2(u / f0)``: u is the share of all rows in states of one sample alone (Good 1953), f0 how
    many states Chao2 estimates to be unseen, one at least. The sources are in
    ``tsstore/statistics/information.py``.
    """
    if operator.index(n) < 1:
        raise AnalysisError(f"n is {n}; expected how many samples to return, 1 at least")
    request = Request(memory, scheduler, progress, scratch)
    store = countable(store)
    states = store[layer]
    check_rows(states)
    found = _count(states, request)
    bits = found.bits(states)
    order = np.argsort(-np.nan_to_num(bits, nan=-np.inf), kind="stable")
    first = order[: min(n, np.count_nonzero(found.rows))]
    numbers = {
        "bits": bits[first],
        "new": found.new_rows[first] / found.rows[first],
        "rows": found.rows[first],
    }
    frame = frame_of_samples(states.sample_parts, first, numbers)
    last = numbers["bits"][-1]
    ties = np.count_nonzero(bits == last) - np.count_nonzero(numbers["bits"] == last)
    frame.attrs["equally_surprising"] = int(ties)
    return frame


@dataclass
class _Found:
    """What was added up of each sample, those that are not shown included."""

    logs: npt.NDArray[np.float64]
    new_rows: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    tally: Tally = field(default_factory=Tally)

    def add(
        self, sample: npt.NDArray[np.int64], here: npt.NDArray[np.int64], all_rows: Any
    ) -> None:
        """Add states of samples: in how many rows of the sample each is, and of all samples."""
        elsewhere = all_rows - here
        seen = elsewhere > 0
        np.add.at(self.logs, sample[seen], here[seen] * np.log2(elsewhere[seen]))
        np.add.at(self.new_rows, sample[~seen], here[~seen])
        np.add.at(self.rows, sample, here)

    def bits(self, states: LayerStates) -> npt.NDArray[np.float64]:
        """Return the mean surprisal of each sample, in bits; NaN of one without rows."""
        spectrum = Spectrum.from_arrays(*self.tally.spectrum())
        with_rows = int(np.count_nonzero(self.rows))
        where = f"{states.location}: layer {printable(states.name)}"
        if with_rows < 2:
            raise AnalysisError(
                f"{where}: one sample alone has rows; expected others to compare it"
            )
        mass, left = unseen(spectrum, with_rows, states.neurons)
        if mass == 1:
            warnings.warn(
                f"{where}: no state occurs in two samples: none is more surprising than another",
                TsstoreWarning,
                stacklevel=3,
            )
        return mean_surprisal(self.logs, self.new_rows, self.rows, mass, left).round(DIGITS)


def _count(states: LayerStates, request: Request) -> _Found:
    """Add up what each sample's states are in the others."""
    scheme = KeyScheme.create(states.row_bytes)
    firsts = list(accumulate((part.samples for part in states.parts), initial=0))
    samples = firsts.pop()
    found = _Found(np.zeros(samples), *np.zeros((2, samples), np.int64))
    with running(request, states) as runner:
        # What is held of each sample is reckoned as that of those left out is, 8 bytes each.
        held = states.sample_filter.planned + samples * SAMPLE_BYTES // 8
        # Partitions are read here, and not by workers.
        work = replace(work_by_sample(states, scheme, runner, request, held), holders=0)
        memory = runner.memory(request.memory)
        plan = make_plan(work, memory, runner.threads, runner.shared_memory)
        warm_up(states.row_bytes, False, False, plan.spill)
        with planned_scratch(plan, runner, request.scratch) as folder:
            shown = Samples(states.sample_filter)
            job = SampleJob(states, scheme, plan, folder, shown, firsts=tuple(firsts))
            report = request.report(states.name)
            for index, partition in by_partition(plan, runner, report, *graph_by_sample(job)):
                _add_partition(found, index, plan, scheme.words, partition)
    if found.rows.sum() != states.rows:
        raise CountingError(
            f"{states.name}: {found.rows.sum()} rows were found again, of {states.rows}"
        )
    return found


def _add_partition(found: _Found, index: Index, plan: Plan, words: int, partition: int) -> None:
    """Count the states of a partition, and look up what each of its records finds elsewhere."""
    for (pieces,), bits in by_subpartition([(index, words + 1)], plan, partition):

        def keys_alone() -> Iterator[Records]:
            for piece in pieces():  # noqa: B023 - used before the next ones
                yield without_samples(piece)[0]

        for table in count_tables(keys_alone, words, bits, plan.maximum_slots):
            keys, multiplicity, incidence = table.occupied()
            if not len(keys):
                continue
            found.tally.add(multiplicity, incidence)
            order = np.argsort(keys[:, 0])
            keys, multiplicity = keys[order], multiplicity[order]
            for piece in pieces():
                records, sample = without_samples(piece)
                place, is_here = _find(keys, records.keys)
                # Rows of one sample that are equal are one state of it.
                shown = place[is_here] * len(found.rows) + sample[is_here]
                shown, here = np.unique(shown, return_counts=True)
                place, sample = np.divmod(shown, len(found.rows))
                found.add(sample, here, multiplicity[place])


def _find(known: _Words, keys: _Words) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return where keys are among known ones, in order of their first word; and which are there.

    All tags are set in the known ones.
    """
    keys = keys.copy()
    keys[:, 0] |= LATER
    place = np.searchsorted(known[:, 0], keys[:, 0])
    place[place == len(known)] = 0
    return place, (known[place] == keys).all(axis=1)
