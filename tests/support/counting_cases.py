"""What the tests of counting share: keys and records, and what dictionaries count of them."""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from tsstore.counting import hashing, partition, parts, tables
from tsstore.counting.keys import KeyScheme
from tsstore.counting.partition import scatter, scatter_rows
from tsstore.counting.parts import PartPiece, Parts, divide_rows, tag_rows
from tsstore.counting.premerge import hot_keys as hot
from tsstore.counting.premerge.cold_keys import absorb_hot_keys
from tsstore.counting.premerge.hot_keys import HotKeys
from tsstore.counting.records import LATER, Records, SampleKeys
from tsstore.counting.tables.spectra import Tally
from tsstore.numba_tools.intrinsics import words_at

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


def mixed(ids: np.ndarray, words: int, prefix_bits: int = 1) -> np.ndarray:
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


def tagged(
    keys: np.ndarray, positions: np.ndarray | None = None, group: np.ndarray | None = None
) -> Records:
    """Bare records of samples of so many rows each, and of such groups; None: one row each."""
    if positions is None:
        positions = np.ones(len(keys), np.int64)
    starts = np.cumsum(positions) - positions
    keys = keys.copy()
    keys[:, 0] &= ~LATER
    keys[starts[positions > 0], 0] |= LATER
    return Records(keys, group=None if group is None else np.repeat(group, positions))


def random_positions(seed: int, rows: int) -> np.ndarray:
    """Rows of samples of all sizes from 0 on, that add up to so many."""
    generator = np.random.default_rng(seed)
    ends = np.sort(generator.integers(0, rows + 1, generator.integers(0, rows + 1)))
    return np.diff(ends, prepend=0, append=rows)


def random_records(
    seed: int,
    count: int,
    distinct: int,
    words: int,
    *,
    bare: bool = False,
    groups: int = 0,
    prefix_bits: int = 1,
) -> Records:
    """Records of some of so many keys, bare ones of samples of all sizes; equal keys whatever the
    seed and the kind."""
    generator = np.random.default_rng(seed)
    keys = mixed(np.arange(distinct), words, prefix_bits)[generator.integers(0, distinct, count)]
    positions = random_positions(seed, count) if bare else np.ones(count, np.int64)
    group = generator.integers(0, groups, len(positions)).astype(np.uint8) if groups else None
    if bare:
        return tagged(keys, positions, group)
    incidence = generator.integers(1, 9, count).astype(np.uint32)
    return Records(keys, incidence * np.uint32(2), incidence, group)


def number_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys, sorted, and of each key its number among them."""
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.empty(len(keys), np.int64)
    numbers[order] = np.cumsum(is_first) - 1
    return ordered[is_first], numbers


def columns_of(records: Records) -> tuple[np.ndarray, ...]:
    """Key, multiplicity, incidence and group of each record.

    A bare record has no tag here, and an incidence of 0 where an equal one of its sample came
    before it.
    """
    keys, count = records.keys, len(records)
    k = q = np.ones(count, np.int64)
    group = np.zeros(count, np.int64) if records.group is None else records.group.astype(np.int64)
    if records.multiplicity is not None and records.incidence is not None:
        k, q = records.multiplicity.astype(np.int64), records.incidence.astype(np.int64)
    else:
        keys, samples = keys_and_samples(records)
        cells = samples * (count + 1) + number_keys(keys)[1]
        q = np.zeros(count, np.int64)
        q[np.unique(cells, return_index=True)[1]] = 1
    return keys, k, q, group


def rows_of(records: Records) -> list[tuple[tuple[int, ...], int, int, int]]:
    """The same of each record in plain numbers."""
    keys, *others = (column.tolist() for column in columns_of(records))
    return list(zip(map(tuple, keys), *others, strict=True))


def keys_and_samples(bare: Records) -> tuple[np.ndarray, np.ndarray]:
    """Keys of bare records without tags, and the number of each one's sample."""
    keys = bare.keys.copy()
    keys[:, 0] &= ~LATER
    return keys, np.cumsum((bare.keys[:, 0] >> np.uint64(63)).astype(np.int64))


