"""Which samples of two runs are the same: those of one id, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.beside import Stretch
from tsstore.analysis.memory import too_small
from tsstore.analysis.schedulers import Scheduler
from tsstore.store.reading.ids import ID, id_dtype, id_pieces
from tsstore.store.reading.store import StateStore
from tsstore.text import printable

NOT_PAIRED = -1
SAMPLE_BYTES = 64
"""Of a sample, while ids are joined: its id, put in order and once more with those of the other
run, and its places."""
HELD_BYTES = 24
"""Of a sample, while rows are compared: its place in the other run, and its rows there."""
STRETCH_SAMPLES = 64
"""Of a stretch that both runs hold in the same order, on average: shorter ones are read apart."""
STRETCH_BYTES = 600
"""Of a stretch: itself, and the blocks of layers that are made of it."""

_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Order:
    """What is held of a pairing while both runs are read in step.

    Attributes
    ----------
    stretches
        Where both hold the same samples in the same order; none where that is in short ones.
    paired
        Which samples of the first run are in both, by directory of a part: a bit each, of parts
        that hold others as well.
    """

    stretches: tuple[Stretch, ...] = ()
    paired: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)

    def in_both(self, directory: str, first: int, samples: int) -> npt.NDArray[np.bool_]:
        """Return which of consecutive samples of a stretch are in both runs, bool (samples,)."""
        if (bits := self.paired.get(directory)) is None:
            return np.ones(samples, np.bool_)
        own = np.unpackbits(bits[first // 8 : -(-(first + samples) // 8)])
        return own[first % 8 :][:samples].view(np.bool_)


@dataclass(frozen=True, eq=False)
class Pairing:
    """Which samples of one run are which ones of another.

    Attributes
    ----------
    targets
        Where each sample of the first run is among those shown of the second one, by directory of a
        part: int64 (samples,), `NOT_PAIRED` for what is not there.
    """

    targets: Mapping[str, _Numbers]

    def order(self, second: StateStore) -> Order:
        """Return in which stretches both runs hold the samples that they share."""
        stretches = tuple(_find_stretches(self.targets, second))
        known = {name: own != NOT_PAIRED for name, own in self.targets.items() if stretches}
        bits = {name: np.packbits(own) for name, own in known.items() if not own.all()}
        return Order(stretches, bits)


def order_bytes(first: StateStore, second: StateStore, scheduler: Scheduler) -> int:
    """Return the most bytes that an order takes: on a cluster, each layer's tasks have one."""
    stretches = _most_stretches(len(first.parts), len(second.parts), first.samples)
    stored = sum(part.samples for part in first.parts)
    copies = 1 if scheduler.shared_memory else len(first) + 1
    return STRETCH_BYTES * stretches + copies * stored // 8


def _most_stretches(first_parts: int, second_parts: int, samples: int) -> int:
    return first_parts + second_parts + samples // STRETCH_SAMPLES


def kept_bytes(first: StateStore, second: StateStore) -> int:
    """Return what is held of samples while the rows of layers are compared."""
    return HELD_BYTES * (first.samples + second.samples)


def joining_bytes(first: StateStore, second: StateStore) -> int:
    """Return the most bytes that :func:`find_pairing` takes."""
    samples = first.samples + second.samples
    return 0 if why_not_paired(first, second) else SAMPLE_BYTES * samples


def check_joining(first: StateStore, second: StateStore, memory: int) -> None:
    """Raise MemoryTooSmallError if so many bytes are too few for :func:`find_pairing`."""
    if (needed := joining_bytes(first, second)) > memory:
        samples = first.samples + second.samples
        raise too_small(first.path, memory, f"to join the ids of {samples:,} samples", needed)


def find_pairing(first: StateStore, second: StateStore) -> Pairing | str:
    """Return which samples of two runs are the same, or why that cannot be told."""
    if why := why_not_paired(first, second):
        return why
    shown, others = _ids(first), _ids(second)
    if shown.dtype != others.dtype:
        # The common type of int64 and uint64 would be float64, which tells not all ids apart.
        shown, others = shown.astype(object), others.astype(object)
    target = np.full(len(shown), NOT_PAIRED, np.int64)
    _, firsts, places = np.intersect1d(shown, others, return_indices=True)
    target[firsts] = places
    found, start = {}, 0
    for part in first.parts:
        own, chosen = np.full(part.samples, NOT_PAIRED, np.int64), first.view.samples.indices(part)
        stop = start + len(chosen)
        own[chosen] = target[start:stop]
        found[part.directory], start = own, stop
    return Pairing(found)


def _find_stretches(targets: Mapping[str, _Numbers], second: StateStore) -> list[Stretch]:
    """Return in which stretches all samples that are in both runs are in the same order."""
    stored = [second.view.samples.indices(part) for part in second.parts]
    ends, indices = np.cumsum([len(own) for own in stored]), np.concatenate(stored)
    found: list[tuple[str, int, int, int, int]] = []
    samples = 0
    for directory, target in targets.items():
        own = np.flatnonzero(target != NOT_PAIRED)
        place = target[own]
        part, other = np.searchsorted(ends, place, side="right"), indices[place]
        changes = (np.diff(part) != 0) | (np.diff(other - own) != 0)
        begins = np.flatnonzero(np.concatenate([np.ones(min(len(own), 1), np.bool_), changes]))
        lasts = np.append(begins[1:], len(own))[: len(begins)] - 1
        lengths = own[lasts] - own[begins] + 1
        columns = np.stack([own[begins], part[begins], other[begins], lengths], axis=1)
        found += [(directory, *line) for line in columns.tolist()]
        samples += len(own)
    if len(found) > _most_stretches(len(targets), len(second.parts), samples):
        return []
    order = sorted(found, key=lambda one: one[2:4])
    if any(one[2] == other[2] and one[3] + one[4] > other[3] for one, other in pairwise(order)):
        # What lies between two samples of one stretch is in another one.
        return []
    return [
        Stretch(directory, sample, second.parts[part].directory, other, length)
        for directory, sample, part, other, length in found
    ]


def why_not_paired(first: StateStore, second: StateStore) -> str:
    """Return why samples of one run cannot be found in the other, where they cannot."""
    for store in (first, second):
        if any(ID not in part.columns for part in store.parts if part.samples):
            return f"{printable(store.path)} has no ids that tell which samples are the same"
    of_text = [_ids_are_text(store) for store in (first, second)]
    if of_text[0] != of_text[1]:
        one, other = ("text" if is_text else "integers" for is_text in of_text)
        return f"ids are {one} in one run, and {other} in the other"
    return ""


def _ids_are_text(store: StateStore) -> bool:
    """Whether ids are text and not integers; StoreError where they are neither, or both."""
    held = [part for part in store.parts if part.samples]
    kinds = {id_dtype([part]).kind == "O" for part in held}
    return id_dtype(held).kind == "O" if len(kinds) > 1 else True in kinds


def _ids(store: StateStore) -> npt.NDArray[Any]:
    """Return the ids of all samples that are shown, in their order."""
    pieces = []
    for part in store.parts:
        first = 0
        for piece in id_pieces(part):
            pieces.append(store.view.samples.select(piece, part.directory, first))
            first += len(piece)
    # Without a common type of its own: that of int64 and uint64 would be float64.
    if len({piece.dtype for piece in pieces}) > 1:
        pieces = [piece.astype(object) for piece in pieces]
    return np.concatenate(pieces)
