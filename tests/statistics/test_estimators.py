from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from entropy_cases import agrees, own_cases, reference_cases, spectrum_of
from hypothesis import given
from hypothesis import strategies as st

from tsstore.statistics.estimators import (
    ESTIMATORS,
    chao_shen,
    chao_wang_jost,
    entropy,
    grassberger,
    jackknife,
    miller_madow,
    nemenman,
    plug_in,
    zhang,
)
from tsstore.statistics.special import digamma_correction, tail_sum
from tsstore.statistics.spectrum import Spectrum, merge

LN2 = math.log(2)

pytestmark = pytest.mark.filterwarnings("ignore:nemenman will go:DeprecationWarning")

HUGE = 10**13

BY_FUNCTION_NAME = {
    function.__name__: function
    for function in (miller_madow, zhang, grassberger, jackknife, chao_shen, chao_wang_jost)
}

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=40)

Estimator = Callable[[Spectrum], float]


def in_nats(estimator: Estimator) -> Estimator:
    return lambda spectrum: estimator(spectrum) * LN2


def unseen_part(spectrum: Spectrum) -> float:
    return (chao_wang_jost(spectrum) - zhang(spectrum)) * LN2


def evenness(spectrum: Spectrum) -> float:
    return plug_in(spectrum) / plug_in(spectrum, 0)


def grassberger_with_psi(spectrum: Spectrum) -> float:
    return grassberger(spectrum) - float(digamma_correction(spectrum.rows)) / LN2


EXPECTED: dict[str, Estimator] = {
    "H_plugin_nats": in_nats(plug_in),
    "H_plugin_bits": plug_in,
    "H_mm_nats": in_nats(miller_madow),
    "H_mm_bits": miller_madow,
    "H_zhang_nats": in_nats(zhang),
    "H_zhang_bits": zhang,
    "H_grassberger2003_nats": in_nats(grassberger),
    "H_grassberger2003_bits": grassberger,
    "H_jackknife_nats": in_nats(jackknife),
    "H_jackknife_bits": jackknife,
    "H_chaoshen_nats": in_nats(chao_shen),
    "H_chaoshen_bits": chao_shen,
    "H_cwj_nats": in_nats(chao_wang_jost),
    "H_cwj_bits": chao_wang_jost,
    "pielou_evenness": evenness,
}

# What other tools call by these names but compute otherwise is not here: Grassberger in
# infomeasure, and without a year in entropart, is his form of 1988; Chao and Shen in SpadeR and
# entropart take another coverage; Zhang in entropart, a long product, loses its digits from
# some thousand rows on; NSB needs the number of possible states.
TOOLS: dict[str, Estimator] = {
    "entropy-1.3.2|empirical_bits": plug_in,
    "entropy-1.3.2|MillerMadow_bits": miller_madow,
    "entropy-1.3.2|ChaoShen_bits": chao_shen,
    "infomeasure-0.6.3|discrete_bits": plug_in,
    "infomeasure-0.6.3|miller_madow_bits": miller_madow,
    "infomeasure-0.6.3|zhang_bits": zhang,
    "infomeasure-0.6.3|chao_shen_bits": chao_shen,
    "infomeasure-0.6.3|chao_wang_jost_bits": chao_wang_jost,
    "entropart-1.6-15|Miller_nats": in_nats(miller_madow),
    "entropart-1.6-15|ChaoJost_nats": in_nats(chao_wang_jost),
    "scikit-bio-0.7.4|shannon_bits": plug_in,
    "dit-2.3|entropy_0_bits": plug_in,
    "dit-2.3|entropy_1_bits": zhang,
    # Grassberger's paper has ln n; dit and entropart have psi(n) in its place.
    "dit-2.3|entropy_2_bits": grassberger_with_psi,
    "entropart-1.6-15|Grassberger2003_nats": in_nats(grassberger_with_psi),
}


@pytest.mark.parametrize(("spectrum", "expected"), own_cases())
def test_every_digit(spectrum: Spectrum, expected: dict[str, Any]) -> None:
    for name, estimator in BY_FUNCTION_NAME.items():
        # The corrections of ln k are right to 1e-14 nats, and the plug-in has none.
        rest = 1e-26 if estimator is plug_in else 2e-14
        assert estimator(spectrum) == pytest.approx(expected[name], rel=1e-14, abs=rest), name


