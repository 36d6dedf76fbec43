"""Which bits of the same samples differ in two runs, counted out of core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.reduction import Piece, Reduction
from tsstore.analysis.neurons.firing import firing_pass
from tsstore.analysis.neurons.layer import LayerNeurons
from tsstore.analysis.refusals import too_small
from tsstore.analysis.request import check_rows
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.counting.firing import Firing, add_firing, count_firing
from tsstore.store.reading.ids import ID, id_dtype, id_pieces
from tsstore.text import printable

if TYPE_CHECKING:
    from tsstore.store.reading.layer import LayerStates
    from tsstore.store.reading.store import StateStore

HEADINGS = ("layer", "neurons", "samples in both", "bits that differ", "neurons that never do")
NOT_PAIRED = -1
SAMPLE_BYTES = 64
"""Of a sample, while ids are joined: its id, its place among all, its place in the other run."""
HELD_BYTES = 24
"""Of a sample, while rows are compared: its place in the other run, and its rows there."""

_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerFlips:
    """How the states of one layer differ between two runs, at the same samples and positions.

    Attributes
    ----------
    name, neurons
        The layer's name, and how many neurons it has.
    flips
        What was counted of the bits that differ: its `rate` is, for each neuron, the share of
        rows in which it is on in one run and off in the other; `rate_limits` are by samples. None
        where rows cannot be compared.
    reason
        Why rows cannot be compared, in a phrase; empty where they were.
    unequal
        Samples of both runs that have other numbers of rows in them, and were not compared.
    """

    name: str
    neurons: int
    flips: LayerNeurons | None
    reason: str = ""
    unequal: int = 0

    @property
    def samples(self) -> int:
        """Samples of both runs whose rows were compared."""
        return 0 if self.flips is None else self.flips.samples

    @property
    def share(self) -> float | None:
        """Share of all bits that differ; None where rows cannot be compared."""
        return None if self.flips is None else float(self.flips.rate.mean())

    @property
    def cells(self) -> tuple[str, ...]:
        """The layer's line in a table, as :data:`HEADINGS` names its columns."""
        found = (printable(self.name), f"{self.neurons:,}")
        if self.flips is None or self.share is None:
            return (*found, "", "", "")
        return (
            *found,
            f"{self.samples:,}",
            f"{100 * self.share:.3g} %",
            f"{len(self.flips.dead):,}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON can hold them."""
        rates = None if self.flips is None else self.flips.rate.tolist()
        return {
            "neurons": self.neurons,
            "samples": self.samples,
            "samples_of_other_lengths": self.unequal,
            "share_of_bits_that_differ": self.share,
            "share_by_neuron": rates,
            "reason": self.reason,
        }

    def __repr__(self) -> str:
        share = "not compared" if self.share is None else f"{100 * self.share:.3g} % of bits differ"
        return f"<LayerFlips {printable(self.name)}: {self.neurons} neurons, {share}>"


def memory_checks(
    stores: tuple[StateStore, StateStore],
    pairs: Iterable[tuple[LayerStates, LayerStates]],
    memory: int,
    scheduler: Scheduler,
) -> Iterator[Callable[[], None]]:
    """Yield what raises MemoryTooSmallError where so many bytes are too few to compare layers."""
    if _why_not_paired(*stores):
        return
    yield partial(_check_joining, *stores, memory)
    for first, second in pairs:
        if not _other_positions(first, second):
            one = _rows_pass(first, _nothing, kept_bytes(*stores))
            yield partial(one.check, memory, scheduler, one.blocks())


def kept_bytes(first: StateStore, second: StateStore) -> int:
    """Return what is held of samples while the rows of layers are compared."""
    return HELD_BYTES * (first.samples + second.samples)


def _check_joining(first: StateStore, second: StateStore, memory: int) -> None:
    samples = first.samples + second.samples
    if (needed := SAMPLE_BYTES * samples) > memory:
        raise too_small(first.path, memory, f"to join the ids of {samples:,} samples", needed)


def find_targets(first: StateStore, second: StateStore) -> dict[str, _Numbers] | str:
    """Return where the samples of one run are among those shown of the other, or why not.

    By directory of a part: int64 (samples,), `NOT_PAIRED` for what is not there.
    """
    if why := _why_not_paired(first, second):
        return why
    shown, others = _ids(first), _ids(second)
    if shown.dtype != others.dtype:
        # The common type of int64 and uint64 would be float64, which tells not all ids apart.
        shown, others = shown.astype(object), others.astype(object)
    known, place = np.unique(others, return_index=True)
    found = {}
    _, firsts = np.unique(shown, return_index=True)
    target = np.full(len(shown), NOT_PAIRED, np.int64)
    at = np.minimum(np.searchsorted(known, shown[firsts]), len(known) - 1)
    is_there = np.asarray(known[at] == shown[firsts], np.bool_)
    target[firsts[is_there]] = place[at[is_there]]
    start = 0
    for part in first.parts:
        kept = first.view.samples.kept(part.directory, 0, part.samples)
        own = np.full(part.samples, NOT_PAIRED, np.int64)
        chosen = np.ones(part.samples, np.bool_) if kept is None else kept
        stop = start + int(chosen.sum())
        own[chosen] = target[start:stop]
        found[part.directory], start = own, stop
    return found


def _why_not_paired(first: StateStore, second: StateStore) -> str:
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


@dataclass(frozen=True, eq=False)
class _Other:
    """The run that is looked at sample by sample: where its samples' rows are.

    `starts` is int64 (samples + 1,): of each sample that is shown its first row, and their end.
    """

    states: LayerStates
    starts: _Numbers
    targets: Mapping[str, _Numbers]

    @cached_property
    def positions(self) -> _Numbers:
        """Rows of each sample."""
        return np.diff(self.starts)

    def rows(self, samples: _Numbers) -> npt.NDArray[np.uint8]:
        """Return the rows of some samples, one after the other."""
        if len(samples) and (np.diff(samples) == 1).all():
            found: npt.NDArray[np.uint8] = self.states[
                self.starts[samples[0]] : self.starts[samples[-1] + 1]
            ]
            return found
        counts = self.positions[samples]
        before = np.repeat(self.starts[samples] - (np.cumsum(counts) - counts), counts)
        return self.states[before + np.arange(int(counts.sum()))]


@dataclass(frozen=True, eq=False)
class _Flipped:
    """What a piece shows: bits that differ, and samples whose numbers of rows do."""

    firing: Firing
    unequal: int = 0


def compare_layer(
    first: LayerStates,
    second: LayerStates,
    targets: Mapping[str, _Numbers] | str,
    memory: int,
    scheduler: Scheduler,
    report: Report | None,
    kept: int,
) -> LayerFlips:
    """Count the bits that differ in a layer; `targets` are of :func:`find_targets`.

    So many bytes are kept beside.
    """
    check_rows(first)
    check_rows(second)
    reason = targets if isinstance(targets, str) else _other_positions(first, second)
    if isinstance(targets, str) or reason:
        return LayerFlips(first.name, first.neurons, None, reason)
    starts = np.concatenate([[0], np.cumsum(second.read_positions())])
    secret = int.from_bytes(os.urandom(16), "little")
    other = _Other(second, starts, targets)
    of_piece = partial(_compare_piece, other=other, secret=secret)
    found = _rows_pass(first, of_piece, kept).run(memory, scheduler, report)
    unequal = found.unequal + _unequal_without_rows(first, other)
    if not found.firing.rows:
        why = "no sample is in both with rows"
        return LayerFlips(first.name, first.neurons, None, why, unequal)
    flips = LayerNeurons(first.name, found.firing)
    return LayerFlips(first.name, first.neurons, flips, "", unequal)


def _rows_pass(
    first: LayerStates, of_piece: Callable[[Piece], _Flipped], kept: int
) -> Reduction[_Flipped]:
    """Return the pass that compares rows, while so many bytes are kept."""
    # The row of the other run, and its number.
    beside = 3 * first.row_bytes + 32
    return replace(firing_pass(first, "compare rows", of_piece, _add, beside), kept_bytes=kept)


def _nothing(piece: Piece) -> _Flipped:
    """Stand for what would compare a piece, where memory alone is looked at."""
    raise NotImplementedError


def _unequal_without_rows(first: LayerStates, other: _Other) -> int:
    """Return how many samples have rows in the other run alone, of parts without any: no piece."""
    targets = [other.targets[part.directory] for part in first.parts if not part.rows]
    paired = [own[own != NOT_PAIRED] for own in targets]
    return sum(int(np.count_nonzero(other.positions[own])) for own in paired)


def _other_positions(first: LayerStates, second: LayerStates) -> str:
    """Return why the rows of one sample are not of the same places, where they are not."""
    for states in (first, second):
        sampling = states.attributes.sampling or {}
        if "positions" in sampling:
            return f"{printable(states.location)} holds some places of each sample, drawn at random"
    return ""


def _compare_piece(piece: Piece, other: _Other, secret: int) -> _Flipped:
    """Count the bits that differ in a piece's samples."""
    block, part = piece.block, piece.part
    positions = piece.stored_positions()
    target = other.targets[part.directory][block.first_sample : block.first_sample + block.samples]
    paired = target != NOT_PAIRED
    paired[paired] &= positions[paired] + other.positions[target[paired]] > 0
    equal = paired.copy()
    equal[paired] = positions[paired] == other.positions[target[paired]]
    rows = piece.stored_rows()
    if not equal.all():
        rows = rows[np.repeat(equal, positions)]
    differing = rows ^ other.rows(target[equal])
    seed = [secret, block.part, block.first_row]
    firing = count_firing(differing, positions[equal], other.states.neurons, seed)
    return _Flipped(firing, int(np.count_nonzero(paired & ~equal)))


def _add(results: Iterable[_Flipped]) -> _Flipped:
    found = list(results)
    firing = add_firing(one.firing for one in found)
    return _Flipped(firing, sum(one.unequal for one in found))
