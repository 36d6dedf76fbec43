"""Sample columns: what the user records beside the states, one entry a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tsstore.errors import ColumnsError
from tsstore.store.format.arrays import sample_spec
from tsstore.store.writing.batch import check_column


def to_column(name: str, values: Any) -> npt.NDArray[Any]:
    """Return values as a one-dimensional array of bool, int, float or text."""
    array = _as_array(name, values)
    if array.ndim != 1:
        raise ColumnsError(
            f"column {name!r} has shape {array.shape}; expected one entry a sample, a shape of "
            "(samples,)"
        )
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        # A copy: the caller may fill his array again before the writer comes to this one.
        return np.array(array, dtype=array.dtype.newbyteorder("="))
    if array.dtype.kind in "UT" or all(isinstance(value, str) for value in array):
        text = np.array([str(value) for value in array], dtype=object)
        check_column(name, text, len(text), sample_spec("string"))
        return text
    raise ColumnsError(
        f"column {name!r} has dtype {array.dtype}; expected bool, integers, floats or text"
    )


def _as_array(name: str, values: Any) -> npt.NDArray[Any]:
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach()
            values = (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ColumnsError(
            f"column {name!r} cannot be made an array: {error}; expected one entry a sample"
        ) from None


def dtype_name(column: npt.NDArray[Any]) -> str:
    """Return the name of a column's dtype in the store."""
    return "string" if column.dtype == object else str(column.dtype)


def dtype_names(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """Return the names of all columns' dtypes in the store."""
    return {name: dtype_name(column) for name, column in columns.items()}


class ColumnSchema:
    """Names and dtypes of the columns, as the first batch fixes them."""

    def __init__(self) -> None:
        self.dtypes: dict[str, str] | None = None

    def conform(self, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return the columns in the fixed order and dtypes."""
        if self.dtypes is None:
            self.dtypes = dtype_names(columns)
        if set(columns) != set(self.dtypes):
            raise ColumnsError(
                f"this batch recorded {_names(columns)}, the first one {_names(self.dtypes)}; "
                "record the same columns in every batch"
            )
        return {name: self._fit(name, columns[name], dtype) for name, dtype in self.dtypes.items()}

    def _fit(self, name: str, column: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
        found = dtype_name(column)
        if found == dtype:
            return column
        if not len(column):
            # Nothing tells the type of an empty list.
            return np.empty(0, dtype=object if dtype == "string" else dtype)
        if "string" in (found, dtype) or not np.can_cast(found, dtype, "safe"):
            raise ColumnsError(
                f"column {name!r} is {found} in this batch, but {dtype} in the first one; "
                "record the same type in every batch"
            )
        return column.astype(dtype)


def _names(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "no columns"
