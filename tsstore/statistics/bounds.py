"""A lower bound on the entropy of a layer, whatever the distribution of its states.

How often do two rows from different samples agree? Among T such pairs, P do; mu2 = P / T
estimates, without bias, the probability sum p_i**2 that two independent draws give the same
state, and -log2 of that is the collision entropy H2, which never exceeds the Shannon entropy H.
The bound takes the largest mu2 that so few agreements still allow.

*Independent rows* (one position a sample, n rows). P counts rare events that overlap in rows, so
its variance is a Poisson variable's times phi >= 1: with ``mu3 = sum p_i**3``,

    phi = Var P / E P = 1 - mu2 + 2 (n - 2) (mu3 / mu2 - mu2),

which is Hoeffding's (1948) variance of a U-statistic. P / phi is treated as a Poisson variable,
whose exact upper limit is a quantile of the gamma distribution (Garwood 1936):

    U = phi * gamma quantile(level; shape P / phi + 1),        H >= H2 >= log2(T / U).

*Several positions a sample.* Rows of one sample repeat each other, so pairs within a sample say
nothing and are left out of P and T; mu2 stays unbiased, as long as the number of positions does not
depend on the states. Let a sample have p of the n rows, and let M = n**2 / sum p**2 be the
effective number of samples. Suppose one row were drawn at random from
each of M samples: M independent rows. With equal p, M is the number of samples and mu2 is the
conditional mean, given all samples, of the estimate from those M rows; by Rao and Blackwell its
variance is at most theirs. For unequal p, comparing the terms of Hoeffding's decomposition one by
one (Jensen's inequality) gives the same, provided that no sample has more than two thirds of
the rows; M >= 3 sees to that. So the formulas for M independent rows are used, with
T = M (M - 1) / 2 and P = mu2 T.

mu3 asks for triples of rows from three different samples. A state with k rows in q samples has at
most ``(k / q)**3 q (q - 1) (q - 2)`` of them (Maclaurin's inequality), and there are at least
``n**3 (1 - 1/M) (1 - 2/M)`` in all (Cauchy and Schwarz); the quotient is never below the unbiased
estimate. With one position a sample k = q and M = n, and everything is as above.

*Several positions, samples in groups.* M rows are far fewer than there are where the rows of a
sample differ, and the bound is then far lower than it need be. How much mu2 really scatters from
sample to sample is seen by leaving groups of samples out: the delete-a-group jackknife
(`jackknife`) of the estimate of H2, with Student's one-sided quantile t, gives

    H >= H2 >= -log2(mu2) - t * standard error of log2(mu2).

It needs equal pairs whichever group is left out; else, and where that is larger, the bound from M
rows stands. With one position a sample, M is the number of rows and nothing is to be gained.

*From the plug-in.* The plug-in entropy is too low on average, whatever the distribution, since it
is a concave function of shares that are right on average (Jensen). So what is left of it after t
standard errors by the same jackknife is another bound, the better one where most states were seen.

*Kinds of samples that were not drawn.* Groups scatter only as far as what was drawn does. Of the
samples a share e may be of other kinds, all in one state for example, none of which was drawn; e is
at most what `missed.share_missed` says. Entropy is concave, so that H of the mixture is at least
1 - e times H of the rest, which is what the bounds speak of.

The better of the jackknife's two bounds is therefore taken 1 - e times. That from M rows, which
take nothing from the groups, stands as it is where samples are of one length. Else rows weigh
samples by their lengths, which may depend on the states: e is then that of M samples, and all three
bounds are taken 1 - e times. A kind of samples far longer than all that were drawn may still hold
more of the rows than e; that there is none is an assumption. Pairs, plug-in and e can each be
wrong, and share the risk: two fifths, two fifths, and one.

*Clusters.* Samples of one cluster, such as images of one patient, are no more independent than rows
of one sample are. Groups that hold whole clusters are, so that M rows are then one from each group:
a whole group takes the place of a sample. The jackknife leaves out whole clusters as it is, and e
counts clusters.
"""

from __future__ import annotations

import math

import numpy as np

from tsstore.statistics.jackknife import FEWEST_GROUPS, SpectrumDelta, check_changes, standard_error
from tsstore.statistics.missed import effective_samples, share_missed
from tsstore.statistics.special import FloatArray, check_level
from tsstore.statistics.spectrum import IntArray, Spectrum, exact_total

