"""Logarithms of multiplicities and what they are corrected by.

Entropy is the mean of ln(n / k) over the rows. Few rows make it too low, and several estimators
mend this by putting something smaller in the place of ln k. What is subtracted is the correction of
ln k, about 1 / (2 k); it is right to about 1e-14.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsstore.statistics.spectrum import IntArray

FloatArray = npt.NDArray[np.float64]


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
        Whole numbers >= 1, or others above 0, of any shape.

    Returns
    -------
    float64 of the shape of k
        In nats: 0.5772 for k = 1, about 1 / (2 k) for large k.
    """
    from scipy.special import digamma

    x = np.asarray(k, dtype=np.float64)
    correction: FloatArray = np.log(x) - digamma(x)
    return correction


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
    Grassberger 2003, arXiv:physics/0307138, whose recursion over k is this closed form.
    """
    from scipy.special import digamma

    x = np.asarray(k, dtype=np.float64)
    correction: FloatArray = np.log(x / 2) - digamma(x // 2 + 0.5)
    return correction


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
    k ln k: the jackknife (Zahl 1977) in closed form.
    """
    x = np.asarray(k, dtype=np.float64)
    # The logarithm of 0 at k = 1 would stand beside a factor of 0.
    correction: FloatArray = 1 + (x - 1) * np.log1p(-1 / np.maximum(x, 2))
    return correction
