"""What occurs once in a subpartition, settled before its table is asked."""

from __future__ import annotations

from collections import Counter

import counting_cases
import numpy as np
import pytest
from counting_cases import WIDTHS, crafted, mixed, random_positions, random_records
from hypothesis import given
from hypothesis import strategies as st

from tsstore.counting.hashing import width_for
from tsstore.counting.partition import scatter
from tsstore.counting.parts import PartPiece, Parts, divide_rows, tag_rows
from tsstore.counting.records import Records, SampleKeys, group_dtype
from tsstore.counting.tables import singletons as module

seeds = st.integers(0, 2**32)
BITS = 2


def pieces_of(
    seed: int, counts: list[int], distinct: int, words: int, groups: int
) -> list[PartPiece]:
    """Blocks of rows of samples of all sizes, in turns with numbers and with tags."""
    pieces = []
    for n, count in enumerate(counts):
        generator = np.random.default_rng(seed + n)
        keys = mixed(np.arange(distinct), words, 0)[generator.integers(0, distinct, count)]
        positions = random_positions(seed + n, count)
        if n % 2:
            # No more samples than can be numbered.
            positions = np.diff(np.cumsum(positions)[-4:], prepend=0)
        group = generator.integers(0, groups, len(positions)).astype(group_dtype(groups))
        rows = SampleKeys(keys, np.cumsum(positions), group)
        pieces.append((divide_rows if n % 2 else tag_rows)(rows, BITS))
    assert all(piece.is_numbered for piece in pieces[1::2])
    return pieces


def whole_of(parts: Parts, part: int, kind: Records) -> Records:
    """All records of a subpartition, piece after piece."""
    columns = zip(*(records.columns for records in [kind[:0], *parts.of(part)]), strict=True)
    return Records(*(None if own[0] is None else np.concatenate(own) for own in columns))


def plain_keys(keys: np.ndarray) -> list[tuple]:
    keys = keys.copy()
    keys[:, 0] &= np.uint64(2**63 - 1)
    return list(map(tuple, keys.tolist()))


def check_without_groups(whole: Records, others: np.ndarray, expected: Records) -> None:
    """Compare with the same keys without groups, and with rows that are a sample each."""
    width = width_for(whole.words)
    for one_each in (False, True):
        keys = whole.keys.copy()
        keys[:, 0] |= np.uint64(2**63 * one_each)
        marks = np.full(module.marks_for(len(whole)), 9, np.uint8)
        count = int(module.settle(keys, None, others, marks, None, one_each, width))
        left = expected.keys.copy()
        left[:, 0] |= np.uint64(2**63 * one_each)
        assert np.array_equal(keys[:count], left)


def check_settled(parts: Parts, others: Parts, kind: Records, groups: int) -> tuple[int, int]:
    """Check that only keys that occur once are settled; return how many, and how many are left."""
    settled = left = 0
    for part in range(len(parts)):
        whole = whole_of(parts, part, kind)
        other_keys = np.concatenate([kind.keys[:0], *(piece.keys for piece in others.of(part))])
        found = Records(whole.keys.copy(), group=whole.group.copy())
        by_group = np.zeros(groups, np.int64)
        marks = np.full(module.marks_for(len(whole)), 9, np.uint8)
        count = module.settle(
            found.keys, found.group, other_keys, marks, by_group, False, width_for(kind.words)
        )
        found = found[: int(count)]
        check_without_groups(whole, other_keys, found)
        held = set(plain_keys(found.keys))
        keys, sample = plain_keys(whole.keys), counting_cases.keys_and_samples(whole)[1]
        times = Counter(keys + plain_keys(other_keys))
        is_left = np.array([key in held for key in keys], np.bool_)
        assert all(times[key] == 1 for key in set(keys) - held)
        assert by_group.tolist() == np.bincount(whole.group[~is_left], minlength=groups).tolist()
        starts = np.diff(sample[is_left], prepend=0) > 0
        rest = whole.keys[is_left]
        rest[~starts, 0] &= np.uint64(2**63 - 1)
        rest[starts, 0] |= np.uint64(2**63)
        assert np.array_equal(found.keys, rest)
        assert np.array_equal(found.group, whole.group[is_left])
        settled += int(by_group.sum())
        left += len(found)
    return settled, left


