"""From a block's chunks to its records."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tsstore.analysis.planning.layer_plan import Plan
from tsstore.analysis.samples import EVERY, Samples
from tsstore.counting.keys import KeyScheme
from tsstore.counting.premerge.direct_index import DirectTable
from tsstore.counting.premerge.hot_keys import HotKeys, merge_hot_rows
from tsstore.counting.premerge.samples import count_groups, numbers_by_group
from tsstore.counting.premerge.within_samples import merge_samples
from tsstore.counting.records import Buffers, Records
from tsstore.statistics.spectrum_delta import SpectrumDelta
from tsstore.store.chunked.reader import ChunkWorkspace
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

SPAN_BYTES = 1 << 20
"""Of rows that become keys at a time, about: while they are still in the processor's cache."""

_CHUNK_WORKSPACE = partial(ChunkWorkspace, once=True)

_Word = TypeVar("_Word", bound=np.generic)


@dataclass(frozen=True)
class LayerJob:
    """How a layer is counted: what the tasks of all its blocks need, as one value.

    Records are written to the folder, if the plan says so.
    """

    states: LayerStates
    scheme: KeyScheme
    plan: Plan
    folder: str
    samples: Samples = EVERY


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
        return HotKeys(scheme.words, count, plan.hot_rows)

    table: Preaggregation | None = None
    if plan.direct:
        direct = buffers.kept("direct", make_direct)
        table = direct if direct.pays else None
    table = table or buffers.kept("hot", make_hot)
    table.begin()
    return table


def read_records(
    job: LayerJob, block: Block, table: Preaggregation, buffers: Buffers
) -> tuple[list[Records], SpectrumDelta]:
    """Return a block's records, and its samples, rows and pairs of rows by group.

    The records may lie in the buffers; what the table for pre-aggregation has counted is not among
    them. Without groups, all samples are one.
    """
    states, scheme = job.states, job.scheme
    sample_filter, count = job.samples.sample_filter, job.samples.code_count or 1
    part = states.parts[block.part]
    group = job.samples.codes_of(part.directory, block.first_sample, block.samples)
    one_position = part.constant_positions == 1 and not sample_filter.samples
    if one_position and isinstance(table, HotKeys):
        samples = np.array([block.rows]) if group is None else count_groups(group, count)
        none = np.zeros_like(samples)
        numbers = SpectrumDelta.from_arrays([samples, samples, none, none])
        bare = Records(read_keys(states, scheme, block, buffers), group=group)
        return [merge_hot_rows(bare, table, buffers)], numbers
    positions = part.read_positions(block.first_sample, block.samples)
    kept = sample_filter.kept(part.directory, block.first_sample, block.samples)
    chosen = None if kept is None else np.repeat(kept, positions)
    records: list[Records] = []
    if kept is not None:
        positions = positions[kept]
        group = None if group is None else group[kept]
    if isinstance(table, DirectTable):
        rows = _select_rows(_read_rows(states, block, buffers), chosen)
        equal_pairs = table.count(rows, positions, group)
    else:
        keys = _select_rows(read_keys(states, scheme, block, buffers), chosen)
        records, equal_pairs = merge_samples(keys, positions, table, group, buffers)
    own = np.zeros(len(positions), np.uint8) if group is None else group
    samples, rows_of_group, pairs = numbers_by_group(positions, own, count)
    return records, SpectrumDelta.from_arrays([samples, rows_of_group, equal_pairs, pairs])


def _read_rows(states: LayerStates, block: Block, buffers: Buffers) -> npt.NDArray[np.uint8]:
    """Return a block's rows, uint8 (rows, row_bytes), in the buffers."""
    stored = states.parts[block.part].states
    room = buffers.array("rows", (block.rows, states.row_bytes), np.uint8)
    return stored.read(
        block.first_row,
        block.first_row + block.rows,
        room,
        buffers.kept("chunks", _CHUNK_WORKSPACE),
    )


def read_keys(
    states: LayerStates, scheme: KeyScheme, block: Block, buffers: Buffers
) -> npt.NDArray[np.uint64]:
    """Return the keys of a block's rows: uint64 (rows, words), in the buffers."""
    stored = states.parts[block.part].states
    keys = buffers.array("keys", (block.rows, scheme.words), np.uint64)
    span = stored.spec.chunk_rows * -(-SPAN_BYTES // stored.spec.chunk_bytes)
    row, stop = block.first_row, block.first_row + block.rows
    while row < stop:
        end = min(stop, (row // span + 1) * span)
        room = buffers.array("rows", (end - row, states.row_bytes), np.uint8)
        rows = stored.read(row, end, room, buffers.kept("chunks", _CHUNK_WORKSPACE))
        scheme.keys(rows, keys[row - block.first_row : end - block.first_row])
        row = end
    return keys


def _select_rows(
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
