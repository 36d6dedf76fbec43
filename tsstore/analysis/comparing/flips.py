"""Which bits of the same samples differ in two runs, counted out of core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.comparing.pairing import NOT_PAIRED, Order, Pairing
from tsstore.analysis.execution.reduction import Piece, Reduction
from tsstore.analysis.neurons.firing import firing_pass
from tsstore.analysis.neurons.layer import LayerNeurons
from tsstore.analysis.request import check_rows
from tsstore.analysis.schedulers import Report, Scheduler
from tsstore.counting.firing import Firing, add_firing, count_firing
from tsstore.store.reading.layer import LayerStates
from tsstore.text import printable

HEADINGS = ("layer", "neurons", "samples in both", "bits that differ", "neurons that never do")

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


def check_comparing(
    first: LayerStates, second: LayerStates, kept: int, memory: int, scheduler: Scheduler
) -> None:
    """Raise MemoryTooSmallError if so many bytes are too few to compare rows of a layer apart."""
    if not _other_positions(first, second):
        one = replace(_rows_pass(first, _nothing), kept_bytes=kept)
        one.check(memory, scheduler)


def why_not_compared(
    first: LayerStates, second: LayerStates, pairing: Pairing | Order | str
) -> str:
    """Return why the rows of a layer cannot be compared, where they cannot."""
    check_rows(first)
    check_rows(second)
    return pairing if isinstance(pairing, str) else _other_positions(first, second)


def compare_in_step(first: LayerStates, order: Order) -> Reduction[Flipped]:
    """Return the pass over a layer that is shown the other run's rows, as they are read in step."""
    secret = int.from_bytes(os.urandom(16), "little")
    of = partial(
        _compare_both, neurons=first.neurons, order=Order(paired=order.paired), secret=secret
    )
    return _rows_pass(first, of)


def compare_apart(
    first: LayerStates,
    second: LayerStates,
    pairing: Pairing,
    memory: int,
    scheduler: Scheduler,
    report: Report | None,
    kept: int,
) -> Flipped:
    """Read the rows of both runs to compare them; so many bytes are kept beside."""
    starts = np.concatenate([[0], np.cumsum(second.read_positions())])
    secret = int.from_bytes(os.urandom(16), "little")
    other = _Other(second, starts, pairing.targets)
    one = _rows_pass(first, partial(_compare_piece, other=other, secret=secret))
    found = replace(one, kept_bytes=kept).run(memory, scheduler, report)
    return replace(found, unequal=found.unequal + unequal_without_rows(first, second, pairing))


def layer_flips(first: LayerStates, found: Flipped) -> LayerFlips:
    """Return what was counted of a layer's bits that differ."""
    unequal = found.unequal
    if not found.firing.rows:
        why = "no sample is in both with rows"
        return LayerFlips(first.name, first.neurons, None, why, unequal)
    flips = LayerNeurons(first.name, found.firing)
    return LayerFlips(first.name, first.neurons, flips, "", unequal)


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
class Flipped:
    """What a piece shows: bits that differ, and samples whose numbers of rows do."""

    firing: Firing
    unequal: int = 0


def _rows_pass(first: LayerStates, of_piece: Callable[[Piece], Flipped]) -> Reduction[Flipped]:
    """Return a pass that compares rows."""
    # The row of the other run, and its number.
    return firing_pass(first, "compare rows", of_piece, _add, 3 * first.row_bytes + 32)


def _nothing(piece: Piece) -> Flipped:
    """Stand for what would compare a piece, where memory alone is looked at."""
    raise NotImplementedError


def unequal_without_rows(first: LayerStates, second: LayerStates, pairing: Pairing) -> int:
    """Return how many samples have rows in the other run alone, of parts without any: no piece."""
    targets = [pairing.targets[part.directory] for part in first.parts if not part.rows]
    if not targets:
        return 0
    positions = second.read_positions()
    paired = [own[own != NOT_PAIRED] for own in targets]
    return sum(int(np.count_nonzero(positions[own])) for own in paired)


def _other_positions(first: LayerStates, second: LayerStates) -> str:
    """Return why the rows of one sample are not of the same places, where they are not."""
    for states in (first, second):
        sampling = states.attributes.sampling or {}
        if "positions" in sampling:
            return f"{printable(states.location)} holds some places of each sample, drawn at random"
    return ""


def _compare_both(piece: Piece, neurons: int, order: Order, secret: int) -> Flipped:
    """Count the bits that differ in a piece's samples, of which the other run's are there, too."""
    block, other, positions = piece.block, piece.other, piece.stored_positions()
    chosen = order.in_both(piece.part.directory, block.first_sample, block.samples)
    if other is None:
        # What is in both has no rows in the other run.
        rows, none = np.zeros((0, piece.part.states.spec.entry_bytes), np.uint8), positions[:0]
        unequal = int(np.count_nonzero(chosen & (positions > 0)))
        return Flipped(count_firing(rows, none, neurons, _seed(piece, secret)), unequal)
    others = other.stored_positions()
    equal, unequal = _alike(chosen, positions, others)
    rows, other_rows = piece.stored_rows(), other.stored_rows()
    if not equal.all():
        rows, other_rows = rows[np.repeat(equal, positions)], other_rows[np.repeat(equal, others)]
    seed = _seed(piece, secret)
    return Flipped(count_firing(rows ^ other_rows, positions[equal], neurons, seed), unequal)


def _compare_piece(piece: Piece, other: _Other, secret: int) -> Flipped:
    """Count the bits that differ in a piece's samples; read the other run's rows for it."""
    block, positions = piece.block, piece.stored_positions()
    targets = other.targets[piece.part.directory]
    target = targets[block.first_sample : block.first_sample + block.samples]
    paired, others = target != NOT_PAIRED, np.zeros(len(target), np.int64)
    others[paired] = other.positions[target[paired]]
    equal, unequal = _alike(paired, positions, others)
    rows = piece.stored_rows()
    if not equal.all():
        rows = rows[np.repeat(equal, positions)]
    differing = rows ^ other.rows(target[equal])
    seed, neurons = _seed(piece, secret), other.states.neurons
    return Flipped(count_firing(differing, positions[equal], neurons, seed), unequal)


def _alike(
    paired: npt.NDArray[np.bool_], positions: _Numbers, others: _Numbers
) -> tuple[npt.NDArray[np.bool_], int]:
    """Return which samples in both runs have as many rows there, and how many have not."""
    held = paired & (positions + others > 0)
    equal = held & (positions == others)
    return equal, int(np.count_nonzero(held & ~equal))


def _seed(piece: Piece, secret: int) -> list[int]:
    return [secret, piece.block.part, piece.block.first_row]


def _add(results: Iterable[Flipped]) -> Flipped:
    found = list(results)
    firing = add_firing(one.firing for one in found)
    return Flipped(firing, sum(one.unequal for one in found))
