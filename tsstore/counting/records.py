"""Records, the one currency of counting: a key, in how many rows and in how many samples.

Most records of a large layer stand for one row: those are *bare*, a key and nothing else. Whatever
was merged early has counts beside its keys. One table takes both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Records:
    """Keys with their multiplicities and incidences; a key may occur in several records.

    Attributes
    ----------
    keys
        uint64 (records, words), C-contiguous. Word 0 is the hash: 64 mixed bits.
    multiplicity
        uint32 (records,): the number of rows that a record stands for, at least 1. None: 1 each.
    incidence
        uint32 (records,): the number of samples that those rows come from, at least 1. None where
        there is no multiplicity: 1 each.
    group
        uint8 (records,): the group of samples that they come from; None where groups are not told
        apart.
    """

    keys: NDArray[np.uint64]
    multiplicity: NDArray[np.uint32] | None = None
    incidence: NDArray[np.uint32] | None = None
    group: NDArray[np.uint8] | None = None

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
        for name, counts in (("multiplicity", self.multiplicity), ("incidence", self.incidence)):
            if counts is not None and (counts.dtype != np.uint32 or counts.shape != (len(keys),)):
                raise ValueError(
                    f"{name} is {counts.dtype} {counts.shape}; expected uint32 ({len(keys)},)"
                )
        group = self.group
        if group is not None and (group.dtype != np.uint8 or group.shape != (len(keys),)):
            raise ValueError(
                f"group is {group.dtype} {group.shape}; expected uint8 ({len(keys)},) or None"
            )

    @classmethod
    def empty(cls, words: int, bare: bool = True, grouped: bool = False, count: int = 0) -> Records:
        """Room for so many: with keys of so many words, with or without counts and groups."""
        multiplicity, incidence = (None, None) if bare else np.empty((2, count), np.uint32)
        group = np.empty(count, np.uint8) if grouped else None
        return cls(np.empty((count, words), np.uint64), multiplicity, incidence, group)

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
        return sum(column.nbytes for column in self.arrays())

    def arrays(self) -> Iterator[NDArray[np.uint64] | NDArray[np.uint32] | NDArray[np.uint8]]:
        """Yield those of keys, multiplicity, incidence and group that there are."""
        return (column for column in self.columns if column is not None)

    @property
    def columns(
        self,
    ) -> tuple[
        NDArray[np.uint64],
        NDArray[np.uint32] | None,
        NDArray[np.uint32] | None,
        NDArray[np.uint8] | None,
    ]:
        """Keys, multiplicity, incidence and group."""
        return self.keys, self.multiplicity, self.incidence, self.group


def counted_columns(
    records: Records,
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint8] | None]:
    """Return the columns of records that are not bare."""
    if records.multiplicity is None or records.incidence is None:
        raise ValueError("the records are bare; expected some with counts")
    return records.keys, records.multiplicity, records.incidence, records.group


def checked_groups(records: Records, groups: int) -> NDArray[np.uint8]:
    """Return the groups of records, all of which must be among so many."""
    if records.group is None:
        raise ValueError("the records do not tell groups apart; count them in a Table")
    if records.group.max(initial=0) >= groups:
        raise ValueError(f"a record is of group {records.group.max()} of {groups}")
    return records.group


def record_bytes(words: int, bare: bool, grouped: bool) -> int:
    """Bytes of a record of a key of so many words, with or without counts and a group."""
    return 8 * words + 8 * (not bare) + grouped
