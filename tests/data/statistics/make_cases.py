"""Compute what the estimators of entropy should give, from their definitions, in 60 digits.

Run by hand, with mpmath installed, whenever an input or an estimator is added:

    python tests/data/statistics/make_cases.py

It writes cases.json beside itself. All inputs are made up here. Nothing of tsstore is used, and
each estimator is written as its paper defines it, even where float64 could not follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mpmath import digamma, euler, exp, expm1, fsum, log, log1p, mp, mpf, polygamma, quad, sqrt

mp.dps = 60

Entries = dict[int, int]
"""How many states have each multiplicity."""

HUGE = 10**13

INPUTS: dict[str, Entries] = {
    "a single row": {1: 1},
    "one state": {7: 1},
    "one state, even": {64: 1},
    "one state of 1e13 rows": {HUGE: 1},
    "one state twice": {2: 1},
    "two singletons": {1: 2},
    "all singletons": {1: 1_000},
    "1e12 singletons": {1: 10**12},
    "all pairs": {2: 30},
    "one pair among singletons": {1: 998, 2: 1},
    "nearly all singletons": {1: 4_000, 2: 60, 3: 5, 40: 1},
    "small": {1: 4, 2: 2, 3: 1, 5: 1, 9: 1},
    "a singleton beside a state": {1: 1, 3: 1},
    "no singletons": {2: 3, 5: 2, 11: 1},
    "singletons without pairs": {1: 6, 4: 2, 9: 1},
    "one singleton without pairs": {1: 1, 6: 3},
    "singletons, all but one state": {1: 3, 2: 1},
    "uniform": {40: 256},
    "uniform, few rows": {1: 184, 2: 92, 3: 31, 4: 8, 5: 1},
    "around where series begin": dict.fromkeys((15, 16, 17, 31, 32, 33, 99, 100, 101), 1),
    "more than half": {1: 5, 3: 2, 1_000_000: 1},
    "more than half, of a thousand": {1: 1, 999: 1},
    "pairs outnumber singletons": {1: 2, 2: 50, 10: 20},
    "pairs without end": {1: 1, 2: 500, 40: 20},
    "1e13 rows, two equal states": {HUGE // 2 + 1: 1, HUGE // 2 - 1: 1},
    "1e13 rows, one elsewhere": {1: 1, HUGE - 1: 1},
    "1e13 rows, two pairs elsewhere": {2: 2, HUGE - 4: 1},
    "1e13 rows, 1e9 singletons": {1: 10**9, 2: 10**8, HUGE - 12 * 10**8: 1},
    "1e13 rows, a power law": {2**j: 2 ** (38 - j) for j in range(38)},
}


def zipf(states: int, first: int) -> Entries:
    """Give the i-th state the i-th part of the first one's rows."""
    entries: Entries = {}
    for rank in range(1, states + 1):
        entries[first // rank] = entries.get(first // rank, 0) + 1
    return entries


INPUTS["zipf"] = zipf(1_000, 1_000)
INPUTS["zipf, without rare states"] = zipf(300, 10**9)


def rows(entries: Entries) -> int:
    return sum(k * states for k, states in entries.items())


def mean_over_rows(entries: Entries, term: Callable[[int], mpf]) -> mpf:
    return fsum(states * k * term(k) for k, states in entries.items()) / rows(entries)


def plug_in(entries: Entries) -> mpf:
    n = rows(entries)
    return mean_over_rows(entries, lambda k: log(mpf(n) / k))


def miller_madow(entries: Entries) -> mpf:
    return plug_in(entries) + mpf(sum(entries.values()) - 1) / (2 * rows(entries))


def zhang(entries: Entries) -> mpf:
    n = rows(entries)
    return mean_over_rows(entries, lambda k: digamma(n) - digamma(k))


def grassberger(entries: Entries) -> mpf:
    n = rows(entries)
    return mean_over_rows(entries, lambda k: log(n) - digamma(k // 2 + mpf(1) / 2) - log(2))


def without_one(entries: Entries, k: int) -> Entries:
    """Take one row from a state with k."""
    left = dict(entries)
    left[k] -= 1
    if k > 1:
        left[k - 1] = left.get(k - 1, 0) + 1
    return {k: states for k, states in left.items() if states}


def leave_one_out(entries: Entries, estimate: Callable[[Entries], mpf]) -> dict[int, mpf]:
    return {k: estimate(without_one(entries, k)) for k in entries}


def jackknife(entries: Entries) -> mpf:
    n = rows(entries)
    if n == 1:
        return mpf(0)
    left = leave_one_out(entries, plug_in)
    return n * plug_in(entries) - (n - 1) * mean_over_rows(entries, left.__getitem__)


def standard_error(entries: Entries, estimate: Callable[[Entries], mpf]) -> mpf:
    left = leave_one_out(entries, estimate)
    mean = mean_over_rows(entries, left.__getitem__)
    return sqrt((rows(entries) - 1) * mean_over_rows(entries, lambda k: (left[k] - mean) ** 2))


def chao_shen(entries: Entries) -> mpf:
    n, once = rows(entries), entries.get(1, 0)
    coverage = mpf(1 if once == n else n - once) / n
    shares = {coverage * k / n: states for k, states in entries.items()}
    return fsum(
        states * -q * log(q) / (-expm1(n * log1p(-q)) if q < 1 else 1)
        for q, states in shares.items()
    )


def unseen_terms(n: int, once: int, twice: int) -> mpf:
    """Integrate z t**(n - 1) / (1 - z t) from 0 to 1, z = 1 - A: the sum of z**j / (n - 1 + j)."""
    gain = 2 * twice or 2
    loss = (n - 1) * (once if twice else once - 1)
    if once == 0 or loss <= 0:
        return mpf(0)
    decay = log1p(mpf(gain) / loss)
    # With t = exp(-u / n) the integrand is about exp(-u) / (n decay + u).
    ends = [mpf(0), n * decay]
    while ends[-1] < 200:
        ends.append(ends[-1] * 4 if ends[-1] < 1 else ends[-1] + 4)
    return quad(lambda u: exp(-decay - u) / -expm1(-decay - u / n) / n, ends)


def chao_wang_jost(entries: Entries) -> mpf:
    n, once, twice = rows(entries), entries.get(1, 0), entries.get(2, 0)
    return zhang(entries) + mpf(once) / n * unseen_terms(n, once, twice)


def nemenman(entries: Entries) -> list[mpf] | None:
    n = rows(entries)
    coincidences = n - sum(entries.values())
    if coincidences == 0 or mpf(entries.get(1, 0)) / n <= mpf(9) / 10:
        return None
    estimate = euler - log(2) + 2 * log(n) - digamma(coincidences)
    return [estimate / log(2), sqrt(polygamma(1, coincidences)) / log(2)]


def unbiased_power_sum(entries: Entries, order: int) -> mpf:
    n = rows(entries)
    total = mpf(0)
    for k, states in entries.items():
        if k >= order:
            term = mpf(states)
            for j in range(order):
                term *= mpf(k - j) / (n - j)
            total += term
    return total


def renyi_unbiased(entries: Entries, order: int) -> mpf | None:
    if max(entries) < order:
        return None
    return log(unbiased_power_sum(entries, order), 2) / (1 - order)


def hill(entries: Entries, order: mpf) -> mpf:
    n = rows(entries)
    if order == 1:
        return exp(plug_in(entries))
    return fsum(f * (mpf(k) / n) ** order for k, f in entries.items()) ** (1 / (1 - order))


def expected(entries: Entries) -> dict[str, object]:
    n = rows(entries)
    shannon = (miller_madow, zhang, grassberger, jackknife, chao_shen, chao_wang_jost)
    values: dict[str, object] = {
        estimate.__name__: estimate(entries) / log(2) for estimate in shannon
    }
    values["jackknife_standard_error"] = (
        None if n == 1 else standard_error(entries, plug_in) / log(2)
    )
    values["chao_wang_jost_standard_error"] = (
        None if entries.get(1) == n else standard_error(entries, chao_wang_jost) / log(2)
    )
    values["nemenman"] = nemenman(entries)
    values["renyi_unbiased"] = {str(order): renyi_unbiased(entries, order) for order in (2, 3, 7)}
    values["hill"] = {str(order): hill(entries, mpf(order)) for order in (0, 0.5, 1, 2)}
    pairs = unbiased_power_sum(entries, 2)
    values["hill_unbiased"] = {"2": 1 / pairs if pairs else None}
    return values


def rounded(value: object) -> object:
    if isinstance(value, mpf):
        # What is left of an exact 0 after 60 digits.
        return 0.0 if abs(value) < mpf(10) ** -35 else float(value)
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return value


def main() -> None:
    cases = [
        {
            "name": name,
            "multiplicity": list(entries),
            "states": list(entries.values()),
            "expected": rounded(expected(entries)),
        }
        for name, entries in INPUTS.items()
    ]
    lines = ",\n".join(json.dumps(case) for case in cases)
    Path(__file__).with_name("cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
