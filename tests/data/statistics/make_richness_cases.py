"""Write richness_cases.json: richness, coverage and diversity at a size, to 60 digits.

Everything is computed from its definition, never from the forms that the package evaluates:
probabilities from factorials, means over hypergeometric numbers term by term. Where there are too
many terms, x ln x is expanded about the mean, with exact central moments.

Run: python tests/data/statistics/make_richness_cases.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from mpmath import mp, mpf

mp.dps = 60

TERMS = 20_000
"""The most terms that are summed one by one."""

AVOIDANCE = [
    *[(1, 5, 10), (3, 0, 10), (64, 10**6, 10**13), (64, 10**13 - 64, 10**13), (7, 5, 12)],
    *[(5 * 10**12, 64, 10**13), (10**13 - 64, 64, 10**13), (10**13 - 65, 3, 10**13)],
    *[(65, 65, 130), (65, 65, 131), (70, 70, 155), (70, 70, 156), (65, 65, 10**13)],
    *[(100, 10**13 - 100, 10**13), (10**13 - 115, 100, 10**13), (10**13 - 116, 100, 10**13)],
    *[(10**6, 10**7, 10**13), (3 * 10**6, 4 * 10**6, 10**13), (10**9, 10**5, 10**13)],
    *[(5 * 10**12, 5 * 10**12, 10**13), (4 * 10**12, 5 * 10**12, 10**13)],
    *[(10**9, 10**10, 9 * 10**18), (65, 9 * 10**18 - 66, 9 * 10**18)],
]

TAILS = {1: 3_000_000_000, 2: 700_000_000, 3: 250_000_000, 10: 10**7, 100: 10**5, 1000: 400}
HUGE = {**TAILS, 10**9: 12, 7 * 10**10: 1}
FREQUENT = 10**13 - sum(k * states for k, states in HUGE.items())

# Name, {count: states}, draws (None: by rows), and where to look.
CASES: list[tuple[str, dict[int, int], int | None, list[int]]] = [
    ("small", {1: 4, 2: 2, 3: 1, 7: 1}, None, [1, 2, 9, 17, 18, 19, 36, 500]),
    ("none_twice", {1: 5, 3: 2, 6: 1}, None, [1, 8, 16, 17, 18, 40]),
    ("none_once", {2: 3, 5: 1, 30: 2}, None, [1, 10, 70, 71, 72, 200]),
    ("one_once", {1: 1, 40: 3}, None, [1, 60, 120, 121, 122, 300]),
    ("all_once", {1: 50}, None, [1, 25, 49, 50, 51, 100]),
    ("few_samples", {1: 6, 2: 3, 4: 2, 12: 1}, 12, [1, 2, 11, 12, 13, 24, 100]),
    ("in_every_sample", {5: 3}, 5, [1, 4, 5, 6, 10]),
    ("many_samples", {1: 900, 2: 250, 5: 40, 63: 9, 800: 2}, 1000, [1, 99, 500, 999, 1000, 2000]),
    (
        "power_law",
        {k: max(1, round(20_000 / k**1.7)) for k in [*range(1, 70), 90, 200, 1500, 9000]},
        None,
        [2, 100, 40_000, 70_000, 10**6],
    ),
    (
        "huge",
        {**HUGE, FREQUENT: 1},
        None,
        [1, 10**10, 5 * 10**12, 10**13 - 1, 10**13, 10**13 + 1, 2 * 10**13],
    ),
    (
        "nearly_one_state",
        {1: 3, 2: 1, 10**13 - 5: 1},
        None,
        [10**6, 5 * 10**12, 10**13 - 1, 10**13, 10**13 + 1, 4 * 10**13],
    ),
    (
        "two_states",
        {5 * 10**12 - 1: 1, 5 * 10**12 + 1: 1},
        None,
        [2, 10**12, 5 * 10**12, 10**13, 2 * 10**13],
    ),
    (
        "huge_by_samples",
        {1: 10**11, 2: 10**10, 50: 10**8, 10**9: 700, 10**12 - 3: 2, 10**12: 1},
        10**12,
        [1, 10**11, 10**12 - 1, 10**12, 10**12 + 1, 2 * 10**12],
    ),
]


class Definitions:
    """The quantities of a case, as they are defined."""

    def __init__(self, states: dict[int, int], samples: int | None) -> None:
        self.states = states
        self.total = sum(k * f for k, f in states.items())
        self.draws = self.total if samples is None else samples
        self.distinct = sum(states.values())
        self.once, self.twice = states.get(1, 0), states.get(2, 0)

    def unseen_states(self) -> mpf:
        shrink = mpf(self.draws - 1) / self.draws
        if self.twice:
            return shrink * self.once**2 / (2 * self.twice)
        return shrink * self.once * (self.once - 1) / 2

    def share(self) -> mpf | None:
        """A of Chao and Jost; None where there is no telling."""
        gain = 2 * self.twice if self.twice else 2
        loss = (self.draws - 1) * (self.once if self.twice else self.once - 1)
        return mpf(gain) / (loss + gain) if self.once and loss else None

    def coverage_at(self, draws: int) -> mpf:
        if draws < self.draws:
            return 1 - sum(
                mpf(k * f) / self.total * ratio(k - 1, draws, self.draws - 1)
                for k, f in self.states.items()
            )
        share = self.share() or mpf(0)
        return 1 - mpf(self.once) / self.total * (1 - share) ** (draws - self.draws + 1)

    def richness_at(self, draws: int) -> mpf:
        if draws < self.draws:
            return sum(f * (1 - ratio(k, draws, self.draws)) for k, f in self.states.items())
        missing = self.unseen_states()
        if not missing:
            return mpf(self.distinct)
        base = 1 - self.once / (self.draws * missing + self.once)
        return self.distinct + missing * (1 - base ** (draws - self.draws))

    def entropy_at(self, draws: int) -> mpf:
        """In bits."""
        if draws <= self.draws:
            return self.rarefied_nats(draws) / mp.log(2)
        now = mp.exp(self.rarefied_nats(self.draws))
        before = mp.exp(self.rarefied_nats(self.draws - 1))
        limit = mp.exp(self.limit_nats())
        if limit - now < mpf(10) ** -50:
            return mp.log(now, 2)
        base = (now - before) / (limit - before)
        return mp.log(now + (limit - now) * (1 - (1 - base) ** (draws - self.draws)), 2)

    def rarefied_nats(self, draws: int) -> mpf:
        size = mpf(draws) * self.total / self.draws
        terms = (f * mean_surprise(k, draws, self.draws, size) for k, f in self.states.items())
        return mp.fsum(terms)

    def limit_nats(self) -> mpf:
        seen = mp.fsum(
            mpf(k * f) / self.draws * (mp.digamma(self.draws) - mp.digamma(k))
            for k, f in self.states.items()
        )
        per_draw = seen + mpf(self.once) / self.draws * self.tail()
        return mpf(self.draws) / self.total * per_draw + mp.log(mpf(self.total) / self.draws)

    def tail(self) -> mpf:
        """The bracket of Chao, Wang and Jost over (1 - A)**(n - 1), as an integral."""
        share = self.share()
        if share is None:
            return mpf(0)
        n, rest = self.draws, 1 - share
        stops = sorted({mpf(0), n * share / 100, n * share, mpf(1), mpf(10), mpf(150)})
        return mp.quad(lambda t: mp.exp(-t) * rest / (1 - rest * mp.exp(-t / n)), stops) / n

    def hill2_at(self, draws: int) -> mpf:
        agree = sum(k * (k - 1) * f for k, f in self.states.items())
        part = mpf(agree) / (mpf(self.total) ** 2 * (1 - mpf(1) / self.draws))
        return 1 / (mpf(self.draws) / self.total / draws + (1 - mpf(1) / draws) * part)


def ratio(k: int, m: int, n: int) -> mpf:
    """C(n - k, m) / C(n, m)."""
    if k + m > n:
        return mpf(0)
    if k == 0 or m == 0:
        return mpf(1)
    with mp.workdps(90):
        return mp.exp(
            mp.loggamma(n - k + 1)
            + mp.loggamma(n - m + 1)
            - mp.loggamma(n - k - m + 1)
            - mp.loggamma(n + 1)
        )


def mean_surprise(k: int, m: int, n: int, size: mpf) -> mpf:
    """Mean of x/size ln(size/x), x of the k marked among n things being among m taken ones."""
    if m == n:
        return k / size * mp.log(size / k)
    if min(k, n - k, m, n - m) <= TERMS:
        return mp.fsum(chance * x / size * mp.log(size / x) for x, chance in numbers(k, m, n) if x)
    return mean_by_moments(k, m, n, size)


def numbers(k: int, m: int, n: int) -> Iterator[tuple[int, mpf]]:
    """Each hypergeometric number and its probability, from the side with fewer terms."""
    least, most = max(0, m + k - n), min(k, m)
    with mp.workdps(90):
        chance = mp.exp(log_chance(least, k, m, n))
        for x in range(least, most + 1):
            yield x, +chance
            chance = chance * (k - x) * (m - x) / ((x + 1) * (n - k - m + x + 1))


def log_chance(x: int, k: int, m: int, n: int) -> mpf:
    choose = ((k, x), (n - k, m - x), (n, m))
    logs = [mp.loggamma(a + 1) - mp.loggamma(b + 1) - mp.loggamma(a - b + 1) for a, b in choose]
    return logs[0] + logs[1] - logs[2]


def mean_by_moments(k: int, m: int, n: int, size: mpf, order: int = 14) -> mpf:
    mean = Fraction(k * m, n)
    assert mean > 10**5
    raw = raw_moments(k, m, n, order)
    center = mpf(mean.numerator) / mean.denominator
    correction = mpf(0)
    for p in range(2, order + 1):
        central = sum(math.comb(p, i) * raw[i] * (-mean) ** (p - i) for i in range(p + 1))
        moment = mpf(central.numerator) / central.denominator
        correction += (-1) ** p * moment / (p * (p - 1) * center ** (p - 1))
    return center / size * mp.log(size / center) - correction / size


def raw_moments(k: int, m: int, n: int, order: int) -> list[Fraction]:
    """From factorial moments, by Stirling's numbers of the second kind."""
    factorial = [Fraction(1)]
    for r in range(order):
        factorial.append(factorial[-1] * Fraction((k - r) * (m - r), n - r))
    partitions = [[1]]
    for _ in range(order):
        last = [*partitions[-1], 0]
        partitions.append([i * last[i] + (last[i - 1] if i else 0) for i in range(len(last))])
    return [sum((s * factorial[r] for r, s in enumerate(row)), Fraction(0)) for row in partitions]


def values(defined: Definitions, sizes: list[int]) -> dict[str, Any]:
    at = {
        name: {str(m): mp.nstr(getattr(defined, name)(m), 25) for m in sizes}
        for name in ("coverage_at", "richness_at", "entropy_at", "hill2_at")
    }
    chao = defined.distinct + defined.unseen_states()
    return {
        **at,
        "coverage": mp.nstr(defined.coverage_at(defined.draws), 25),
        "chao": mp.nstr(chao, 25),
    }


def main() -> None:
    cases = [
        {
            "name": name,
            "counts": list(states),
            "states": list(states.values()),
            "samples": samples,
            "expected": values(Definitions(states, samples), sizes),
        }
        for name, states, samples, sizes in CASES
    ]
    avoidance = [
        {"marked": k, "taken": m, "things": n, "log_avoidance": mp.nstr(mp.log(ratio(k, m, n)), 25)}
        for k, m, n in AVOIDANCE
    ]
    path = Path(__file__).with_name("richness_cases.json")
    path.write_text(json.dumps({"avoidance": avoidance, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
