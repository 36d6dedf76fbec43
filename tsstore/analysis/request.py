"""What is asked of an analysis: one value, checked before anything is read, and passed whole."""

from __future__ import annotations

import numbers
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import InitVar, dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, TypedDict

from tsstore.analysis.client import connect, current_client
from tsstore.analysis.cluster import DistributedScheduler
from tsstore.analysis.execution.beside import Beside
from tsstore.analysis.execution.scratch import scratch_parent
from tsstore.analysis.memory import parse_memory
from tsstore.analysis.schedulers import (
    PATIENCE_SECONDS,
    LocalScheduler,
    Report,
    Scheduler,
    Threads,
)
from tsstore.errors import AnalysisError, EmptyStoreError
from tsstore.store.files.open import StorePath
from tsstore.store.reading.layer import LayerStates
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.store.reading.store import StateStore, open_store
from tsstore.store.threads import processors
from tsstore.text import Progress

Run: TypeAlias = "StateStore | StorePath"
Layers: TypeAlias = str | Iterable[str] | None
Bins: TypeAlias = int | Sequence[float] | None
Repeats = Literal["once", "each"]
"""Whether samples of one id and the same rows count once, or each sample is a draw of its own."""


class Where(TypedDict, total=False):
    """Where something is counted, and who is told, in the words of `analyze`."""

    memory: int | str | None
    scheduler: Any
    progress: Progress | None


@dataclass(frozen=True)
class Request:
    """What is asked of an analysis of a run, of its groups, or of a layer: words of `analyze`.

    What makes no sense whatever the run is an AnalysisError. `cluster` is the old name of
    `dependent_by`. What is wanted `beside` is of all samples that are shown, and of no group.
    """

    memory: int | str | None = None
    scheduler: Any = None
    progress: Progress | None = None
    scratch: str | os.PathLike[str] | None = None
    intervals: bool = True
    dependent_by: str | None = None
    unique_by: str | None = None
    repeats: Repeats = "once"
    exact: bool = False
    seed: int | None = None
    patience: float = PATIENCE_SECONDS
    by: str | None = None
    bins: Bins = None
    window: int | None = None
    beside: Beside = field(default_factory=Beside, compare=False)
    cluster: InitVar[str | None] = None

    def __post_init__(self, cluster: str | None) -> None:
        if cluster is not None:
            if self.dependent_by is not None:
                raise AnalysisError(
                    "cluster= is the old name of dependent_by=; pass dependent_by= alone"
                )
            # Of who calls what makes a request.
            warnings.warn("cluster= is called dependent_by= now", DeprecationWarning, stacklevel=4)
            object.__setattr__(self, "dependent_by", cluster)
        if self.memory is not None:
            parse_memory(self.memory)
        scratch_parent(self.scratch)
        if self.repeats not in ("once", "each"):
            raise AnalysisError(f"repeats is {self.repeats!r:.80}; expected 'once' or 'each'")
        patience = self.patience
        if not (isinstance(patience, numbers.Real) and patience >= 0):
            raise AnalysisError(
                f"patience is {patience!r:.80}; expected how many seconds a cluster may be without "
                "workers, 0 at least"
            )
        if self.dependent_by is not None and not self.intervals:
            raise AnalysisError(
                f"dependent_by={self.dependent_by!r:.80} is for intervals, and there are none with "
                "intervals=False; leave one of the two out"
            )

    @property
    def in_groups(self) -> bool:
        """Whether groups of samples are asked for."""
        return self.by is not None or self.bins is not None or self.window is not None

    def report(self, layer: str) -> Report | None:
        """Return what is to be told of each task of a layer that is done; None for nothing."""
        return None if self.progress is None else partial(self.progress, layer)


def choose(scheduler: Any, patience: float = PATIENCE_SECONDS) -> Scheduler:
    """Return the scheduler that the user means; close it at the end.

    None is the current ``distributed.Client`` if there is one, else threads. A cluster may be so
    many seconds without workers, its patience. AnalysisError if there is no such scheduler, or no
    cluster.
    """
    if scheduler is None:
        # Without distributed there is no client.
        client = current_client() if "distributed" in sys.modules else None
        scheduler = client or "threads"
    if isinstance(scheduler, Threads):
        if not scheduler.is_open:
            raise AnalysisError(f"scheduler is {scheduler!r}; make another one")
        return LocalScheduler(scheduler.count, scheduler)
    if scheduler == "threads":
        return LocalScheduler(processors())
    if scheduler in ("synchronous", "sync", "single-threaded"):
        return LocalScheduler(1)
    if isinstance(scheduler, str) and "://" in scheduler:
        return DistributedScheduler(connect(scheduler), True, patience)
    if hasattr(scheduler, "scheduler_info") and hasattr(scheduler, "get"):
        return DistributedScheduler(scheduler, patience=patience)
    raise AnalysisError(
        f"scheduler is {scheduler!r}; expected None, 'threads', 'synchronous', a "
        "tsstore.Threads, a distributed.Client, or an address such as 'tcp://host:8786'"
    )


@contextmanager
def running(request: Request, *runs: StateStore | LayerStates) -> Iterator[Scheduler]:
    """Yield what runs the tasks of a request, where all processes see the runs."""
    with ExitStack() as opened:
        runner = opened.enter_context(closing(choose(request.scheduler, request.patience)))
        for run in runs:
            directories = [part.directory for part in run.parts]
            opened.enter_context(runner.reading(run.parts[0].files, directories))
        yield runner


def countable(store: Run, by: str | None = None, function: str = "analyze") -> StateStore:
    """Return a run as of its commits now, whatever is committed later.

    An EmptyStoreError if there are none, an AnalysisError if it holds several steps and is not
    analysed by these, which names the public function that was called.
    """
    store = store.pinned() if isinstance(store, StateStore) else open_store(store)
    if not store.samples and any(part.samples for part in store.parts):
        raise EmptyStoreError(
            f"{store.path}: no sample is shown where {', '.join(store.view.told)}; choose others"
        )
    if not store.samples:
        raise EmptyStoreError(
            f"{store.path} holds no committed samples; wait for the first commit, or run the "
            "job again"
        )
    if len(store.steps) > 1 and by != "step":
        raise AnalysisError(
            f"{store.path} holds the steps {', '.join(map(repr, store.steps))}, which are not "
            f'pooled; analyse each, tsstore.{function}(store, by="step"), or one, '
            f"tsstore.{function}(store.at_step(…))"
        )
    return store


def with_layers(store: StateStore, layers: Layers) -> StateStore:
    """Return a view of the layers that are asked for, each once; of all unless some are.

    They are asked for by names, or by patterns as `StateStore.select` takes them.
    """
    wanted = [layers] if isinstance(layers, str) else store.layers if layers is None else layers
    chosen = store.select(*wanted)
    if not chosen.layers:
        raise AnalysisError(f"{store.path}: no layer was asked for; it has {list(store.layers)}")
    return chosen


def check_rows(states: LayerStates, sample_filter: SampleFilter = ALL_SAMPLES) -> None:
    """Raise EmptyStoreError if a layer has no rows to count."""
    if not sample_filter.joined(states.sample_filter).kept_rows(states):
        raise EmptyStoreError(f"{states.location}: layer {states.name} has no rows to analyse")
