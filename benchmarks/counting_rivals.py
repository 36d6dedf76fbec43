"""What can count a data set: tsstore and its rivals.

The question is how many distinct states there are in each number k of rows; on demand of q samples,
and by label. Libraries are imported by `start` and not before, so that this can be timed too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

COUNT = "n"
COLUMNS = ("label", "k", "q", COUNT)
BLOCK_ROWS = 1 << 18

Answer = dict[str, Any]
"""Columns: a label and k and q, as far as they were asked for, and how many states have them."""


@dataclass(frozen=True)
class Task:
    """What to count, and with what.

    Attributes
    ----------
    folder
        Of the data set.
    scratch
        Folder for what does not fit into memory.
    width
        Bytes of a row.
    threads
        How many there may be.
    memory
        How much of it there may be, such as ``"512MiB"``; None for any.
    incidence
        Whether to count in how many samples each state is.
    groups
        Whether to count by label.
    """

    folder: str
    scratch: str
    width: int
    threads: int
    memory: str | None = None
    incidence: bool = False
    groups: bool = False

    @property
    def levels(self) -> list[str]:
        """Names of an answer's columns but for the last one."""
        return ["label"] * self.groups + ["k"] + ["q"] * self.incidence

    @property
    def pooled(self) -> Task:
        """The same, not by label."""
        return replace(self, groups=False)


class Counter:
    """Counts a file of a data set; begins with `start`, then `load`."""

    LIMITED: ClassVar[bool] = False
    """Whether it can be told how much memory to use."""
    ASKS: ClassVar[frozenset[str]] = frozenset()
    """Of incidence and groups, what it can be asked for."""

    def __init__(self, file: str, task: Task) -> None:
        self.path = str(Path(task.folder) / file)
        self.task = task

    def start(self) -> None:
        """Import and set up the library."""

    def load(self) -> None:
        """Do what is not to be timed."""

    def count(self, task: Task) -> Any:
        """Count; return what has been found, however it comes."""
        raise NotImplementedError

    def answer(self, found: Any) -> Answer:
        """Return what has been found as columns; none if states were not counted."""
        return dict(found)


class Tsstore(Counter):
    """tsstore; by label it is asked for its own 32 groups of samples, and says the pooled counts.

    Incidence it counts whether it is asked or not. Its threads, and the memory that they have used,
    are kept for the calls to come.
    """

    LIMITED = True
    ASKS = frozenset({"incidence", "groups"})

    def start(self) -> None:
        """Import tsstore."""
        import tsstore

        self._analyze, self._threads = tsstore.analyze, tsstore.Threads()

    def count(self, task: Task) -> Any:
        """Return the spectrum."""
        analysis = self._analyze(
            self.path,
            memory=task.memory,
            scheduler=self._threads,
            scratch=task.scratch,
            intervals=task.groups,
        )
        (layer,) = analysis.values()
        return layer.spectrum

    def answer(self, found: Any) -> Answer:
        """Return the spectrum's columns."""
        if self.task.incidence:
            return {"k": found.multiplicity, "q": found.incidence, COUNT: found.states}
        return dict(zip(("k", COUNT), found.multiplicities(), strict=True))


class Read(Counter):
    """Reads and decodes a run of tsstore, each chunk checked, into memory that is used again."""

    LIMITED = True
    ASKS = frozenset({"incidence", "groups"})

    def start(self) -> None:
        """Import what reads."""
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        import tsstore

        self._open = tsstore.open
        self._pool = ThreadPoolExecutor(self.task.threads)
        rows = [BLOCK_ROWS * self.task.width] * self.task.threads
        self._rooms = [np.empty(size, np.uint8) for size in rows]

    def count(self, task: Task) -> Any:
        """Read all blocks, a thread's share of them each."""
        (states,) = self._open(self.path).values()
        blocks = list(states.blocks(BLOCK_ROWS))
        shares = [blocks[thread :: task.threads] for thread in range(task.threads)]
        list(self._pool.map(partial(self._read, states), shares, self._rooms))

    def _read(self, states: Any, blocks: list[Any], room: Any) -> None:
        for block in blocks:
            out = room[: block.rows * states.row_bytes].reshape(block.rows, states.row_bytes)
            stored = states.parts[block.part].states
            stored.read(block.first_row, block.first_row + block.rows, out)

    def answer(self, found: Any) -> Answer:
        """Return no columns."""
        return {}


class DuckDB(Counter):
    """DuckDB, from Parquet or from a table in its memory."""

    LIMITED = True
    ASKS = frozenset({"incidence", "groups"})

    def __init__(self, file: str, task: Task, in_memory: bool = False) -> None:
        super().__init__(file, task)
        self._source = f"'{self.path}'"
        self._in_memory = in_memory

    def start(self) -> None:
        """Open a database in memory."""
        import duckdb

        self._connection = duckdb.connect()
        self._connection.execute(f"SET threads = {self.task.threads}")
        self._connection.execute(f"SET temp_directory = '{self.task.scratch}/{os.getpid()}'")
        # DuckDB's own advice for what does not fit into memory; no result here has an order.
        self._connection.execute("SET preserve_insertion_order = false")
        if self.task.memory:
            self._connection.execute(f"SET memory_limit = '{self.task.memory}'")

    def load(self) -> None:
        """Fill the table."""
        if self._in_memory:
            task = self.task
            columns = ["state", *["sample"] * task.incidence, *["label"] * task.groups]
            names = ", ".join(columns)
            self._connection.execute(f"CREATE TABLE rows AS SELECT {names} FROM {self._source}")
            self._source = "rows"

    def count(self, task: Task) -> Any:
        """Run the query."""
        keys = ", ".join(["state", *["label"] * task.groups])
        samples = ", count(DISTINCT sample) AS q" * task.incidence
        counts = f"SELECT {keys}, count(*) AS k{samples} FROM {self._source} GROUP BY {keys}"
        levels = ", ".join(task.levels)
        query = f"SELECT {levels}, count(*) AS {COUNT} FROM ({counts}) GROUP BY {levels}"
        return self._connection.execute(query).fetchnumpy()


class Polars(Counter):
    """polars, in either of its engines; the number of threads is told to it by the environment."""

    ASKS = frozenset({"incidence", "groups"})

    def __init__(self, file: str, task: Task, engine: str = "streaming") -> None:
        super().__init__(file, task)
        self._engine = engine

    def start(self) -> None:
        """Import polars."""
        os.environ["POLARS_MAX_THREADS"] = str(self.task.threads)
        import polars

        self._polars = polars

    def count(self, task: Task) -> Any:
        """Run the query."""
        pl = self._polars
        samples = [pl.col("sample").n_unique().alias("q")] * task.incidence
        counts = pl.scan_parquet(self.path).group_by("state", *["label"] * task.groups)
        states = counts.agg(pl.len().alias("k"), *samples).group_by(task.levels)
        return states.agg(pl.len().alias(COUNT)).collect(engine=self._engine)

    def answer(self, found: Any) -> Answer:
        """Return the frame's columns."""
        return {name: found[name].to_numpy() for name in found.columns}
