"""Masks: which positions of each sample are there, and which are padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from tsstore.errors import ColumnsError, OutputError
from tsstore.recording.axes.tensor import choose
from tsstore.recording.samples.index import Indices

Mask = npt.NDArray[np.bool_]

_Masks = Mask | list[Mask | None]
"""For all forward passes of the batch, or one for each, None where all positions are there."""


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
        mask = _of_pass(self._of_layer(layer), forward)
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

    def _of_layer(self, layer: str) -> _Masks | None:
        # A list of masks is no choice among layers, whatever a type checker makes of it.
        return cast("_Masks | None", choose(self._given, layer))

    def check_names(self, layers: Iterable[str]) -> None:
        """Raise OutputError where a mask is meant for layers that are not there."""
        names = list(layers)
        for pattern in self._given if isinstance(self._given, Mapping) else ():
            if not any(name == pattern or fnmatchcase(name, pattern) for name in names):
                raise OutputError(
                    f"there is a mask for {pattern!r}, which fits none of the layers in this "
                    f"batch: {', '.join(names)}"
                )

    def check_passes(self, forwards: int) -> None:
        """Raise ColumnsError where there are not as many masks as forward passes."""
        given = self._given.values() if isinstance(self._given, Mapping) else (self._given,)
        for masks in given:
            if isinstance(masks, list) and len(masks) != forwards:
                raise _wrong_passes(len(masks), forwards)


def _spread(mask: Mask, owners: Indices, positions: int) -> Mask | None:
    """Return the mask of each entry from that of each sample; None where it does not fit.

    It says of a sample what is there of each of its entries, or of all of them one after another.
    """
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