FEWEST_SAMPLES = 3
"""With fewer effective samples no triple of samples tells how much the pairs overlap."""

AS_LONG = 0.999
"""Samples are of one length if they are worth as many as this share of them."""

RISK_OF_A_BOUND, RISK_OF_MISSED = 2 / 5, 1 / 5
"""How the bounds from pairs and from the plug-in, and the share that was missed, share the risk."""


def entropy_lower_bound(
    spectrum: Spectrum,
    *,
    equal_pairs_within_samples: int = 0,
    pairs_within_samples: int = 0,
    level: float = 0.95,
) -> float:
    """Return a lower confidence bound on the Shannon entropy of a layer's states: bits, at least 0.

    It assumes of the samples only that they were drawn independently, and it can lie above log2 of
    the rows; 0 for fewer than three effective samples. Pairs within samples, the sums of c (c - 1)
    / 2 over states and samples, c being the rows of the sample with the state, and of p (p - 1) / 2
    over samples of p rows, are 0 for one position a sample. ValueError if the level is not between
    0 and 1, or the pairs contradict the spectrum.

    The level is that of not exceeding H2, and is not exact, since the spread of the number of equal
    pairs is itself estimated: with few samples, or a few frequent states above many rare ones, H2
    is exceeded more often. In the simulations of the tests H is not.
    """
    check_level(level)
    _check_pairs(spectrum, equal_pairs_within_samples, pairs_within_samples)
    rows = spectrum.rows
    squared_rows = rows + 2 * pairs_within_samples
    if rows**2 < FEWEST_SAMPLES * squared_rows or rows == 0:
        return 0.0
    equal_pairs = _pairs_of_equal_rows(spectrum) - equal_pairs_within_samples
    agreement = equal_pairs / (_pairs(rows) - pairs_within_samples)
    samples = rows**2 / squared_rows
    return _bound(agreement, triple_agreement(spectrum, samples), samples, level)


def entropy_lower_bound_by_groups(
    spectrum: Spectrum,
    samples: int,
    changes: SpectrumDelta,
    *,
    clusters: int | None = None,
    level: float = 0.95,
) -> float:
    """Return the lower confidence bound, with what groups of samples tell of its scatter.

    Parameters are as of `intervals.jackknifed_entropy`; errors those of `entropy_lower_bound`, and
    that of changes which are those of other samples. In the simulations of the tests and of
    `benchmarks/estimators.py` it exceeded H no more often than the level allows.
    """
    check_changes(spectrum, samples, changes)
    check_level(level)
    each = 1 - RISK_OF_A_BOUND * (1 - level)
    equal_pairs = int(changes.equal_pairs_within_samples.sum())
    pairs = int(changes.pairs_within_samples.sum())
    of_one = (equal_pairs, pairs) if clusters is None else pairs_within_groups(spectrum, changes)
    from_rows = entropy_lower_bound(
        spectrum, equal_pairs_within_samples=of_one[0], pairs_within_samples=of_one[1], level=each
    )
    if np.count_nonzero(changes.rows) < FEWEST_GROUPS:
        return from_rows
    effective = effective_samples(clusters or samples, spectrum.rows, pairs)
    kept = 1 - share_missed(effective, RISK_OF_MISSED * (1 - level))
    by_groups = max(_from_pairs(spectrum, changes, each), _from_plug_in(spectrum, changes, each))
    if effective < AS_LONG * (clusters or samples):
        return kept * max(from_rows, by_groups)
    return max(from_rows, kept * by_groups)


def _from_pairs(spectrum: Spectrum, changes: SpectrumDelta, level: float) -> float:
    """Return the bound from pairs of equal rows; 0 if there are none without some group."""
    agreements = _agreements_without_groups(spectrum, changes)[changes.samples > 0]
    if not (agreements > 0).all():
        return 0.0
    equal = _pairs_of_equal_rows(spectrum) - int(changes.equal_pairs_within_samples.sum())
    pairs = _pairs(spectrum.rows) - int(changes.pairs_within_samples.sum())
    return -math.log2(equal / pairs) - _margin(np.log2(agreements), level)


def _from_plug_in(spectrum: Spectrum, changes: SpectrumDelta, level: float) -> float:
    """Return the bound from the plug-in entropy, which is too low on average."""
    total = float(spectrum.states @ _k_log_k(spectrum.multiplicity))
    change = changes.states * _k_log_k(changes.multiplicity)
    left = (spectrum.rows - changes.rows)[changes.samples > 0]
    rest = total + changes.by_group(change)[changes.samples > 0]
    bits = math.log2(spectrum.rows) - total / spectrum.rows
    return bits - _margin(np.log2(left) - rest / left, level)


