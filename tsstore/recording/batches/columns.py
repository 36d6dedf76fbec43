"""What the user records beside the states of a batch: sample columns, and masks of padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from tsstore.errors import ColumnsError, OutputError
from tsstore.recording.axes.tensor import check_patterns, choose
from tsstore.recording.samples.index import Indices, as_array
from tsstore.store.format.arrays import sample_spec
from tsstore.store.writing.batch import check_column

Mask = npt.NDArray[np.bool_]

_Masks = Mask | list[Mask | None]
"""For all forward passes of the batch, or one for each, None where all positions are there."""


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
        if isinstance(values, torch.Tensor) and values.dtype == torch.bfloat16:
            values = values.float()
        return as_array(values)
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


class Masks:
    """The masks of one batch: one for all layers, or by layer; each for all passes, or one a pass.

    A layer with as many positions as its mask loses those that are padding. One with a single
    position, such as a pooled vector, has no padding. Of any other layer nobody knows what is
    padding: that is an error, unless masks are given by layer and none is meant for it.
    """

    def __init__(self) -> None:
        self._given: _Masks | Mapping[str, _Masks] | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self._given is not None

    def record(self, given: Any) -> None:
        """Take a mask, or a list of one a forward pass, or a mapping from layer names or globs."""
        if self._given is not None:
            raise ColumnsError("a mask was recorded twice in one batch; record it once")
        if isinstance(given, Mapping):
            self._given = {name: _to_masks(f"the mask of {name!r}", m) for name, m in given.items()}
        else:
            self._given = _to_masks("the mask", given)

    def of(
        self, layer: str, forward: int, samples: int, owners: Indices, positions: int
    ) -> Mask | None:
        """Return which positions of a call are there, bool (entries, positions); None for all.

        `forward` is the number of the pass, from 1; `owners`, int64 (entries,), the sample of each.
        ColumnsError if the mask has another number of samples, or there is none for this pass;
        OutputError if it has another number of positions.
        """
        # A list of masks is no choice among layers, whatever a type checker makes of it.
        mask = _of_pass(cast("_Masks | None", choose(self._given, layer)), forward)
        entries = len(owners)
        if mask is None or mask.shape == (entries, positions):
            return mask
        if entries == samples and positions == 1:
            return None
        if len(mask) != samples:
            raise ColumnsError(
                f"the mask has shape {mask.shape}, but the batch has {samples} samples, and "
                f"{layer} {entries} entries; expected one line a sample"
            )
        spread = _spread(mask, owners, positions)
        if spread is None:
            raise OutputError(
                f"{layer}: found {entries * positions // max(samples, 1)} positions a sample, but "
                f"the mask has shape {mask.shape}, and which of them are padding cannot be told; "
                "exclude the layer, or give masks by layer: mask={'encoder.*': …}, or one for "
                "each forward pass of the batch: mask=[…, …]"
            )
        return spread

    def check_names(self, layers: Iterable[str]) -> None:
        """Raise OutputError where a mask is meant for layers that are not there."""
        said = "there is a mask for"
        check_patterns(self._given, layers, said, "layers in this batch", OutputError)

    def check_passes(self, forwards: int) -> None:
        """Raise ColumnsError where there are not as many masks as forward passes."""
        given = self._given.values() if isinstance(self._given, Mapping) else (self._given,)
        for masks in given:
            if isinstance(masks, list) and len(masks) != forwards:
                raise _wrong_passes(len(masks), forwards)


def _spread(mask: Mask, owners: Indices, positions: int) -> Mask | None:
    """Return each entry's mask from its sample's, one for each or for all; None if none fits."""
    if mask.shape[1] == positions:
        return mask[owners]
    order = np.argsort(owners, kind="stable")
    order = order[owners[order] >= 0]
    counts = np.bincount(owners[order], minlength=len(mask)) * positions
    if (counts != mask.shape[1]).any():
        return None
    spread = np.ones((len(owners), positions), dtype=np.bool_)
    spread[order] = mask.reshape(len(order), positions)
    return spread


def _of_pass(masks: _Masks | None, forward: int) -> Mask | None:
    if not isinstance(masks, list):
        return masks
    if forward > len(masks):
        raise _wrong_passes(len(masks), forward)
    return masks[forward - 1]


def _wrong_passes(masks: int, forwards: int) -> ColumnsError:
    return ColumnsError(
        f"found {masks} masks for {forwards} forward passes; expected one mask for all of "
        "them, or a list of one for each"
    )


def _to_masks(what: str, values: Any) -> _Masks:
    """Return a mask, or those of each forward pass where a list of matrices was given."""
    is_list = isinstance(values, list | tuple) and len(values) > 0
    if is_list and all(mask is None or np.ndim(mask) == 2 for mask in values):
        return [None if mask is None else _to_mask(what, mask) for mask in values]
    return _to_mask(what, values)


def _to_mask(what: str, values: Any) -> Mask:
    array = as_array(values)
    numbers = array.dtype.kind in "biuf"
    if array.ndim != 2 or not numbers or not np.isin(array, (0, 1)).all():
        raise ColumnsError(
            f"{what} is {array.dtype} {array.shape}; expected (samples, positions) of 1 where "
            "there is a token and 0 where there is padding, as tokenizers give it"
        )
    return array.astype(np.bool_)
