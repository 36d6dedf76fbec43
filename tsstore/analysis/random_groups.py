"""Random groups of samples, which intervals are made of; samples of one cluster stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tsstore.counting.premerge.samples import deal
from tsstore.errors import AnalysisError
from tsstore.numba_tools.words import GOLDEN, splitmix_words
from tsstore.store.chunked.reader import CommittedArray
from tsstore.store.reading.part import Part
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter
from tsstore.text import printable

GROUPS = 32
"""Enough for a standard error that is itself known to one part in eight; t with 31 degrees."""

MOST_GROUPS = 255

PIECE_SAMPLES = 1 << 14
"""Values of a column that are read at a time: text takes many bytes a sample."""

Sets = Mapping[str, npt.NDArray[np.int16]]
"""By directory of a part, which of some disjoint sets each sample is in; -1 for none."""

_Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Dealt:
    """Which samples the groups of an analysis hold, in few numbers.

    They were dealt by a sample column; whether some of its values were dealt together, `joined`
    tells. A group's digest is how many samples it holds, and the sum, modulo 2**64, of hashes of
    their values, which does not depend on their order.
    """

    by: str
    digests: tuple[tuple[int, int], ...]
    joined: bool = False

    def matches(self, other: Dealt) -> bool:
        """Return whether equal values fall into equal groups."""
        alike = (self.by, len(self.digests)) == (other.by, len(other.digests))
        return alike and (self == other or not (self.joined or other.joined))


@dataclass(frozen=True)
class RandomGroups:
    """Groups of samples, 1 to 255: by chance alone, or whole clusters together.

    Make one with `of_parts`. Reading a column that is not what was committed is a DamageError.

    Attributes
    ----------
    seed
        Gives the same groups each time.
    columns
        By directory of a part, the sample column whose values make the clusters: samples of one
        value fall into one group, whatever their parts. None: each sample is its own cluster.
    by
        Name of that column. Groups follow from its values alone: those of other runs match.
    joined
        Words of values whose clusters belong together, sorted, and a word for each that is the same
        for all of one cluster; None where each value is its own cluster.
    """

    count: int = GROUPS
    seed: int = 0
    columns: Mapping[str, CommittedArray] | None = None
    by: str | None = None
    joined: tuple[_Words, _Words] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_GROUPS:
            raise ValueError(f"{self.count} groups; expected 1 to {MOST_GROUPS}")

    @classmethod
    def of_parts(
        cls, parts: Iterable[Part], by: str | None = None, count: int = GROUPS, seed: int = 0
    ) -> Self:
        """Deal the samples of parts into groups, by a sample column if one is named."""
        if by is None:
            return cls(count, seed)
        columns = {part.directory: _column(part, by) for part in parts if part.samples}
        return cls(count, seed, columns, by)

    def joining(
        self, members: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
    ) -> Self:
        """Return these groups, with all clusters as one that hold samples of one number.

        Clusters that are linked by others are one, too: connected components. The members are, by
        directory of a part, indices of samples, sorted, and a number for each.
        """
        if not members or self.columns is None:
            return self
        words, numbers = [], []
        for directory, first, piece in self._pieces(members):
            own, number = members[directory]
            some = slice(*np.searchsorted(own, [first, first + len(piece)]))
            words.append(piece[own[some] - first])
            numbers.append(number[some])
        return replace(self, joined=_join(np.concatenate(words), np.concatenate(numbers)))

    def _as_joined(self, words: _Words) -> _Words:
        """Return words that are the same for all samples of a cluster."""
        if self.joined is None or not len(self.joined[0]):
            return words
        known, roots = self.joined
        places = np.searchsorted(known, words)
        places[places == len(known)] = 0
        return np.where(known[places] == words, roots[places], words)

    def count_clusters(self, sample_filter: SampleFilter = ALL_SAMPLES) -> int | None:
        """Return the number of clusters that have samples; None if each sample is its own."""
        if self.columns is None:
            return None
        known, new = np.empty(0, np.uint64), [np.empty(0, np.uint64)]
        for directory, first, words in self._pieces(self.columns):
            kept = sample_filter.select(words, directory, first)
            new.append(np.unique(self._as_joined(kept)))
            # Merged once there are as many new ones as known ones, each is sorted a few times.
            if sum(map(len, new)) > len(known):
                known, new = np.unique(np.concatenate([known, *new])), []
        return len(np.unique(np.concatenate([known, *new])))

    def of_samples(self, directory: str, first_sample: int, samples: int) -> npt.NDArray[np.uint8]:
        """Return the groups of consecutive samples of a part, uint8 (samples,)."""
        stop = first_sample + samples
        if not samples:
            return np.empty(0, np.uint8)
        if self.columns is None:
            name, pieces = directory, _numbered_words(first_sample, stop)
        else:
            name, pieces = "", _word_pieces(self.columns[directory], first_sample, stop)
        return np.concatenate([self._groups(self._as_joined(words), name) for words in pieces])

    def clusters_of(self, directory: str, samples: int) -> _Words | None:
        """Return a word for each sample of a part, equal in a cluster; None where all differ."""
        if self.columns is None:
            return None
        pieces = _word_pieces(self.columns[directory], 0, samples) if samples else ()
        return np.concatenate([np.empty(0, np.uint64), *map(self._as_joined, pieces)])

    def dealt(
        self, sample_filter: SampleFilter = ALL_SAMPLES, sets: Sets | None = None, count: int = 1
    ) -> list[Dealt | None]:
        """Return which samples each group holds, of each of so many sets, or of all as one.

        None if their place in their parts tells that.
        """
        if self.columns is None or self.by is None:
            return [None] * count
        counts = np.zeros((count, self.count), np.int64)
        sums = counts.astype(np.uint64)
        for directory, first, words in self._pieces(self.columns):
            own = sets_of(sets, directory, first, len(words), sample_filter)
            cell = own[own >= 0], self._groups(self._as_joined(words), "")[own >= 0]
            np.add.at(counts, cell, 1)
            # Sums of hashes tell sets of words from each other.
            np.add.at(sums, cell, splitmix_words(words)[own >= 0])
        joined = self.joined is not None and len(self.joined[0]) > 0
        digests = [
            tuple(zip(*pair, strict=True))
            for pair in zip(counts.tolist(), sums.tolist(), strict=True)
        ]
        return [Dealt(self.by, own, joined) for own in digests]

    def _pieces(self, directories: Iterable[str]) -> Iterator[tuple[str, int, _Words]]:
        """Yield words of the samples of parts, some at a time: with their part and first sample."""
        for directory in directories:
            column, first = (self.columns or {})[directory], 0
            for words in _word_pieces(column, 0, column.commit.rows):
                yield directory, first, words
                first += len(words)

    def _groups(self, words: _Words, name: str) -> npt.NDArray[np.uint8]:
        """Return groups that are equal where the words are."""
        groups = np.empty(len(words), np.uint8)
        deal(words, np.uint64(_word(f"{self.seed}/{name}")), self.count, groups)
        return groups


def sets_of(
    sets: Sets | None, directory: str, first: int, samples: int, sample_filter: SampleFilter
) -> npt.NDArray[np.int16]:
    """Return the sets of consecutive samples of a part, -1 of those that are left out."""
    own = np.zeros(samples, np.int16)
    if sets is not None:
        own = sets[directory][first : first + samples].copy()
    kept = sample_filter.kept(directory, first, samples)
    if kept is not None:
        own[~kept] = -1
    return own


def _join(words: _Words, numbers: npt.NDArray[np.int64]) -> tuple[_Words, _Words]:
    """Return words that numbers link to others, sorted, and the first word of each component."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    known, word = np.unique(words, return_inverse=True)
    linked, number = np.unique(numbers, return_inverse=True)
    size = len(known) + len(linked)
    links = (np.ones(len(word), np.int8), (word, len(known) + number))
    _, component = connected_components(coo_matrix(links, (size, size)), directed=False)
    _, first, place = np.unique(component[: len(known)], return_index=True, return_inverse=True)
    roots = known[first[place]]
    moved = roots != known
    return known[moved], roots[moved]


