"""A digest of all that a sample has shown, by which copies are told from views."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.schedulers import Scheduler
from tsstore.store.reading.blocks import Block
from tsstore.store.reading.ids import SameIds
from tsstore.store.reading.layer import LayerStates

SAMPLE_BYTES = 144
"""Of a sample that is digested: its place, its id's number, its digest before and after a layer,
and the orders in which digests are compared."""
PIECE_BYTES = 1 << 20
"""Of rows that are read at a time, about; those of one sample are read at once."""
MOST_PIECE_ROWS = 1 << 16
BLOCK_PIECES = 16
TASK_BYTES = 4 << 20
"""Of a task beside its rows and chunks."""

Indices = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class _Some:
    """Samples of a block: their places among its samples, and their digests so far."""

    places: Indices
    digests: Digests


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer as a task needs it: a mapping or sequence Dask would look into."""

    states: LayerStates


def bytes_to_digest(same: SameIds, layers: Sequence[LayerStates], scheduler: Scheduler) -> int:
    """Return the bytes that digesting samples takes, at least: with as few tasks as there may be.

    The processes of a cluster use all their threads.
    """
    tasks = 1 if scheduler.shared_memory else scheduler.threads
    return same.samples * SAMPLE_BYTES + tasks * max(map(_task_bytes, layers))


def digest_samples(
    same: SameIds, layers: Sequence[LayerStates], memory: int, scheduler: Scheduler
) -> Digests:
    """Return a digest of each sample's rows in all layers, uint64 (samples, 2).

    Samples that differ from all others of their id are not looked at in later layers.

    Raises
    ------
    DamageError
        If a chunk is not what was committed.
    """
    left = memory - same.samples * SAMPLE_BYTES
    threads = max(1, min(left // max(map(_task_bytes, layers)), scheduler.threads))
    digests = np.zeros((same.samples, 2), np.uint64)
    alike = np.ones(same.samples, bool)
    for states in layers:
        with_rows = {part.directory for part in states.parts if part.rows}
        held = [np.full(len(own), name in with_rows) for name, own in same.parts.items()]
        read = alike & np.concatenate(held)
        if read.any():
            graph, key = _graph(states, same, read, digests)
            digests[read] = scheduler.run(graph, key, threads, None)
            alike &= _has_its_like(same.number, digests)
    return digests


def _graph(
    states: LayerStates, same: SameIds, read: npt.NDArray[np.bool_], digests: Digests
) -> tuple[dict[Any, Any], str]:
    """Return the graph that digests one layer's rows of some samples in their order, and its key.

    Its keys are unique: a cluster may run many analyses at once.
    """
    token = uuid.uuid4().hex[:12]
    kinds = ("digested-layer", "digest", "digests")
    layer, digest, result = (f"tsstore-{kind}-{token}" for kind in kinds)
    graph: dict[Any, Any] = {layer: _Layer(states)}
    chosen, before = same.of_parts(read), same.of_parts(digests)
    keys: list[tuple[str, int]] = []
    for directory, indices in same.parts.items():
        mine = chosen[directory]
        places, own = indices[mine], before[directory][mine]
        for block in _blocks(states, directory):
            some = slice(*np.searchsorted(places, [block.first_sample, _end(block)]))
            if some.start < some.stop:
                keys.append((digest, len(keys)))
                wanted = _Some(places[some] - block.first_sample, own[some])
                graph[keys[-1]] = (_digest_block, layer, block, wanted)
    graph[result] = (_together, keys)
    return graph, result


def _blocks(states: LayerStates, directory: str) -> Iterator[Block]:
    for number, part in enumerate(states.parts):
        if part.directory == directory:
            yield from part.blocks(number, BLOCK_PIECES * _piece_rows(states))


def _end(block: Block) -> int:
    return block.first_sample + block.samples


def _piece_rows(states: LayerStates) -> int:
    return min(max(PIECE_BYTES // states.row_bytes, 1), MOST_PIECE_ROWS)


def _task_bytes(states: LayerStates) -> int:
    """Return the most bytes that a task takes."""
    largest = max(states.largest_sample, _piece_rows(states))
    chunk = max(part.states.spec.chunk_bytes for part in states.parts)
    return TASK_BYTES + 3 * chunk + largest * states.row_bytes


def _digest_block(layer: _Layer, block: Block, some: _Some) -> Digests:
    """Return the digests of some of a block's samples with what they have shown in one layer."""
    states, first, found = layer.states, 0, np.empty_like(some.digests)
    for piece in states.divide(block, _piece_rows(states)):
        start = piece.first_sample - block.first_sample
        own = slice(first, int(np.searchsorted(some.places, start + piece.samples)))
        if own.start < own.stop:
            found[own] = _digest_piece(states, piece, some.places[own] - start, some.digests[own])
        first = own.stop
    return found


def _digest_piece(states: LayerStates, piece: Block, places: Indices, before: Digests) -> Digests:
    part = states.parts[piece.part]
    ends = np.cumsum(part.read_positions(piece.first_sample, piece.samples))
    starts = np.concatenate([[0], ends[:-1]])
    first, last = int(starts[places[0]]), int(ends[places[-1]])
    rows = part.states.read(piece.first_row + first, piece.first_row + last).reshape(-1)
    starts, ends = (states.row_bytes * (edges[places] - first) for edges in (starts, ends))
    # By its name, rows of one layer are not taken for those of another one.
    name = states.name.encode("utf-8", "surrogatepass")
    person = hashlib.blake2b(name, digest_size=16).digest()
    data, earlier = rows.data, before.tobytes()
    found = [earlier[place : place + 16] for place in range(0, len(earlier), 16)]
    for sample, (start, stop) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if start < stop:
            digest = hashlib.blake2b(found[sample], digest_size=16, person=person)
            digest.update(data[start:stop])
            found[sample] = digest.digest()
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)


def _together(pieces: Sequence[Digests]) -> Digests:
    return np.concatenate(pieces)


def _has_its_like(number: Indices, digests: Digests) -> npt.NDArray[np.bool_]:
    """Return which samples equal another one of their id, earlier or later."""
    order = np.lexsort((digests[:, 1], digests[:, 0], number))
    same = np.append(follows_its_like(number[order], digests[order]), False)
    has = np.zeros(len(number), bool)
    has[order] = same[:-1] | same[1:]
    return has


def follows_its_like(number: Indices, digests: Digests) -> npt.NDArray[np.bool_]:
    """Return which entries, in order of numbers and digests, equal the one before them."""
    same = np.zeros(len(number), bool)
    same[1:] = (number[1:] == number[:-1]) & (digests[1:] == digests[:-1]).all(axis=1)
    return same
