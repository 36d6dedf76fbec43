from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import draw_layer, layer, numbered_rows, write_layers

import tsstore
from tsstore.analysis.results import Analysis, LayerResult, efficiency_text
from tsstore.errors import AnalysisError, UnknownLayerError
from tsstore.statistics.spectrum import Spectrum


def result(name: str = "conv_1", neurons: int = 8, **changes: object) -> LayerResult:
    """Return four states of 25 rows each, one position a sample: 2 bits."""
    defaults = {"samples": 100, "spectrum": Spectrum.from_arrays([25], [25], [4])}
    return LayerResult(name, neurons, **{**defaults, **changes})


def limited(name: str = "conv_2", neurons: int = 20) -> LayerResult:
    """Return a layer of which every row has a state of its own."""
    return result(name, neurons, spectrum=Spectrum.from_arrays([1], [1], [100]))


def dead(name: str = "conv_3") -> LayerResult:
    return result(name, 10, spectrum=Spectrum.from_arrays([100], [100], [1]))


def analysis(*layers: LayerResult, accuracy: float | None = None) -> Analysis:
    return Analysis("run.zarr", 100, {layer.name: layer for layer in layers}, accuracy)


def test_a_layer_s_numbers_follow_from_its_spectrum():
    one = result()
    assert (one.rows, one.distinct, one.max_entropy) == (100, 4, 8)
    assert [one.entropy(alpha) for alpha in (0, 0.5, 1, 2, math.inf)] == pytest.approx([2] * 5)
    assert one.efficiency() == pytest.approx(2 / 8)
    assert one.verdict == "usable"
    assert "0.0 % of the rows" in one.reason


def test_entropies_of_all_orders_are_those_of_the_shares():
    one = result(spectrum=Spectrum.from_arrays([50, 25], [50, 25], [1, 2]))
    assert one.entropy() == pytest.approx(1.5)
    assert one.entropy(0) == pytest.approx(math.log2(3))
    assert one.entropy(2) == pytest.approx(-math.log2(0.25 + 2 * 0.0625))
    assert one.entropy(math.inf) == pytest.approx(1)
    with pytest.raises(ValueError, match="alpha"):
        one.entropy(-1)


def test_the_cap_is_what_the_rows_or_the_neurons_allow():
    assert result(neurons=3).cap == 3
    assert result(neurons=60).cap == pytest.approx(math.log2(100))
    assert limited().entropy() == pytest.approx(limited().cap)


def test_a_sample_limited_layer_shows_its_lower_bound():
    one = limited()
    assert one.verdict == "sample-limited"
    assert one.sample_limited
    assert 0 < one.shown_efficiency == one.efficiency_lower_bound < 1
    assert not result().sample_limited
    assert result().shown_efficiency == result().efficiency()


def test_no_lower_bound_is_more_than_all_neurons():
    one = limited(neurons=5)
    assert one.entropy_lower_bound > 5
    assert one.efficiency_lower_bound == 1


def test_pairs_within_samples_lower_the_bound():
    rows = result(samples=10, spectrum=Spectrum.from_arrays([10], [1], [10]))
    within = {"equal_pairs_within_samples": 450, "pairs_within_samples": 450}
    with pytest.raises(ValueError, match="equal_pairs_within_samples"):
        _ = rows.entropy_lower_bound
    bound = result(samples=10, spectrum=rows.spectrum, **within).entropy_lower_bound
    assert 0 < bound < limited().entropy_lower_bound


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(6, 40))
def test_bounds_hold_for_any_spectrum(counts, neurons):
    one = result(neurons=neurons, spectrum=Spectrum.from_counts(counts))
    assert 0 <= one.efficiency() <= 1 + 1e-12
    assert 0 <= one.efficiency_lower_bound <= 1
    assert one.entropy() <= one.cap + 1e-9
    json.dumps(one.to_dict(), allow_nan=False)


def test_a_dead_layer_has_no_efficiency_and_nor_has_its_network():
    network = analysis(result(), dead(), accuracy=0.9)
    assert network["conv_3"].entropy() == network["conv_3"].efficiency() == 0
    assert network["conv_3"].entropy_lower_bound == 0
    assert network.network_efficiency() == 0
    assert network.aiq() == 0
    assert network.to_dict()["network_efficiency_plug_in"] == 0


def test_a_network_s_efficiency_is_the_geometric_mean():
    network = analysis(result("a", 8), result("b", 4))
    assert network.network_efficiency() == pytest.approx(math.sqrt(2 / 8 * 2 / 4))
    assert not network.is_lower_bound
    assert network.sentence == "The samples suffice for every layer."


def test_a_sample_limited_layer_makes_the_network_s_efficiency_a_lower_bound():
    network = analysis(result(), limited())
    bound = network["conv_2"].efficiency_lower_bound
    assert network.is_lower_bound
    assert network.network_efficiency() == pytest.approx(math.sqrt(2 / 8 * bound))
    plug_in = math.sqrt(2 / 8 * network["conv_2"].efficiency())
    assert network.to_dict()["network_efficiency_plug_in"] == pytest.approx(plug_in)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([limited()], "1 of 1 layer needs more samples."),
        ([limited(), result()], "1 of 2 layers need more samples."),
        ([limited("a"), limited("b")], "2 of 2 layers need more samples."),
    ],
)
def test_the_sentence_says_how_many_layers_need_more_samples(layers, sentence):
    assert analysis(*layers).sentence == sentence