@pytest.mark.parametrize(("spectrum", "expected"), own_cases())
def test_every_digit_where_nearly_all_rows_are_singletons(
    spectrum: Spectrum, expected: dict[str, Any]
) -> None:
    found, exact = nemenman(spectrum), expected["nemenman"]
    assert (found is None) == (exact is None)
    assert found is None or list(found) == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize(
    ("estimator", "spectrum", "value", "tolerance"), reference_cases(EXPECTED, "expected")
)
def test_reference_values(
    estimator: Estimator, spectrum: Spectrum, value: float, tolerance: dict[str, Any] | None
) -> None:
    assert agrees(estimator(spectrum), value, tolerance)


@pytest.mark.parametrize(
    ("part", "spectrum", "value", "tolerance"),
    reference_cases({"cwj_second_term_nats": unseen_part}, "expected"),
)
def test_reference_values_of_the_unseen_part(
    part: Estimator, spectrum: Spectrum, value: float, tolerance: dict[str, Any] | None
) -> None:
    once, twice = (int(spectrum.states[spectrum.multiplicity == k].sum()) for k in (1, 2))
    found = once / spectrum.rows * tail_sum(spectrum.rows, once, twice)
    assert agrees(found, value, tolerance)
    # The difference of two entropies has fewer digits.
    assert part(spectrum) == pytest.approx(value, abs=1e-13)


@pytest.mark.parametrize(
    ("estimator", "spectrum", "value", "tolerance"),
    reference_cases({"H_ansb_nats": nemenman}, "expected"),
)
def test_reference_values_of_nemenman(
    estimator: Any, spectrum: Spectrum, value: float | None, tolerance: dict[str, Any] | None
) -> None:
    # Tools evaluate the formula whatever the spectrum; here it is refused where it misleads.
    singletons = int(spectrum.states[spectrum.multiplicity == 1].sum())
    if value is None or singletons <= 0.9 * spectrum.rows:
        assert estimator(spectrum) is None
    else:
        assert agrees(estimator(spectrum)[0] * LN2, value, tolerance)


@pytest.mark.parametrize(
    ("estimator", "spectrum", "value", "tolerance"), reference_cases(TOOLS, "tool_values")
)
def test_other_tools_agree(
    estimator: Estimator, spectrum: Spectrum, value: float, tolerance: Any, request: Any
) -> None:
    if "entropart" in request.node.name and spectrum.distinct == 1:
        assert value == 0, "entropart says 0 for a single state, whatever the estimator"
    else:
        assert estimator(spectrum) == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_registry_has_all_by_their_usual_names() -> None:
    names = "plug-in miller-madow zhang grassberger jackknife chao-shen chao-wang-jost"
    assert list(ESTIMATORS) == names.split()
    assert ESTIMATORS["plug-in"] is plug_in
    assert {ESTIMATORS[name.replace("_", "-")] for name in BY_FUNCTION_NAME} == set(
        BY_FUNCTION_NAME.values()
    )
    with pytest.raises(TypeError):
        ESTIMATORS["mine"] = plug_in  # type: ignore[index]


@pytest.mark.parametrize("estimator", [*ESTIMATORS.values(), nemenman])
def test_no_rows_is_an_error(estimator: Callable[[Spectrum], Any]) -> None:
    with pytest.raises(ValueError, match="at least one row: there are no rows"):
        estimator(Spectrum.empty())


@pytest.mark.parametrize("rows", [1, 2, 3, 50, 12_345, HUGE])
def test_one_state_has_no_entropy_whatever_the_rows(rows: int) -> None:
    spectrum = spectrum_of({rows: 1})
    for name, estimator in ESTIMATORS.items():
        value = estimator(spectrum)
        assert type(value) is float
        if name != "grassberger":
            assert value == 0.0, name
            assert math.copysign(1, value) == 1, name
    assert grassberger(spectrum) == pytest.approx((rows % 2) / rows / LN2, abs=1 / rows)
    assert nemenman(spectrum) is None


