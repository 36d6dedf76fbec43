"""Two layers that are read in step: tasks count the same samples of both, whose rows are read once.

It is for layers that hold their samples in the same order, as far as they do. What only one of them
holds, tasks of its own count.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.beside import Reduced, Stretch
from tsstore.analysis.execution.block import BlockCount, LayerJob
from tsstore.analysis.execution.exchange import Receipts
from tsstore.analysis.execution.graph import add_blocks, add_index, add_partitions, joined_tasks
from tsstore.analysis.execution.reduction import Piece, add_tasks
from tsstore.counting.records import Buffers
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block, LayerPart

_Numbers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Blocks of two layers that have as many samples, which are the same."""

    first: Block
    second: Block

    @property
    def rows(self) -> int:
        """Rows of that which has more."""
        return max(self.first.rows, self.second.rows)


@dataclass(frozen=True)
class PairJob:
    """How two layers are counted in step; passes beside the first one are shown both."""

    first: LayerJob
    second: LayerJob
    stretches: Sequence[Stretch]

    def __getstate__(self) -> dict[str, Any]:
        # Tasks know which blocks are theirs.
        return self.__dict__ | {"stretches": ()}

    @property
    def location(self) -> str:
        """Where both lie, for messages."""
        return " and ".join(dict.fromkeys(job.states.location for job in (self.first, self.second)))

    @property
    def piece_rows(self) -> int:
        """Rows of each layer that become records at a time, at most."""
        return min(self.first.plan.piece_rows, self.second.plan.piece_rows)

    @property
    def block_rows(self) -> int:
        """Rows of each layer in one task, at most."""
        return min(self.first.plan.block_rows, self.second.plan.block_rows)


class Held:
    """Rows of the second layer, held while those of the same samples of the first one are read."""

    def __init__(self, states: LayerStates) -> None:
        self._states, self._buffers = states, Buffers()
        self._rows = np.empty((0, states.row_bytes), np.uint8)
        self._pairs: Sequence[Pair] = ()
        self._starts: list[_Numbers] = []
        self._filled = 0

    def begin(self, pairs: Sequence[Pair]) -> None:
        """Make room for the rows of some pairs of blocks: those of the second ones come next."""
        self._pairs, self._starts, rows = pairs, [], 0
        for block in (pair.second for pair in pairs):
            self._starts.append(rows + _starts(self._states.parts[block.part], block))
            rows += block.rows
        self._rows = self._buffers.array("rows", (rows, self._states.row_bytes), np.uint8)
        self._filled = 0

    def take(self, block: Block, rows: npt.NDArray[np.uint8]) -> None:
        """Hold the rows of a block, which come in order."""
        self._rows[self._filled : self._filled + block.rows] = rows
        self._filled += block.rows

    def piece(self, block: Block) -> Piece:
        """Return what is held of the same samples as those of a block of the first layer."""
        number, first = next(
            (number, skipped)
            for number, pair in enumerate(self._pairs)
            if pair.first.part == block.part
            and 0 <= (skipped := block.first_sample - pair.first.first_sample) < pair.first.samples
        )
        whole, starts = self._pairs[number].second, self._starts[number]
        start, stop = int(starts[first]), int(starts[first + block.samples])
        row = whole.first_row + start - int(starts[0])
        same = Block(whole.part, whole.first_sample + first, block.samples, row, stop - start)
        part, shown = self._states.parts[whole.part], self._states.sample_filter
        return Piece(part, same, self._buffers, shown, self._rows[start:stop])


def _starts(part: LayerPart, block: Block) -> _Numbers:
    """Return where each sample of a block has its first row there, and their end."""
    return np.concatenate([[0], np.cumsum(part.read_positions(block.first_sample, block.samples))])


def count_pairs(
    job: PairJob, pairs: Sequence[Pair], buffers: Buffers, other_buffers: Buffers
) -> Receipts:
    """Turn the rows of both blocks of some pairs into records, and show passes both."""
    first, second = BlockCount(job.first, buffers), BlockCount(job.second, other_buffers)
    held = Held(job.second.states)
    beside = Reduced(job.first.beside, held)
    for step in _steps(job, pairs):
        held.begin(step)
        second.take([pair.second for pair in step], held)
        first.take([pair.first for pair in step], beside)
    return Receipts(first.receipt(beside.results), second.receipt())