def test_the_aiq_weighs_accuracy_against_efficiency():
    network = analysis(result(), accuracy=0.8)
    assert network.aiq() == pytest.approx((0.8**2 * 0.25) ** (1 / 3))
    assert network.aiq(weight=1) == pytest.approx(math.sqrt(0.8 * 0.25))
    assert network.aiq(accuracy=0.5) == pytest.approx((0.5**2 * 0.25) ** (1 / 3))
    assert network.aiq(accuracy=0) == 0
    assert analysis(result()).aiq(accuracy=0.8) == network.aiq()


def test_an_aiq_needs_an_accuracy_and_sensible_numbers():
    with pytest.raises(
        AnalysisError, match=r"run.zarr has no columns prediction and label; record"
    ):
        analysis(result()).aiq()
    with pytest.raises(ValueError, match="accuracy must be from 0 to 1"):
        analysis(result()).aiq(accuracy=80)
    with pytest.raises(ValueError, match="weight must be positive"):
        analysis(result(), accuracy=0.8).aiq(weight=0)


def test_an_analysis_is_a_mapping_that_knows_the_tutorial_s_names():
    network = analysis(result(), limited())
    assert list(network) == ["conv_1", "conv_2"]
    assert len(network) == 2
    assert network["conv_1_post_states"] is network["conv_1"]
    assert "conv_2_post_states" in network
    assert "conv_3" not in network
    assert network.get("conv_3") is None


def test_an_unknown_layer_is_an_error_that_names_those_there_are():
    with pytest.raises(UnknownLayerError, match="no layer 'fc' was analysed; there are conv_1"):
        analysis(result())["fc"]
    with pytest.raises(KeyError):
        analysis(result())[0]


def test_all_numbers_fit_into_json():
    network = analysis(result(), limited(), dead(), accuracy=0.97)
    document = json.loads(network.to_json())
    assert document == network.to_dict()
    assert list(document) == [
        "run",
        "samples",
        "layers",
        "network_efficiency",
        "network_efficiency_is_lower_bound",
        "network_efficiency_plug_in",
        "accuracy",
        "aiq",
    ]
    first = document["layers"]["conv_1"]
    assert {
        "rows",
        "samples",
        "distinct",
        "neurons",
        "entropy_bits",
        "efficiency",
        "verdict",
    } <= set(first)
    assert first["rows"] == first["samples"] == 100
    assert first["entropy_bits"] == pytest.approx(2)
    assert first["efficiency"] == pytest.approx(0.25)
    assert document["layers"]["conv_2"]["verdict"] == "sample-limited"
    assert analysis(result()).to_dict()["aiq"] is None


def test_json_holds_what_was_left_out_and_the_threshold():
    sampled = result(sampling={"positions": 0.5}, threshold=0.25, collision_bound=1e-30)
    document = sampled.to_dict()
    assert document["sampling"] == {"positions": 0.5}
    assert document["threshold"] == 0.25
    assert document["collision_bound"] == 1e-30
    assert result().to_dict()["sampling"] is None


def test_a_table_has_a_line_for_each_layer():
    network = analysis(result(sampling={"positions": 0.5}), limited())
    frame = network.to_frame()
    assert frame.index.tolist() == ["conv_1", "conv_2"]
    assert frame.index.name == "layer"
    assert frame.loc["conv_1", "efficiency"] == pytest.approx(0.25)
    assert frame["distinct"].tolist() == [4, 100]
    assert frame["verdict"].tolist() == ["usable", "sample-limited"]
    assert frame.loc["conv_1", "sampling"] == {"positions": 0.5}
    assert frame["rows"].dtype.kind == "i"


def test_efficiencies_are_shown_with_what_they_are():
    assert efficiency_text(result()) == "0.250"
    assert efficiency_text(limited()).startswith(
        f"≥ {limited().efficiency_lower_bound:.3f} (plug-in"
    )
    assert "cap 0.332" in efficiency_text(limited())


def test_a_layer_shows_itself_in_one_line():
    assert repr(result()) == (
        "<LayerResult conv_1: 4 distinct states in 100 rows of 100 samples, "
        "efficiency 0.250, usable>"
    )
    assert "\x1b" not in repr(result("\x1b[31mred\n"))
    assert "\n" not in repr(result("\x1b[31mred\n"))


def test_results_of_a_store_are_the_numbers_of_its_rows(tmp_path):
    rows = layer(numbered_rows(np.arange(2000) % 4, 1), 2)
    store = write_layers(
        tmp_path / "run",
        {"conv_1": rows, "conv_2": draw_layer(1, 1000, 3, distinct=10**6, largest=2)},
        columns={"label": np.arange(1000) % 10, "prediction": np.arange(1000) % 9},
    )
    network = tsstore.analyze(store)
    assert network["conv_1"].entropy() == pytest.approx(2)
    assert network["conv_1"].verdict == "usable"
    assert network["conv_2"].verdict == "sample-limited"
    assert network.accuracy == pytest.approx(np.mean(np.arange(1000) % 10 == np.arange(1000) % 9))
    assert network.aiq() == pytest.approx(
        (network.accuracy**2 * network.network_efficiency()) ** (1 / 3)
    )
