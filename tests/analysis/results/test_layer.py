from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import (
    EVEN_BITS,
    EVEN_LOWER,
    MISSED,
    SAMPLES,
    all_differ,
    analysis,
    counted,
    dead,
    even,
    limited,
    result,
    uneven,
)
from sampling import clumped_rows, uniform
from scipy.special import digamma

from tsstore.analysis.results.layer import table_row
from tsstore.errors import AnalysisError
from tsstore.statistics.bounds import entropy_lower_bound, entropy_lower_bound_by_groups
from tsstore.statistics.estimators import ESTIMATORS, plug_in
from tsstore.statistics.intervals import jackknifed_entropy
from tsstore.statistics.sample_estimator import chao_wang_jost_by_samples
from tsstore.statistics.spectrum import Spectrum


def clumped(samples: int = 200, groups: int = 32):
    """Return a layer whose rows repeat each other within a sample."""
    rows = clumped_rows(np.random.default_rng(0), uniform(50), samples, positions=16)
    return counted(rows, groups=groups)


def test_counts_follow_from_the_spectrum() -> None:
    one = result()
    assert (one.rows, one.samples, one.distinct, one.max_entropy) == (4096, 4096, 4, 8)
    assert result(neurons=3).cap == 3
    assert result(neurons=20).cap == pytest.approx(12)


def test_the_default_estimate_is_that_by_samples() -> None:
    assert result().entropy() == pytest.approx(EVEN_BITS, rel=1e-12)
    assert result().efficiency() == pytest.approx(EVEN_BITS / 8, rel=1e-12)
    assert result().entropy("plug-in") == 2
    assert result().efficiency("plug-in") == 2 / 8


def test_rows_that_repeat_each_other_within_a_sample_count_for_the_estimate() -> None:
    one = clumped()
    expected = chao_wang_jost_by_samples(one.spectrum, 200, one.equal_pairs_within_samples)
    assert one.entropy() == pytest.approx(expected, rel=1e-12)
    assert one.entropy() > chao_wang_jost_by_samples(one.spectrum, 200)
    without_groups = result(
        samples=200,
        spectrum=one.spectrum,
        equal_pairs_within_samples=one.equal_pairs_within_samples,
        pairs_within_samples=one.pairs_within_samples,
    )
    assert without_groups.entropy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_estimator_has_a_name(name: str) -> None:
    one = clumped()
    assert one.entropy(name) == ESTIMATORS[name](one.spectrum)
    assert one.efficiency(name) == one.entropy(name) / 8


def test_no_entropy_is_more_than_a_bit_a_neuron() -> None:
    assert result(neurons=2).entropy() == 2.0 < EVEN_BITS
    assert result(neurons=2).efficiency() == 1.0
    assert limited(neurons=5).entropy_lower_bound == 5.0 < limited().entropy_lower_bound
    assert limited(neurons=5).efficiency_lower_bound == 1.0
    for number in (*vars(even(neurons=1).interval()).values(), limited(neurons=5).entropy()):
        assert type(number) is float


def test_other_orders_are_plug_ins_or_unbiased() -> None:
    one = result(spectrum=Spectrum.from_arrays([64, 32], [64, 32], [1, 2]))
    assert one.entropy("plug-in", 0) == pytest.approx(math.log2(3))
    assert one.entropy("plug-in", math.inf) == pytest.approx(1)
    agreement = (64 * 63 + 2 * 32 * 31) / (128 * 127)
    assert one.entropy("unbiased", 2) == pytest.approx(-math.log2(agreement))
    with pytest.raises(ValueError, match="alpha"):
        one.entropy("plug-in", -1)


def test_an_unknown_estimator_is_an_error_that_names_all() -> None:
    with pytest.raises(AnalysisError, match="no estimator 'best'; there are 'sample-based', ") as e:
        result().entropy("best")
    for name in (*ESTIMATORS, "unbiased"):
        assert repr(name) in str(e.value)
    with pytest.raises(AnalysisError, match="'sample-based' is of order 1"):
        result().entropy(alpha=2)


def test_the_interval_leaves_groups_of_samples_out() -> None:
    # Without any group the estimate is the same: nothing scatters, and the allowances are left.
    bits = even().interval()
    assert bits.estimate == pytest.approx(EVEN_BITS, rel=1e-12)
    assert bits.lower == pytest.approx(EVEN_LOWER, rel=1e-9)
    # What was missed may be spread over all of 252 states.
    unseen = math.log2(252 / MISSED)
    assert bits.upper == pytest.approx(EVEN_BITS + MISSED * unseen, rel=2e-3)
    if_rare = even().interval(unseen_like_rare=True)
    assert if_rare.upper == pytest.approx(EVEN_BITS + (EVEN_BITS - 2) / 2, rel=1e-9)
    assert if_rare.lower == pytest.approx(EVEN_LOWER + MISSED * EVEN_BITS, rel=1e-9)
    assert (bits.standard_error, bits.level) == (pytest.approx(0, abs=1e-12), 0.95)
    share = even().efficiency_interval()
    assert share.lower == pytest.approx(bits.lower / 8, rel=1e-12)
    assert share.upper == pytest.approx(bits.upper / 8, rel=1e-12)
    assert share.estimate == pytest.approx(even().efficiency(), rel=1e-12)


