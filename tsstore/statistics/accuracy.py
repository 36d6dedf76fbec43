"""The accuracy of a network's answers, and its confidence limits.

Right answers of independent samples are binomial, and have exact limits (Clopper and Pearson 1934,
Biometrika 26): quantiles of the beta distribution, which also say something where all answers are
right. Answers of one cluster of samples resemble each other: they count for as many as independent
ones that would scatter alike, as groups of clusters tell (Korn and Graubard 1998, Survey
Methodology 24).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tsstore.statistics.jackknife import FEWEST_GROUPS, standard_error, student_quantile
from tsstore.statistics.numerics import FloatArray, check_level
from tsstore.statistics.spectrum import IntArray

FEWEST_WRONG_GROUPS = 10
"""With right or wrong answers in fewer groups these do not tell how much clusters scatter."""


class Answers(NamedTuple):
    """How many answers of each group of samples were right.

    Attributes
    ----------
    right, samples
        int64 of shape (groups,): right answers, and samples that were answered.
    """

    right: IntArray
    samples: IntArray

    @property
    def share(self) -> float:
        """Share of all answers that are right; NaN if there are none."""
        samples = int(self.samples.sum())
        return int(self.right.sum()) / samples if samples else float("nan")

    def shares_without(self) -> FloatArray:
        """Return the share of right answers without each group, float64 (groups,).

        Raises
        ------
        ValueError
            If there are answers of one group only.
        """
        right, samples = int(self.right.sum()), int(self.samples.sum())
        left = samples - self.samples
        if samples == 0 or left.min() == 0:
            raise ValueError(
                f"an accuracy without each group needs answers of two groups: found {samples} "
                f"answers, at most {int(self.samples.max(initial=0))} of them in one group"
            )
        shares: FloatArray = (right - self.right) / left
        return shares


def accuracy_limits(
    answers: Answers, level: float = 0.95, clusters: int | None = None
) -> tuple[float, float]:
    """Return confidence limits of an accuracy.

    Parameters
    ----------
    answers
        Right answers by group of samples.
    level
        Nominal confidence, between 0 and 1.
    clusters
        How many clusters there are, samples of one of which depend on each other, and lie in one
        group; None if each sample is on its own.

    Returns
    -------
    tuple of float
        From 0 to 1.

    Raises
    ------
    ValueError
        If level is not between 0 and 1, there are no answers, or those of clusters are of one group
        only.
    """
    from scipy.special import betaincinv

    check_level(level)
    if not (samples := int(answers.samples.sum())):
        raise ValueError("an accuracy needs answers: there are none")
    number = samples if clusters is None else _effective_answers(answers, level, clusters)
    right = answers.share * number
    wrong = number - right
    tail = (1 - level) / 2
    lower = float(betaincinv(right, wrong + 1, tail)) if right > 0 else 0.0
    upper = float(betaincinv(right + 1, wrong, 1 - tail)) if wrong > 0 else 1.0
    return lower, upper


def _effective_answers(answers: Answers, level: float, clusters: int) -> float:
    """Return how many independent answers scatter like those of clusters."""
    samples, share = int(answers.samples.sum()), answers.share
    telling = min(
        int(np.count_nonzero(part)) for part in (answers.right, answers.samples - answers.right)
    )
    if telling < FEWEST_WRONG_GROUPS:
        return float(min(samples, clusters))
    held = answers.samples > 0
    error = standard_error(answers.shares_without()[held])
    groups = max(int(np.count_nonzero(held)), FEWEST_GROUPS)
    wider = student_quantile(level, groups - 1) / student_quantile(level, 10**6)
    return float(min(samples, share * (1 - share) / (error * wider) ** 2))
