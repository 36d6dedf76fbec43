"""How many predictions are right, by group of samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tsstore.analysis.random_groups import PIECE_SAMPLES, RandomGroups, Sets, sets_of
from tsstore.statistics.rates import Answers
from tsstore.store.reading.part import Part, sample_spans
from tsstore.store.reading.sample_filter import ALL_SAMPLES, SampleFilter

PREDICTION = "prediction"
LABEL = "label"


def count_right(
    parts: Iterable[Part],
    groups: RandomGroups | None = None,
    sample_filter: SampleFilter = ALL_SAMPLES,
    sets: Sets | None = None,
    count: int = 1,
) -> list[Answers | None]:
    """Count right predictions by group, of each of so many sets of samples, or of all as one.

    Without groups, all samples are one. None if a sample that counts has no prediction or label. A
    bounded number of samples is read at a time.
    """
    groups = groups or RandomGroups(1)
    right, samples = np.zeros((2, count * groups.count), np.int64)
    is_known = np.ones(count, np.bool_)
    for part in parts:
        has_answers = {PREDICTION, LABEL} <= set(part.columns)
        if not has_answers and sets is None:
            # To ask of each of millions of samples takes a third of the time of counting them.
            is_known[0] &= not sample_filter.keeps_any(part)
            continue
        for _, first, stop in sample_spans([part], PIECE_SAMPLES):
            own = sets_of(sets, part.directory, first, stop - first, sample_filter)
            if not has_answers:
                is_known[own[own >= 0]] = False
                continue
            group = groups.of_samples(part.directory, first, stop - first)
            prediction, label = (part.columns[name] for name in (PREDICTION, LABEL))
            is_right = prediction.read(first, stop) == label.read(first, stop)
            # The first place is of those that are left out, which are of set -1.
            place = np.maximum(own.astype(np.int64) * groups.count + group, -1) + 1
            for numbers, chosen in ((samples, place), (right, place[is_right])):
                numbers += np.bincount(chosen, minlength=len(numbers) + 1)[1:]
    return [
        Answers(*pair) if known else None
        for *pair, known in zip(
            right.reshape(count, -1), samples.reshape(count, -1), is_known.tolist(), strict=True
        )
    ]
