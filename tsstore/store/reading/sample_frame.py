"""Tables of some samples, with what was recorded of them; and the samples that show a state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tsstore import bits
from tsstore.errors import StoreError
from tsstore.store.chunked.reader import ChunkWorkspace
from tsstore.store.reading.conditions import INDEX, held_column, join_pieces, sample_index
from tsstore.store.reading.layer_part import LayerPart
from tsstore.store.reading.part import Part
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.text import counted

if TYPE_CHECKING:
    import pandas as pd

ON, OFF = "■", "□"
"""How states are drawn, a sign a neuron."""
PIECE_BYTES = 1 << 20
"""Of rows that are compared at a time, about."""

_Numbers = npt.NDArray[np.int64]


def frame_of_samples(
    parts: Sequence[Part], samples: _Numbers, numbers: Mapping[str, npt.NDArray[Any]]
) -> pd.DataFrame:
    """Return a line for each of some samples, which may come again, in the order given.

    Samples are numbered through all parts. The index is that of `StateStore.samples_frame`; columns
    are the numbers, (lines,) each, and then what was recorded. A column that has the name of one of
    these, or of a level of the index, is called ``"name (recorded)"``. StoreError if a part lacks a
    column of another one.
    """
    import pandas as pd

    ends = np.cumsum([part.samples for part in parts])
    part = np.searchsorted(ends, samples, side="right")
    place = samples - np.concatenate([[0], ends])[part]
    index = sample_index(parts, ALL_SAMPLES)[samples]
    frame = pd.DataFrame(dict(numbers), index=index)
    for name in dict.fromkeys(name for own in parts for name in own.columns):
        shown = f"{name} (recorded)" if name in (*INDEX, *frame) else name
        frame[shown] = _recorded(parts, name, part, place)
    return frame


def _recorded(parts: Sequence[Part], name: str, part: _Numbers, place: _Numbers) -> Any:
    """Return the entries of a sample column for samples of parts, by their places there."""
    import pandas as pd

    pieces, lines = [], []
    for number, own in enumerate(parts):
        here = np.flatnonzero(part == number)
        if len(here):
            distinct, again = np.unique(place[here], return_inverse=True)
            column = held_column(own, name)
            entries = np.empty(len(distinct), column.spec.numpy_dtype)
            column.take(distinct, entries)
            pieces.append(entries[again])
            lines.append(here)
    if not pieces:
        return pd.Series(dtype=object)
    values = join_pieces(pieces)
    ordered = np.empty_like(values)
    ordered[np.concatenate(lines)] = values
    return ordered


def parse_state(state: object, neurons: int, where: str) -> npt.NDArray[np.uint8]:
    """Return the row that a state means: its bytes, its hexadecimal digits, a drawing, or booleans.

    StoreError if it means none of so many neurons.
    """
    row_bytes = bits.row_bytes(neurons)
    row = _row(state, neurons, row_bytes)
    if row is None or not np.array_equal(bits.pack(bits.unpack(row, neurons)), row):
        raise StoreError(
            f"{where}: found the state {state!r:.80}; expected one of {neurons} neurons, as "
            f"{counted(row_bytes, 'byte')} of a row, whose bits after the last neuron are 0, as "
            f"their {2 * row_bytes} hexadecimal digits, as {neurons} booleans, or drawn by {ON} "
            f"and {OFF}"
        )
    return row


def _row(state: Any, neurons: int, row_bytes: int) -> npt.NDArray[np.uint8] | None:
    if isinstance(state, str):
        drawn = "".join(state.split())
        if set(drawn) <= {ON, OFF}:
            return _row([sign == ON for sign in drawn], neurons, row_bytes)
        try:
            state = bytes.fromhex(state)
        except ValueError:
            return None
    if isinstance(state, bytes | bytearray | memoryview):
        row = np.frombuffer(state, np.uint8)
        return row if len(row) == row_bytes else None
    try:
        values = np.asarray(state)
    except ValueError:
        return None
    if values.dtype == np.uint8 and values.shape == (row_bytes,):
        return values
    return bits.pack(values) if values.dtype == bool and values.shape == (neurons,) else None


def find_rows(
    parts: Iterable[LayerPart], row: npt.NDArray[np.uint8], shown: SampleFilter = ALL_SAMPLES
) -> tuple[_Numbers, _Numbers]:
    """Return the samples that show a state, and at which positions; int64 (rows,) each.

    Samples are numbered through all parts. Rows are read a bounded number at a time.
    """
    samples, found, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for number, part in enumerate(parts):
        workspace = ChunkWorkspace(once=True)
        for block in part.blocks(number, max(1, PIECE_BYTES // len(row))):
            rows = part.states.read(
                block.first_row, block.first_row + block.rows, workspace=workspace
            )
            lines = np.flatnonzero((rows == row).all(axis=1))
            ends = np.cumsum(part.read_positions(block.first_sample, block.samples))
            sample = np.searchsorted(ends, lines, side="right")
            position = lines - np.concatenate([[0], ends])[sample]
            kept = shown.kept(part.directory, block.first_sample, block.samples)
            if kept is not None:
                sample, position = sample[kept[sample]], position[kept[sample]]
            samples.append(first + block.first_sample + sample)
            found.append(position)
        first += part.samples
    return np.concatenate(samples), np.concatenate(found)
