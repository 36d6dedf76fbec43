"""The plug-in numbers of one layer that may still grow, as TensorState's tutorial asks for them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tsstore import bits
from tsstore.analysis.layers import count_layer
from tsstore.analysis.request import Request, choose
from tsstore.errors import EmptyStoreError, RowIndexError
from tsstore.statistics.estimators import plug_in
from tsstore.statistics.spectrum import Spectrum
from tsstore.store.reading.layer import LayerStates

_Found = TypeVar("_Found")


class PlugIns(ABC):
    """Evaluates the states of one layer, anew where there are more by now; errors name it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: dict[Callable[..., Any], tuple[int, Any]] = {}

    @abstractmethod
    def _captured(self) -> LayerStates | None:
        """Return the states there are by now; None if there never were any."""

    @property
    def state_count(self) -> int:
        """Number of states captured, repeats included."""
        captured = self._captured()
        return captured.rows if captured is not None else 0

    @property
    def raw_states(self) -> LayerStates:
        """All captured states as packed rows, read when they are sliced."""
        return self._required()

    @property
    def states(self) -> npt.NDArray[np.bool_]:
        """The distinct states, bool (distinct, neurons), in the order of :meth:`state_ids`."""
        return bits.unpack(self._find(_distinct)[0], self._required().neurons)

    def counts(self, index: int | Sequence[int] | npt.NDArray[Any] | None = None) -> Any:
        """Return how often each distinct state was captured, in the order of :meth:`state_ids`.

        Parameters
        ----------
        index
            Numbers of samples, or a mask over them: only their states count.

        Returns
        -------
        numpy.ndarray
            int64 (distinct,), states in byte-lexicographic order of the packed row.

        Raises
        ------
        RowIndexError
            If there is no such sample.
        """
        if index is None:
            return self._find(_distinct)[1] if self._captured() is not None else np.empty(0, int)
        return _distinct_rows(self._rows_of_samples(index))[1]

    def state_ids(self) -> list[bytes]:
        """Return the packed rows of the distinct states, in byte-lexicographic order."""
        if self._captured() is None:
            return []
        return [row.tobytes() for row in self._find(_distinct)[0]]

    def max_entropy(self) -> float:
        """Return the most bits that the layer could have: its neurons."""
        return float(self._required().neurons)

    def entropy(self, alpha: float | None = 1) -> float:
        """Return the plug-in Rényi entropy of order `alpha`, in bits; None is the maximum.

        After a reset it is 0.0 until the model has run again.
        """
        if alpha is None:
            return self.max_entropy()
        return plug_in(self._find(_spectrum), alpha) if self._required().rows else 0.0

    def efficiency(self, alpha1: float = 1, alpha2: float | None = None) -> float:
        """Return the entropy of order `alpha1` by that of order `alpha2`, or by the neurons."""
        above, below = self.entropy(alpha1), self.entropy(alpha2)
        return above / below if below else 0.0

    def states_per_instance(self) -> float:
        """Return the mean number of states of a sample; of none, what the first ones had."""
        captured = self._required()
        samples = np.count_nonzero(captured.read_positions())
        if not samples:
            return float(math.prod(captured.attributes.position_shape))
        return captured.rows / int(samples)

    def _required(self) -> LayerStates:
        captured = self._captured()
        if captured is None:
            raise EmptyStoreError(
                f"{self.name} has captured nothing yet; run the model first, itself: a copy of it "
                "has hooks that capture nothing until build_efficiency_model attaches others"
            )
        return captured

    def _find(self, find: Callable[[LayerStates], _Found]) -> _Found:
        """Return what is found in the states, anew if there are more by now."""
        captured = self._required()
        if find not in self._found or self._found[find][0] != captured.rows:
            self._found[find] = captured.rows, find(captured)
        found: _Found = self._found[find][1]
        return found

    def _rows_of_samples(self, index: Any) -> npt.NDArray[np.uint8]:
        captured = self._required()
        positions = captured.read_positions()
        positions = positions[positions > 0]
        plain = np.asarray(index.cpu()) if hasattr(index, "cpu") else index
        try:
            samples = np.arange(len(positions))[plain].ravel()
        except IndexError as error:
            raise RowIndexError(f"{self.name} has {len(positions)} samples: {error}") from None
        ends = np.cumsum(positions)
        ranges = [np.arange(ends[i] - positions[i], ends[i]) for i in samples]
        return captured[np.concatenate([np.empty(0, dtype=np.int64), *ranges])]


def _distinct(states: LayerStates) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    return _distinct_rows(states[:])


def _spectrum(states: LayerStates) -> Spectrum:
    request = Request(scheduler="threads")
    return count_layer(states, request, choose(request.scheduler)).spectrum


def sort_rows(rows: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sort rows, uint8 (n, row_bytes), and say where each distinct one begins.

    Of the edges and the order, int64 (distinct + 1,) and (n,), the i-th distinct row is
    ``rows[order[edges[i]]]``, and there are ``edges[i + 1] - edges[i]`` of it; ``rows[order]`` is
    in byte-lexicographic order, and equal rows keep theirs.
    """
    keys = _sort_keys(rows)
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    is_new = np.ones(len(rows), dtype=np.bool_)
    is_new[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    edges = np.append(np.flatnonzero(is_new), len(rows))
    return edges, order


def _distinct_rows(
    rows: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return distinct rows, uint8 (distinct, row_bytes), in order, and how often each occurs."""
    edges, order = sort_rows(rows)
    return rows[order[edges[:-1]]], np.diff(edges)


def _sort_keys(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return rows as big-endian words, which sort as the bytes do: uint64 (n, words)."""
    words = -(-rows.shape[1] // 8)
    padded = np.zeros((len(rows), 8 * words), dtype=np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded.view(">u8").astype(np.uint64)