def test_the_interval_is_that_of_the_statistics() -> None:
    one = clumped()
    expected = jackknifed_entropy(one.spectrum, 200, one.changes, neurons=8)
    for level in (0.5, 0.95):
        assert one.interval(level) == expected.interval(level, 8.0)
        if_rare = expected.interval(level, 8.0, unseen_like_rare=True)
        assert one.interval(level, unseen_like_rare=True) == if_rare
        share = one.efficiency_interval(level, unseen_like_rare=True)
        assert share.upper == if_rare.upper / 8
    assert one.margin == one.jackknifed.margin(0.95)
    assert one.efficiency_interval(0.99).level == 0.99
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        one.interval(1)


def test_no_interval_is_above_all_neurons() -> None:
    assert even(neurons=2).interval().upper == 2.0
    assert even(neurons=2).efficiency_interval().upper == 1.0


def test_without_groups_there_is_no_interval() -> None:
    one = result()
    assert one.interval() is one.efficiency_interval() is one.jackknifed is one.margin is None
    assert one.verdict == "saturated"
    assert "was not computed" in one.reason


@pytest.mark.parametrize("groups", [1, 4])
def test_with_few_groups_there_is_no_interval(groups: int) -> None:
    one = counted(np.arange(128)[:, None] // 32, groups=groups)
    assert one.interval() is one.efficiency_interval() is one.margin is None
    assert one.entropy() == pytest.approx(math.log2(math.e) * (digamma(128) - digamma(32)))


def test_where_no_state_was_seen_twice_there_is_no_interval() -> None:
    assert all_differ().interval() is all_differ().margin is None
    two = counted(np.arange(2)[:, None])
    assert two.interval() is None
    assert "there are 2 samples (fewer than 64)" in two.reason


def test_verdicts_come_with_a_reason_and_the_samples_needed() -> None:
    assert (even().verdict, even().samples_needed, even().needs) == ("saturated", SAMPLES, "")
    assert "Enough even for the plug-in" in even().reason
    assert not even().sample_limited
    assert (all_differ().verdict, all_differ().samples_needed) == ("sample-limited", None)
    assert all_differ().sample_limited
    assert all_differ().needs == "more than 384 samples"
    few = counted(np.arange(32)[:, None] // 16, neurons=1)
    assert (few.verdict, few.needs) == ("sample-limited", "more than 96 samples")
    assert "there are 32 samples (fewer than 64)" in few.reason
    usable = counted(np.random.default_rng(0).integers(0, 200, (1500, 1)), neurons=10)
    assert usable.verdict == "usable"


def test_few_clusters_are_too_few_samples() -> None:
    clustered = result(clusters=32)
    assert (clustered.verdict, clustered.samples_needed) == ("sample-limited", None)
    assert clustered.needs == "more than the 32 clusters there are"
    assert "there are 32 clusters of samples (fewer than 64)" in clustered.reason
    assert "clusters" not in result(clusters=64).reason


def test_a_sample_limited_layer_shows_its_lower_bound() -> None:
    assert 0 < limited().shown_efficiency == limited().efficiency_lower_bound < 1
    assert even().shown_efficiency == even().efficiency()


def test_the_lower_bound_uses_groups_where_there_are_some() -> None:
    one = clumped()
    pairs = {
        "equal_pairs_within_samples": one.equal_pairs_within_samples,
        "pairs_within_samples": one.pairs_within_samples,
    }
    by_rows = entropy_lower_bound(one.spectrum, **pairs)
    by_groups = entropy_lower_bound_by_groups(one.spectrum, 200, one.changes)
    assert by_rows != by_groups == one.entropy_lower_bound < math.log2(50)
    assert result(samples=200, spectrum=one.spectrum, **pairs).entropy_lower_bound == by_rows


def test_of_clusters_the_lower_bound_is_lower() -> None:
    one = clumped()
    told = replace(one, clusters=100)
    bound = entropy_lower_bound_by_groups(one.spectrum, 200, one.changes, clusters=100)
    assert told.entropy_lower_bound == bound
    one_position = all_differ()
    few = replace(one_position, clusters=100).entropy_lower_bound
    assert 0 < few < one_position.entropy_lower_bound - 3


def test_pairs_within_samples_lower_the_bound() -> None:
    rows = result(samples=10, spectrum=Spectrum.from_arrays([10], [1], [10]))
    within = {"equal_pairs_within_samples": 450, "pairs_within_samples": 450}
    with pytest.raises(ValueError, match="equal_pairs_within_samples"):
        _ = rows.entropy_lower_bound
    bound = result(samples=10, spectrum=rows.spectrum, **within).entropy_lower_bound
    assert 0 < bound < limited().entropy_lower_bound


def test_coverage_and_richness_are_by_samples() -> None:
    # Q1 = 2 and Q2 = 1 of m = 4 samples: 3/4 * 2**2 / 2 = 1.5 states are missing.
    one = result(samples=4, spectrum=Spectrum.from_arrays([10, 10, 40], [1, 2, 4], [2, 1, 1]))
    assert one.richness().estimate == pytest.approx(4 + 1.5)
    assert one.richness(0.5).upper < one.richness().upper
    assert one.coverage == pytest.approx(1 - 2 / 8 * (1 - 2 / (3 * 2 + 2)))
    assert result().coverage == 1


def test_richness_is_at_most_what_the_neurons_can_hold() -> None:
    assert limited(neurons=7).richness().estimate == 128
    assert limited(neurons=12).richness().estimate == 2**12
    assert limited(neurons=5000).richness().estimate == pytest.approx(128 + 127 * 127 / 2)


def test_one_sample_tells_no_coverage() -> None:
    assert result(samples=1, spectrum=Spectrum.from_arrays([3], [1], [2])).coverage is None


def test_layers_are_compared_at_equal_numbers_of_samples() -> None:
    fewer = result().rarefied(32)
    assert fewer.samples == 32
    assert 3.9 < fewer.distinct < 4
    assert 1.9 < fewer.incidence_entropy < 2
    assert result().rarefied(SAMPLES) == (SAMPLES, 4, 2, 1, None, None)
    with pytest.raises(AnalysisError, match="4097 samples were asked for, of 4,096; ask for"):
        result().rarefied(4097)


def test_a_dead_layer_has_no_entropy() -> None:
    assert dead().entropy() == dead().efficiency() == dead().entropy_lower_bound == 0
    assert dead().verdict == "saturated"
    assert dead().reason.startswith("Constant: one state in 4,096 samples; ")


def test_a_layer_shows_itself_and_its_verdict_s_reason() -> None:
    share = even().efficiency_interval()
    assert repr(even()) == (
        "<LayerResult conv_1: 8 neurons, 4,096 samples, 4 distinct states, "
        f"efficiency {share.estimate:.3f} [{share.lower:.3f}, {share.upper:.3f}], saturated>\n"
        "  Enough even for the plug-in: the plug-in is off by at most 0.0169 bits (0.845 %)."
    )
    hostile = repr(result("\x1b[31mred\n"))
    assert "\x1b" not in hostile
    assert hostile.count("\n") == 1


def test_the_estimate_lies_in_its_interval() -> None:
    assert uneven().verdict == "saturated"
    assert 0 < uneven().margin < 0.02
    assert uneven().interval().lower < uneven().entropy() < uneven().interval().upper


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(5, 40))
def test_bounds_hold_for_any_samples(states: list[int], neurons: int) -> None:
    one = counted(np.array(states)[:, None], neurons=neurons)
    assert 0 <= one.efficiency("plug-in") <= one.efficiency() <= 1
    assert 0 <= one.efficiency_lower_bound <= 1
    assert one.entropy("plug-in") <= one.cap + 1e-9
    assert plug_in(one.spectrum) == pytest.approx(one.entropy("plug-in"))
    if (bits := one.interval()) is not None:
        assert 0 <= bits.lower <= one.entropy() <= bits.upper <= neurons


def test_a_layer_s_document_has_all_its_numbers() -> None:
    document = even().to_dict()
    interval = {
        "lower": pytest.approx(EVEN_LOWER, rel=1e-9),
        "upper": even().interval().upper,
        "standard_error": pytest.approx(0, abs=1e-12),
    }
    assert document.pop("entropy_by_rows_bits")["plug-in"] == 2
    assert document.pop("reason") == even().reason
    assert document.pop("efficiency_interval")["upper"] == even().efficiency_interval().upper
    if_rare = document.pop("entropy_interval_unseen_like_rare_bits")
    assert EVEN_LOWER < if_rare["lower"] < if_rare["upper"] < interval["upper"]
    assert document.pop("richness_interval")["lower"] == 4
    assert document.pop("entropy_lower_bound_bits") / 8 == document.pop("efficiency_lower_bound")
    assert document == {
        "rows": 4096,
        "samples": 4096,
        "clusters": None,
        "distinct": 4,
        "neurons": 8,
        "entropy_bits": pytest.approx(EVEN_BITS),
        "entropy_interval_bits": interval,
        "entropy_plug_in_bits": 2,
        "max_entropy_bits": 8,
        "cap_bits": 8,
        "efficiency": pytest.approx(EVEN_BITS / 8),
        "efficiency_plug_in": 0.25,
        "verdict": "saturated",
        "samples_needed": 4096,
        "needs": "",
        "margin_bits": pytest.approx(0, abs=1e-12),
        "rows_in_single_samples": 0,
        "coverage": 1,
        "richness": 4,
        "collision_bound": 0,
        "threshold": 0,
        "target": "per row",
        "sampling": None,
    }


def test_a_layer_s_document_has_every_estimator() -> None:
    assert set(even().to_dict()["entropy_by_rows_bits"]) == set(ESTIMATORS)


def test_what_there_is_not_is_none() -> None:
    document = result().to_dict()
    assert document["entropy_interval_bits"] is document["efficiency_interval"] is None
    assert document["margin_bits"] is None
    one_group = counted(np.arange(128)[:, None] // 32, groups=1).to_dict()
    assert one_group["entropy_interval_bits"] is one_group["margin_bits"] is None
    assert one_group["samples_needed"] is None
    one_sample = result(samples=1, spectrum=Spectrum.from_arrays([1], [1], [1]))
    assert one_sample.to_dict()["coverage"] is None


def test_documents_hold_what_was_left_out_and_the_threshold() -> None:
    sampled = result(
        sampling={"positions": 0.5}, threshold=0.25, collision_bound=1e-30, clusters=70
    )
    document = sampled.to_dict()
    assert document["sampling"] == {"positions": 0.5}
    assert (document["threshold"], document["collision_bound"]) == (0.25, 1e-30)
    assert document["clusters"] == 70


@pytest.mark.parametrize(
    "layers",
    [
        [result(), limited(), dead()],
        [even()],
        [counted(np.arange(128)[:, None], groups=1, neurons=2000)],
        [counted(np.zeros((1, 1), int))],
    ],
    ids=["without groups", "with groups", "one group", "one sample"],
)
def test_all_numbers_fit_into_json(layers: list) -> None:
    network = analysis(*layers, accuracy=0.97)
    document = network.to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert json.loads(network.to_json()) == document


def test_an_analysis_s_document_has_the_network_s_numbers() -> None:
    network = analysis(even("a"), even("b", 4), accuracy=0.9)
    document = network.to_dict()
    assert list(document["layers"]) == ["a", "b"]
    assert document["layers"]["b"] == network["b"].to_dict()
    assert document["level"] == 0.95
    assert document["network_efficiency"] == pytest.approx(EVEN_BITS / math.sqrt(32))
    found = document["network_efficiency_interval"]
    assert found["lower"] == pytest.approx(EVEN_LOWER / math.sqrt(32), rel=1e-6)
    assert found["upper"] == network.network_interval().upper
    assert document["network_efficiency_is_lower_bound"] is False
    assert document["network_efficiency_plug_in"] == pytest.approx(2 / math.sqrt(32))
    assert document["accuracy"] == 0.9
    assert document["aiq"] == network.aiq()
    assert document["aiq_interval"]["upper"] == network.aiq_interval().upper
    assert document["sentence"] == network.sentence
    assert (document["samples_left_out"], document["repeated_samples"]) == (0, None)


def test_of_lower_bounds_and_without_accuracy_there_is_less() -> None:
    document = analysis(even(), all_differ()).to_dict()
    assert document["network_efficiency_is_lower_bound"] is True
    assert document["network_efficiency_interval"] is None
    assert document["accuracy"] is document["aiq"] is document["aiq_interval"] is None
    assert document["network_efficiency_plug_in"] == pytest.approx(math.sqrt(2 / 8 * 7 / 20))


def test_in_a_table_intervals_are_their_two_ends() -> None:
    row, document = table_row(even()), even().to_dict()
    assert row["efficiency_interval_lower"] == document["efficiency_interval"]["lower"]
    assert row["entropy_interval_bits_upper"] == document["entropy_interval_bits"]["upper"]
    assert row["richness_interval_lower"] == 4
    assert not [name for name, value in row.items() if isinstance(value, dict)]
    assert math.isnan(table_row(result())["efficiency_interval_upper"])
    assert table_row(result()).keys() == row.keys()