@pytest.mark.parametrize("rows", [2, 10, 10_000, 10**12])
def test_all_singletons_have_closed_forms(rows: int) -> None:
    spectrum = spectrum_of({1: rows})
    nats = {name: estimator(spectrum) * LN2 for name, estimator in ESTIMATORS.items()}
    log, log_less = math.log(rows), math.log1p(-1 / rows)
    psi = log - float(digamma_correction(rows))
    assert nats["plug-in"] == pytest.approx(log, rel=1e-15)
    assert nats["miller-madow"] == pytest.approx(log + 0.5 - 0.5 / rows, rel=1e-15)
    assert nats["zhang"] == pytest.approx(psi + np.euler_gamma, rel=1e-15)
    assert nats["grassberger"] == pytest.approx(log + np.euler_gamma + LN2, rel=1e-15)
    assert nats["jackknife"] == pytest.approx(log - (rows - 1) * log_less, rel=1e-15)
    seen = -math.expm1(rows * math.log1p(-1 / rows**2))
    assert nats["chao-shen"] == pytest.approx(2 * log / rows / seen, rel=1e-14)
    assert nemenman(spectrum) is None


def test_all_singletons_say_little_more_than_how_many_they_are() -> None:
    for rows in (10**4, 10**8, 10**12):
        ceiling = 2 * math.log2(rows) - 1
        assert chao_wang_jost(spectrum_of({1: rows})) == pytest.approx(ceiling, abs=1e-2)


def test_two_singletons() -> None:
    # Zhang: psi(2) - psi(1) = 1 nat. Jackknife: 2 ln 2 - 0. Chao and Shen: q = 1/4 twice.
    spectrum = spectrum_of({1: 2})
    assert zhang(spectrum) == pytest.approx(1 / LN2, rel=1e-15)
    assert jackknife(spectrum) == pytest.approx(2, rel=1e-15)
    assert chao_shen(spectrum) == pytest.approx(2 * 0.5 / (1 - 0.75**2), rel=1e-15)


def test_a_tiny_entropy_of_many_rows_keeps_its_digits() -> None:
    # One row in 1e13 elsewhere: ln n less the mean of ln k would keep four digits.
    spectrum = spectrum_of({1: 1, HUGE - 1: 1})
    log = math.log(HUGE)
    for estimator, times_rows in [
        (plug_in, log + 1),
        (miller_madow, log + 1.5),
        (zhang, log + np.euler_gamma + 1),
        (jackknife, log + 2),
        (grassberger, log + np.euler_gamma + LN2 + 2),
    ]:
        uncorrected = estimator in (plug_in, miller_madow)
        tolerance = {"rel": 1e-12} if uncorrected else {"abs": 1e-13 * HUGE}
        assert estimator(spectrum) * LN2 * HUGE == pytest.approx(times_rows, **tolerance)
    naive = log - (HUGE - 1) / HUGE * math.log(HUGE - 1)
    assert naive * HUGE != pytest.approx(log + 1, rel=1e-4)


