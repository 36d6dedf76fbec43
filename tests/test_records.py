from __future__ import annotations

import numpy as np
import pytest

from tsstore.counting.records import Records, concatenate


def some(words: int = 2, count: int = 5) -> Records:
    keys = np.arange(count * words, dtype=np.uint64).reshape(count, words)
    counts = np.arange(1, count + 1, dtype=np.uint32)
    return Records(keys, 3 * counts, counts)


def test_bare_records_stand_for_one_row_of_one_sample_each() -> None:
    records = Records.bare(np.array([[7], [8]], np.uint64))
    assert len(records) == records.rows == 2
    assert records.words == 1
    assert records.multiplicity.tolist() == records.incidence.tolist() == [1, 1]


@pytest.mark.parametrize("words", [1, 2])
def test_empty_records_have_words_and_no_rows(words: int) -> None:
    records = Records.empty(words)
    assert (len(records), records.rows, records.words, records.nbytes) == (0, 0, words, 0)


def test_rows_add_up_beyond_32_bits_to_a_plain_int() -> None:
    most = np.full(3, 2**32 - 1, np.uint32)
    records = Records(np.zeros((3, 1), np.uint64), most, np.ones(3, np.uint32))
    assert records.rows == 3 * (2**32 - 1)
    assert type(records.rows) is int


def test_nbytes_counts_keys_and_both_counts() -> None:
    assert some(words=2, count=5).nbytes == 5 * (16 + 4 + 4)
    assert some(words=1, count=5).nbytes == 5 * (8 + 4 + 4)


def test_slices_are_views_of_consecutive_records() -> None:
    records = some()
    piece = records[1:3]
    assert piece.keys.tolist() == [[2, 3], [4, 5]]
    assert piece.multiplicity.tolist() == [6, 9]
    assert piece.incidence.tolist() == [2, 3]
    assert np.shares_memory(piece.keys, records.keys)
    with pytest.raises(ValueError, match="C-contiguous"):
        records[::2]


@pytest.mark.parametrize("words", [1, 2])
def test_concatenate_keeps_the_order(words: int) -> None:
    records = some(words)
    joined = concatenate([records[3:], Records.empty(words), records[:3]])
    assert np.array_equal(joined.keys, np.roll(records.keys, 2, axis=0))
    assert joined.multiplicity.tolist() == [12, 15, 3, 6, 9]
    assert joined.incidence.tolist() == [4, 5, 1, 2, 3]


def test_concatenate_refuses_nothing_and_unlike_keys() -> None:
    with pytest.raises(ValueError, match="at least one piece"):
        concatenate([])
    with pytest.raises(ValueError, match=r"keys of \[1, 2\] words"):
        concatenate([some(1), some(2)])


def test_wrong_arrays_are_refused() -> None:
    good = some()
    with pytest.raises(ValueError, match="keys are int64"):
        Records(good.keys.astype(np.int64), good.multiplicity, good.incidence)
    with pytest.raises(ValueError, match="expected uint64"):
        Records(good.keys.ravel(), good.multiplicity, good.incidence)
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        Records(np.zeros((5, 3), np.uint64), good.multiplicity, good.incidence)
    with pytest.raises(ValueError, match="ascontiguousarray"):
        Records(np.asfortranarray(good.keys), good.multiplicity, good.incidence)
    with pytest.raises(ValueError, match="multiplicity is uint32"):
        Records(good.keys, good.multiplicity[:-1], good.incidence)
    with pytest.raises(ValueError, match="incidence is int64"):
        Records(good.keys, good.multiplicity, good.incidence.astype(np.int64))


def test_records_may_tell_groups_apart() -> None:
    group = np.arange(5, dtype=np.uint8)
    records = Records.bare(some().keys, group)
    assert records[1:3].group.tolist() == [1, 2]
    assert np.shares_memory(records[1:3].group, group)
    assert records.nbytes == 5 * (16 + 4 + 4 + 1)
    joined = concatenate([records[3:], records[:3]])
    assert joined.group.tolist() == [3, 4, 0, 1, 2]
    assert some().group is some()[1:].group is concatenate([some(), some()]).group is None


def test_wrong_groups_are_refused() -> None:
    good = some()
    with pytest.raises(ValueError, match=r"group is int64 \(5,\); expected uint8 \(5,\) or None"):
        Records(good.keys, good.multiplicity, good.incidence, np.arange(5))
    with pytest.raises(ValueError, match=r"group is uint8 \(4,\)"):
        Records.bare(good.keys, np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="1 of 2 pieces tell groups apart"):
        concatenate([good, Records.bare(good.keys, np.zeros(5, np.uint8))])
