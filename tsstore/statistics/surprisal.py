"""How little a sample's rows are expected, given all other samples.

With N rows, K of them in the state of a row, and k of these K in the row's own sample of r rows,
the other samples show the state with the frequency (K - k) / (N - r). They lack states, though: of
all rows, the share

    u = rows in states that one sample alone shows / N

is of states that no other sample shows: Good's (1953) estimate of the mass of unseen states, with a
sample left out at a time instead of a row. So, in bits,

    surprisal = -log2((1 - u) (K - k) / (N - r))        where another sample shows the state,
              = -log2(u / f0)                           where none does,

the mass u being shared out evenly among f0 states, which is how many Chao2 estimates to be unseen
(Chao 1987), one at least: as Chao, Hsieh, Chazdon, Colwell and Gotelli (2015) share it among
undetected species, but evenly. With the mass alone, -log2(u), a state that nobody has seen would
count as more likely than one that is seen often, wherever most states are new.

I. J. Good, "The population frequencies of species and the estimation of population parameters",
Biometrika 40, 1953. A. Chao, "Estimating the population size for capture-recapture data with
unequal catchability", Biometrics 43, 1987. A. Chao et al., "Unveiling the species-rank abundance
distribution by generalizing the Good-Turing sample coverage theory", Ecology 96, 2015.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tsstore.statistics.richness import chao
from tsstore.statistics.spectrum import Spectrum

MOST_NEURONS_OF_A_LIMIT = 1023
"""The states that more neurons can have are more than a float can be, and limit nothing."""


def unseen(spectrum: Spectrum, samples: int, neurons: int) -> tuple[float, float]:
    """Return u and f0: the mass of states that samples have not shown, and how many there are."""
    mass = spectrum.rows_in_single_samples / spectrum.rows
    limit = 2.0**neurons if neurons <= MOST_NEURONS_OF_A_LIMIT else None
    states = chao(spectrum, samples, limit).estimate - spectrum.distinct
    return mass, max(states, 1.0)


def mean_surprisal(
    logs: npt.NDArray[np.float64],
    new_rows: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    mass: float,
    states: float,
) -> npt.NDArray[np.float64]:
    """Return the mean surprisal of each sample's rows, in bits; NaN of one without rows.

    Parameters
    ----------
    logs
        float64 (samples,): the sum of log2(K - k) over the rows whose state another sample shows.
    new_rows, rows
        int64 (samples,): rows of states that no other sample shows, and all rows.
    mass, states
        As `unseen` returns them.
    """
    seen = rows - new_rows
    others = (rows.sum() - rows).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_seen = seen * (np.log2(others) - (math.log2(1 - mass) if mass < 1 else 0.0)) - logs
        of_new = new_rows * (math.log2(states) - math.log2(mass) if mass > 0 else 0.0)
        bits: npt.NDArray[np.float64] = (np.where(seen > 0, of_seen, 0.0) + of_new) / rows
    return bits
