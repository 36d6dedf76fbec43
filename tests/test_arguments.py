"""What any caller may pass: numbers that make no sense are refused, whatever was counted."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_results import analysis, counted, dead, even, limited, result
from sampling import Counted

import tsstore
from tsstore.analysis.results.layer import LayerResult
from tsstore.analysis.results.network import Analysis
from tsstore.errors import AnalysisError
from tsstore.statistics.bounds import entropy_lower_bound, entropy_lower_bound_by_groups
from tsstore.statistics.efficiency import aIQ, efficiency, network_efficiency
from tsstore.statistics.estimators import cap, plug_in, renyi_unbiased
from tsstore.statistics.rarefaction import Rarefaction
from tsstore.statistics.richness import chao, coverage, coverage_interval
from tsstore.statistics.sample_estimator import chao_wang_jost_by_samples
from tsstore.statistics.spectrum import Spectrum

ONE = Spectrum.from_counts([1])
SPECTRUM = Spectrum.from_arrays([1, 2, 9], [1, 2, 4], [3, 2, 1])
COUNTED = Counted.of(np.arange(64)[:, None] % 5)

one_sample = result("one", samples=1, spectrum=ONE)
LAYERS = [one_sample, counted(np.zeros((1, 1), np.int64), "one"), result(), even(), limited()]
LAYERS.append(dead())

levels = st.floats().filter(lambda level: not 0 < level < 1)

FUNCTIONS_OF_A_LEVEL: list[Callable[[float], Any]] = [
    lambda level: chao(SPECTRUM, level=level),
    lambda level: coverage_interval(SPECTRUM, level),
    lambda level: coverage_interval(ONE, level),
    lambda level: coverage_interval(SPECTRUM, level, 9, 0.1),
    lambda level: entropy_lower_bound(SPECTRUM, equal_pairs_within_samples=9, level=level),
    lambda level: entropy_lower_bound(ONE, level=level),
    lambda level: entropy_lower_bound_by_groups(COUNTED.spectrum, 64, COUNTED.changes, level=level),
]
"""Of each module; those of results are found by their arguments."""


def methods_with(owner: type, argument: str) -> list[str]:
    return [
        name
        for name, method in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_") and argument in inspect.signature(method).parameters
    ]


@given(levels)
def test_a_level_is_between_0_and_1(level: float) -> None:
    for function in FUNCTIONS_OF_A_LEVEL:
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            function(level)


@pytest.mark.parametrize("name", methods_with(LayerResult, "level"))
@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan, math.inf])
def test_layers_check_a_level_whatever_was_counted(name: str, level: float) -> None:
    first = [1] if name == "rarefied" else []
    for layer in LAYERS:
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            getattr(layer, name)(*first, level=level)


@pytest.mark.parametrize("name", methods_with(Analysis, "level"))
@pytest.mark.parametrize("level", [0, 1, 95, -0.1, math.nan, math.inf])
def test_networks_check_a_level_whatever_was_counted(name: str, level: float) -> None:
    for layer in LAYERS:
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            getattr(analysis(layer, accuracy=0.5), name)(level=level)


def test_methods_with_a_level_are_found() -> None:
    assert {"interval", "efficiency_interval", "richness", "coverage_interval", "rarefied"} <= set(
        methods_with(LayerResult, "level")
    )
    assert {"network_interval", "aiq_interval"} <= set(methods_with(Analysis, "level"))


@example(6.5e307)
@example(5e-324)
@given(st.floats())
def test_an_order_gives_a_number_or_an_error(alpha: float) -> None:
    whole = alpha >= 2 and float(alpha).is_integer()
    if alpha >= 0:
        assert 0 <= plug_in(SPECTRUM, alpha) <= math.log2(SPECTRUM.distinct) + 1e-12
        assert plug_in(ONE, alpha) == tsstore.entropy([1], alpha) == 0
    else:
        for function in (plug_in, lambda s, a: even().entropy("plug-in", a)):
            with pytest.raises(ValueError, match="alpha must be a number from 0"):
                function(SPECTRUM, alpha)
    if whole:
        found = renyi_unbiased(SPECTRUM, alpha)
        assert (found is None) == (alpha > 9)
    else:
        with pytest.raises(ValueError, match="order must be a whole number from 2 up: found"):
            renyi_unbiased(SPECTRUM, alpha)
        with pytest.raises((AnalysisError, ValueError)):
            even().entropy("unbiased", alpha)


@given(st.one_of(st.floats(), st.integers(max_value=3), st.none().map(lambda _: "4")))
def test_numbers_of_samples_are_whole_and_enough(samples: Any) -> None:
    for function in (coverage, chao, chao_wang_jost_by_samples):
        if samples == 4 and isinstance(samples, int):
            continue
        with pytest.raises((TypeError, ValueError)):
            function(SPECTRUM, samples)
    for function in (Rarefaction.richness, Rarefaction.entropy, Rarefaction.coverage):
        if isinstance(samples, int) and 1 <= samples <= 3:
            assert function(Rarefaction(SPECTRUM), samples) >= 0
        else:
            with pytest.raises((TypeError, ValueError)):
                function(Rarefaction(SPECTRUM), samples)


@given(st.floats())
def test_shares_and_weights_give_a_number_or_an_error(number: float) -> None:
    if 0 <= number <= 1:
        assert 0 <= aIQ(number, number) <= 1
        assert network_efficiency([number, 1.0]) == pytest.approx(math.sqrt(number))
    else:
        for arguments in ((number, 0.5), (0.5, number)):
            with pytest.raises(ValueError, match="must be from 0 to 1: found"):
                aIQ(*arguments)
        with pytest.raises(ValueError, match="must be from 0 to 1: found"):
            analysis(even()).aiq(accuracy=number)
    if 0 < number < math.inf:
        assert 0 <= aIQ(0.5, 0.25, number) <= 1
    else:
        with pytest.raises(ValueError, match="weight must be positive and finite"):
            aIQ(0.5, 0.5, number)


@pytest.mark.parametrize("number", [0, -1, math.nan])
def test_no_neurons_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="at least one neuron"):
        efficiency(1.0, number)
    with pytest.raises(ValueError, match="at least one neuron"):
        cap(number, 5)
    with pytest.raises(ValueError, match="no more than nan states"):
        chao(SPECTRUM, states_limit=math.nan)
