"""What the samples may have missed: how far beyond what they show the entropy can lie.

Coverage bounds how many rows are in states that were not seen. Their entropy can still be that
share times all neurons: rare classes and rare inputs of another kind look like that in wide layers.
All of this holds whatever the distribution; only that samples are independent draws is assumed.

*Unseen states, on average.* With P the probability that a state is in a sample, Zhang's (2012)
identity (`sample_estimator`) leaves of -ln P the rest  sum over v >= m of (1 - P)**v / v,  which is
E1(m P) for small P, E1 being the exponential integral. So what the states seen tell without any
guess at the rest (the first part of the estimate) lacks, in nats,

    R = sum p E1(m P),        while        u = sum p exp(-m P)

is the share of the rows in states not seen, estimated by M1 / n. Let K states be left: 2**neurons
less those seen; the expected number of states not seen, sum exp(-m P), is at most about K.
x exp(x) E1(x) = integral of x / (x + t) exp(-t) dt is a concave function of x, so that by Jensen's
inequality

    R <= u exp(x) E1(x),        x = m u / K,

with equality where the rows not seen are spread evenly over all states left: for small x it is
u (ln(K / (m u)) - 0.577). Where samples have several rows, p = P s with s <= 1, and the same holds:
the concave function times s is at most the function of s m P. The estimate of Chao, Wang and Jost
is of the same form; it takes x from the states seen twice and once.

*Kinds of samples that were not drawn.* A kind of which a share e of all samples is, is missed by m
draws with probability (1 - e)**m, so that e is at most  1 - a**(1 / m)  with confidence 1 - a:
about 3.7 / m for one end of a 95 % interval (the rule of three). Where samples differ in length,
rows weigh them by it, and m is what they are worth: M = n**2 / sum r**2, with r of the n rows in a
sample. A kind of samples far longer than all that were drawn may still hold more of the rows than
that, and no sample tells. Together with the scatter of u by groups,

    U = u + root of ((t standard errors of u)**2 + e**2)

is the upper limit of the share not seen. If U - u more of the rows were in states seen once, what
the states seen tell would be (U - u) (psi(m) - psi(1)) nats more, and R what it is at U. Where no
state is left (K = 0) the kind that was not drawn is of states seen, and at most as rare as the
rarest of them, of q samples: psi(q) takes the place of psi(1).

In the other direction the kind missed may be of a single state. Entropy is concave: that of a
mixture is at least (1 - e) times that of the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tsstore.statistics.special import scaled_exponential_integral
from tsstore.statistics.spectrum import Spectrum

EULER = 0.5772156649015329
SMALLEST_X = 1e-12
"""Below, exp(x) E1(x) is -ln x less Euler's constant; x itself may be too small for a float."""


@dataclass(frozen=True)
class Missed:
    """What of a layer's entropy its samples may have missed.

    Attributes
    ----------
    samples
        M, which is m where all samples have as many rows; at most the number of clusters.
    shown
        Entropy, in bits, that the states seen tell without any guess at the others.
    unseen, unseen_error
        u, and its standard error; 0 where it was not computed.
    states_left
        Base 2 logarithm of K.
    rarest
        How many samples show the rarest state; 1 if there are states left.
    constant
        Whether a single state was seen: the entropy can then only be higher, and the whole risk of
        an interval is at its upper end.
    """

    samples: float
    shown: float
    unseen: float
    unseen_error: float
    states_left: float
    rarest: int
    constant: bool

    @classmethod
    def by(
        cls,
        spectrum: Spectrum,
        samples: float,
        neurons: int,
        shown: float,
        unseen: float,
        unseen_error: float,
    ) -> Missed:
        """Take the rest from what was counted in so many samples of one length."""
        left = states_left(neurons, spectrum.distinct)
        rarest = int(spectrum.incidence.min()) if left == -math.inf else 1
        constant = spectrum.distinct == 1
        rarest = min(rarest, math.floor(samples))
        return cls(samples, shown, unseen, unseen_error, left, rarest, constant)

    def share(self, level: float) -> float:
        """Return the share of all samples that may be of a kind of which none was drawn."""
        return share_missed(self.samples, 1 - level if self.constant else (1 - level) / 2)

    @property
    def highest(self) -> float:
        """Bits that the layer may have on average, the states left being as rare as can be."""
        return self.shown + self._hidden(self.unseen)

    def at_most(self, level: float, quantile: float) -> float:
        """Return the bits that the layer may have if as much was missed as can be.

        An interval of such a level reaches so many standard errors, the quantile.
        """
        from scipy.special import digamma

        more = math.hypot(quantile * self.unseen_error, self.share(level))
        limit = min(1.0, self.unseen + more)
        surprisal = float(digamma(self.samples) - digamma(self.rarest)) / math.log(2)
        return self.shown + (limit - self.unseen) * surprisal + self._hidden(limit)

    def _hidden(self, unseen: float) -> float:
        """Return the largest R, in bits, for such a share of rows in states not seen."""
        if unseen <= 0 or self.states_left == -math.inf:
            return 0.0
        log_x = math.log(self.samples * unseen) - self.states_left * math.log(2)
        if log_x < math.log(SMALLEST_X):
            return unseen * (-log_x - EULER) / math.log(2)
        return unseen * scaled_exponential_integral(math.exp(log_x)) / math.log(2)


def states_left(neurons: int, distinct: int) -> float:
    """Return the base 2 logarithm of how many states were not seen; -infinity if none is left."""
    left = 2**neurons - distinct
    return math.log2(left) if left > 0 else -math.inf


def effective_samples(samples: int, rows: int, pairs_within_samples: int) -> float:
    """Return how many samples of one length weigh as much: M, at most the samples, or clusters.

    They have n rows, and so many pairs of rows within samples, the sum of r (r - 1) / 2.
    """
    return min(samples, rows**2 / max(1, rows + 2 * pairs_within_samples))


def share_missed(samples: float, risk: float) -> float:
    """Return the share of all samples that draws have missed with no more than such a risk."""
    return -math.expm1(math.log(risk) / samples) if samples else 1.0
