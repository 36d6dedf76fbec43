from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsstore.errors import ColumnsError, StoreError
from tsstore.store.format.arrays import MAX_TEXT_BYTES, sample_spec
from tsstore.store.writing.batch import Batch, LayerBatch, check_column

LABELS = sample_spec("int64")
TEXT = sample_spec("string")


def layer(rows: int, positions: list[int], row_bytes: int = 2, dtype: str = "uint8") -> LayerBatch:
    return LayerBatch(np.zeros((rows, row_bytes), dtype), np.array(positions, dtype=np.int64))


def texts(*values: object) -> np.ndarray:
    return np.array(values, dtype=object)


@pytest.mark.parametrize(("rows", "positions"), [(3, [1, 1, 1]), (5, [0, 5, 0]), (0, [0]), (0, [])])
def test_rows_that_the_samples_share_are_taken(rows, positions):
    assert layer(rows, positions).check("layer 'a'", len(positions), 2) is None


@pytest.mark.parametrize(("samples", "positions"), [(3, 1), (2, 4), (5, 0), (0, 0), (0, 7)])
def test_one_number_stands_for_as_many_rows_of_each_sample(samples, positions):
    counted = layer(samples * positions, [positions] * samples)
    said = LayerBatch(counted.rows, positions)
    assert said.check("layer 'a'", samples, 2) is None
    np.testing.assert_array_equal(said.each(samples), counted.each(samples))
    assert (said.nbytes, counted.nbytes) == (said.rows.nbytes, said.rows.nbytes + 8 * samples)
    assert not samples or said.ends == counted.ends


@pytest.mark.parametrize(
    ("batch", "samples", "message"),
    [
        (layer(4, [1, 1, 1]), 3, r"layer 'a': rows are uint8 \(4, 2\); expected uint8 \(3, 2\)"),
        (layer(3, [1, 1, 1], row_bytes=1), 3, r"rows are uint8 \(3, 1\); expected uint8 \(3, 2\)"),
        (layer(3, [1, 1, 1], dtype="bool"), 3, r"rows are bool \(3, 2\)"),
        (layer(3, [1, 1, 1]), 4, r"the batch has 4 samples, but numbers of rows for \(3,\)"),
        (layer(1, [2, -1]), 2, r"the smallest -1"),
        (LayerBatch(np.zeros((5, 2), np.uint8), 2), 3, r"\(5, 2\); expected uint8 \(6, 2\)"),
        (LayerBatch(np.zeros((3, 2), np.uint8), np.ones((3, 1), np.int64)), 3, r"\(3, 1\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(batch, samples, message):
    with pytest.raises(StoreError, match=message):
        batch.check("layer 'a'", samples, 2)


def test_a_column_has_one_entry_a_sample():
    assert check_column("label", np.arange(3), 3, LABELS) is None
    for values in (np.arange(2), np.zeros((3, 1)), np.array(3)):
        with pytest.raises(ColumnsError, match=r"column 'label' has shape .*; expected \(3,\)"):
            check_column("label", values, 3, LABELS)


@given(values=st.lists(st.text(), min_size=1))
def test_text_of_any_kind_is_taken(values):
    assert check_column("name", texts(*values), len(values), TEXT) is None


@pytest.mark.parametrize(
    "value", ["\ud800", None, 0, 5, b"bytes", np.str_("a"), float("nan"), "ü" * 10_000]
)
def test_what_is_no_text_is_refused_before_it_can_spoil_a_commit(value):
    with pytest.raises(ColumnsError, match=r"column 'name' has an entry .*; expected text of at"):
        check_column("name", texts("a", value), 2, TEXT)


def test_the_longest_text_is_taken():
    assert check_column("name", texts("a" * MAX_TEXT_BYTES), 1, TEXT) is None


def test_the_size_of_a_batch():
    batch = Batch(3, {"a": layer(3, [1, 1, 1])}, {"label": np.arange(3, dtype=np.int64)})
    assert batch.nbytes == 3 * 2 + 3 * 8 + 3 * 8


@given(values=st.lists(st.text(), min_size=1))
def test_text_counts_with_what_it_holds(values):
    batch = Batch(len(values), {}, {"name": texts(*values)})
    assert batch.nbytes == 8 * len(values) + sum(map(sys.getsizeof, values))
    assert batch.nbytes > sum(len(value.encode()) for value in values)


def test_a_queue_of_long_texts_is_not_taken_for_a_short_one():
    assert Batch(100, {}, {"name": texts(*["a" * 10_000] * 100)}).nbytes > 100 * 10_000
