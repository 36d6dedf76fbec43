"""Records, the one currency of counting: a key, in how many rows and in how many samples.

Most records of a large layer stand for one row: those are *bare*, a key and nothing else. Whatever
was merged early has counts beside its keys. One table takes both. The memory in which records and
other arrays lie is used again and again, so that it is taken from the system once.

Bare records lie in the order of samples, and the top bit of each is a *tag*: it is set if the row
is of a later sample than the record before. So a table that takes one after the other knows where
samples begin, counts how many show a state, and finds equal rows of one sample, without a number of
the sample in each record. The bit that was there is the same in all records of a partition, which
implies it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from tsstore.counting.arena import Arena, Empty
from tsstore.numba_tools.arrays import I64, U8, U32, U64

Groups = NDArray[np.uint8 | np.uint16]
"""The group of each sample or record: numbers as wide as they need be."""

_GROUP_DTYPES: dict[int, type[np.uint8 | np.uint16]] = {1: np.uint8, 2: np.uint16}
TAG_SHIFT: Final = np.uint64(63)
LATER: Final = np.uint64(1 << 63)
"""The tag of a bare record, in word 0 of its key: its row is of a later sample than the last."""

_KINDS = {
    "multiplicity": (np.dtype(np.uint32),),
    "incidence": (np.dtype(np.uint32),),
    "group": tuple(map(np.dtype, _GROUP_DTYPES.values())),
}


@dataclass(frozen=True, eq=False)
class Records:
    """Keys with their multiplicities and incidences; a key may occur in several records.

    Attributes
    ----------
    keys
        uint64 (records, words), C-contiguous. Word 0 is the hash: 64 mixed bits, or in bare records
        a tag, :data:`LATER` or 0, and 63 mixed bits. The tag of the first one is set.
    multiplicity
        uint32 (records,): the number of rows that a record stands for, at least 1. None: 1 each.
    incidence
        uint32 (records,): the number of samples that those rows come from, at least 1; no other
        record has rows of these samples with this key. None where there is no multiplicity: tags
        tell.
    group
        uint8 or uint16 (records,): the group of samples that they come from; None where groups are
        not told apart.
    """

    keys: U64
    multiplicity: U32 | None = None
    incidence: U32 | None = None
    group: Groups | None = None

    def __post_init__(self) -> None:
        keys = self.keys
        if keys.dtype != np.uint64 or keys.ndim != 2 or keys.shape[1] < 1:
            raise ValueError(
                f"keys are {keys.dtype} {keys.shape}; expected uint64 (records, 1 or more)"
            )
        if not keys.flags.c_contiguous:
            raise ValueError("keys are not C-contiguous; pass np.ascontiguousarray(keys)")
        if (self.multiplicity is None) != (self.incidence is None):
            raise ValueError("multiplicity or incidence is None; expected both or neither")
        for name, kinds in _KINDS.items():
            column = getattr(self, name)
            if column is not None and (column.dtype not in kinds or column.shape != keys.shape[:1]):
                raise ValueError(
                    f"{name} is {column.dtype} {column.shape}; expected "
                    f"{' or '.join(map(str, kinds))} ({len(keys)},)"
                )

    @classmethod
    def empty(
        cls,
        words: int,
        bare: bool = True,
        group_bytes: int = 0,
        count: int = 0,
        empty: Empty = np.empty,
    ) -> Records:
        """Room for so many: with keys of so many words, with counts or without, and with groups."""
        multiplicity, incidence = (None, None) if bare else empty((2, count), np.uint32)
        group = empty((count,), _GROUP_DTYPES[group_bytes]) if group_bytes else None
        return cls(empty((count, words), np.uint64), multiplicity, incidence, group)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, span: slice) -> Records:
        """Take consecutive records, as views; a slice's step must be 1."""
        return Records(
            self.keys[span],
            None if self.multiplicity is None else self.multiplicity[span],
            None if self.incidence is None else self.incidence[span],
            None if self.group is None else self.group[span],
        )

    @property
    def is_bare(self) -> bool:
        """Whether each record stands for one row."""
        return self.multiplicity is None

    @property
    def words(self) -> int:
        """Number of uint64 words of a key."""
        return int(self.keys.shape[1])

    @property
    def rows(self) -> int:
        """Number of rows that all records together stand for."""
        if self.multiplicity is None:
            return len(self)
        return int(self.multiplicity.sum(dtype=np.uint64))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return len(self) * record_bytes(self.words, self.is_bare, self.group_bytes)

    @property
    def group_bytes(self) -> int:
        """Bytes of a group's number; 0 where groups are not told apart."""
        return 0 if self.group is None else self.group.itemsize

    def arrays(self) -> Iterator[U64 | U32 | Groups]:
        """Yield those of keys, multiplicity, incidence and group that there are."""
        return (column for column in self.columns if column is not None)

    @property
    def columns(self) -> tuple[U64, U32 | None, U32 | None, Groups | None]:
        """Keys, multiplicity, incidence and group."""
        return self.keys, self.multiplicity, self.incidence, self.group


