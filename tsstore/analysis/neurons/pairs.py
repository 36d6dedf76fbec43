"""Pairs of neurons that do nearly the same, or the opposite, from the rows in which both fire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tsstore.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd

MOST_PAIRS = 1_000_000

_Numbers = npt.NDArray[np.int64]


def near_pairs(joint: _Numbers, rows: int, share: float, opposite: bool) -> pd.DataFrame:
    """Return pairs that do the same in such a share of the rows, as `LayerNeurons.near_identical`.

    Of `opposite` ones, one neuron does what the other does not. `joint` are the rows in which two
    neurons fire, int64 (neurons, neurons), symmetric.
    """
    import pandas as pd

    if not (isinstance(share, int | float | np.number) and 0 <= share <= 1):
        raise AnalysisError(f"share is {share!r:.80}; expected one of the rows, from 0 to 1")
    found: list[_Numbers] = []
    held = 0
    for own in _agreeing(joint, rows, share, opposite):
        held += own.shape[1]
        found.append(own)
        if held > MOST_PAIRS:
            raise AnalysisError(
                f"more than {MOST_PAIRS:,} pairs of neurons do the same in {share:g} of the rows: "
                "they fire rarely, or nearly always; ask for a larger share"
            )
    first, other, same = np.concatenate([np.empty((3, 0), np.int64), *found], axis=1)
    rate = np.diagonal(joint) / rows
    one, two = rate[first], rate[other]
    two = 1 - two if opposite else two
    by_chance = one * two + (1 - one) * (1 - two)
    frame = pd.DataFrame(
        {
            "neuron": first,
            "other": other,
            "rows": same,
            "share": same / rows,
            "by_chance": by_chance,
            "kappa": (same / rows - by_chance) / (1 - by_chance),
        }
    )
    return frame.sort_values("kappa", ascending=False, kind="stable", ignore_index=True)


def _agreeing(joint: _Numbers, rows: int, share: float, opposite: bool) -> Iterator[_Numbers]:
    """Yield for each neuron those of higher index that agree: int64 (3, pairs), the rows last."""
    on = np.diagonal(joint)
    live = np.flatnonzero((on > 0) & (on < rows))
    for place, neuron in enumerate(live[:-1].tolist()):
        others = live[place + 1 :]
        differ = on[neuron] + on[others] - 2 * joint[neuron, others]
        same = differ if opposite else rows - differ
        chosen = same / rows >= share
        number = int(chosen.sum())
        if number:
            yield np.stack([np.full(number, neuron), others[chosen], same[chosen]])
