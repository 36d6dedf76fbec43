"""All contenders by name: what counts, and which file of a data set."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from counting_frames import Dask, Numpy, Pandas
from counting_rivals import Counter, DuckDB, Polars, Read, Task, Tsstore


@dataclass(frozen=True)
class Contender:
    """Something that counts one file of a data set.

    Attributes
    ----------
    make
        Makes it from the file's name and the task.
    file
        Its name.
    widths
        Bytes of a row that it can count; None for any.
    is_slow
        Whether it is spared large sets.
    """

    make: Callable[[str, Task], Counter]
    file: str
    widths: tuple[int, ...] | None = None
    is_slow: bool = False

    @property
    def kind(self) -> type[Counter]:
        """The class of what it makes."""
        make: Any = self.make
        return make.func if isinstance(make, partial) else make

    def can_count(self, width: int, files: Collection[str]) -> bool:
        """Whether it counts rows of so many bytes, and its file is among those."""
        return self.file in files and (self.widths is None or width in self.widths)

    def can_answer(self, task: Task) -> bool:
        """Whether it can be asked that."""
        asked = {"incidence"} if task.incidence else set()
        return asked | ({"groups"} if task.groups else set()) <= self.kind.ASKS


PLAIN, NUMBERS = "plain.parquet", "u64.parquet"
IN_MEMORY = partial(Polars, engine="in-memory")

CONTENDERS = {
    "tsstore": Contender(Tsstore, "lz4.run"),
    "read": Contender(Read, "lz4.run"),
    "tsstore-zstd": Contender(Tsstore, "zstd.run"),
    "read-zstd": Contender(Read, "zstd.run"),
    "duckdb-plain": Contender(DuckDB, PLAIN),
    "duckdb-default": Contender(DuckDB, "default.parquet"),
    "duckdb-u64": Contender(DuckDB, NUMBERS),
    "duckdb-memory": Contender(partial(DuckDB, in_memory=True), PLAIN),
    "polars": Contender(Polars, PLAIN),
    "polars-u64": Contender(Polars, NUMBERS),
    "polars-memory": Contender(IN_MEMORY, PLAIN),
    "polars-memory-u64": Contender(IN_MEMORY, NUMBERS),
    "pandas": Contender(Pandas, PLAIN, is_slow=True),
    "pandas-u64": Contender(Pandas, NUMBERS),
    "dask": Contender(Dask, PLAIN, is_slow=True),
    "dask-u64": Contender(Dask, NUMBERS, is_slow=True),
    "numpy": Contender(Numpy, PLAIN, is_slow=True),
    "numpy-u64": Contender(partial(Numpy, as_numbers=True), PLAIN, widths=(3, 8)),
}
