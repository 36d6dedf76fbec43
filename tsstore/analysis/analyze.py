"""Counting the states of a run, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import numpy as np

from tsstore.analysis.exchange import scratch_folder
from tsstore.analysis.memory import parse_memory
from tsstore.analysis.pipeline import Counts, build_graph
from tsstore.analysis.plan import Plan, Work, make_plan
from tsstore.analysis.results import Analysis, LayerResult
from tsstore.analysis.schedulers import Report, Scheduler, choose
from tsstore.counting.aggregate import aggregate
from tsstore.counting.keys import KeyScheme
from tsstore.counting.merge import merge_records, merge_samples
from tsstore.counting.partition import scatter
from tsstore.errors import AnalysisError, CountingError, EmptyStoreError
from tsstore.store.layers import LayerStates
from tsstore.store.reader import StateStore, open_store

Progress = Callable[[str, int, int], None]
"""Takes a layer's name, the number of its tasks that are done, and of all."""


def analyze(
    store: StateStore | str | os.PathLike[str],
    layers: str | Iterable[str] | None = None,
    *,
    memory: int | str | None = None,
    scheduler: Any = None,
    progress: Progress | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> Analysis:
    """Count the distinct states of a run exactly, and say how well each layer uses its neurons.

    Parameters
    ----------
    store
        A run, or its path; what is committed now is analysed.
    layers
        Names of layers; all unless given.
    memory
        What one process may add to its baseline, in bytes or as ``"2GiB"``; a quarter of what
        there is unless given. What does not fit goes through files.
    scheduler
        ``"threads"``, ``"synchronous"``, a ``distributed.Client``, or the address of a cluster;
        unless given, the current client if there is one, else threads.
    progress
        Called as ``progress(layer, tasks done, all tasks)``.
    scratch
        Folder for those files; all workers of a cluster must see it.

    Returns
    -------
    Analysis
        A mapping from layer names to results.

    Raises
    ------
    NotAStoreError, FormatError, DamageError
        If the store cannot be read.
    EmptyStoreError
        If nothing has been committed.
    UnknownLayerError
        If there is no such layer.
    AnalysisError
        If the run holds several steps, or memory or scheduler make no sense.
    """
    if not isinstance(store, StateStore):
        store = open_store(store)
    _check_analysable(store)
    names = _layer_names(store, layers)
    asked = None if memory is None else parse_memory(memory)
    folder = None if scratch is None else os.fspath(scratch)
    with closing(choose(scheduler)) as runner:
        amount = runner.memory(asked)
        results = {
            name: _analyze_layer(store[name], amount, runner, progress, folder) for name in names
        }
    return Analysis(store.path, store.samples, results, _accuracy(store))


def layer_plan(states: LayerStates, memory: int, scheduler: Scheduler) -> Plan:
    """Return how a layer would be counted within so many bytes of memory.

    Raises
    ------
    MemoryTooSmallError
        If it cannot be.
    """
    work = Work(
        name=states.name,
        rows=states.rows,
        row_bytes=states.row_bytes,
        words=KeyScheme.create(states.row_bytes).words,
        largest_sample=_largest_sample(states),
        chunk_bytes=max(part.states.spec.chunk_bytes for part in states.parts),
        parts=len(states.parts),
    )
    return make_plan(work, memory, scheduler.threads, scheduler.shared_memory)


def count_layer(
    states: LayerStates,
    memory: int,
    scheduler: Scheduler,
    report: Report | None = None,
    scratch: str | None = None,
) -> tuple[Counts, KeyScheme]:
    """Count the distinct states of a layer exactly; return what was counted and by which keys.

    Raises
    ------
    MemoryTooSmallError
        If the memory holds not even one task.
    DamageError
        If a chunk is not what was committed.
    CountingError
        If the counts do not add up to the rows.
    """
    plan = layer_plan(states, memory, scheduler)
    scheme = KeyScheme.create(states.row_bytes)
    _compile_kernels(scheme)
    if plan.spill:
        with scratch_folder(scratch) as folder:
            scheduler.check_scratch(folder)
            counts = _run(states, scheme, plan, folder, scheduler, report)
    else:
        counts = _run(states, scheme, plan, "", scheduler, report)
    if counts.spectrum.rows != states.rows:
        raise CountingError(
            f"{states.name}: the multiplicities add up to {counts.spectrum.rows}, but "
            f"{states.rows} rows are committed"
        )
    return counts, scheme


def _run(
    states: LayerStates,
    scheme: KeyScheme,
    plan: Plan,
    folder: str,
    scheduler: Scheduler,
    report: Report | None,
) -> Counts:
    graph, key = build_graph(states, scheme, plan, folder)
    counts: Counts = scheduler.run(graph, key, plan.threads, report)
    return counts


def _analyze_layer(
    states: LayerStates,
    memory: int,
    scheduler: Scheduler,
    progress: Progress | None,
    scratch: str | None,
) -> LayerResult:
    if not states.rows:
        raise EmptyStoreError(f"{states.location}: layer {states.name} has no rows to analyse")

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(states.name, done, total)

    counts, scheme = count_layer(states, memory, scheduler, report if progress else None, scratch)
    return LayerResult(
        name=states.name,
        neurons=states.neurons,
        samples=states.samples,
        spectrum=counts.spectrum,
        equal_pairs_within_samples=counts.equal_pairs_within_samples,
        pairs_within_samples=counts.pairs_within_samples,
        collision_bound=scheme.collision_bound(counts.spectrum.distinct),
        threshold=states.attributes.threshold["given"],
        sampling=states.attributes.sampling,
    )


def _layer_names(store: StateStore, layers: str | Iterable[str] | None) -> list[str]:
    """Return the public names of the layers asked for, each once."""
    wanted = [layers] if isinstance(layers, str) else store.layers if layers is None else layers
    names = list(dict.fromkeys(map(store.layer_name, wanted)))
    if not names:
        raise AnalysisError(f"{store.path}: no layer was asked for; it has {list(store.layers)}")
    return names


def _largest_sample(states: LayerStates) -> int:
    """Return the most rows of one sample."""
    if states.positions is not None:
        return states.positions
    return max(int(piece.max()) for part in states.parts for piece in part.position_pieces())


def _check_analysable(store: StateStore) -> None:
    if not store.samples:
        raise EmptyStoreError(
            f"{store.path} holds no committed samples; wait for the first commit, or run the "
            "job again"
        )
    if len(store.steps) > 1:
        raise AnalysisError(
            f"{store.path} holds the steps {', '.join(map(repr, store.steps))}, which are not "
            "pooled; analyse one: tsstore.analyze(store.at_step(…))"
        )


def _accuracy(store: StateStore) -> float | None:
    """Return the share of samples whose recorded prediction is their label, if both are there."""
    needed = {"prediction", "label"}
    if not all(needed <= set(part.columns) for part in store.parts if part.samples):
        return None
    return float(np.mean(store.column("prediction") == store.column("label")))


def _compile_kernels(scheme: KeyScheme) -> None:
    """Compile, or load, every kernel once before tasks run: processes must not compile at once."""
    rows = np.zeros((2, scheme.row_bytes), dtype=np.uint8)
    records, _ = merge_samples(scheme.keys(rows), np.array([2], dtype=np.int64))
    records, _ = scatter(merge_records(records), 1)
    aggregate(lambda: [records], scheme.words, 1, 1024)