def _k_log_k(k: IntArray) -> FloatArray:
    return np.asarray(k * np.log2(k), np.float64)


def _margin(values: FloatArray, level: float) -> float:
    """Return how far a one-sided interval reaches for scatter, from values without each group."""
    from scipy.special import stdtrit

    return standard_error(values) * float(stdtrit(len(values) - 1, level))


def pairs_within_groups(spectrum: Spectrum, changes: SpectrumDelta) -> tuple[int, int]:
    """Return how many pairs of rows of one group are equal, and how many there are.

    A pair of rows of two groups is gone without either of them, one of a group without that alone.
    So of equal pairs E, those that leaving each group out takes away come to 2 E less those within
    groups.
    """
    k, states = changes.multiplicity, changes.states
    lost, gained = (
        _equal_pairs(k[part], np.abs(states[part])) for part in (states < 0, states > 0)
    )
    pairs = sum(map(_pairs, changes.rows.tolist()))
    return 2 * _pairs_of_equal_rows(spectrum) - (lost - gained), pairs


def _agreements_without_groups(spectrum: Spectrum, changes: SpectrumDelta) -> FloatArray:
    """Return the share of equal ones among pairs of rows of two samples, without each group."""
    k = changes.multiplicity.astype(np.float64)
    change = changes.by_group(changes.states * (k * (k - 1) / 2))
    within = changes.equal_pairs_within_samples
    equal = _pairs_of_equal_rows(spectrum) + change - (within.sum() - within)
    rows = (spectrum.rows - changes.rows).astype(np.float64)
    within = changes.pairs_within_samples
    pairs = rows * (rows - 1) / 2 - (within.sum() - within)
    agreements = np.zeros(changes.groups)
    np.divide(equal, pairs, out=agreements, where=pairs > 0)
    return agreements


def _bound(agreement: float, of_triples: float, samples: float, level: float) -> float:
    """Evaluate the formulas for independent rows, one from each effective sample."""
    from scipy.special import gammaincinv

    pairs = samples * (samples - 1) / 2
    spread = 1.0
    if agreement > 0:
        overlap = of_triples / agreement - agreement
        spread = max(1.0, 1 - agreement + 2 * (samples - 2) * overlap)
    upper = spread * float(gammaincinv(agreement * pairs / spread + 1, level))
    return max(0.0, math.log2(pairs / upper))


def triple_agreement(spectrum: Spectrum, samples: float) -> float:
    """Return an estimate of sum p_i**3 that is at least the one from triples of samples."""
    q = spectrum.incidence.astype(np.float64)
    rows_per_sample = spectrum.multiplicity / q
    triples = math.fsum(spectrum.states * rows_per_sample**3 * q * (q - 1) * (q - 2))
    return triples / (float(spectrum.rows) ** 3 * (1 - 1 / samples) * (1 - 2 / samples))


def _pairs(rows: int) -> int:
    return rows * (rows - 1) // 2


def _pairs_of_equal_rows(spectrum: Spectrum) -> int:
    return _equal_pairs(*spectrum.multiplicities())


def _equal_pairs(k: IntArray, states: IntArray) -> int:
    """Return the pairs of equal rows of so many states with k rows each."""
    return (exact_total(k, k, states) - exact_total(k, states)) // 2


def _check_pairs(spectrum: Spectrum, equal_pairs: int, pairs: int) -> None:
    """Check what any samples must satisfy: forgotten pairs would give a bound that is too high."""
    repeats = spectrum.rows - int(spectrum.incidence @ spectrum.states)
    if not repeats <= equal_pairs <= _pairs_of_equal_rows(spectrum):
        raise ValueError(
            f"equal_pairs_within_samples must be from {repeats} (rows that repeat a state of "
            f"their sample) to {_pairs_of_equal_rows(spectrum)} (equal pairs in all) for this "
            f"spectrum: found {equal_pairs}"
        )
    if not equal_pairs <= pairs <= _pairs(spectrum.rows):
        raise ValueError(
            f"pairs_within_samples must be from {equal_pairs} (those that are equal) to "
            f"{_pairs(spectrum.rows)} (pairs in all): found {pairs}"
        )
