"""Masks: which positions of each sample are there, and which are padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tsstore.errors import ColumnsError, OutputError
from tsstore.recording.axes import choose

Mask = npt.NDArray[np.bool_]


class Masks:
    """The masks of one batch: one for all layers, or by layer.

    A layer with as many positions as its mask loses those that are padding. One with a single
    position, such as a pooled vector, has no padding. Of any other layer nobody knows what is
    padding: that is an error, unless masks are given by layer and none is meant for it.
    """

    def __init__(self) -> None:
        self._given: Mask | Mapping[str, Mask] | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self._given is not None

    def record(self, given: Any) -> None:
        """Take a mask, or a mapping from layer names or globs to masks.

        Raises
        ------
        ColumnsError
            If there is one already, or one is no array of 0 and 1 of (samples, positions).
        """
        if self._given is not None:
            raise ColumnsError("a mask was recorded twice in one batch; record it once")
        if isinstance(given, Mapping):
            self._given = {name: _to_mask(f"the mask of {name!r}", m) for name, m in given.items()}
        else:
            self._given = _to_mask("the mask", given)

    def of(self, layer: str, samples: int, positions: int) -> Mask | None:
        """Return which positions of a layer are there, bool (samples, positions); None for all.

        Raises
        ------
        ColumnsError
            If the mask has another number of samples.
        OutputError
            If the mask has another number of positions.
        """
        mask = choose(self._given, layer)
        if mask is None or positions == 1:
            return None
        if len(mask) != samples:
            raise ColumnsError(
                f"the mask has shape {mask.shape}, but the batch has {samples} samples; expected "
                "one line a sample"
            )
        if mask.shape[1] != positions:
            raise OutputError(
                f"{layer}: found {positions} positions a sample, but the mask has shape "
                f"{mask.shape}, and which of them are padding cannot be told; exclude the layer, "
                "or give masks by layer: mask={'encoder.*': …}"
            )
        return mask

    def check_names(self, layers: Iterable[str]) -> None:
        """Raise OutputError where a mask is meant for layers that are not there."""
        names = list(layers)
        for pattern in self._given if isinstance(self._given, Mapping) else ():
            if not any(name == pattern or fnmatchcase(name, pattern) for name in names):
                raise OutputError(
                    f"there is a mask for {pattern!r}, which fits none of the layers in this "
                    f"batch: {', '.join(names)}"
                )


def _to_mask(what: str, values: Any) -> Mask:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    numbers = array.dtype.kind in "biuf"
    if array.ndim != 2 or not numbers or not np.isin(array, (0, 1)).all():
        raise ColumnsError(
            f"{what} is {array.dtype} {array.shape}; expected (samples, positions) of 1 where "
            "there is a token and 0 where there is padding, as tokenizers give it"
        )
    return array.astype(np.bool_)
