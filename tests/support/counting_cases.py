"""What the tests of counting share: keys and records, and what dictionaries count of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import scatter
from tsstore.counting.premerge import hot_keys as hot
from tsstore.counting.premerge.hot_keys import HotKeys
from tsstore.counting.premerge.within_samples import merge_samples
from tsstore.counting.records import Records
from tsstore.counting.tables.spectra import Tally

WIDTHS = [1, 2, 3, 5, 9]
"""Words of keys: of short rows, of longer ones, and of exact keys of wide and wider rows."""


SHAPES = {
    "all equal": np.zeros(2000, np.int64),
    "all distinct": np.arange(2000),
    "two states": np.arange(2000) % 2,
    "sorted": np.sort(np.arange(2000) % 900),
    "one state 99 %": np.where(np.arange(2000) % 100 == 0, np.arange(2000), 0),
    "equally frequent": np.random.default_rng(1).permutation(2000) % 400,
    "neighbours equal": np.arange(2000) // 2,
    "every state twice": np.arange(2000) % 1000,
    "half of it repeated": np.where(np.arange(2000) < 1000, np.arange(2000), 7),
}
"""Extreme data, as numbers of states."""

of_each_shape = pytest.mark.parametrize("ids", SHAPES.values(), ids=SHAPES)


def mixed(ids: np.ndarray, words: int, prefix_bits: int = 0) -> np.ndarray:
    """Keys of which every distinct id has its own, of bits that look random after some zeros."""
    distinct, numbers = np.unique(ids, return_inverse=True)
    keys = np.random.default_rng(7).integers(0, 2**64, (len(distinct), words), np.uint64)
    keys[:, 0] >>= np.uint64(prefix_bits)
    return keys[numbers]


def crafted(count: int, words: int) -> np.ndarray:
    """Distinct keys, the low 40 bits of whose hashes are all the same."""
    keys = np.zeros((count, words), np.uint64)
    keys[:, 0] = np.arange(count, dtype=np.uint64) << np.uint64(40)
    return keys


def random_records(
    seed: int,
    count: int,
    distinct: int,
    words: int,
    *,
    bare: bool = False,
    groups: int = 0,
    prefix_bits: int = 0,
) -> Records:
    """Records of some of so many keys; equal keys whatever the seed and the kind."""
    generator = np.random.default_rng(seed)
    keys = mixed(np.arange(distinct), words, prefix_bits)[generator.integers(0, distinct, count)]
    incidence = None if bare else generator.integers(1, 9, count).astype(np.uint32)
    multiplicity = None if incidence is None else incidence * np.uint32(2)
    group = generator.integers(0, groups, count).astype(np.uint8) if groups else None
    return Records(keys, multiplicity, incidence, group)


def rows_of(records: Records) -> list[tuple[tuple[int, ...], int, int, int]]:
    """Key, multiplicity, incidence and group of each record, in plain numbers."""
    ones, zeros = [1] * len(records), [0] * len(records)
    multiplicity = ones if records.multiplicity is None else records.multiplicity.tolist()
    incidence = ones if records.incidence is None else records.incidence.tolist()
    group = zeros if records.group is None else records.group.tolist()
    keys = map(tuple, records.keys.tolist())
    return list(zip(keys, multiplicity, incidence, group, strict=True))


def totals(pieces: Iterable[Records]) -> dict[Any, tuple[int, int]]:
    """Multiplicity and incidence of each key."""
    return {key: pair for (key, _), pair in _sums(pieces, by_group=False).items()}


def totals_by_group(pieces: Iterable[Records]) -> dict[Any, tuple[int, int]]:
    """Multiplicity and incidence of each key and group."""
    return _sums(pieces, by_group=True)


def _sums(pieces: Iterable[Records], by_group: bool) -> dict[Any, tuple[int, int]]:
    sums: dict[Any, tuple[int, int]] = {}
    for piece in pieces:
        for key, k, q, group in rows_of(piece):
            place = key, group if by_group else 0
            before = sums.get(place, (0, 0))
            sums[place] = before[0] + k, before[1] + q
    return sums


def spectrum_of(pieces: Iterable[Records]) -> Counter:
    """How many keys have each multiplicity and incidence."""
    return Counter(totals(pieces).values())


def changes_of(pieces: Iterable[Records]) -> Counter:
    """What leaving out each group changes in the spectrum, by group, multiplicity, incidence."""
    pieces = list(pieces)
    every, changes = totals(pieces), Counter()
    for (key, group), (k, q) in totals_by_group(pieces).items():
        all_k, all_q = every[key]
        changes[group, all_k, all_q] -= 1
        if all_k > k:
            changes[group, all_k - k, all_q - q] += 1
    return without_zeros(changes)


def without_zeros(counter: Counter) -> Counter:
    return Counter({cell: states for cell, states in counter.items() if states})


def rows_of_states(seed: int, count: int, distinct: int, row_bytes: int) -> np.ndarray:
    """Rows that are each one of so many states."""
    generator = np.random.default_rng(seed)
    states = generator.integers(0, 256, (distinct, row_bytes), np.uint8)
    return states[generator.integers(0, distinct, count)]


def true_spectrum(rows: np.ndarray, positions: Iterable[int], left_out: Any = ()) -> Counter:
    """The spectrum by its definition: a Counter of rows, and a set of rows for each sample."""
    contents = [row.tobytes() for row in rows]
    multiplicity: Counter = Counter()
    incidence: Counter = Counter()
    start = 0
    for sample, count in enumerate(positions):
        of_sample = contents[start : start + count]
        start += count
        if sample not in left_out:
            multiplicity.update(of_sample)
            incidence.update(set(of_sample))
    return Counter((multiplicity[state], incidence[state]) for state in multiplicity)


def merged(
    keys: np.ndarray,
    positions: np.ndarray,
    group: np.ndarray | None = None,
    groups: int = 1,
    hot_keys: HotKeys | None = None,
) -> tuple[list[Records], np.ndarray]:
    """All records of a block of one piece, those of hot keys last, and its equal pairs."""
    table = hot_keys or HotKeys(keys.shape[1], groups if group is not None else 0, len(keys))
    table.begin()
    records, equal_pairs = merge_samples(keys, positions, table, group)
    return records + table.take(), equal_pairs


def check_merged(
    keys: np.ndarray,
    positions: np.ndarray,
    group: np.ndarray | None = None,
    groups: int = 1,
    hot_keys: HotKeys | None = None,
) -> list[Records]:
    """Compare what is merged of samples with a Counter of each; return it."""
    multiplicity, incidence, pairs, start = Counter(), Counter(), [0] * groups, 0
    own = [0] * len(positions) if group is None else group.tolist()
    for count, of_group in zip(positions.tolist(), own, strict=True):
        sample = Counter(map(tuple, keys[start : start + count].tolist()))
        start += count
        for key, times in sample.items():
            multiplicity[key, of_group] += times
            incidence[key, of_group] += 1
            pairs[of_group] += times * (times - 1) // 2
    pieces, equal_pairs = merged(keys, positions, group, groups, hot_keys)
    assert equal_pairs.dtype == np.int64
    assert equal_pairs.tolist() == pairs
    assert totals_by_group(pieces) == {
        place: (times, incidence[place]) for place, times in multiplicity.items()
    }
    assert all((piece.group is None) == (group is None) for piece in pieces)
    return pieces


def partitions_of(
    scheme: KeyScheme,
    rows: np.ndarray,
    positions: np.ndarray,
    bits: int,
    group: np.ndarray | None = None,
    groups: int = 1,
) -> list[list[Records]]:
    """Records by partition, merged and scattered in blocks of three samples, or in 60 blocks."""
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(positions)])
    partitions: list[list[Records]] = [[] for _ in range(2**bits)]
    block = max(3, len(positions) // 60)
    for first in range(0, len(positions), block):
        own = slice(first, min(first + block, len(positions)))
        keys = scheme.keys(rows[ends[own.start] : ends[own.stop]])
        own_group = None if group is None else group[own]
        pieces, _ = merged(keys, positions[own], own_group, groups)
        for piece in pieces:
            records, offsets = scatter([piece], bits)
            for partition, pieces_of_it in enumerate(partitions):
                pieces_of_it.append(records[offsets[partition] : offsets[partition + 1]])
    return partitions


def as_counter(spectrum: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Counter:
    """A spectrum as a Counter of (k, q); it must be sorted, and have each pair once."""
    k, q, states = spectrum
    assert k.dtype == q.dtype == states.dtype == np.int64
    pairs = list(zip(k.tolist(), q.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    counter = Counter(dict(zip(pairs, states.tolist(), strict=True)))
    assert min(counter.values(), default=1) > 0
    return counter


def changes_as_counter(changes: Any) -> Counter:
    """Entries as a Counter of (group, k, q); none may come twice."""
    group = np.repeat(np.arange(len(changes.ends)), np.diff(changes.ends, prepend=0)).tolist()
    k, q, states = (column.tolist() for column in changes.columns)
    assert group == sorted(group)
    cells = list(zip(group, k, q, strict=True))
    assert len(set(cells)) == len(cells) == len(changes)
    return without_zeros(Counter(dict(zip(cells, states, strict=True))))


def sample_few_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Let hot keys be chosen in pieces of twice so many rows or more, from a sample of so many."""
    monkeypatch.setattr(hot, "LEAST_ROWS", 2 * rows)
    monkeypatch.setattr(hot, "TRIED_ROWS", rows)
    monkeypatch.setattr(hot, "SAMPLE_ROWS", rows)


def run_as_plain_python(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Let the loops that modules define, or take from elsewhere, run without having been compiled.

    Products wrap around in both, which NumPy warns of: run what follows with
    ``np.errstate(over="ignore")``.
    """
    for module in modules:
        loops = {name: own for name, own in vars(module).items() if hasattr(own, "py_func")}
        assert loops, f"{module.__name__} has no loops"
        for name, loop in loops.items():
            monkeypatch.setattr(module, name, loop.py_func)


def spectrum_counts(multiplicity: np.ndarray, incidence: np.ndarray) -> Any:
    """Return the spectrum of distinct states, as a tally counts it."""
    tally = Tally()
    tally.add(multiplicity, incidence)
    return tally.spectrum()
