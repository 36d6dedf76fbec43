from __future__ import annotations

import json
import math

import numpy as np
import pytest
from made_results import EVEN_BITS, all_differ, analysis, dead, even, limited, result, uneven
from synthetic import draw_layer, layer, numbered_rows, write_layers

import tsstore
from tsstore.errors import AnalysisError, UnknownLayerError
from tsstore.statistics.accuracy import Answers
from tsstore.statistics.network_intervals import aiq_interval, network_interval


def answers(right: int = 3) -> Answers:
    """Return 32 groups of four answers."""
    return Answers(np.full(32, right), np.full(32, 4))


def test_a_network_s_efficiency_is_the_geometric_mean() -> None:
    network = analysis(result("a", 8), result("b", 4))
    assert network.network_efficiency() == pytest.approx(EVEN_BITS / math.sqrt(8 * 4))
    assert not network.is_lower_bound


def test_a_sample_limited_layer_makes_the_network_s_efficiency_a_lower_bound() -> None:
    network = analysis(even(), all_differ())
    bound = network["conv_2"].efficiency_lower_bound
    assert network.is_lower_bound
    assert network.network_efficiency() == pytest.approx(math.sqrt(EVEN_BITS / 8 * bound))


def test_a_dead_layer_s_network_has_no_efficiency() -> None:
    network = analysis(result(), dead(), accuracy=0.9)
    assert network.network_efficiency() == network.aiq() == 0
    assert network.to_dict()["network_efficiency_plug_in"] == 0


def test_a_network_s_interval_is_that_of_its_layers() -> None:
    network = analysis(uneven("a"), uneven("b", 3))
    layers = [network["a"].jackknifed, network["b"].jackknifed]
    for level in (0.5, 0.95):
        assert network.network_interval(level) == network_interval(layers, [4, 3], level=level)
    found = network.network_interval()
    assert found.lower < found.estimate < found.upper
    assert found.estimate == pytest.approx(network.network_efficiency(), rel=1e-12)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        network.network_interval(0)


def test_an_interval_is_about_the_efficiency_that_is_shown_though_neurons_limit_it() -> None:
    # The estimate is 2.024 bits of two neurons, by which the mean would be above what is shown.
    found = analysis(even("a", 2), uneven("b")).network_interval()
    shown = analysis(even("a", 2), uneven("b")).network_efficiency()
    assert found.estimate == pytest.approx(shown, rel=1e-12)
    assert found.lower < shown < found.upper


@pytest.mark.parametrize(
    "layers",
    [[even(), all_differ()], [even(), result("b")], [result()], []],
    ids=["a lower bound", "one without groups", "all without groups", "no layers"],
)
def test_a_network_without_all_intervals_has_none(layers: list) -> None:
    network = analysis(*layers, accuracy=0.9)
    assert network.network_interval() is None
    assert network.aiq_interval() is None


def test_the_aiq_weighs_accuracy_against_efficiency() -> None:
    network, share = analysis(result(), accuracy=0.8), EVEN_BITS / 8
    assert network.aiq() == pytest.approx((0.8**2 * share) ** (1 / 3))
    assert network.aiq(weight=1) == pytest.approx(math.sqrt(0.8 * share))
    assert network.aiq(accuracy=0.5) == pytest.approx((0.5**2 * share) ** (1 / 3))
    assert network.aiq(accuracy=0) == 0
    assert analysis(result()).aiq(accuracy=0.8) == network.aiq()


def test_the_aiq_s_interval_has_the_scatter_of_the_recorded_accuracy() -> None:
    right = np.random.default_rng(0).integers(2, 5, 32)
    network = analysis(uneven(), accuracy=0.75, by_group=Answers(right, np.full(32, 4)))
    layers = [network["conv_1"].jackknifed]
    found = network.aiq_interval(0.9, weight=1)
    expected = Answers(right, np.full(32, 4))
    assert found == aiq_interval(layers, [4], expected, weight=1, level=0.9)
    exact = network.aiq_interval(0.9, weight=1, accuracy=float(right.sum() / 128))
    assert exact.estimate == pytest.approx(found.estimate, rel=1e-12)
    assert exact.standard_error < found.standard_error