@dataclass(frozen=True, eq=False)
class SampleKeys:
    """Keys of rows, sample after sample.

    Attributes
    ----------
    keys
        uint64 (rows, words), C-contiguous, all bits of the hash.
    ends
        int64 (samples,): where the keys of each sample end. None: each row is a sample.
    group
        uint8 or uint16 (samples,): the group of each sample, if groups are told apart.
    spare
        uint64 (rows or more, words): memory that is at hand while rows are put in order.
    """

    keys: U64
    ends: I64 | None = None
    group: Groups | None = None
    spare: U64 | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def group_bytes(self) -> int:
        """Bytes of a group's number; 0 where groups are not told apart."""
        return 0 if self.group is None else self.group.itemsize


def counted_columns(records: Records) -> tuple[U64, U32, U32, Groups | None]:
    """Return the columns of records that are not bare."""
    if records.multiplicity is None or records.incidence is None:
        raise ValueError("the records are bare; expected some with counts")
    return records.keys, records.multiplicity, records.incidence, records.group


def checked_groups(records: Records, groups: int) -> Groups:
    """Return the groups of records, all of which must be among so many."""
    if records.group is None:
        raise ValueError("the records do not tell groups apart; count them in a Table")
    if records.group.max(initial=0) >= groups:
        raise ValueError(f"a record is of group {records.group.max()} of {groups}")
    return records.group


def bytes_of_group(groups: int) -> int:
    """Bytes of a number of one of so many groups; 0 where there are none."""
    return (groups > 0) + (groups > 1 << 8)


def group_dtype(groups: int) -> type[np.uint8 | np.uint16]:
    """Return the type of a number of one of so many groups, one at least."""
    return _GROUP_DTYPES[bytes_of_group(groups)]


def record_bytes(words: int, bare: bool, group_bytes: int) -> int:
    """Bytes of a record of a key of so many words, with or without counts and a group."""
    return 8 * words + 8 * (not bare) + group_bytes


_Kept = TypeVar("_Kept")


class Buffers(threading.local):
    """Arrays by name, and other things: each thread has its own, and one task at a time.

    Their memory is of an arena, if there is one. What is sent to another process is empty there.

    Attributes
    ----------
    empty, zeros
        Make arrays as NumPy does, in the same memory.
    """

    def __init__(self, arena: Arena | None = None) -> None:
        self.empty: Empty = np.empty if arena is None else arena.empty
        self.zeros: Empty = np.zeros if arena is None else arena.zeros
        self._arrays: dict[str, U8] = {}
        self._kept: dict[object, Any] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Return an array of a name, C-contiguous and of any contents; what was there is lost."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        held = self._arrays.get(name)
        if held is None or held.size < size:
            self._arrays.pop(name, None)
            # A little more, as the next one may be a little larger.
            held = self._arrays[name] = self.empty((size + size // 16,), np.uint8)
        return held[:size].view(dtype).reshape(shape)

    def records(self, name: str, count: int, words: int, bare: bool, group_bytes: int) -> Records:
        """Return arrays for so many records, with keys of so many words; see :meth:`array`."""

        def column(of: str, dtype: type[np.generic], *shape: int) -> NDArray[Any]:
            return self.array(f"{name} {of}", (count, *shape), dtype)

        return Records(
            column("keys", np.uint64, words),
            None if bare else column("multiplicity", np.uint32),
            None if bare else column("incidence", np.uint32),
            column("group", _GROUP_DTYPES[group_bytes]) if group_bytes else None,
        )

    def kept(self, name: object, make: Callable[[], _Kept]) -> _Kept:
        """Return what was made under a name, as it was left, or make it."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
