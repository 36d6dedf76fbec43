"""The most frequent states of a layer, drawn: which they are, and how frequent."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore import bits
from tsstore.analysis.request import Request, Run, countable
from tsstore.analysis.results.by_layer import Document
from tsstore.analysis.states.distinct import Counts, Piece, distinct_states, planned
from tsstore.errors import AnalysisError
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_frame import OFF, ON
from tsstore.text import (
    Progress,
    counted,
    html_lines,
    html_table,
    html_title,
    printable,
    text_table,
)

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = ("state", "neurons on", "rows", "share of rows", "samples")
LINE_NEURONS = 32
MOST_DRAWN = 128
"""Neurons of a state that are drawn; of wider ones the first."""
HEX_ENDS = 24, 8
"""Of long hexadecimal numbers so many digits from both ends."""


@dataclass(frozen=True, eq=False, repr=False)
class FrequentStates(Document):
    """The most frequent states of a layer; made by `states`.

    Attributes
    ----------
    run, layer, neurons
        Path of the run; name of the layer; bits of a state.
    rows, distinct
        All rows of the layer, and all its distinct states.
    state
        The most frequent ones as stored, uint8 (n, ceil(neurons / 8)).
    multiplicity, incidence
        In how many rows, and in how many samples, each was seen: int64 (n,).
    sentences
        What is to be known beside the table.
    """

    run: str
    layer: str
    neurons: int
    rows: int
    distinct: int
    state: npt.NDArray[np.uint8]
    multiplicity: Counts
    incidence: Counts
    sentences: Sequence[str]

    @property
    def share(self) -> npt.NDArray[np.float64]:
        """In what share of all rows each was seen, float64 (n,)."""
        shares: npt.NDArray[np.float64] = self.multiplicity / self.rows
        return shares

    def decode(self) -> npt.NDArray[np.bool_]:
        """Return the states as booleans, (n, neurons)."""
        return bits.unpack(self.state, self.neurons)

    def to_frame(self) -> pd.DataFrame:
        """Return a table, one line a state, the most frequent first.

        Columns are `state` (its bytes as stored, which ``LayerStates.samples_of`` takes),
        `neurons_on`, `multiplicity` (rows), `share` (of all rows), and `incidence` (samples).
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "state": pd.Series([row.tobytes() for row in self.state], dtype=object),
                "neurons_on": self.decode().sum(axis=1),
                "multiplicity": self.multiplicity,
                "share": self.share,
                "incidence": self.incidence,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON can hold it; states are in hexadecimal, two digits a byte."""
        frame = self.to_frame()
        frame["state"] = [state.hex() for state in frame["state"]]
        return {
            "run": self.run,
            "layer": self.layer,
            "neurons": self.neurons,
            "rows": self.rows,
            "distinct": self.distinct,
            "states": frame.to_dict(orient="records"),
            "sentences": list(self.sentences),
        }

    def table(self, hex: bool = False) -> str:
        """Return the table as text, with states drawn, or in hexadecimal."""
        cells = self.cells(hex)
        lines = [*(text_table([HEADINGS, *cells]) if cells else []), *self.lines(hex)]
        return "\n".join([f"{printable(self.run)}: layer {printable(self.layer)}", *lines])

    def cells(self, hex: bool = False) -> list[tuple[str, ...]]:
        """Return the lines of the table, as `HEADINGS` names its columns.

        A drawing of many neurons takes several, with nothing beside all but the first.
        """
        on = self.decode().sum(axis=1)
        drawings = [[_digits(row)] for row in self.state] if hex else draw(self.state, self.neurons)
        cells: list[tuple[str, ...]] = []
        for index, (first, *others) in enumerate(drawings):
            numbers = (
                f"{on[index]:,}",
                f"{self.multiplicity[index]:,}",
                _percent(self.share[index]),
                f"{self.incidence[index]:,}",
            )
            cells.append((first, *numbers))
            cells += [(line, "", "", "", "") for line in others]
        return cells

    def lines(self, hex: bool = False) -> list[str]:
        """Return what is said below the table: how to read it, and how many states there are."""
        return [*([_legend(self.neurons, hex)] if len(self.state) else []), *self.sentences]

    def __len__(self) -> int:
        return len(self.state)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        title = html_title("states", self.run, f"layer {self.layer}")
        table = html_table(HEADINGS, self.cells()) if len(self) else ""
        return title + table + html_lines(self.lines())


def states(
    store: Run,
    layer: str,
    most: int = 20,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    scratch: Any = None,
    progress: Progress | None = None,
) -> FrequentStates:
    """Find the most frequent states of a layer, exactly, and how frequent they are.

    States that occurred once are not shown, unless all there are fit: none of them is more frequent
    than another, and a sentence tells how many they are.

    Parameters
    ----------
    store
        A run, or its path.
    layer
        Name of the layer.
    most
        How many states to show at most; of equally frequent ones those whose bytes come first.
    memory, scheduler, scratch, progress
        As for `tsstore.analyze`.

    Returns
    -------
    FrequentStates
        Printed, a table of the states drawn: a block is a neuron, ■ on and □ off.

    Raises
    ------
    UnknownLayerError, EmptyStoreError
        If there is no such layer, or it has no rows.
    DamageError
        If a chunk is not what was committed.
    MemoryTooSmallError, AnalysisError
        If `most` is less than 1, or memory, scheduler or scratch make no sense.
    """
    if operator.index(most) < 1:
        raise AnalysisError(f"most is {most}; expected how many states to show, 1 at least")
    request = Request(memory, scheduler, progress, scratch)
    return most_frequent(countable(store)[layer], most, request)


def most_frequent(states: LayerStates, most: int, request: Request) -> FrequentStates:
    """Return so many of a layer's states as `states` does."""
    with (
        planned(states, request) as (plan, runner),
        closing(distinct_states(states, plan, runner, request)) as pieces,
    ):
        best, levels = _most_frequent(pieces, most)
    best, sentences = _shown(best, levels, states)
    distinct = levels.total()
    numbers = states.neurons, states.rows, distinct
    return FrequentStates(states.location, states.name, *numbers, *best, sentences)