def _steps(job: PairJob, pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    """Yield what is read at a time: all pairs if they are small, else a piece of one."""
    if sum(pair.rows for pair in pairs) <= job.piece_rows:
        yield pairs
    else:
        for pair in pairs:
            yield from ([piece] for piece in _divide(job, pair, job.piece_rows))


def _divide(job: PairJob, pair: Pair, most_rows: int) -> Iterator[Pair]:
    """Yield a pair of blocks as smaller ones, of so many rows at most of either layer.

    They end where whole chunks of the first layer do, if these hold whole samples.
    """
    if pair.rows <= most_rows:
        yield pair
        return
    part = job.first.states.parts[pair.first.part]
    own = _starts(part, pair.first)
    other = _starts(job.second.states.parts[pair.second.part], pair.second)
    ends = np.cumsum(np.maximum(np.diff(own), np.diff(other)))
    start, before, whole = 0, 0, _chunk_samples(part)
    while start < pair.first.samples:
        stop = max(int(np.searchsorted(ends, before + most_rows, side="right")), start + 1)
        of_whole = stop - (pair.first.first_sample + stop) % whole
        if start < of_whole and stop < pair.first.samples:
            stop = of_whole
        yield Pair(
            _part_of(pair.first, own, start, stop), _part_of(pair.second, other, start, stop)
        )
        start, before = stop, int(ends[stop - 1])


def _part_of(block: Block, starts: _Numbers, start: int, stop: int) -> Block:
    """Return some samples of a block, given where each of them begins."""
    row, rows = int(starts[start]), int(starts[stop] - starts[start])
    sample = block.first_sample + start
    return Block(block.part, sample, stop - start, block.first_row + row, rows)


def _chunk_samples(part: LayerPart) -> int:
    """Return the samples of a chunk, if that holds whole ones; else one."""
    constant, chunk_rows = part.constant_positions, part.states.spec.chunk_rows
    return 1 if not constant or chunk_rows % constant else chunk_rows // constant


def build_pair_graph(job: PairJob) -> tuple[dict[Any, Any], Any, Any]:
    """Return the graph that counts two layers in step, and the keys of both results."""
    token, pairs = uuid.uuid4().hex[:12], list(_pairs(job))
    shared, buffers = (f"tsstore-pair-{token}",), [(f"tsstore-buffers-{token}", n) for n in (0, 1)]
    graph: dict[Any, Any] = {shared: job, **dict.fromkeys(buffers, (Buffers, job.first.arena))}
    blocks = (block for pair in pairs for block in _divide(job, pair, job.block_rows))
    tasks = joined_tasks(blocks, job.block_rows)
    counts = ((count_pairs, shared, some, *buffers) for some in tasks)
    keys = add_tasks(graph, f"tsstore-block-{token}", counts)
    first = _count_rest(graph, job.first, keys, "first", [pair.first for pair in pairs])
    second = _count_rest(graph, job.second, keys, "second", [pair.second for pair in pairs])
    return graph, first, second


def _count_rest(
    graph: dict[Any, Any], job: LayerJob, tasks: Iterable[Any], which: str, blocks: Iterable[Block]
) -> Any:
    """Add the other tasks of one of both layers, of which tasks for both read these blocks."""
    token = uuid.uuid4().hex[:12]
    own = ((getattr, task, which) for task in tasks)
    receipts = add_tasks(graph, f"tsstore-receipt-{token}", own)
    alone = joined_tasks(_alone(job.states, blocks, job.plan.block_rows), job.plan.block_rows)
    receipts += add_blocks(graph, job, alone)
    return add_partitions(graph, job, add_index(graph, job, receipts))


def _pairs(job: PairJob) -> Iterator[Pair]:
    """Yield each stretch of samples as blocks of both layers, if both have rows there."""
    layers = job.first.states, job.second.states
    places = [{part.directory: n for n, part in enumerate(of.parts) if part.rows} for of in layers]
    for one in job.stretches:
        first, second = places[0].get(one.first_part), places[1].get(one.second_part)
        if first is not None and second is not None:
            yield Pair(
                _block(layers[0], first, one.first_sample, one.samples),
                _block(layers[1], second, one.second_sample, one.samples),
            )


def _block(states: LayerStates, part: int, first: int, samples: int) -> Block:
    """Return consecutive samples of a part as a block."""
    before, rows = (
        int(states.parts[part].read_positions(*span).sum())
        for span in ((0, first), (first, samples))
    )
    return Block(part, first, samples, before, rows)


def _alone(states: LayerStates, blocks: Iterable[Block], most_rows: int) -> Iterator[Block]:
    """Yield all else that is shown of a layer, as blocks of so many rows at most."""
    of_part: dict[int, list[Block]] = {}
    for block in blocks:
        of_part.setdefault(block.part, []).append(block)
    for number, part in enumerate(states.parts):
        if not part.rows:
            continue
        # The end of the part stands for a block of no samples.
        end = Block(number, part.samples, 0, part.rows, 0)
        sample = row = 0
        for block in (*sorted(of_part.get(number, []), key=lambda own: own.first_sample), end):
            samples, rows = block.first_sample - sample, block.first_row - row
            if samples:
                for own in states.divide(Block(number, sample, samples, row, rows), most_rows):
                    if states.sample_filter.has_any(part.directory, own):
                        yield own
            sample, row = block.first_sample + block.samples, block.first_row + block.rows
