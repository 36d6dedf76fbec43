"""Logarithms of multiplicities and what they are corrected by, to the last digits of float64.

Entropy is the mean of ln(n / k) over the rows. Few rows make it too low, and several estimators
mend this by putting something smaller in the place of ln k. What is subtracted, the correction of
ln k, is about 1 / (2 k), so a difference of two large logarithms would lose it: each correction is
computed by itself, from its series in 1 / k as soon as that is exact to the last digits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tsstore.statistics.spectrum import IntArray

FloatArray = npt.NDArray[np.float64]

DIGAMMA_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760)
"""Of ln x - psi(x) - 1 / (2 x) in 1 / x**2, from the first power: the B_2j / (2 j)."""

HALF_DIGAMMA_SERIES = (
    -1 / 24,
    7 / 960,
    -31 / 8064,
    127 / 30720,
    -511 / 67584,
    1414477 / 67092480,
)
"""Of ln x - psi(x + 1/2) in 1 / x**2: the B_2j(1/2) / (2 j), B_2j being Bernoulli polynomials."""

JACKKNIFE_SERIES = tuple(1 / (j * (j + 1)) for j in range(1, 8))
"""Of 1 + (k - 1) ln(1 - 1 / k) in 1 / k."""


def check_level(level: float) -> None:
    """Raise ValueError if a nominal confidence is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95: found {level}")


def log_ratio(total: float, k: FloatArray | IntArray) -> FloatArray:
    """Return ln(total / k), to the last digits also where k is nearly the total.

    Parameters
    ----------
    total
        What the k are parts of.
    k
        float64 or int64 of shape (entries,), above 0 and at most the total.

    Returns
    -------
    float64 of shape (entries,)
        In nats, at least 0.
    """
    ratios: FloatArray = -np.log(k / total)
    # Near 1 the ratio k / n has lost what tells it from 1; n - k has not.
    large = k > total / 2
    ratios[large] = -np.log1p(-(total - k[large]) / total)
    return ratios


def digamma_correction(k: npt.ArrayLike) -> FloatArray:
    """Return ln k - psi(k), which makes ln k Zhang's.

    Parameters
    ----------
    k
        Whole numbers >= 1 of any shape.

    Returns
    -------
    float64 of the shape of k
        In nats: 0.5772 for k = 1, about 1 / (2 k) for large k.

    Notes
    -----
    From k = 16 on by the asymptotic series of digamma (Abramowitz and Stegun 1964, 6.3.18).
    """
    from scipy.special import digamma

    return _piecewise(
        k,
        16,
        lambda k: np.log(k) - digamma(k),
        lambda k: 0.5 / k + _power_series(DIGAMMA_SERIES, 1 / k**2),
    )


def grassberger_correction(k: npt.ArrayLike) -> FloatArray:
    """Return ln k - G_k with Grassberger's G_k = psi(floor(k / 2) + 1/2) + ln 2.

    Parameters
    ----------
    k
        Whole numbers >= 1 of any shape.

    Returns
    -------
    float64 of the shape of k
        In nats: 1.2704 for k = 1, about 1 / k for large odd k and -1 / (6 k**2) for even k.

    Notes
    -----
    Grassberger 2003, arXiv:physics/0307138, whose recursion over k is this closed form. From
    k = 32 on by the asymptotic series of digamma about a half.
    """
    from scipy.special import digamma

    # An even k is 2 (k // 2); an odd one has ln(k / (k - 1)) more.
    return _piecewise(
        k,
        32,
        lambda k: np.log(k) - digamma(k // 2 + 0.5) - np.log(2),
        lambda k: _power_series(HALF_DIGAMMA_SERIES, 1 / (k // 2) ** 2) - np.log1p(-(k % 2) / k),
    )


def jackknife_correction(k: npt.ArrayLike) -> FloatArray:
    """Return 1 + (k - 1) ln(1 - 1 / k), by which the jackknife corrects ln k.

    Parameters
    ----------
    k
        Whole numbers >= 1 of any shape.

    Returns
    -------
    float64 of the shape of k
        In nats: 1 for k = 1, about 1 / (2 k) for large k.

    Notes
    -----
    It is 1 + ln k less k ln k - (k - 1) ln(k - 1), which is what a row fewer takes from the sum of
    k ln k: the jackknife (Zahl 1977) in closed form. From k = 100 on by its series.
    """
    # The logarithm of 0 at k = 1 would stand beside a factor of 0.
    return _piecewise(
        k,
        100,
        lambda k: 1 + (k - 1) * np.log1p(-1 / np.maximum(k, 2)),
        lambda k: _power_series(JACKKNIFE_SERIES, 1 / k),
    )


def _piecewise(
    k: npt.ArrayLike,
    limit: int,
    below: Callable[[FloatArray], FloatArray],
    from_limit: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    x = np.asarray(k, dtype=np.float64)
    return np.piecewise(x, [x < limit], [below, from_limit])


def _power_series(coefficients: tuple[float, ...], x: FloatArray) -> FloatArray:
    """Sum c_1 x + c_2 x**2 + ..., the smallest terms first."""
    total = np.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = (total + coefficient) * x
    return total
