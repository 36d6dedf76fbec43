from __future__ import annotations

import numpy as np
import pytest
from counting_cases import WIDTHS

from tsstore.counting.records import (
    Records,
    SampleKeys,
    bytes_of_group,
    checked_groups,
    counted_columns,
    group_dtype,
    record_bytes,
)


def some(words: int = 2, count: int = 5) -> Records:
    keys = np.arange(count * words, dtype=np.uint64).reshape(count, words)
    counts = np.arange(1, count + 1, dtype=np.uint32)
    return Records(keys, 3 * counts, counts)


def test_bare_records_stand_for_one_row_each() -> None:
    records = Records(np.array([[7], [8]], np.uint64))
    assert records.is_bare
    assert not some().is_bare
    assert len(records) == records.rows == 2
    assert records.words == 1
    assert records.multiplicity is records.incidence is records.group is None


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_empty_records_have_words_and_no_rows(words: int, bare: bool, grouped: bool) -> None:
    records = Records.empty(words, bare, grouped)
    assert (len(records), records.rows, records.words, records.nbytes) == (0, 0, words, 0)
    assert records.is_bare == bare
    assert (records.group is not None) == grouped


@pytest.mark.parametrize("group_bytes", [0, 1, 2])
def test_room_for_records_has_the_columns_that_were_asked_for(group_bytes: int) -> None:
    for bare in (True, False):
        records = Records.empty(2, bare, group_bytes, 7)
        assert (len(records), records.group_bytes) == (7, group_bytes)
        assert records.nbytes == 7 * record_bytes(2, bare, group_bytes)
        assert sum(column.nbytes for column in records.arrays()) == records.nbytes


def test_groups_are_numbers_as_wide_as_they_need_be() -> None:
    assert [bytes_of_group(groups) for groups in (0, 1, 256, 257, 65_535)] == [0, 1, 1, 2, 2]
    assert [group_dtype(groups) for groups in (1, 256, 257)] == [np.uint8, np.uint8, np.uint16]


def test_keys_of_samples_know_their_rows_and_groups() -> None:
    keys = np.zeros((5, 2), np.uint64)
    assert (len(SampleKeys(keys)), SampleKeys(keys).group_bytes) == (5, 0)
    for dtype in (np.uint8, np.uint16):
        rows = SampleKeys(keys, np.array([2, 5]), np.zeros(2, dtype))
        assert (len(rows), rows.group_bytes) == (5, np.dtype(dtype).itemsize)


def test_rows_add_up_beyond_32_bits_to_a_plain_int() -> None:
    most = np.full(3, 2**32 - 1, np.uint32)
    records = Records(np.zeros((3, 1), np.uint64), most, np.ones(3, np.uint32))
    assert records.rows == 3 * (2**32 - 1)
    assert type(records.rows) is int


@pytest.mark.parametrize("words", WIDTHS)
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_bytes_of_a_record_are_those_of_its_arrays(words: int, bare: bool, grouped: bool) -> None:
    whole = some(words)
    group = np.zeros(5, np.uint8) if grouped else None
    records = Records(whole.keys, group=group)
    if not bare:
        records = Records(whole.keys, whole.multiplicity, whole.incidence, group)
    assert records.nbytes == 5 * record_bytes(words, bare, grouped)
    assert record_bytes(words, bare, grouped) == 8 * words + 8 * (not bare) + grouped


def test_arrays_are_those_columns_that_there_are() -> None:
    records = some()
    for array, column in zip(records.arrays(), records.columns[:3], strict=True):
        assert array is column
    assert records.columns[3] is None
    assert len(list(Records(records.keys).arrays())) == 1
    assert len(list(Records(records.keys, group=np.zeros(5, np.uint8)).arrays())) == 2


def test_slices_are_views_of_consecutive_records() -> None:
    records = some()
    piece = records[1:3]
    assert piece.keys.tolist() == [[2, 3], [4, 5]]
    assert piece.multiplicity.tolist() == [6, 9]
    assert piece.incidence.tolist() == [2, 3]
    assert np.shares_memory(piece.keys, records.keys)
    with pytest.raises(ValueError, match="C-contiguous"):
        records[::2]


def test_slices_of_bare_records_and_of_groups_are_of_the_same_kind() -> None:
    group = np.arange(5, dtype=np.uint8)
    piece = Records(some().keys, group=group)[1:3]
    assert piece.is_bare
    assert piece.group.tolist() == [1, 2]
    assert np.shares_memory(piece.group, group)
    assert some()[1:].group is None
    assert len(some()[9:]) == 0


def test_wrong_arrays_are_refused() -> None:
    good = some()
    with pytest.raises(ValueError, match="keys are int64"):
        Records(good.keys.astype(np.int64))
    with pytest.raises(ValueError, match=r"expected uint64 \(records, 1 or more\)"):
        Records(good.keys.ravel())
    with pytest.raises(ValueError, match=r"\(5, 0\)"):
        Records(np.zeros((5, 0), np.uint64))
    with pytest.raises(ValueError, match="ascontiguousarray"):
        Records(np.asfortranarray(good.keys))
    with pytest.raises(ValueError, match=r"multiplicity is uint32 \(4,\); expected uint32 \(5,\)"):
        Records(good.keys, good.multiplicity[:-1], good.incidence)
    with pytest.raises(ValueError, match="incidence is int64"):
        Records(good.keys, good.multiplicity, good.incidence.astype(np.int64))


@pytest.mark.parametrize("missing", ["multiplicity", "incidence"])
def test_either_count_alone_is_refused(missing: str) -> None:
    good = some()
    counts = {"multiplicity": good.multiplicity, "incidence": good.incidence, missing: None}
    with pytest.raises(ValueError, match="expected both or neither"):
        Records(good.keys, **counts)


def test_wrong_groups_are_refused() -> None:
    good = some()
    with pytest.raises(ValueError, match=r"group is int64 \(5,\); expected uint8 or uint16 \(5,\)"):
        Records(good.keys, good.multiplicity, good.incidence, np.arange(5))
    with pytest.raises(ValueError, match=r"group is uint8 \(4,\)"):
        Records(good.keys, group=np.zeros(4, np.uint8))


def test_groups_are_those_that_there_are() -> None:
    grouped = Records(some().keys, group=np.arange(5, dtype=np.uint8))
    assert checked_groups(grouped, 5) is grouped.group
    assert len(checked_groups(grouped[:0], 1)) == 0
    with pytest.raises(ValueError, match="a record is of group 4 of 4"):
        checked_groups(grouped, 4)
    with pytest.raises(ValueError, match="do not tell groups apart"):
        checked_groups(some(), 5)


def test_columns_of_records_with_counts_are_all_there() -> None:
    good = some()
    assert counted_columns(good) == good.columns
    with pytest.raises(ValueError, match="the records are bare"):
        counted_columns(Records(good.keys))