def _column(part: Part, name: str) -> CommittedArray:
    if name not in part.columns:
        raise AnalysisError(
            f"{part.files.location}/{part.directory} has no sample column {name!r:.80} to make "
            f"clusters of; it has {', '.join(map(printable, part.columns)) or 'none'}"
        )
    return part.columns[name]


def _word_pieces(column: CommittedArray, start: int, stop: int) -> Iterator[_Words]:
    """Yield the words of a column's values from start to stop, some of them at a time."""
    for first in range(start, stop, PIECE_SAMPLES):
        yield _words(column.read(first, min(first + PIECE_SAMPLES, stop)))


def _numbered_words(start: int, stop: int) -> Iterator[_Words]:
    """Yield words of samples by their numbers, as many at a time as stay in the cache."""
    for first in range(start, stop, PIECE_SAMPLES):
        yield np.arange(first, min(first + PIECE_SAMPLES, stop), dtype=np.uint64) * GOLDEN


def _words(values: npt.NDArray[Any]) -> _Words:
    """Return a word for each value, as a new array: equal for equal values, whatever their types.

    NaN, which is how a missing number is written, is one value.
    """
    if values.dtype.kind == "O":
        import pandas as pd

        return pd.util.hash_array(values, categorize=False)
    if values.dtype.kind != "f":
        # Negative numbers are not those that are larger by 2⁶⁴.
        return values.astype(np.uint64) * GOLDEN + (values < 0)
    numbers = values.astype(np.float64)
    numbers[np.isnan(numbers)] = np.nan
    words = numbers.view(np.uint64).copy()
    whole = np.flatnonzero((numbers == np.trunc(numbers)) & (np.abs(numbers) < 2.0**63))
    words *= GOLDEN
    words[whole] = _words(numbers[whole].astype(np.int64))
    return words


def _word(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