def equal_pairs_of(pieces: Iterable[Records], groups: int = 1) -> list[int]:
    """Pairs of bare records of one sample that are equal, by group."""
    pairs = np.zeros(groups, np.int64)
    for piece in pieces:
        if piece.is_bare:
            keys, samples = keys_and_samples(piece)
            group = samples * 0 if piece.group is None else piece.group.astype(np.int64)
            cells = (samples * (len(piece) + 1) + number_keys(keys)[1]) * groups + group
            found, times = np.unique(cells, return_counts=True)
            np.add.at(pairs, found % groups, times * (times - 1) // 2)
    return pairs.tolist()


class Sums(NamedTuple):
    """Multiplicity and incidence of each key, and those of each key in each group."""

    keys: np.ndarray
    k: np.ndarray
    q: np.ndarray
    number_of: np.ndarray
    """Of each key and group, the number of its key."""
    group: np.ndarray
    k_of: np.ndarray
    q_of: np.ndarray


def sum_up(columns: Iterable[np.ndarray]) -> Sums:
    """Add up what :func:`columns_of` tells of records."""
    every, k, q, group = columns
    keys, numbers = number_keys(every)
    groups = group.max(initial=0) + 1
    cells, cell_of = np.unique(numbers * groups + group, return_inverse=True)

    def total(counts: np.ndarray, of: np.ndarray, places: int) -> np.ndarray:
        added = np.zeros(places, np.int64)
        np.add.at(added, of, counts)
        return added

    by_key = (total(counts, numbers, len(keys)) for counts in (k, q))
    by_cell = (total(counts, cell_of, len(cells)) for counts in (k, q))
    return Sums(keys, *by_key, cells // groups, cells % groups, *by_cell)


def join_columns(pieces: Iterable[Records]) -> list[np.ndarray]:
    """What :func:`columns_of` tells of all pieces."""
    columns = list(map(columns_of, pieces)) or [columns_of(Records.empty(1))]
    return [np.concatenate(own) for own in zip(*columns, strict=True)]


def totals(pieces: Iterable[Records]) -> dict[Any, tuple[int, int]]:
    """Multiplicity and incidence of each key."""
    keys, k, q, *_ = (column.tolist() for column in sum_up(join_columns(pieces)))
    return dict(zip(map(tuple, keys), zip(k, q, strict=True), strict=True))


def totals_by_group(pieces: Iterable[Records]) -> dict[Any, tuple[int, int]]:
    """Multiplicity and incidence of each key and group."""
    return by_key_and_group(sum_up(join_columns(pieces)))


def by_key_and_group(sums: Sums) -> dict[Any, tuple[int, int]]:
    keys = map(tuple, sums.keys[sums.number_of].tolist())
    places = zip(keys, sums.group.tolist(), strict=True)
    return dict(zip(places, pairs_of(sums.k_of, sums.q_of), strict=True))


def pairs_of(*columns: np.ndarray) -> Iterator[Any]:
    """Rows of some columns as plain numbers."""
    return zip(*(column.tolist() for column in columns), strict=True)


def spectrum_of(pieces: Iterable[Records]) -> Counter:
    """How many keys have each multiplicity and incidence."""
    sums = sum_up(join_columns(pieces))
    return Counter(pairs_of(sums.k, sums.q))


def changes_of(pieces: Iterable[Records]) -> Counter:
    """What leaving out each group changes in the spectrum, by group, multiplicity, incidence."""
    return _changes(sum_up(join_columns(pieces)))


def _changes(sums: Sums) -> Counter:
    k, q = sums.k[sums.number_of], sums.q[sums.number_of]
    rest = k > sums.k_of
    changes = Counter(pairs_of(*(c[rest] for c in (sums.group, k - sums.k_of, q - sums.q_of))))
    changes.subtract(Counter(pairs_of(sums.group, k, q)))
    return without_zeros(changes)


def changes_by_set(pieces: Iterable[Records], groups: int, sets: int) -> Counter:
    """All spectra, as a count of the records of each set alone gives them.

    Which are of a later sample is told by all records; each sample is in one set.
    """
    *columns, codes = join_columns(pieces)
    spectra = dict(_changes(sum_up([*columns, codes % groups])))
    for own in range(sets):
        chosen = codes // groups == own
        first = groups + own * (groups + 1)
        sums = sum_up([*(column[chosen] for column in columns), codes[chosen] % groups])
        spectra |= {(first + group, k, q): n for (group, k, q), n in _changes(sums).items()}
        shown = Counter(pairs_of(sums.k, sums.q))
        spectra |= {(first + groups, k, q): n for (k, q), n in shown.items()}
    return Counter(spectra)


def without_zeros(counter: Counter) -> Counter:
    return Counter({cell: states for cell, states in counter.items() if states})


def rows_of_states(seed: int, count: int, distinct: int, row_bytes: int) -> np.ndarray:
    """Rows that are each one of so many states."""
    generator = np.random.default_rng(seed)
    states = generator.integers(0, 256, (distinct, row_bytes), np.uint8)
    return states[generator.integers(0, distinct, count)]


def numbers_of(rows: np.ndarray) -> np.ndarray:
    """Rows as numbers of states."""
    known: dict[bytes, int] = {}
    states = [known.setdefault(row.tobytes(), len(known)) for row in rows]
    return np.array(states, np.int64)


def true_spectrum(states: np.ndarray, positions: np.ndarray, left_out: Any = False) -> Counter:
    """The spectrum by its definition: rows that show a state, and samples with such rows."""
    kept = np.repeat(~np.broadcast_to(left_out, len(positions)), positions)
    samples, states = np.repeat(np.arange(len(positions)), positions)[kept], states[kept]
    distinct = states.max(initial=0) + 1
    multiplicity = np.bincount(states)
    incidence = np.bincount(np.unique(samples * distinct + states) % distinct)
    shown = multiplicity > 0
    return Counter(pairs_of(multiplicity[shown], incidence[shown]))


def true_pairs(states: np.ndarray, positions: np.ndarray) -> int:
    """Pairs of rows of one sample that are equal."""
    samples = np.repeat(np.arange(len(positions)), positions)
    _, times = np.unique(samples * (states.max(initial=0) + 1) + states, return_counts=True)
    return int((times * (times - 1) // 2).sum())


def absorbed(
    keys: np.ndarray,
    positions: np.ndarray | None,
    group: np.ndarray | None = None,
    groups: int = 1,
    hot_keys: HotKeys | None = None,
) -> tuple[SampleKeys, list[Records], np.ndarray]:
    """What is left of a block of one piece, the records of its hot keys, and their equal pairs."""
    table = hot_keys or HotKeys(keys.shape[1], groups if group is not None else 0, len(keys))
    table.begin()
    cold, equal_pairs = absorb_hot_keys(keys, positions, table, group)
    return cold, table.take(), equal_pairs


def check_absorbed(
    keys: np.ndarray,
    positions: np.ndarray | None,
    group: np.ndarray | None = None,
    groups: int = 1,
    hot_keys: HotKeys | None = None,
) -> tuple[SampleKeys, list[Records]]:
    """Compare what is absorbed, and what is left in its order, with counts of each sample."""
    cold, taken, equal_pairs = absorbed(keys, positions, group, groups, hot_keys)
    counts = np.ones(len(keys), np.int64) if positions is None else positions
    own_group = np.zeros(len(counts), np.int64) if group is None else group.astype(np.int64)
    sample = np.repeat(np.arange(len(counts)), counts)
    distinct, numbers = number_keys(np.concatenate([keys, *(piece.keys for piece in taken)]))
    numbers, hot_numbers = np.split(numbers, [len(keys)])
    is_hot = np.isin(numbers, hot_numbers)
    assert np.array_equal(cold.keys, keys[~is_hot])
    assert (cold.ends is None) == (positions is None)
    left = np.bincount(sample[~is_hot], minlength=len(counts))
    assert cold.ends is None or np.array_equal(cold.ends, np.cumsum(left))
    assert (cold.group is None) == (group is None)
    if cold.group is not None and group is not None:
        assert cold.group.dtype == group.dtype
        assert np.array_equal(cold.group, group[sample[~is_hot]] if positions is None else group)
    cells, times = np.unique((sample * len(distinct) + numbers)[is_hot], return_counts=True)
    sample, numbers = np.divmod(cells, max(len(distinct), 1))
    pairs = np.zeros(groups, np.int64)
    np.add.at(pairs, own_group[sample], times * (times - 1) // 2)
    assert equal_pairs.dtype == np.int64
    assert np.array_equal(equal_pairs, pairs)
    sums = sum_up([distinct[numbers], times, np.ones_like(times), own_group[sample]])
    assert totals_by_group(taken) == by_key_and_group(sums)
    assert not any(piece.is_bare for piece in taken)
    assert all((piece.group is None) == (group is None) for piece in taken)
    return cold, taken


def blocks_of(
    keys: np.ndarray, positions: np.ndarray, group: np.ndarray | None = None, groups: int = 1
) -> Iterator[tuple[SampleKeys, list[Records], np.ndarray]]:
    """What :func:`absorbed` gives of blocks of three samples, or of 60 blocks."""
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(positions)])
    block = max(3, len(positions) // 60)
    for first in range(0, len(positions), block):
        own = slice(first, min(first + block, len(positions)))
        own_group = None if group is None else group[own]
        yield absorbed(keys[ends[own.start] : ends[own.stop]], positions[own], own_group, groups)


def partitions_of(
    scheme: KeyScheme,
    rows: np.ndarray,
    positions: np.ndarray,
    bits: int,
    group: np.ndarray | None = None,
    groups: int = 1,
) -> tuple[list[list[Records]], np.ndarray]:
    """Records by partition of blocks, and how many pairs of rows that are hot are equal."""
    partitions: list[list[Records]] = [[] for _ in range(2**bits)]
    equal_pairs = np.zeros(groups, np.int64)
    for cold, taken, pairs in blocks_of(scheme.keys(rows), positions, group, groups):
        equal_pairs += pairs
        for records, offsets in [
            scatter_rows(cold, bits),
            *(scatter([piece], bits) for piece in taken),
        ]:
            for number, pieces_of_it in enumerate(partitions):
                pieces_of_it.append(records[offsets[number] : offsets[number + 1]])
    return partitions, equal_pairs


def parts_of(
    scheme: KeyScheme,
    rows: np.ndarray,
    positions: np.ndarray,
    bits: int,
    group: np.ndarray | None = None,
    groups: int = 1,
) -> tuple[tuple[Parts, Parts], np.ndarray]:
    """The same, divided by so many bits at once: every third block with tags."""
    bare, others, equal_pairs = [], [], np.zeros(groups, np.int64)
    for cold, taken, pairs in blocks_of(scheme.keys(rows), positions, group, groups):
        equal_pairs += pairs
        bare.append((tag_rows if len(bare) % 3 == 2 else divide_rows)(cold, bits))
        others += [PartPiece(*scatter([piece], bits)) for piece in taken]
    return (Parts(bare, bits), Parts(others, bits)), equal_pairs


def by_partition(records: Records, bits: int) -> tuple[Records, np.ndarray]:
    """Scatter records; bare ones become rows of samples of their own. No bits are one partition."""
    if bits == 0:
        return records, np.array([0, len(records)])
    if records.is_bare:
        return scatter_rows(SampleKeys(records.keys, None, records.group), bits)
    return scatter([records], bits)


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


def compare_bucket(words: np.ndarray, at: int, word: int) -> tuple[np.uint64, np.uint64]:
    """The intrinsic of that name in plain Python, as those that follow."""
    assert 0 <= at <= words.size - 8, "compared outside of the words"
    bucket = words[int(at) : int(at) + 8]
    same, empty = (np.packbits(bucket == n, bitorder="little")[0] for n in (word, 0))
    return np.uint64(same), np.uint64(empty)


def sum_products(
    data: np.ndarray, at: int, row_bytes: int, addends: np.ndarray, pairs: int
) -> tuple[np.uint64, ...]:
    """Sums of products of 32-bit words in the lanes 0, 2, 1 and 3."""
    secrets, sums = addends.astype("<u8").view("<u4"), []
    for lane in (0, 2, 1, 3):
        total = np.uint64(0)
        for pair in range(pairs):
            begin = at + min(16 * pair, row_bytes - 16)
            assert 0 <= begin <= data.size - 16, "loaded from outside of the rows"
            words = data[begin : begin + 16].view("<u4")
            own = (words + secrets[4 * (lane + pair) :][:4]).astype(np.uint64)
            total += own[0] * own[1] + own[2] * own[3]
        sums.append(total)
    return tuple(sums)


def count_trailing_zeros(word: int) -> np.uint64:
    """The number of the lowest bit that is set."""
    word = int(word)
    return np.uint64((word & -word).bit_length() - 1 if word else 64)


def copy_from(address: int, array: np.ndarray, at: int, count: int) -> None:
    """Copy items from an address."""
    flat, at, count = array.reshape(-1), int(at), int(count)
    assert np.shares_memory(flat, array) or not array.size
    assert 0 <= at <= at + count <= flat.size, "written outside of the array"
    if count:
        flat[at : at + count] = words_at(int(address), count, array.dtype.type(0))


def item_at(address: int, at: int, like: np.ndarray) -> Any:
    """Item of an array at an address."""
    return words_at(int(address) + int(at) * like.itemsize, 1, like.dtype.type(0))[0]


def array_at(address: int, like: np.ndarray) -> np.ndarray:
    """Array like another one, at an address."""
    return words_at(int(address), like.size, like.dtype.type(0)).reshape(like.shape)


INTRINSICS = (compare_bucket, count_trailing_zeros, copy_from, item_at, array_at)


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
        for intrinsic in INTRINSICS:
            if hasattr(module, intrinsic.__name__):
                monkeypatch.setattr(module, intrinsic.__name__, intrinsic)


def run_counting_as_plain_python(monkeypatch: pytest.MonkeyPatch, **constants: int) -> None:
    """Let all loops of tables run without having been compiled, with other constants in them."""
    found = pkgutil.iter_modules(tables.__path__, f"{tables.__name__}.")
    modules = [hashing, partition, parts, *(import_module(info.name) for info in found)]
    with_loops = [
        module
        for module in modules
        if any(hasattr(own, "py_func") for own in vars(module).values())
    ]
    run_as_plain_python(monkeypatch, *with_loops)
    for name, value in constants.items():
        assert any(hasattr(module, name) for module in with_loops), name
        for module in with_loops:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


def spectrum_counts(multiplicity: np.ndarray, incidence: np.ndarray) -> Any:
    """Return the spectrum of distinct states, as a tally counts it."""
    tally = Tally()
    tally.add(multiplicity, incidence)
    return tally.spectrum()