def draw(rows: npt.NDArray[np.uint8], neurons: int) -> list[list[str]]:
    """Return states drawn, in lines of 32 neurons, the first one first; of many the first 128."""
    shown = np.where(bits.unpack(rows, neurons)[:, :MOST_DRAWN], ON, OFF)
    drawings = []
    for drawing in map("".join, shown.tolist()):
        starts = range(0, len(drawing), LINE_NEURONS)
        drawings.append([drawing[start : start + LINE_NEURONS] for start in starts])
        if neurons > MOST_DRAWN:
            drawings[-1][-1] += "…"
    return drawings


def _legend(neurons: int, hex: bool) -> str:
    if hex:
        return "Two hexadecimal digits are a byte of 8 neurons, neuron 0 its lowest bit."
    if neurons <= LINE_NEURONS:
        return f"A block is a neuron, neuron 0 first: {ON} on, {OFF} off."
    of = f"; drawn are the first {MOST_DRAWN} of {neurons:,}" if neurons > MOST_DRAWN else ""
    return f"A block is a neuron, {LINE_NEURONS} a line, neuron 0 first: {ON} on, {OFF} off{of}."


def _percent(share: float) -> str:
    """Return a share in percent, without an exponent where it is tiny."""
    return f"{100 * share:.3g} %" if share >= 1e-5 else "0.000 %"


def _digits(row: npt.NDArray[np.uint8]) -> str:
    text, (first, last) = row.tobytes().hex(), HEX_ENDS
    return text if len(text) <= first + last else f"{text[:first]}…{text[-last:]}"


def _shown(best: Piece, levels: Counter[int], states: LayerStates) -> tuple[Piece, list[str]]:
    """Return which of the best are shown, and what is said of the others."""
    multiplicity = best[1]
    last = int(multiplicity[-1])
    tied = multiplicity == last
    cut_off = int(tied.sum()) < levels[last]
    if not cut_off:
        return best, [_sum_of(multiplicity, levels, states)]
    if len(levels) == 1:
        all_of_them = f"All {levels[last]:,} states of {printable(states.name)}"
        none = "so that none is more frequent than another"
        return _select(best, ~tied), [f"{all_of_them} occurred {_times(last)}, {none}."]
    if last == 1:
        best = _select(best, ~tied)
        others = f"The other {counted(levels[1], 'state')} occurred once."
        return best, [_sum_of(best[1], levels, states), others]
    some = f"{tied.sum():,} {'is' if tied.sum() == 1 else 'are'} shown"
    ties = f"Of {levels[last]:,} states that occurred {_times(last)}, {some}: first by their bytes."
    return best, [_sum_of(multiplicity, levels, states), ties]


def _sum_of(multiplicity: Counts, levels: Counter[int], states: LayerStates) -> str:
    share = 100 * multiplicity.sum() / states.rows
    rows = f"{share:.3g} % of the {counted(states.rows, 'row')}"
    if len(multiplicity) == levels.total():
        alone = "This is the only state."
        return alone if len(multiplicity) == 1 else f"These are all {len(multiplicity):,} states."
    return f"{len(multiplicity):,} of {counted(levels.total(), 'state')}, in {rows}."


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _most_frequent(pieces: Iterator[Piece], count: int) -> tuple[Piece, Counter[int]]:
    """Return the states that come first, in order, and how many there are of each multiplicity."""
    best: Piece | None = None
    levels: Counter[int] = Counter()
    for piece in pieces:
        multiplicities, numbers = np.unique(piece[1], return_counts=True)
        levels.update(dict(zip(multiplicities.tolist(), numbers.tolist(), strict=True)))
        if best is None:
            best = _first(piece, count)
            continue
        if len(best[0]) == count:
            piece = _before_last(piece, best)
        if len(piece[0]):
            best = _first(_together([best, piece]), count)
    assert best is not None
    return best, levels


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
