"""Rivals that hold all rows in memory, some of them as a Python object each."""

from __future__ import annotations

from typing import Any

from counting_rivals import COUNT, Answer, Counter, Task

PARTITION_ROW_GROUPS = 4
"""Half a million rows: of some sizes that were tried on data of both kinds the fastest."""


class Pandas(Counter):
    """pandas, which reads Parquet by PyArrow."""

    ASKS = frozenset({"incidence", "groups"})

    def start(self) -> None:
        """Import pandas and PyArrow."""
        import pandas
        import pyarrow

        pyarrow.set_cpu_count(self.task.threads)
        self._pandas = pandas

    def count(self, task: Task) -> Any:
        """Read, then count: by `value_counts` where that is enough, which is faster."""
        keys = ["state", *["label"] * task.groups]
        columns = [*keys, *["sample"] * task.incidence]
        frame = self._pandas.read_parquet(self.path, columns=columns)
        if columns == ["state"]:
            return frame["state"].value_counts(sort=False).rename("k").value_counts(sort=False)
        grouped = frame.groupby(keys, sort=False)
        counts = grouped.size().rename("k").to_frame()
        if task.incidence:
            counts["q"] = grouped["sample"].nunique()
        return counts.groupby(task.levels, sort=False).size()

    def answer(self, found: Any) -> Answer:
        """Return index and values."""
        table = found.rename(COUNT).reset_index()
        return {name: table[name].to_numpy() for name in table.columns}


class Dask(Pandas):
    """dask.dataframe on threads; asked for k only."""

    ASKS = frozenset()

    def start(self) -> None:
        """Import and set up dask.dataframe."""
        super().start()
        import dask
        import dask.dataframe

        dask.config.set(scheduler="threads", num_workers=self.task.threads)
        # Bytes are no text.
        dask.config.set({"dataframe.convert-string": False})
        self._dask = dask.dataframe

    def count(self, task: Task) -> Any:
        """Read and count by partitions."""
        frame = self._dask.read_parquet(
            self.path, columns=["state"], split_row_groups=PARTITION_ROW_GROUPS
        )
        states = frame["state"].value_counts(sort=False, split_out=4 * task.threads)
        return states.rename("k").value_counts(sort=False).compute()


class Numpy(Counter):
    """`numpy.unique`, of rows as they are or padded to a uint64; one thread, asked for k only."""

    def __init__(self, file: str, task: Task, as_numbers: bool = False) -> None:
        super().__init__(file, task)
        self._as_numbers = as_numbers

    def start(self) -> None:
        """Import NumPy, and PyArrow for reading."""
        import numpy
        import pyarrow
        from pyarrow import parquet

        pyarrow.set_cpu_count(self.task.threads)
        self._numpy, self._parquet = numpy, parquet

    def count(self, task: Task) -> Any:
        """Read, then sort and count."""
        np = self._numpy
        states = self._parquet.read_table(self.path, columns=["state"])["state"]
        rows = np.concatenate([self._rows(chunk) for chunk in states.chunks])
        if self._as_numbers and task.width < 8:
            padded = np.zeros((len(rows), 8), np.uint8)
            padded[:, : task.width] = rows
            rows = padded
        items = rows.view("<u8" if self._as_numbers else f"V{task.width}")[:, 0]
        _, multiplicity = np.unique(items, return_counts=True)
        return np.unique(multiplicity, return_counts=True)

    def _rows(self, chunk: Any) -> Any:
        """Return the bytes of an Arrow array, whose items all have the same number of them."""
        _, _, values = chunk.buffers()
        rows = self._numpy.frombuffer(values, self._numpy.uint8).reshape(-1, self.task.width)
        return rows[chunk.offset : chunk.offset + len(chunk)]

    def answer(self, found: Any) -> Answer:
        """Return both arrays."""
        return dict(zip(("k", COUNT), found, strict=True))
