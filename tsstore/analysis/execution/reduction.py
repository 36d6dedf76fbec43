"""One pass over a layer's rows, on any scheduler: each piece gives a result, and results add up.

It is for what adds up over samples, whatever their order, or in order; what needs all rows of one
state together goes through the exchange of a count.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tsstore.analysis.memory import too_small
from tsstore.analysis.planning.cost import FAN_IN, most_blocks, waiting_results
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.counting.records import Buffers
from tsstore.store.chunked.reader import ChunkWorkspace
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block, LayerPart
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.text import printable

PIECE_BYTES = 1 << 20
"""Of rows that are read at a time, about; those of one sample are read at once."""
MOST_PIECE_ROWS = 1 << 16
BLOCK_PIECES = 64
TASK_BYTES = 4 << 20
"""Of a task beside its rows, chunks and results."""
KEPT_BYTES = 9
"""Of a row: whether it is shown, and its number if it is."""

Result = TypeVar("Result")


def chunk_workspace(buffers: Buffers) -> ChunkWorkspace:
    """Return a thread's memory for reading the chunks of states."""
    return buffers.kept("chunks", lambda: ChunkWorkspace(True, buffers.empty))


@dataclass(frozen=True)
class Piece:
    """Some whole samples of a layer, as many as are looked at at a time.

    What is stored of them is of all samples of the block, also of those that are not shown. Rows
    that were read already, for something else as well, are not read again. Where another layer is
    read in step, `other` is what that holds at the same places.
    """

    part: LayerPart
    block: Block
    buffers: Buffers
    sample_filter: SampleFilter = ALL_SAMPLES
    rows: npt.NDArray[np.uint8] | None = None
    other: Piece | None = None

    def shown(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return the rows of the samples that are shown, and how many each of these has.

        They are uint8 (rows, row_bytes) and int64 (samples,).
        """
        rows, positions, kept = self.stored_rows(), self.stored_positions(), self._kept
        if kept is None:
            return rows, positions
        return rows[np.repeat(kept, positions)], positions[kept]

    def of_shown(self, values: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Return values of the samples that are shown, of those of all samples of each part."""
        first, kept = self.block.first_sample, self._kept
        own = values[self.part.directory][first : first + self.block.samples]
        return own if kept is None else own[kept]

    @property
    def _kept(self) -> npt.NDArray[np.bool_] | None:
        block = self.block
        return self.sample_filter.kept(self.part.directory, block.first_sample, block.samples)

    def stored_positions(self) -> npt.NDArray[np.int64]:
        """Return the rows of each sample, int64 (samples,)."""
        return self.part.read_positions(self.block.first_sample, self.block.samples)

    def stored_rows(self, first: int = 0, last: int | None = None) -> npt.NDArray[np.uint8]:
        """Return all rows, or those from `first` up to `last`: uint8 (rows, row_bytes).

        They lie where those of the next piece will lie.
        """
        last = self.block.rows if last is None else last
        if self.rows is not None:
            return self.rows[first:last]
        states, start = self.part.states, self.block.first_row
        room = self.buffers.array("rows", (last - first, states.spec.entry_bytes), np.uint8)
        return states.read(start + first, start + last, room, chunk_workspace(self.buffers))


class InStep(Protocol):
    """A layer that is read in step with another one."""

    def piece(self, block: Block) -> Piece:
        """Return what it holds at the places of some samples of the other one."""


@dataclass(frozen=True, eq=False)
class Reduction(Generic[Result]):
    """One pass over a layer: what each piece of its rows gives, and how that adds up.

    It reads the rows by itself (:meth:`run`), or gets those that a count reads anyway. Both
    functions are sent to the workers of a cluster: functions of a module, or `partial` ones.

    Attributes
    ----------
    states
        The layer.
    purpose
        What it is for, in a message: ``"count neurons"``.
    of_piece
        Returns a piece's result.
    add
        Returns results together, one at least, in the order of their rows; the result of one is
        what that is.
    bytes_beside_row
        What `of_piece` takes for a row, beside the row itself, in bytes.
    result_bytes
        What a result takes, in bytes.
    kept_bytes
        What whoever runs it holds meanwhile, of the same memory.
    piece_rows
        Rows of a piece at least, where a result takes as long as many rows.
    """

    states: LayerStates
    purpose: str
    of_piece: Callable[[Piece], Result]
    add: Callable[[Iterable[Result]], Result]
    bytes_beside_row: int = 0
    result_bytes: int = 0
    kept_bytes: int = 0
    piece_rows: int = 0

    def run(
        self,
        memory: int,
        scheduler: Scheduler,
        report: Report | None = None,
        blocks: Sequence[Block] | None = None,
    ) -> Result:
        """Return the result of all rows, of which there are some, or of some :meth:`blocks`.

        As many tasks run at a time as so many bytes hold, in each process; it is a
        MemoryTooSmallError if they hold not even one. Errors and interrupts end it as they do
        any other graph of the scheduler.
        """
        blocks = self.blocks() if blocks is None else blocks
        self.check(memory, scheduler, blocks)
        held = self._held(blocks)
        threads = max(1, min((memory - held) // self._task_bytes, scheduler.threads))
        graph, key = self._graph(blocks)
        scheduler.leave_room(memory, held + threads * self._task_bytes)
        result: Result = scheduler.run(graph, key, threads, report)
        return result

    def check(
        self, memory: int, scheduler: Scheduler, blocks: Sequence[Block] | None = None
    ) -> None:
        """Raise MemoryTooSmallError if so many bytes are too few to count some blocks, or all."""
        least = self.needed(scheduler, blocks)
        if least > memory:
            purpose = f"to {self.purpose} of layer {printable(self.states.name)}"
            raise too_small(self.states.location, memory, purpose, least)

    def needed(self, scheduler: Scheduler, blocks: Sequence[Block] | None = None) -> int:
        """Return the least memory, in bytes, in which some blocks can be counted, or all."""
        return self._held(blocks) + self.least_memory(scheduler)

    def _held(self, blocks: Sequence[Block] | None) -> int:
        """Return what results take that wait to be added up, and what is kept beside.

        All blocks are not listed for that: a store may claim any number of rows.
        """
        states, block_rows = self.states, BLOCK_PIECES * self._piece_rows
        most = most_blocks(states.stored_rows, len(states.parts), block_rows)
        count = most if blocks is None else len(blocks)
        return self.kept_bytes + waiting_results(count) * self.result_bytes

    def blocks(self) -> list[Block]:
        """Return the layer in blocks of whole samples, each of which is one task."""
        return list(self.states.blocks(BLOCK_PIECES * self._piece_rows))

    def least_memory(self, scheduler: Scheduler) -> int:
        """Return what as few tasks take as there may be; processes of a cluster use all threads."""
        return self._task_bytes * (1 if scheduler.shared_memory else scheduler.threads)

    def in_pieces_of(self, rows: int, memory: int, scheduler: Scheduler) -> Reduction[Result]:
        """Return the same pass in pieces of so many rows, or of as many as half the memory holds.

        That is of the memory beside what is kept. Pieces do not become smaller than they are.
        """
        while rows > self._piece_rows:
            larger = replace(self, piece_rows=rows)
            if 2 * larger.least_memory(scheduler) <= memory - self.kept_bytes:
                return larger
            rows //= 2
        return self

    @property
    def _task_bytes(self) -> int:
        """The most bytes that a task takes: chunks, its piece and what is made of it, results."""
        chunk = max(part.states.spec.chunk_bytes for part in self.states.parts)
        rows = self._most_rows * self.states.row_bytes
        return TASK_BYTES + 3 * chunk + rows + self._bytes_beside_rows + 3 * self.result_bytes

    @property
    def bytes_beside(self) -> int:
        """The most bytes that it takes in a task that has read the rows; one more result waits."""
        return self._bytes_beside_rows + 4 * self.result_bytes

    @property
    def _bytes_beside_rows(self) -> int:
        beside = self.bytes_beside_row
        if self.states.sample_filter.samples:
            beside += self.states.row_bytes + KEPT_BYTES
        return self._most_rows * beside

    @property
    def _most_rows(self) -> int:
        return max(self.states.largest_sample, self._piece_rows)

    @property
    def _piece_rows(self) -> int:
        rows = min(max(PIECE_BYTES // self.states.row_bytes, 1), MOST_PIECE_ROWS)
        return max(rows, self.piece_rows)

    def of_block(
        self,
        block: Block,
        rows: npt.NDArray[np.uint8] | None = None,
        other: InStep | None = None,
    ) -> Result:
        """Return the result of a block, whose rows are given if they have been read already.

        Memory for its pieces is taken once.
        """
        return self.add(self.of_piece(piece) for piece in self._pieces(block, rows, other))

    def _pieces(
        self, block: Block, rows: npt.NDArray[np.uint8] | None, other: InStep | None
    ) -> Iterator[Piece]:
        buffers, part = Buffers(), self.states.parts[block.part]
        for own in self.states.divide(block, self._piece_rows):
            first = own.first_row - block.first_row
            there = None if rows is None else rows[first : first + own.rows]
            beside = None if other is None else other.piece(own)
            yield Piece(part, own, buffers, self.states.sample_filter, there, beside)

    def _graph(self, blocks: Sequence[Block]) -> tuple[dict[Any, Any], Any]:
        """Return the graph of a pass, and its key; its keys are unique."""
        token = uuid.uuid4().hex[:12]
        shared = f"tsstore-reduction-{token}"
        graph: dict[Any, Any] = {shared: self}
        tasks = ((Reduction.of_block, shared, block) for block in blocks)
        keys = add_tasks(graph, f"tsstore-reduced-{token}", tasks)
        return graph, merge_tree(graph, keys, FAN_IN, f"tsstore-added-{token}", self.add)


def most_at_once(
    of: Callable[[int], Reduction[Any]],
    most: int,
    memory: int,
    scheduler: Scheduler,
    blocks: Sequence[Block],
) -> int:
    """Return of how many things, `most` at most, one pass within the memory can give results.

    `of` so many is their pass. It is a MemoryTooSmallError if the memory does not hold even one.
    """
    if of(most).needed(scheduler, blocks) <= memory:
        return most
    numbers = range(1, most)
    fitting = bisect_right(numbers, memory, key=lambda n: of(n).needed(scheduler, blocks))
    if not fitting:
        least = min((of(1), of(most)), key=lambda one: one.needed(scheduler, blocks))
        least.check(memory, scheduler, blocks)
    return fitting


def add_tasks(graph: dict[Any, Any], name: str, tasks: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Add tasks to a graph, numbered under a name; return their keys."""
    own = {(name, number): task for number, task in enumerate(tasks)}
    graph |= own
    return list(own)


def merge_tree(
    graph: dict[Any, Any], level: list[Any], many: int, name: str, merge: Callable[..., Any]
) -> Any:
    """Add the merging of all results of a level to the graph, so many at a time; return its key."""
    return merge_levels(graph, level, many, name, merge, 1)[0]


def merge_levels(
    graph: dict[Any, Any],
    level: list[Any],
    many: int,
    name: str,
    merge: Callable[..., Any],
    most: int,
) -> list[Any]:
    """Do so until no more than so many are left; return their keys."""
    depth = 0
    while len(level) > most:
        groups = [level[start : start + many] for start in range(0, len(level), many)]
        level = add_tasks(graph, f"{name}-{depth}", ((merge, group) for group in groups))
        depth += 1
    return level
