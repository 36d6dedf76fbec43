"""From the chunks of blocks to their records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.beside import Passes, Reduced, Results, Taker
from tsstore.analysis.execution.exchange import DividedSlices, HeldSlices, Receipt, Slices, spill
from tsstore.analysis.execution.reduction import chunk_workspace
from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.samples import EVERY, Samples
from tsstore.counting.arena import Arena
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import scatter
from tsstore.counting.parts import PartPiece, divide_rows, tag_rows
from tsstore.counting.premerge.cold_keys import absorb_hot_keys
from tsstore.counting.premerge.direct_index import DirectTable
from tsstore.counting.premerge.hot_keys import HotKeys
from tsstore.counting.premerge.samples import count_groups, numbers_by_group
from tsstore.counting.records import Buffers, Records, SampleKeys
from tsstore.errors import CountingError
from tsstore.statistics.jackknife import SpectrumDelta
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block
from tsstore.store.reading.sample_filter import SampleFilter

SPAN_BYTES = 1 << 20
"""Of rows that become keys at a time, about: while they are still in the processor's cache."""

_Word = TypeVar("_Word", bound=np.generic)


@dataclass(frozen=True)
class LayerJob:
    """How a layer is counted: what the tasks of all its blocks need, as one value.

    Records are written to the folder, if the plan says so. The passes `beside` get all rows that
    are read. Memory is lent by an arena, if there is one.
    """

    states: LayerStates
    scheme: KeyScheme
    plan: Plan
    folder: str
    samples: Samples = EVERY
    beside: Passes = ()
    arena: Arena | None = None


Preaggregation = HotKeys | DirectTable
"""A thread's table that counts rows of a block before they become records."""


def preaggregation(job: LayerJob, buffers: Buffers) -> Preaggregation:
    """Return a thread's table for pre-aggregation, with nothing in it.

    That is one for all states, if the plan has room for it and it has paid so far; else one of hot
    keys.
    """
    scheme, plan = job.scheme, job.plan
    count = job.samples.code_count

    def make_direct() -> DirectTable:
        return DirectTable(scheme, count, plan.largest_sample)

    def make_hot() -> HotKeys:
        return HotKeys(scheme.words, count, plan.hot_rows, buffers.empty)

    table: Preaggregation | None = None
    if plan.direct:
        direct = buffers.kept("direct", make_direct)
        table = direct if direct.pays else None
    table = table or buffers.kept("hot", make_hot)
    table.begin()
    return table


def read_samples(
    job: LayerJob,
    blocks: Sequence[Block],
    table: Preaggregation,
    buffers: Buffers,
    beside: Taker | None = None,
) -> tuple[SampleKeys | None, npt.NDArray[np.int64]]:
    """Return the keys of blocks, and by group their samples, rows, equal pairs of rows, and pairs.

    The latter are int64 (4, groups). The keys may lie in the buffers; what the table for
    pre-aggregation has counted, which may be all, is not among them, and only equal pairs of that
    are told. Without groups, all samples are one. All rows are shown to what is reduced beside.
    """
    states, scheme = job.states, job.scheme
    shown, count = job.samples.sample_filter, job.samples.code_count or 1
    parts = [states.parts[block.part] for block in blocks]
    spans = [
        (part.directory, block.first_sample, block.samples)
        for part, block in zip(parts, blocks, strict=True)
    ]
    group = _joined([job.samples.codes_of(*span) for span in spans])
    one_position = not shown.samples and all(part.constant_positions == 1 for part in parts)
    if one_position and isinstance(table, HotKeys):
        rows_of_all = np.array([sum(block.rows for block in blocks)])
        samples = rows_of_all if group is None else count_groups(group, count)
        none = np.zeros_like(samples)
        numbers = np.stack([samples, samples, none, none])
        keys = read_keys(states, scheme, blocks, buffers, beside)
        return absorb_hot_keys(keys, None, table, group, buffers)[0], numbers
    positions = _joined(
        [part.read_positions(*span[1:]) for part, span in zip(parts, spans, strict=True)]
    )
    kept = _kept(shown, spans)
    chosen = None if kept is None else np.repeat(kept, positions)
    left: SampleKeys | None = None
    if kept is not None:
        positions = positions[kept]
        group = None if group is None else group[kept]
    if isinstance(table, DirectTable):
        rows = select_rows(_read_rows(states, blocks, buffers, beside), chosen)
        equal_pairs = table.count(rows, positions, group)
    else:
        keys = select_rows(read_keys(states, scheme, blocks, buffers, beside), chosen)
        left, equal_pairs = absorb_hot_keys(keys, positions, table, group, buffers)
    own = np.zeros(len(positions), np.uint8) if group is None else group
    samples, rows_of_group, pairs = numbers_by_group(positions, own, count)
    return left, np.stack([samples, rows_of_group, equal_pairs, pairs])


def _joined(pieces: Sequence[Any]) -> Any:
    """Return what there is of blocks as one array; None where they have none."""
    return pieces[0] if len(pieces) == 1 or pieces[0] is None else np.concatenate(pieces)


def _kept(
    shown: SampleFilter, spans: Sequence[tuple[str, int, int]]
) -> npt.NDArray[np.bool_] | None:
    """Return which samples of some spans are shown; None for all."""
    kept = [shown.kept(*span) for span in spans]
    if all(own is None for own in kept):
        return None
    pieces = zip(kept, spans, strict=True)
    return np.concatenate([np.ones(n, np.bool_) if own is None else own for own, (*_, n) in pieces])


