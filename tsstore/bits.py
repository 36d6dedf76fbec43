"""The one place that knows the bit order of a row.

Bit ``i % 8``, least significant first, of byte ``i // 8`` is neuron ``i``; pad bits are 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def row_bytes(neurons: int) -> int:
    """Return how many bytes a row of so many neurons takes."""
    return (neurons + 7) // 8


def pack(states: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Pack on/off patterns into rows.

    Parameters
    ----------
    states
        Booleans of shape (..., neurons), at least one neuron.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (..., ceil(neurons / 8)).
    """
    on = np.asarray(states, dtype=np.bool_)
    return np.packbits(on, axis=-1, bitorder="little")


def unpack(rows: npt.NDArray[np.uint8], neurons: int) -> npt.NDArray[np.bool_]:
    """Decode rows into on/off patterns.

    Parameters
    ----------
    rows
        uint8 of shape (..., ceil(neurons / 8)).
    neurons
        Number of neurons; the pad bits after them are dropped.

    Returns
    -------
    numpy.ndarray
        Booleans of shape (..., neurons).

    Raises
    ------
    ValueError
        If the last axis does not have ceil(neurons / 8) bytes.
    """
    if rows.shape[-1] != row_bytes(neurons):
        raise ValueError(
            f"rows of {rows.shape[-1]} bytes cannot hold {neurons} neurons: "
            f"expected {row_bytes(neurons)} bytes"
        )
    bits = np.unpackbits(rows, axis=-1, count=neurons, bitorder="little")
    return bits.view(np.bool_)
