"""How many predictions are right, by group of samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tsstore.analysis.left_out import NOTHING, LeftOut
from tsstore.analysis.samples import PIECE_SAMPLES, RandomGroups
from tsstore.statistics.accuracy import Answers
from tsstore.store.reading.part import Part

PREDICTION = "prediction"
LABEL = "label"


def count_right(
    parts: Iterable[Part], groups: RandomGroups | None = None, left_out: LeftOut = NOTHING
) -> Answers | None:
    """Count right predictions by group, a bounded number of samples at a time.

    Parameters
    ----------
    parts
        Of the run.
    groups
        The groups of samples; one of all unless given.
    left_out
        Samples that do not count.

    Returns
    -------
    Answers
        None if a part with samples has no column prediction or label.

    Raises
    ------
    DamageError
        If a chunk of a column is not what was committed.
    """
    groups = groups or RandomGroups(1)
    held = [part for part in parts if part.samples]
    if not all({PREDICTION, LABEL} <= set(part.columns) for part in held):
        return None
    right, samples = np.zeros((2, groups.count), np.int64)
    for part in held:
        for first in range(0, part.samples, PIECE_SAMPLES):
            stop = min(first + PIECE_SAMPLES, part.samples)
            group = groups.of_samples(part.directory, first, stop - first)
            is_right = part.columns[PREDICTION].read(first, stop) == part.columns[LABEL].read(
                first, stop
            )
            is_right = left_out.select(np.asarray(is_right, np.bool_), part.directory, first)
            group = left_out.select(group, part.directory, first)
            right += np.bincount(group[is_right], minlength=groups.count)
            samples += np.bincount(group, minlength=groups.count)
    return Answers(right, samples)
