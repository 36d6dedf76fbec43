"""What is shown of a run: which steps, layers and samples, of which a few are left out, or most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tsstore.store.reading.layer_part import Block, LayerPart
from tsstore.store.reading.part import Part

_NONE = np.empty(0, np.int64)


class InParts(Protocol):
    """A layer's states, in parts."""

    @property
    def parts(self) -> tuple[LayerPart, ...]:
        """Its parts."""


@dataclass(frozen=True, eq=False)
class SampleFilter:
    """Samples that are left out, in every layer and column.

    Those `left_out` are int64, sorted, by directory of a part; of others none is left out. A plan
    reckons with at most so many where it was made before it was known how many there are.
    """

    left_out: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    most: int = 0

    @property
    def samples(self) -> int:
        """How many samples are left out, in all parts."""
        return sum(map(len, self.left_out.values()))

    @property
    def planned(self) -> int:
        """How many are left out at most, as a plan reckons."""
        return max(self.samples, self.most)

    def joined(self, other: SampleFilter) -> SampleFilter:
        """Return a filter that leaves out what either does."""
        if not (self.planned and other.planned):
            return self if self.planned else other
        both = {**self.left_out, **other.left_out}
        for directory in self.left_out.keys() & other.left_out.keys():
            both[directory] = np.union1d(self.left_out[directory], other.left_out[directory])
        return SampleFilter(both, self.planned + other.planned)

    def of_parts(self, directories: Iterable[str]) -> SampleFilter:
        """Return the same filter for some parts alone."""
        held = {name: self._of(name) for name in directories if name in self.left_out}
        return SampleFilter(held)

    def kept(self, directory: str, first_sample: int, samples: int) -> npt.NDArray[np.bool_] | None:
        """Return which of consecutive samples of a part stay, bool (samples,); None for all."""
        left_out = self._among(directory, first_sample, samples)
        if not len(left_out):
            return None
        kept = np.ones(samples, np.bool_)
        kept[left_out] = False
        return kept

    def mask(self, directory: str, first_sample: int, samples: int) -> npt.NDArray[np.bool_]:
        """Return the same, also where all stay."""
        kept = self.kept(directory, first_sample, samples)
        return np.ones(samples, np.bool_) if kept is None else kept

    def indices(self, part: Part) -> npt.NDArray[np.int64]:
        """Return which samples of a part stay, int64."""
        kept = self.kept(part.directory, 0, part.samples)
        return np.arange(part.samples) if kept is None else np.flatnonzero(kept)

    def select(
        self, values: npt.NDArray[Any], directory: str, first_sample: int
    ) -> npt.NDArray[Any]:
        """Return those of the values of consecutive samples of a part that stay."""
        kept = self.kept(directory, first_sample, len(values))
        return values if kept is None else values[kept]

    def has_any(self, directory: str, block: Block) -> bool:
        """Whether a block of a part holds a sample that stays."""
        return len(self._among(directory, block.first_sample, block.samples)) < block.samples

    def keeps_any(self, part: Part | LayerPart) -> bool:
        """Whether a sample of a part stays."""
        return part.samples > len(self._of(part.directory))

    def kept_samples(self, states: InParts) -> int:
        """Return how many samples of a layer stay."""
        return sum(part.samples - len(self._of(part.directory)) for part in states.parts)

    def kept_rows(self, states: InParts) -> int:
        """Return how many rows of a layer stay, from the rows of each sample alone."""
        return sum(part.rows - self.rows_left_out(part) for part in states.parts)

    def rows_left_out(self, part: LayerPart) -> int:
        """Return how many rows of a part are left out."""
        left_out = len(self._of(part.directory))
        if not left_out or part.constant_positions is not None:
            return left_out * (part.constant_positions or 0)
        rows = first = 0
        for positions in part.position_pieces():
            rows += int(positions[self._among(part.directory, first, len(positions))].sum())
            first += len(positions)
        return rows

    def _among(self, directory: str, first_sample: int, samples: int) -> npt.NDArray[np.int64]:
        """Return which of consecutive samples are left out, counted from the first of them."""
        indices = self._of(directory)
        if not len(indices):
            return indices
        start, stop = np.searchsorted(indices, [first_sample, first_sample + samples])
        return indices[start:stop] - first_sample

    def _of(self, directory: str) -> npt.NDArray[np.int64]:
        return self.left_out.get(directory, _NONE)


ALL_SAMPLES = SampleFilter()
"""All samples stay."""


@dataclass(frozen=True)
class View:
    """What is shown of a run: some steps, some layers, some samples; all unless said.

    `told` are the conditions of the samples, for those who read results.
    """

    steps: tuple[int | str | None, ...] | None = None
    layers: tuple[str, ...] | None = None
    samples: SampleFilter = ALL_SAMPLES
    told: tuple[str, ...] = ()


WHOLE = View()
"""All of a run."""