def _read_rows(
    states: LayerStates, blocks: Sequence[Block], buffers: Buffers, beside: Taker | None
) -> npt.NDArray[np.uint8]:
    """Return the rows of blocks, uint8 (rows, row_bytes), in the buffers."""
    total = sum(block.rows for block in blocks)
    rows = buffers.array("rows", (total, states.row_bytes), np.uint8)
    first = 0
    for block in blocks:
        room = _read(states, block, rows[first : first + block.rows], buffers)
        if beside:
            beside.take(block, room)
        first += block.rows
    return rows


def read_keys(
    states: LayerStates,
    scheme: KeyScheme,
    blocks: Sequence[Block],
    buffers: Buffers,
    beside: Taker | None = None,
) -> npt.NDArray[np.uint64]:
    """Return the keys of the rows of blocks: uint64 (rows, words), in the buffers."""
    total = sum(block.rows for block in blocks)
    keys = buffers.array("keys", (total, scheme.words), np.uint64)
    first = 0
    for block in blocks:
        for span in _spans(states, block, bool(beside)):
            room = buffers.array("rows", (span.rows, states.row_bytes), np.uint8)
            rows = _read(states, span, room, buffers)
            scheme.keys(rows, keys[first : first + span.rows])
            if beside:
                beside.take(span, rows)
            first += span.rows
    return keys


def _spans(states: LayerStates, block: Block, whole_samples: bool) -> Iterator[Block]:
    """Yield what is read of a block at a time: whole chunks, or about as many of whole samples."""
    spec = states.parts[block.part].states.spec
    most = spec.chunk_rows * -(-SPAN_BYTES // spec.chunk_bytes)
    if whole_samples:
        yield from states.divide(block, most)
        return
    row, stop = block.first_row, block.first_row + block.rows
    while row < stop:
        end = min(stop, (row // most + 1) * most)
        yield replace(block, first_row=row, rows=end - row)
        row = end


def _read(
    states: LayerStates, block: Block, room: npt.NDArray[np.uint8], buffers: Buffers
) -> npt.NDArray[np.uint8]:
    """Read the rows of a block into the room; no chunk is decoded twice in a row."""
    stored, stop = states.parts[block.part].states, block.first_row + block.rows
    return stored.read(block.first_row, stop, room, chunk_workspace(buffers))


def select_rows(
    table: npt.NDArray[_Word], chosen: npt.NDArray[np.bool_] | None
) -> npt.NDArray[_Word]:
    """Return the rows of a table (n, columns), C-contiguous, that are chosen; None is all.

    One item a row: selecting along the first of two axes takes eight bytes a row more.
    """
    if chosen is None:
        return table
    columns = table.shape[1]
    items = table.view(np.dtype((np.void, columns * table.itemsize))).reshape(-1)
    return items[chosen].view(table.dtype).reshape(-1, columns)


class BlockCount:
    """What one task makes of its blocks: records by partition, in one file if planned."""

    def __init__(self, job: LayerJob, buffers: Buffers) -> None:
        self._job, self._buffers = job, buffers
        self._table = preaggregation(job, buffers)
        self._bits = job.plan.partition_bits + job.plan.divided_bits
        self._pieces: list[PartPiece] = []
        self._counted: list[Records] = []
        self._numbers = np.zeros((4, job.samples.code_count or 1), np.int64)

    def take(self, blocks: Sequence[Block], beside: Taker | None) -> None:
        """Read blocks of a piece's size, and turn their rows into records."""
        job = self._job
        left, own = read_samples(job, blocks, self._table, self._buffers, beside)
        if left is not None and len(left):
            divide = divide_rows if job.plan.divided_bits else tag_rows
            if job.plan.gives_back:
                left = replace(left, spare=None)  # as memory is short
            self._pieces.append(divide(left, self._bits, self._buffers.empty))
        if not self._table.pays:
            self._counted += self._table.take()
            self._table = preaggregation(job, self._buffers)
        self._numbers += own

    def receipt(self, results: Results = ()) -> Receipt:
        """Return the receipt of all blocks, of which there is one at least."""
        job, numbers = self._job, self._numbers
        counted, rows = [*self._counted, *self._table.take()], int(numbers[1].sum())
        pieces = [*self._pieces, *(PartPiece(*scatter([own], self._bits)) for own in counted)]
        if sum(piece.records.rows for piece in pieces) != rows:
            raise CountingError(f"{rows} rows of {job.states.name} gave other records")
        return Receipt(
            rows,
            int(numbers[2].sum()),
            int(numbers[3].sum()),
            _slices(pieces, job.plan, job.folder),
            SpectrumDelta.from_arrays(numbers) if job.samples.code_count else None,
            results,
        )


def _slices(pieces: Sequence[PartPiece], plan: Plan, folder: str) -> Slices:
    """Return a block's records by partition, as the plan holds them."""
    if plan.divided_bits:
        return DividedSlices(pieces, plan.partition_bits, plan.divided_bits)
    scattered = [(piece.records, piece.ends) for piece in pieces]
    return spill(scattered, folder) if plan.spill and pieces else HeldSlices(scattered)


def count_blocks(job: LayerJob, blocks: Sequence[Block], buffers: Buffers | None = None) -> Receipt:
    """Turn the rows of blocks into records, by partition; write them to one file if planned."""
    count, beside = BlockCount(job, buffers or Buffers(job.arena)), Reduced(job.beside)
    for piece in _pieces(job, blocks):
        count.take(piece, beside)
    return count.receipt(beside.results)


def _pieces(job: LayerJob, blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    """Yield what is read at a time: all blocks if they are small, else a piece of one."""
    most = job.plan.piece_rows
    if sum(block.rows for block in blocks) <= most:
        yield blocks
    else:
        for block in blocks:
            yield from ([piece] for piece in job.states.divide(block, most))