def test_two_halves_of_many_rows_keep_their_correction() -> None:
    spectrum = spectrum_of({HUGE // 2 + 1: 1, HUGE // 2 - 1: 1})
    above = 0.5 / HUGE / LN2
    for estimator in (miller_madow, zhang, jackknife):
        assert estimator(spectrum) - 1 == pytest.approx(above, abs=3e-16)


@pytest.mark.parametrize(
    ("entries", "unseen"),
    [
        ({1: 2, 2: 40, 10: 20}, 0.00017249286439250994),
        ({1: 1, 2: 20, 10: 20}, 0.00010086071777284112),
        ({1: 1, 2: 400, 50: 20}, 6.928095062203227e-07),
    ],
)
def test_pairs_that_outnumber_singletons_do_not_cancel(
    entries: dict[int, int], unseen: float
) -> None:
    # (1 - A)**(1 - n) (-ln A - sum) is a huge number times a rest of rounding: infomeasure gives
    # up to 1e268 nats here, and iNEXT leaves the term out.
    spectrum = spectrum_of(entries)
    expected = (zhang(spectrum) * LN2 + unseen) / LN2
    assert chao_wang_jost(spectrum) == pytest.approx(expected, rel=1e-15)
    assert unseen_part(spectrum) == pytest.approx(unseen, abs=3e-15)


@given(COUNTS)
def test_jackknife_is_what_leaving_out_each_row_gives(counts: list[int]) -> None:
    n = sum(counts)
    table = np.array(counts)
    left = [entropy(table - one) if n > 1 else 0.0 for one in np.eye(len(counts), dtype=int)]
    naive = n * entropy(counts) - (n - 1) * float(np.dot(counts, left)) / n
    assert jackknife(Spectrum.from_counts(counts)) == pytest.approx(naive, abs=1e-11 * n)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_zhang_is_the_mean_over_all_choices_of_rows(counts: list[int]) -> None:
    # sum over v of (1 / v) times the share of choices of 1 + v rows in which no other row has
    # the state of the first.
    n = sum(counts)
    nats = math.fsum(
        k / n * math.comb(n - k, v) / math.comb(n - 1, v) / v for v in range(1, n) for k in counts
    )
    assert zhang(Spectrum.from_counts(counts)) * LN2 == pytest.approx(nats, rel=1e-12, abs=1e-15)


def test_zhang_has_the_mean_that_its_series_says() -> None:
    # Over all outcomes of n = 9 draws from three states.
    p, n = (0.5, 0.3, 0.2), 9
    mean = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if (c := n - a - b) >= 0:
            chance = math.factorial(n) * math.prod(
                share**k / math.factorial(k) for share, k in zip(p, (a, b, c), strict=True)
            )
            counts = [k for k in (a, b, c) if k]
            mean += chance * zhang(Spectrum.from_counts(counts)) * LN2
    series = sum(share * (1 - share) ** v / v for share in p for v in range(1, n))
    assert mean == pytest.approx(series, rel=1e-13)


@given(COUNTS)
def test_chao_wang_jost_is_its_series(counts: list[int]) -> None:
    n, once, twice = sum(counts), counts.count(1), counts.count(2)
    gain, loss = (2 * twice, (n - 1) * once) if twice else (2, (n - 1) * (once - 1))
    unseen = 0.0
    if once and loss > 0:
        left = loss / (loss + gain)
        terms = min(2_000_000, math.ceil(40 / -math.log(left)))
        j = np.arange(1, terms + 1)
        unseen = once / n * float((left**j / (n - 1 + j)).sum())
    spectrum = Spectrum.from_counts(counts)
    assert chao_wang_jost(spectrum) == pytest.approx(zhang(spectrum) + unseen / LN2, rel=1e-12)


@given(COUNTS)
def test_chao_shen_is_its_sum(counts: list[int]) -> None:
    n, once = sum(counts), counts.count(1)
    coverage = 1 - (once if once < n else n - 1) / n
    shares = [coverage * k / n for k in counts]
    nats = sum(-q * math.log(q) / (1 - (1 - q) ** n) for q in shares)
    assert chao_shen(Spectrum.from_counts(counts)) * LN2 == pytest.approx(nats, abs=1e-12)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=40) | COUNTS)
def test_each_correction_is_above_the_one_before(counts: list[int]) -> None:
    spectrum = Spectrum.from_counts(counts)
    chain = [estimator(spectrum) for estimator in (plug_in, miller_madow, zhang, jackknife)]
    slack = 1e-14 * (1 + chain[-1])
    assert all(low <= high + slack for low, high in itertools.pairwise(chain))
    # ln k - psi(k) is at most 1 / k.
    assert chain[2] <= chain[0] + spectrum.distinct / spectrum.rows / LN2 + slack
    assert chao_wang_jost(spectrum) >= chain[2]


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=30) | COUNTS)
def test_no_estimate_is_negative_or_not_a_number(counts: list[int]) -> None:
    spectrum = Spectrum.from_counts(counts)
    for name, estimator in ESTIMATORS.items():
        value = estimator(spectrum)
        assert math.isfinite(value), name
        assert value >= 0 or (name == "grassberger" and len(counts) == 1), name


