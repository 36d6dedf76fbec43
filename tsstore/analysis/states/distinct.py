"""The distinct states of a layer themselves, out of core: a table of all, the most frequent."""

from __future__ import annotations

import operator
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.block import LayerJob
from tsstore.analysis.execution.graph import Index, build_index_graph, gather
from tsstore.analysis.execution.scratch import planned_scratch
from tsstore.analysis.planning.cost import OVERHEAD_BYTES
from tsstore.analysis.planning.layer_plan import Plan, layer_plan
from tsstore.analysis.request import Request, check_rows
from tsstore.analysis.schedulers import Report, Scheduler, choose, task_keys
from tsstore.analysis.states.files import write_states
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import subpartition_bits, subpartitions
from tsstore.counting.tables.aggregate import count_tables
from tsstore.counting.tables.plain import Table, slot_bytes
from tsstore.counting.warm_up import warm_up
from tsstore.errors import AnalysisError, CountingError
from tsstore.store.reading.layer import LayerStates
from tsstore.text import Progress

if TYPE_CHECKING:
    import pandas as pd

Counts: TypeAlias = npt.NDArray[np.int64]
Piece: TypeAlias = tuple[npt.NDArray[np.uint8], Counts, Counts]
"""Distinct states, uint8 (n, row_bytes), in how many rows each is, and in how many samples."""

PIECE_BYTES = 1 << 18
"""Of a table's slots that are taken out of it at a time: a whole table may be as large as all that
the plan has left."""

MAX_CHUNK_BYTES = 16 << 20
CHUNK_SHARE = 6
"""What writing a chunk takes, as often as the chunk: its states in pieces and together, decoded,
compressed."""


