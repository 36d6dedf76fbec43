"""Digests of what samples have shown in all layers: equal ones have equal rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import Piece, Reduction
from tsstore.analysis.schedulers import Scheduler
from tsstore.store.reading.ids import SameIds
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

SAMPLE_BYTES = 144
"""Of a sample that is digested: its place, its id's number, its digest before and after a layer,
and the orders in which digests are compared."""
Indices = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint64]


def equal_samples(
    number: Indices, digests: Digests
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which samples equal an earlier one of their id, and which any other one."""
    order = np.lexsort((digests[:, 1], digests[:, 0], number))
    number, digests = number[order], digests[order]
    follows = np.zeros(len(order) + 1, bool)
    follows[1:-1] = (number[1:] == number[:-1]) & (digests[1:] == digests[:-1]).all(axis=1)
    earlier, other = np.zeros((2, len(order)), bool)
    earlier[order], other[order] = follows[:-1], follows[:-1] | follows[1:]
    return earlier, other


def bytes_to_digest(same: SameIds, layers: Sequence[LayerStates], scheduler: Scheduler) -> int:
    """Return the bytes that digesting samples takes, at least."""
    least = max(_digesting(states, {}).least_memory(scheduler) for states in layers)
    return same.samples * SAMPLE_BYTES + least


def digest_samples(
    same: SameIds, layers: Sequence[LayerStates], memory: int, scheduler: Scheduler
) -> Digests:
    """Return a digest of each sample's rows in all layers, uint64 (samples, 2).

    Samples that differ from all others of their id are not looked at in later layers.
    """
    left = memory - same.samples * SAMPLE_BYTES
    digests = np.zeros((same.samples, 2), np.uint64)
    alike = np.ones(same.samples, bool)
    for states in layers:
        with_rows = {part.directory for part in states.parts if part.rows}
        held = [np.full(len(own), name in with_rows) for name, own in same.parts.items()]
        read = alike & np.concatenate(held)
        if read.any():
            chosen, before = same.of_parts(read), same.of_parts(digests)
            samples = {
                directory: _PartSamples(indices[mine], before[directory][mine])
                for directory, indices in same.parts.items()
                if (mine := chosen[directory]).any()
            }
            digests[read] = _digest_layer(states, samples, left, scheduler)
            alike &= equal_samples(same.number, digests)[1]
    return digests


@dataclass(frozen=True, eq=False)
class _PartSamples:
    """Samples of a part whose rows are digested: their sorted indices, and digests so far."""

    indices: Indices
    digests: Digests

    def of(self, block: Block) -> _PartSamples:
        """Return those of a block, by their places in it."""
        ends = [block.first_sample, block.first_sample + block.samples]
        some = slice(*np.searchsorted(self.indices, ends))
        return _PartSamples(self.indices[some] - block.first_sample, self.digests[some])


def _digesting(states: LayerStates, samples: Mapping[str, _PartSamples]) -> Reduction[Digests]:
    digest = partial(_digest_piece, layer=states.name, samples=samples)
    return Reduction(states, "compare samples", digest, _concatenate)


def _digest_layer(
    states: LayerStates, samples: Mapping[str, _PartSamples], memory: int, scheduler: Scheduler
) -> Digests:
    """Return the digests of some samples with what they have shown in one layer."""
    reduction = _digesting(states, samples)
    blocks: dict[str, list[Block]] = {directory: [] for directory in samples}
    for block in reduction.blocks():
        own = samples.get(directory := states.parts[block.part].directory)
        if own is not None and len(own.of(block).indices):
            blocks[directory].append(block)
    return reduction.run(memory, scheduler, blocks=list(chain(*blocks.values())))


def _concatenate(digests: Iterable[Digests]) -> Digests:
    return np.concatenate(list(digests))


def _digest_piece(piece: Piece, layer: str, samples: Mapping[str, _PartSamples]) -> Digests:
    """Return the digests of some of a piece's samples; others are not read."""
    some = samples[piece.part.directory].of(piece.block)
    if not len(some.indices):
        return some.digests
    ends = np.cumsum(piece.stored_positions())
    starts = np.concatenate([[0], ends[:-1]])[some.indices]
    ends = ends[some.indices]
    rows = piece.stored_rows(int(starts[0]), int(ends[-1]))
    edges = rows.shape[1] * (np.stack([starts, ends], axis=1) - starts[0])
    # By its name, rows of one layer are not taken for those of another one.
    name = layer.encode("utf-8", "surrogatepass")
    person = hashlib.blake2b(name, digest_size=16).digest()
    data, found = rows.reshape(-1).data, [digest.tobytes() for digest in some.digests]
    for sample, (start, stop) in enumerate(edges.tolist()):
        if start < stop:
            digest = hashlib.blake2b(found[sample], digest_size=16, person=person)
            digest.update(data[start:stop])
            found[sample] = digest.digest()
    return np.frombuffer(b"".join(found), np.uint64).reshape(-1, 2)
