"""The rows of each sample, out of core: bare records of a key and the number of a sample.

All records of one state meet in one partition, whatever their samples are.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tsstore.analysis.execution.block import LayerJob, read_keys, select_rows
from tsstore.analysis.execution.exchange import HeldSlices, Receipt, spill
from tsstore.analysis.execution.graph import check_receipts
from tsstore.analysis.execution.recounting import BLOCK
from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.layers import layer_work
from tsstore.analysis.request import Request
from tsstore.analysis.schedulers import Scheduler
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import scatter_rows
from tsstore.counting.premerge.samples import append_samples
from tsstore.counting.records import Buffers, Records, SampleKeys
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.layer_part import Block

_Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class SampleJob(LayerJob):
    """How the rows of each sample are recorded; `firsts` numbers the first samples of parts.

    Numbers are of all stored samples, those that do not count included.
    """

    firsts: tuple[int, ...] = ()


def work_by_sample(
    states: LayerStates,
    scheme: KeyScheme,
    scheduler: Scheduler,
    request: Request,
    left_out: int,
) -> Work:
    """Return what there is to count: keys that are followed by the number of their sample."""
    work = layer_work(states, scheduler, request, 0, left_out)
    return replace(work, words=scheme.words + 1, neurons=Work.neurons)


def graph_by_sample(job: SampleJob) -> tuple[dict[Any, Any], Any]:
    """Return the graph that records the rows of each sample, and the key of their index."""
    # Loops are compiled, or loaded, once in this process, not by all threads at the same time.
    words = job.scheme.words
    pair, positions = np.zeros((2, words + 1), np.uint64), np.array([2])
    append_samples(pair[:, 1:].copy(), positions, 0, pair)
    scatter_rows(SampleKeys(pair, positions), 1)
    token = uuid.uuid4().hex[:12]
    shared, buffers, index = (f"tsstore-{kind}-{token}" for kind in ("job", "buffers", "index"))
    graph: dict[Any, Any] = {shared: job, buffers: (Buffers, job.arena)}
    keys: list[Any] = []
    for block in job.states.blocks(job.plan.block_rows):
        keys.append((f"{BLOCK}-{token}", len(keys)))
        graph[keys[-1]] = (_record_block, shared, block, buffers)
    graph[index] = (check_receipts, keys, job.samples.sample_filter.kept_rows(job.states))
    return graph, index


def without_samples(records: Records) -> tuple[Records, npt.NDArray[np.int64]]:
    """Return bare records of the keys alone, and the sample of each, int64 (records,)."""
    keys = np.ascontiguousarray(records.keys[:, :-1])
    samples = records.keys[:, -1].astype(np.int64)
    return Records(keys), samples


def _record_block(job: SampleJob, block: Block, buffers: Buffers) -> Receipt:
    """Record each row of a block with its sample, by partition."""
    plan, scattered = job.plan, []
    # Keys are held without and with samples, which is more than what the plan reckons for a row.
    for piece in job.states.divide(block, max(1, 2 * plan.piece_rows // 3)):
        keys, positions = _keys_and_samples(job, piece, buffers)
        if len(keys):
            rows = SampleKeys(keys, np.cumsum(positions))
            scattered.append(scatter_rows(rows, plan.partition_bits))
    slices = spill(scattered, job.folder) if plan.spill and scattered else HeldSlices(scattered)
    return Receipt(slices.total, 0, 0, slices)


def _keys_and_samples(
    job: SampleJob, block: Block, buffers: Buffers
) -> tuple[_Words, npt.NDArray[np.int64]]:
    """Return the keys of the rows that count, with the sample last, and the rows of each sample."""
    states, part = job.states, job.states.parts[block.part]
    own = read_keys(states, job.scheme, [block], buffers)
    positions = part.read_positions(block.first_sample, block.samples)
    first = job.firsts[block.part] + block.first_sample
    keys = buffers.array("keys and samples", (len(own), own.shape[1] + 1), np.uint64)
    append_samples(own, positions, first, keys)
    shown = job.samples.sample_filter
    kept = shown.kept(part.directory, block.first_sample, block.samples)
    if kept is None:
        return keys, positions
    return select_rows(keys, np.repeat(kept, positions)), positions[kept]
