"""What the user says of which sample each entry along a tensor's sample axis belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from tsstore.errors import ColumnsError, OutputError
from tsstore.recording.axes.tensor import check_patterns

Indices = npt.NDArray[np.int64]

SampleIndexChoice = (
    Literal["contiguous", "interleaved"] | tuple[Literal["counts", "index"], Any] | npt.ArrayLike
)
"""How entries belong to samples: see :func:`tsstore.capture`."""

SampleIndexChoices = SampleIndexChoice | Mapping[str, SampleIndexChoice] | None
"""For all layers, or by layer name (globs allowed), or None."""

_EXPECTED: Final = (
    "expected 'contiguous', 'interleaved', ('counts', entries of each sample), ('index', the "
    "sample of each entry, -1 for none), or one of these two arrays alone"
)

_How = Literal["contiguous", "interleaved", "counts", "index", "array"]

AS_MANY: Final = "as many entries as samples"
PACKED_SEQUENCES: Final = "its packed sequences"
MANY_EACH: Final = "several entries each"
ONLY: Final = "the only sample of its batch"


class Owners(NamedTuple):
    """Which sample each entry of one call belongs to, and what says so.

    `samples`, int64 (entries,), is -1 where an entry is of none; None where all samples have as
    many entries, one sample after the other. What `is_told` was said for this very call: others
    may have other entries.
    """

    samples: Indices | None
    reason: str
    is_told: bool = False

    def each(self, entries: int, samples: int) -> Indices:
        """Return the sample of each of so many entries, int64 (entries,); -1 for none."""
        return even_index("contiguous", entries, samples) if self.samples is None else self.samples


ONE_EACH: Final = Owners(None, AS_MANY)
"""One entry a sample, in their order."""


class SampleIndex(NamedTuple):
    """Which sample each entry belongs to, as the user says it for some layers or for all.

    ``"contiguous"``: entries 0…r-1 are of sample 0; ``"interleaved"``: entry i is of sample i mod
    n; ``"counts"``: so many entries of each sample, one sample after the other; ``"index"``: the
    sample of each entry; ``"array"``: the one or the other, by its length.
    """

    how: _How
    numbers: Indices
    for_all: bool = False

    def owners(self, layer: str, entries: int, samples: int) -> Owners:
        """Return whose each of a layer's entries is; OutputError if that does not fit."""
        if self.how in ("contiguous", "interleaved"):
            return self._even(layer, entries, samples)
        fits = self._fits(entries, samples)
        if self.for_all and entries == samples and not fits:
            return ONE_EACH
        if entries == samples and fits and (self.for_all or self.how == "array"):
            raise self._two_meanings(layer, samples)
        if not fits:
            raise OutputError(
                f"{layer}: found {entries} entries of {samples} samples, but sample_index has "
                f"{self.numbers.size} numbers, with a sum of {self.numbers.sum()}; expected the "
                "sample of each entry, or the number of entries of each sample"
            )
        return Owners(self._index(layer, samples, fits), f"{fits}: by the user", is_told=True)

    def _even(self, layer: str, entries: int, samples: int) -> Owners:
        if entries % samples if samples else entries:
            raise OutputError(
                f"{layer}: found {entries} entries, which {samples} samples cannot share "
                f"({self.how}); pass as sample_index= how many entries each sample has, or the "
                "sample of each entry"
            )
        index = None if self.how == "contiguous" else even_index(self.how, entries, samples)
        return Owners(index, f"{self.how}: by the user", is_told=True)

    def _fits(self, entries: int, samples: int) -> str:
        """Return what the numbers are, the one or the other, or nothing where they fit neither."""
        if self.how != "counts" and self.numbers.size == entries:
            return "index"
        counts = self.numbers.size == samples and self.numbers.sum() == entries
        fits = self.how != "index" and counts and (self.numbers >= 0).all()
        return "counts" if fits else ""

    def _index(self, layer: str, samples: int, how: str) -> Indices:
        if how == "counts":
            return np.repeat(np.arange(samples), self.numbers)
        if (self.numbers >= samples).any():
            raise OutputError(
                f"{layer}: sample_index names sample {self.numbers.max()}, but the batch has "
                f"{samples}; expected numbers from 0 to {samples - 1}, and -1 for no sample"
            )
        return self.numbers

    def _two_meanings(self, layer: str, samples: int) -> OutputError:
        if self.how == "array":
            return OutputError(
                f"{layer}: there are as many entries as samples, {samples}, and whether "
                "sample_index is the sample of each entry or the number of entries of each sample "
                "cannot be told; say which: ('index', …) or ('counts', …)"
            )
        return OutputError(
            f"{layer}: there are as many entries as samples, {samples}, and whether sample_index "
            "is meant for this layer, too, cannot be told; say for which layers it is: "
            f"sample_index={{'{layer}': …}}"
        )


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return an array, a tensor or a list as an array in the CPU's memory."""
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)


def even_index(how: str, entries: int, samples: int) -> Indices:
    """Return the sample of each entry where all have as many, contiguous or interleaved."""
    numbers = np.arange(entries, dtype=np.int64)
    return (
        numbers % samples if how == "interleaved" else numbers // max(entries // max(samples, 1), 1)
    )


def parsed(given: Any) -> SampleIndex | dict[str, SampleIndex] | None:
    """Return what the user gave for all layers, or by name or glob; ColumnsError if it is none."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {str(name): _parsed(f"sample_index of {name!r}", one) for name, one in given.items()}
    return _parsed("sample_index", given)._replace(for_all=True)


def check_names(
    given: SampleIndex | Mapping[str, SampleIndex] | None, layers: Iterable[str]
) -> None:
    """Raise OutputError where an index is meant for layers that are not captured."""
    check_patterns(given, layers, "sample_index names", "captured layers", OutputError)


def _parsed(what: str, given: Any) -> SampleIndex:
    if isinstance(given, str):
        if given in ("contiguous", "interleaved"):
            return SampleIndex(cast("_How", given), np.empty(0, np.int64))
        raise ColumnsError(f"{what} is {given!r:.80}; {_EXPECTED}")
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str):
        how, values = given
        if how in ("counts", "index"):
            return SampleIndex(cast("_How", how), _numbers(what, values))
        raise ColumnsError(f"{what} is ({how!r:.80}, …); {_EXPECTED}")
    return SampleIndex("array", _numbers(what, given))


def _numbers(what: str, values: Any) -> Indices:
    try:
        array = as_array(values)
    except ValueError:
        array = np.asarray(None)
    if array.size == 0:
        array = array.astype(np.int64).reshape(-1) if array.ndim == 1 else array
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array < -1).any():
        raise ColumnsError(f"{what} is {array.dtype} {array.shape}; {_EXPECTED}")
    return array.astype(np.int64)