@given(
    seeds,
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(0, 40),
    st.integers(1, 400),
    st.sampled_from(WIDTHS),
    st.sampled_from([1, 3, 300]),
)
def test_what_is_settled_occurs_once_and_the_rest_keeps_its_order(
    seed, counts, others, distinct, words, groups
) -> None:
    bare = Parts(pieces_of(seed, counts, distinct, words, groups), BITS)
    counted = random_records(seed, others, distinct, words, groups=1, prefix_bits=0)
    own = (counted.group.astype(np.int64) + np.arange(others) % groups).astype(group_dtype(groups))
    counted = Records(counted.keys, counted.multiplicity, counted.incidence, own)
    rest = Parts([PartPiece(*scatter([counted], BITS))], BITS)
    group_bytes = own.itemsize
    check_settled(bare, rest, Records.empty(words, True, group_bytes), groups)


def check_alone(keys: np.ndarray, others: np.ndarray | None = None) -> tuple[int, int]:
    """Check what is settled of rows of one partition, which are a sample each."""
    ids = np.arange(len(keys))
    bare = Parts([tag_rows(SampleKeys(keys, None, (ids % 3).astype(np.uint8)), 1)], 1)
    ones = np.ones(0 if others is None else len(others), np.uint32)
    counted = Records(keys[:0] if others is None else others, ones, ones)
    rest = Parts([PartPiece(*scatter([counted], 1))], 1)
    return check_settled(bare, rest, Records.empty(keys.shape[1], True, 1), 3)


@pytest.mark.parametrize("words", WIDTHS)
def test_most_keys_that_occur_once_are_settled(words: int) -> None:
    settled, left = check_alone(mixed(np.arange(4000), words))
    assert left < 0.3 * 4000
    assert settled + left == 4000


@pytest.mark.parametrize("times", [2, 3, 7, 8, 9, 255, 256, 257, 1000])
def test_keys_that_occur_often_are_left_however_often(times: int) -> None:
    keys = mixed(np.repeat(np.arange(5), times), 1)
    assert check_alone(keys) == (0, len(keys))
    assert check_alone(keys[:1], keys[:times]) == (0, 1)


def test_keys_of_others_are_never_settled() -> None:
    keys = mixed(np.arange(100), 2)
    assert check_alone(keys, keys[:50])[1] >= 50


def test_crafted_keys_are_left_and_a_key_of_zeros_is_settled() -> None:
    assert check_alone(crafted(100, 1)) == (0, 100)
    assert check_alone(np.zeros((1, 1), np.uint64)) == (1, 0)
    assert check_alone(np.zeros((0, 1), np.uint64)) == (0, 0)


def test_there_are_more_marks_than_eight_times_the_keys_and_no_more_than_sixteen() -> None:
    for keys in (0, 1, 2, 3, 4, 1000, 1 << 17, (1 << 17) + 1):
        marks = module.marks_for(keys)
        assert marks & (marks - 1) == 0
        assert 8 * keys < marks <= max(16 * keys, 1)


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("groups", [1, 3])
def test_kernels_run_as_plain_python_with_the_same_result(words, groups, monkeypatch) -> None:
    bare = Parts(pieces_of(1, [60, 40], 90, words, groups), BITS)
    counted = random_records(1, 30, 90, words, groups=groups, prefix_bits=0)
    rest = Parts([PartPiece(*scatter([counted], BITS))], BITS)
    kind = Records.empty(words, True, 1)
    compiled = check_settled(bare, rest, kind, groups)
    assert min(compiled) > 0
    counting_cases.run_counting_as_plain_python(monkeypatch)
    with np.errstate(over="ignore"):
        assert check_settled(bare, rest, kind, groups) == compiled