def test_an_accuracy_that_is_not_known_by_groups_is_exact() -> None:
    assert analysis(uneven(), accuracy=0.8).aiq_interval() == analysis(
        uneven(), accuracy=0.5, by_group=answers(2)
    ).aiq_interval(accuracy=0.8)


@pytest.mark.parametrize("number", ["aiq", "aiq_interval"])
def test_an_aiq_needs_an_accuracy(number: str) -> None:
    with pytest.raises(
        AnalysisError, match=r"run.zarr has no columns prediction and label; record"
    ):
        getattr(analysis(even()), number)()
    with pytest.raises(ValueError, match="accuracy must be from 0 to 1"):
        getattr(analysis(even()), number)(accuracy=80)
    with pytest.raises(ValueError, match="weight must be positive"):
        getattr(analysis(even(), accuracy=0.8), number)(weight=0)


def test_an_analysis_is_a_mapping_that_knows_the_tutorial_s_names() -> None:
    network = analysis(result(), limited())
    assert list(network) == ["conv_1", "conv_2"]
    assert len(network) == 2
    assert network["conv_1_post_states"] is network["conv_1"]
    assert "conv_2_post_states" in network
    assert "conv_3" not in network
    assert network.get("conv_3") is None


def test_an_unknown_layer_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(UnknownLayerError, match="no layer 'fc' was analysed; there are conv_1"):
        analysis(result())["fc"]
    with pytest.raises(KeyError):
        analysis(result())[0]


def test_a_table_has_a_line_for_each_layer() -> None:
    frame = analysis(result(sampling={"positions": 0.5}), even("conv_2")).to_frame()
    assert frame.index.tolist() == ["conv_1", "conv_2"]
    assert frame.index.name == "layer"
    assert frame.loc["conv_1", "efficiency"] == pytest.approx(EVEN_BITS / 8)
    assert frame.loc["conv_1", "efficiency_plug_in"] == 0.25
    assert frame["distinct"].tolist() == [4, 4]
    assert frame["verdict"].tolist() == ["saturated", "saturated"]
    assert frame.loc["conv_1", "sampling"] == {"positions": 0.5}
    assert frame["rows"].dtype.kind == "i"
    assert frame["efficiency_interval_lower"].isna().tolist() == [True, False]


def test_the_first_view_is_the_table_without_plug_ins() -> None:
    network = analysis(even(), all_differ())
    assert repr(network) == network.table()
    assert "plug-in" not in repr(network)
    assert "plug-in" in network.table(verbose=True)
    assert network.sentence in repr(network)


def test_results_of_a_store_are_the_numbers_of_its_rows(tmp_path) -> None:
    rows = layer(numbered_rows(np.arange(2000) % 4, 1), 2)
    store = write_layers(
        tmp_path / "run",
        {"conv_1": rows, "conv_2": draw_layer(1, 1000, 3, distinct=10**6, largest=2)},
        columns={"label": np.arange(1000) % 10, "prediction": np.arange(1000) % 9},
    )
    network = tsstore.analyze(store)
    assert network["conv_1"].entropy("plug-in") == pytest.approx(2)
    assert network["conv_1"].entropy() == pytest.approx(2, rel=1e-3)
    assert network["conv_1"].verdict == "usable"
    assert network["conv_2"].verdict == "sample-limited"
    assert network.accuracy == pytest.approx(np.mean(np.arange(1000) % 10 == np.arange(1000) % 9))
    assert network.aiq() == pytest.approx(
        (network.accuracy**2 * network.network_efficiency()) ** (1 / 3)
    )
    one = tsstore.analyze(store, "conv_1")
    assert one.network_interval().lower < one.network_efficiency() < one.network_interval().upper
    assert one.aiq_interval().standard_error > one.network_interval().standard_error
    assert json.loads(one.to_json())["aiq_interval"]["upper"] == one.aiq_interval().upper
    without = tsstore.analyze(store, "conv_1", intervals=False)
    assert without.network_interval() is None
    assert without.network_efficiency() == pytest.approx(one.network_efficiency(), rel=1e-12)