@given(COUNTS, st.randoms(use_true_random=False), st.integers(0, 40))
def test_order_parts_and_incidences_do_not_matter(counts: list[int], random: Any, cut: int) -> None:
    whole = Spectrum.from_counts(counts)
    shuffled = random.sample(counts, len(counts))
    incidences = [random.randint(1, k) for k in shuffled]
    parts = [
        Spectrum.from_counts(shuffled[side], incidences[side])
        for side in (slice(cut), slice(cut, None))
    ]
    for estimator in ESTIMATORS.values():
        assert estimator(merge(parts)) == estimator(whole)
    assert nemenman(merge(parts)) == nemenman(whole)


@pytest.mark.filterwarnings("default:nemenman will go:DeprecationWarning")
def test_nemenman_warns_that_it_will_go() -> None:
    with pytest.deprecated_call(match="nemenman will go"):
        nemenman(spectrum_of({1: 998, 2: 1}))


def test_nemenman_is_for_spectra_of_singletons_with_some_coincidences() -> None:
    assert nemenman(spectrum_of({1: 900, 2: 50})) is None
    assert nemenman(spectrum_of({1: 1_000})) is None
    estimate, deviation = nemenman(spectrum_of({1: 998, 2: 1})) or (0.0, 0.0)
    # One coincidence: psi(1) = -gamma, psi'(1) = pi**2 / 6.
    bits = (2 * np.euler_gamma - LN2 + 2 * math.log(1_000)) / LN2
    assert estimate == pytest.approx(bits, rel=1e-15)
    assert deviation == pytest.approx(math.pi / math.sqrt(6) / LN2, rel=1e-15)


def test_nemenman_is_right_for_shares_as_unequal_as_its_prior() -> None:
    # Draws from a Dirichlet process: each is new, or repeats one before. Its states have
    # psi(concentration + 1) + gamma nats on average.
    random = np.random.default_rng(0)
    concentration, rows = 10**6, 10_000
    states: list[int] = []
    for drawn in range(rows):
        new = random.random() * (concentration + drawn) < concentration
        states.append(drawn if new else states[random.integers(drawn)])
    spectrum = Spectrum.from_counts(np.unique(states, return_counts=True)[1])
    estimate, deviation = nemenman(spectrum) or (0.0, 0.0)
    entropy_of_all = (math.log(concentration) + np.euler_gamma) / LN2
    assert abs(estimate - entropy_of_all) < 2.5 * deviation < 1
    assert plug_in(spectrum) < entropy_of_all - 7


def test_nemenman_is_gamma_too_high_for_equally_likely_states() -> None:
    random = np.random.default_rng(0)
    _, counts = np.unique(random.integers(0, 2**20, 20_000), return_counts=True)
    estimate, deviation = nemenman(Spectrum.from_counts(counts)) or (0.0, 0.0)
    assert abs(estimate - np.euler_gamma / LN2 - 20) < 2.5 * deviation < 0.5


@pytest.mark.parametrize(("states", "rows"), [(16, 400), (256, 512), (256, 2_048)])
def test_corrections_take_away_most_of_the_bias(states: int, rows: int) -> None:
    random = np.random.default_rng(1)
    draws = random.multinomial(rows, np.full(states, 1 / states), size=40)
    spectra = [Spectrum.from_counts(row[row > 0]) for row in draws]
    bias = {
        name: abs(np.mean([estimator(spectrum) for spectrum in spectra]) - math.log2(states))
        for name, estimator in ESTIMATORS.items()
    }
    without_singletons = all((spectrum.multiplicity > 1).all() for spectrum in spectra)
    # Where no state was seen once, Chao and Shen's coverage leaves the plug-in as it is.
    assert (bias["chao-shen"] == pytest.approx(bias["plug-in"], rel=1e-3)) == without_singletons
    for name in ("miller-madow", "zhang", "grassberger", "jackknife", "chao-wang-jost"):
        assert bias[name] < 0.3 * bias["plug-in"], name
    assert bias["chao-wang-jost"] < 0.1 * bias["plug-in"]
