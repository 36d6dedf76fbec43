"""Records, the one currency of counting: a key, in how many rows and in how many samples.

Whatever is merged early, or not at all, becomes records, and one table takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Records:
    """Keys with their multiplicities and incidences; a key may occur in several records.

    Attributes
    ----------
    keys
        uint64 (records, words), C-contiguous, 1 or 2 words. Word 0 is the hash: 64 mixed bits.
    multiplicity
        uint32 (records,): the number of rows that a record stands for, at least 1.
    incidence
        uint32 (records,): the number of samples that those rows come from, at least 1.
    group
        uint8 (records,): the group of samples that they come from; None where groups are not told
        apart.

    Raises
    ------
    ValueError
        If a dtype, a shape or the memory layout is another.
    """

    keys: NDArray[np.uint64]
    multiplicity: NDArray[np.uint32]
    incidence: NDArray[np.uint32]
    group: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        keys = self.keys
        if keys.dtype != np.uint64 or keys.ndim != 2 or keys.shape[1] not in (1, 2):
            raise ValueError(
                f"keys are {keys.dtype} {keys.shape}; expected uint64 (records, 1 or 2)"
            )
        if not keys.flags.c_contiguous:
            raise ValueError("keys are not C-contiguous; pass np.ascontiguousarray(keys)")
        for name, counts in (("multiplicity", self.multiplicity), ("incidence", self.incidence)):
            if counts.dtype != np.uint32 or counts.shape != (len(keys),):
                raise ValueError(
                    f"{name} is {counts.dtype} {counts.shape}; expected uint32 ({len(keys)},)"
                )
        group = self.group
        if group is not None and (group.dtype != np.uint8 or group.shape != (len(keys),)):
            raise ValueError(
                f"group is {group.dtype} {group.shape}; expected uint8 ({len(keys)},) or None"
            )

    @classmethod
    def bare(cls, keys: NDArray[np.uint64], group: NDArray[np.uint8] | None = None) -> Records:
        """Give each key a multiplicity and an incidence of 1."""
        return cls(keys, np.ones(len(keys), np.uint32), np.ones(len(keys), np.uint32), group)

    @classmethod
    def empty(cls, words: int) -> Records:
        """No records, of keys of 1 or 2 words."""
        return cls.bare(np.empty((0, words), np.uint64))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, span: slice) -> Records:
        """Take consecutive records, as views; a slice's step must be 1."""
        group = None if self.group is None else self.group[span]
        return Records(self.keys[span], self.multiplicity[span], self.incidence[span], group)

    @property
    def words(self) -> int:
        """Number of uint64 words of a key: 1 or 2."""
        return int(self.keys.shape[1])

    @property
    def rows(self) -> int:
        """Number of rows that all records together stand for."""
        return int(self.multiplicity.sum(dtype=np.uint64))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        group = 0 if self.group is None else self.group.nbytes
        return self.keys.nbytes + self.multiplicity.nbytes + self.incidence.nbytes + group


def concatenate(pieces: Sequence[Records]) -> Records:
    """Put records one after another, in the order given.

    Raises
    ------
    ValueError
        If there are no pieces, their keys differ in their number of words, or some of them tell
        groups apart and others do not.
    """
    words = {piece.words for piece in pieces}
    if len(words) != 1:
        raise ValueError(
            f"{len(pieces)} pieces with keys of {sorted(words)} words; expected at least one piece"
            " and one number of words; for no records use Records.empty(words)"
        )
    groups = [piece.group for piece in pieces if piece.group is not None]
    if len(groups) not in (0, len(pieces)):
        raise ValueError(
            f"{len(groups)} of {len(pieces)} pieces tell groups apart; expected none or all"
        )
    return Records(
        np.concatenate([piece.keys for piece in pieces]),
        np.concatenate([piece.multiplicity for piece in pieces]),
        np.concatenate([piece.incidence for piece in pieces]),
        np.concatenate(groups) if groups else None,
    )