def export_states(
    states: LayerStates,
    out: str | os.PathLike[str],
    *,
    decoded: bool = False,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write every distinct state of a layer, its multiplicity and its incidence; return how many.

    Exact for layers of any width, and of more states than fit into memory.

    Parameters
    ----------
    states
        The layer: ``store["conv_1"]``.
    out
        A new local path that ends in ``.parquet``, which needs the package pyarrow, or in
        ``.zarr``. Columns or arrays are `state`, `multiplicity` and `incidence`, in no particular
        order of the states; what they are of is in the metadata.
    decoded
        Whether a state is a boolean for each neuron, instead of its bytes as stored.
    memory, scheduler, scratch, progress
        As for :func:`tsstore.analyze`.

    Raises
    ------
    EmptyStoreError, DamageError
        If the layer has no rows, or a chunk is not what was committed.
    StoreError, StoreExistsError, AccessError
        If the path is no local one of these kinds, or pyarrow is not there; if there is something
        at the path; if it cannot be written.
    MemoryTooSmallError, AnalysisError
        If memory, scheduler or scratch make no sense.
    """
    distinct = 0
    request = Request(memory, scheduler, progress, scratch)
    with _planned(states, request) as (plan, runner):
        chunk_bytes = min(spare_bytes(plan) // CHUNK_SHARE, MAX_CHUNK_BYTES)
        with (
            write_states(out, states, decoded, chunk_bytes) as append,
            closing(distinct_states(states, plan, runner, request)) as pieces,
        ):
            for piece in pieces:
                append(*piece)
                distinct += len(piece[0])
    return distinct


def most_frequent(
    states: LayerStates,
    count: int = 20,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the most frequent states of a layer, exactly, and how frequent they are.

    Parameters and errors are as of `export_states`; fewer than one state is an AnalysisError. The
    table has a line for each of the `count` states of largest multiplicity, or of all if there are
    fewer; of equally frequent ones those whose bytes come first. Columns are `state` (its bytes as
    stored), `multiplicity` (rows), `incidence` (samples), and `share` (of all rows).
    """
    import pandas as pd

    if operator.index(count) < 1:
        raise AnalysisError(f"count is {count}; expected how many states to return, 1 at least")
    request = Request(memory, scheduler, progress, scratch)
    with (
        _planned(states, request) as (plan, runner),
        closing(distinct_states(states, plan, runner, request)) as pieces,
    ):
        rows, multiplicity, incidence = _most_frequent(pieces, count)
    return pd.DataFrame(
        {
            "state": pd.Series([row.tobytes() for row in rows], dtype=object),
            "multiplicity": multiplicity,
            "incidence": incidence,
            "share": multiplicity / states.rows,
        }
    )


@contextmanager
def _planned(states: LayerStates, request: Request) -> Iterator[tuple[Plan, Scheduler]]:
    """Yield how the states are counted, by exact keys, and where."""
    check_rows(states)
    with closing(choose(request.scheduler)) as runner:
        runner.check_store(states.parts[0].states.files)
        yield layer_plan(states, runner.memory(request.memory), runner, exact=True), runner


def _most_frequent(pieces: Iterator[Piece], count: int) -> Piece:
    """Return those of all states that come first, in order."""
    best = _first(next(pieces), count)
    for piece in pieces:
        if len(best[0]) == count:
            piece = _before_last(piece, best)
        if len(piece[0]):
            best = _first(_together([best, piece]), count)
    return best


def _together(pieces: Sequence[Piece]) -> Piece:
    rows, multiplicity, incidence = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return rows, multiplicity, incidence


def _before_last(piece: Piece, best: Piece) -> Piece:
    """Return those states of a piece that come before the last of the best."""
    rows, multiplicity, _ = piece
    last_row, last = best[0][-1:], best[1][-1]
    is_before = (multiplicity == last) & (_names(rows) < _names(last_row))
    return _select(piece, is_before | (multiplicity > last))


def _first(piece: Piece, count: int) -> Piece:
    """Return the first states of a piece: by multiplicity, largest first, then by their bytes."""
    rows, multiplicity, _ = piece
    return _select(piece, np.lexsort((_names(rows), -multiplicity))[:count])


def _select(piece: Piece, chosen: npt.NDArray[Any]) -> Piece:
    rows, multiplicity, incidence = piece
    return rows[chosen], multiplicity[chosen], incidence[chosen]


def _names(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """Return each row as one item, bytes (n,): they compare as rows do, byte by byte."""
    names: npt.NDArray[np.bytes_] = rows.view(f"S{rows.shape[1]}").reshape(-1)
    return names


def distinct_states(
    states: LayerStates, plan: Plan, scheduler: Scheduler, request: Request
) -> Generator[Piece, None, None]:
    """Yield every distinct state of a layer once, with its multiplicity and incidence.

    It takes a plan for exact keys. Blocks are read by the scheduler's workers; partitions are
    counted here, one after another, each when it is asked for. Close the iterator to remove what it
    keeps in the scratch folder.
    """
    scheme = KeyScheme.create(states.row_bytes, exact=True)
    warm_up(states.row_bytes, True, False, plan.spill)
    partitions, rows, report = 1 << plan.partition_bits, 0, request.report(states.name)
    with planned_scratch(plan, scheduler, request.scratch) as folder:
        index, tasks = _run_blocks(states, scheme, plan, scheduler, folder, report)
        for partition in range(partitions):
            for table in _tables(index, plan, scheme.words, partition):
                for keys, multiplicity, incidence in _taken_out(table, scheme.words):
                    rows += int(multiplicity.sum())
                    yield scheme.rows(keys), multiplicity, incidence
            if report is not None:
                report(tasks + partition + 1, tasks + partitions)
    if rows != states.rows:
        raise CountingError(
            f"{states.name}: the multiplicities add up to {rows}, but {states.rows} rows are "
            "committed"
        )


def spare_bytes(plan: Plan) -> int:
    """Return how much memory is left for what is done with the states.

    Partitions are counted on one thread: what the plan sets apart for others, and for what such a
    task does besides, is free.
    """
    idle = plan.threads - 1
    return OVERHEAD_BYTES + idle * plan.gathered_bytes + plan.memory - plan.projected_peak


def _run_blocks(
    states: LayerStates,
    scheme: KeyScheme,
    plan: Plan,
    scheduler: Scheduler,
    folder: str,
    report: Report | None,
) -> tuple[Index, int]:
    """Turn all blocks into records; return where these are, and how many tasks there were."""
    graph, key = build_index_graph(LayerJob(states, scheme, plan, folder))
    tasks = len(task_keys(graph))

    def report_first(done: int, total: int) -> None:
        if report is not None:
            report(done, total + (1 << plan.partition_bits))

    index = scheduler.run(graph, key, plan.threads, None if report is None else report_first)
    return index, tasks


def _tables(index: Index, plan: Plan, words: int, partition: int) -> Iterator[Table]:
    """Yield tables that hold the counts of a partition between them."""
    slices, slots = partial(index.slices, partition), plan.maximum_slots
    gathered = gather(slices(), plan.gathered_bytes)
    if gathered is None:
        yield from count_tables(slices, words, plan.partition_bits, slots)
        return
    bits = subpartition_bits(
        sum(map(len, gathered)), plan.partition_bits, plan.subpartition_records
    )
    for share in subpartitions(gathered, words, plan.partition_bits, bits):
        yield from count_tables(partial(iter, share), words, plan.partition_bits + bits, slots)


def _taken_out(table: Table, words: int) -> Iterator[tuple[npt.NDArray[np.uint64], Counts, Counts]]:
    """Yield keys, multiplicities and incidences of a table, a bounded number at a time."""
    step = max(1, PIECE_BYTES // slot_bytes(words))
    for start in range(0, len(table.slots), step):
        keys, multiplicity, incidence = table.occupied(slice(start, start + step))
        if len(keys):
            yield keys, multiplicity, incidence
