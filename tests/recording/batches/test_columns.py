from __future__ import annotations

import numpy as np
import pytest
import torch

from tsstore.errors import ColumnsError
from tsstore.recording.batches.columns import ColumnSchema, dtype_name, to_column


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 2], "int64", [1, 2]),
        (range(2), "int64", [0, 1]),
        ((True, False), "bool", [True, False]),
        ([0.5, 1], "float64", [0.5, 1.0]),
        (np.array([1, 2], np.uint8), "uint8", [1, 2]),
        (np.array([1, 2], ">i4"), "int32", [1, 2]),
        (torch.tensor([1, 2]), "int64", [1, 2]),
        (torch.tensor([0.5, 2], dtype=torch.float16), "float16", [0.5, 2]),
        (torch.tensor([0.5, 2], dtype=torch.bfloat16), "float32", [0.5, 2]),
        (torch.tensor([0.5, 2], requires_grad=True), "float32", [0.5, 2]),
        (["a", "ü"], "string", ["a", "ü"]),
        (np.array(["a", "bc"]), "string", ["a", "bc"]),
        (np.array(["a", "bc"], dtype=object), "string", ["a", "bc"]),
        ([], "float64", []),
    ],
)
def test_what_can_be_a_column(values, dtype, expected):
    column = to_column("c", values)
    assert dtype_name(column) == dtype
    assert column.tolist() == expected
    assert all(type(value) is str for value in column) or dtype != "string"


@pytest.mark.parametrize(
    "values", [np.arange(3), torch.arange(3), np.array(["a", "b", "c"], dtype=object)]
)
def test_a_column_is_a_copy(values):
    column = to_column("c", values)
    kept = column.tolist()
    values[:] = values[0]
    assert column.tolist() == kept


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (3, r"column 'c' has shape \(\); expected one entry a sample"),
        ([[1], [2]], r"shape \(2, 1\)"),
        (torch.zeros(2, 2), r"shape \(2, 2\)"),
        ([1, "a", None], "dtype object; expected bool, integers, floats or text"),
        ([1j], "complex128"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        (np.zeros(2, np.longdouble), "longdouble|float128"),
        ([[1], [2, 3]], "cannot be made an array"),
        (torch.zeros(2).to_sparse(), "cannot be made an array"),
        (torch.zeros(2, device="meta"), "cannot be made an array"),
        ([b"a"], r"dtype \|S1"),
        (["a", "\ud800"], r"an entry '\\ud800'; expected text of at most .* in UTF-8"),
        (["a" * (1 << 20)], "expected text of at most"),
    ],
)
def test_what_cannot(values, message):
    with pytest.raises(ColumnsError, match=message):
        to_column("c", values)


def columns(**values):
    return {name: to_column(name, value) for name, value in values.items()}


def test_the_first_batch_fixes_names_and_dtypes():
    schema = ColumnSchema()
    assert schema.dtypes is None
    schema.conform(columns(label=[1], name=["a"]))
    assert schema.dtypes == {"label": "int64", "name": "string"}
    later = schema.conform(columns(name=["b"], label=np.array([2], np.int16)))
    assert list(later) == ["label", "name"]
    assert later["label"].dtype == np.int64


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({}, "this batch recorded no columns, the first one label, name"),
        ({"label": [1]}, "recorded label, the first one label, name"),
        ({"label": [1], "name": ["a"], "loss": [0.5]}, "recorded label, name, loss, the first"),
        ({"label": [0.5], "name": ["a"]}, "'label' is float64 in this batch, but int64 in the"),
        ({"label": ["1"], "name": ["a"]}, "'label' is string"),
        ({"label": [1], "name": [1]}, "'name' is int64 in this batch, but string"),
        ({"label": np.array([1], np.uint64), "name": ["a"]}, "uint64"),
    ],
)
def test_a_later_batch_that_differs_is_refused(later, message):
    schema = ColumnSchema()
    schema.conform(columns(label=[1], name=["a"]))
    with pytest.raises(ColumnsError, match=message):
        schema.conform(columns(**later))


def test_no_columns_stay_none():
    schema = ColumnSchema()
    assert schema.conform({}) == {}
    with pytest.raises(ColumnsError, match="the first one no columns"):
        schema.conform(columns(label=[1]))


def test_an_empty_list_fits_any_dtype():
    schema = ColumnSchema()
    schema.conform(columns(label=[1], name=["a"]))
    empty = schema.conform(columns(label=[], name=[]))
    assert empty["label"].dtype == np.int64
    assert empty["name"].dtype == object
