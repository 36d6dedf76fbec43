from __future__ import annotations

import json
import math
from dataclasses import replace
from html import escape

import numpy as np
import pytest
from made_results import (
    EVEN_BITS,
    all_differ,
    analysis,
    counted,
    dead,
    even,
    limited,
    result,
    uneven,
)
from synthetic import draw_layer, layer, numbered_rows, write_layers

import tsstore
from tsstore.analysis.results.layer import (
    HEADINGS,
    VERBOSE_HEADINGS,
    efficiency_text,
    headings,
    layer_cells,
    sampling_text,
)
from tsstore.analysis.results.network import network_lines, notes, reasons
from tsstore.errors import AnalysisError, UnknownLayerError
from tsstore.statistics.efficiency import aiq_interval, network_interval
from tsstore.statistics.rates import Answers
from tsstore.statistics.spectrum import Spectrum
from tsstore.text import MOST_NAMED


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


def test_of_an_imprecise_layer_a_lower_bound_of_the_network_takes_the_layer_s() -> None:
    rows = np.random.default_rng(3).random((3_000, 1)) < 0.1
    imprecise = counted(rows.astype(np.int64), neurons=1)
    network = analysis(imprecise, all_differ())
    bounds = [layer.efficiency_lower_bound for layer in network.values()]
    assert network.is_lower_bound
    assert imprecise.verdict == "imprecise"
    assert bounds[0] < 0.95 * imprecise.efficiency()
    assert network.network_efficiency() == pytest.approx(math.sqrt(math.prod(bounds)))


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


def test_entropies_are_known_where_no_layer_is_limited_and_are_at_most_the_neurons() -> None:
    network = analysis(even("a"), even("b", neurons=2))
    known = network.known_entropies()
    assert network.neurons() == [8, 2]
    assert known is not None
    assert [entropy.estimate for entropy in known] == [network["a"].entropy(), 2]
    assert network["b"].estimated.estimate > 2
    assert analysis(even(), all_differ()).known_entropies() is None
    assert analysis(even(), result("b")).known_entropies() is None


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
    with pytest.raises(UnknownLayerError, match="no layer 'fc' in this Analysis; there are conv_1"):
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
    alone = analysis(result()).to_frame()
    assert (
        alone["efficiency_interval_lower"].dtype == alone["richness_interval_upper"].dtype == float
    )


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


GOLDEN = """\
<Analysis run.zarr>
  layer    neurons  samples  distinct            efficiency         verdict
  conv_1         8    4,096         4  0.250 [0.250, 0.252]       saturated
  conv_10      120      128       128               ≥ 0.092  sample-limited
  network efficiency ≥ 0.152 · accuracy = 0.9876 · aIQ ≥ 0.529
  conv_10 needs more than 384 samples."""

VERBOSE = """\
<Analysis run.zarr>
  layer    neurons  samples   rows  distinct            efficiency  plug-in    cap         verdict
  conv_1         8    4,096  4,096         4  0.250 [0.250, 0.252]    0.250  1.000       saturated
  conv_10      120      128    128       128               ≥ 0.092    0.058  0.058  sample-limited
  network efficiency ≥ 0.152 · accuracy = 0.9876 · aIQ ≥ 0.529
  conv_10 needs more than 384 samples.
  conv_1: Enough even for the plug-in: the plug-in is off by at most 0.0169 bits (0.845 %).
  conv_10: More samples are needed: 100.0 % of the rows are in states seen in one sample only \
(more than 10 %)."""

HOSTILE = "<script>alert('x')</script>\x1b[31m\n&"


def few(name: str = "few"):
    """Return a layer of half the fewest samples."""
    return counted(np.arange(32)[:, None] // 16, name)


EACH = 'and each counts as a draw of its own (repeats="each")'
PER_SAMPLE = "a per-sample target: samples of different length weigh the same"


def lenet(name: str = "conv_1"):
    return analysis(even(name), all_differ("conv_10", 120), accuracy=0.9876)


def test_an_analysis_is_a_table_with_its_conclusions() -> None:
    assert repr(lenet()) == lenet().table() == GOLDEN


def test_plug_ins_and_reasons_are_there_on_request() -> None:
    assert lenet().table(verbose=True) == VERBOSE


def test_the_table_s_cells_go_with_its_headings() -> None:
    assert headings() == HEADINGS
    assert headings(verbose=True) == VERBOSE_HEADINGS
    assert dict(zip(HEADINGS, layer_cells(even()), strict=True)) == {
        "layer": "conv_1",
        "neurons": "8",
        "samples": "4,096",
        "distinct": "4",
        "efficiency": "0.250 [0.250, 0.252]",
        "verdict": "saturated",
    }
    verbose = dict(zip(VERBOSE_HEADINGS, layer_cells(even(), verbose=True), strict=True))
    assert (verbose["rows"], verbose["plug-in"], verbose["cap"]) == ("4,096", "0.250", "1.000")


def test_efficiencies_are_shown_with_what_they_are() -> None:
    assert efficiency_text(even()) == "0.250 [0.250, 0.252]"
    assert efficiency_text(result()) == "0.250"
    assert efficiency_text(limited()) == f"≥ {limited().efficiency_lower_bound:.3f}"
    assert efficiency_text(even(neurons=2)) == "1.000 [0.999, 1.000]"


def test_without_accuracy_there_is_no_aiq() -> None:
    assert network_lines(analysis(limited())) == [
        f"network efficiency ≥ {limited().efficiency_lower_bound:.3f}"
    ]
    assert len(network_lines(lenet())) == 3


def test_a_network_s_numbers_have_their_intervals() -> None:
    assert network_lines(analysis(even(), accuracy=0.5)) == [
        "network efficiency = 0.250 [0.250, 0.252]",
        "accuracy = 0.5000",
        "aIQ = 0.397 [0.397, 0.398]",
    ]
    assert network_lines(analysis(result(), accuracy=0.5)) == [
        "network efficiency = 0.250",
        "accuracy = 0.5000",
        "aIQ = 0.397",
    ]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([even(), dead()], "The samples suffice for every layer."),
        ([limited("a")], "a needs more than 384 samples."),
        ([limited("a"), even()], "a needs more than 384 samples."),
        ([limited("a"), limited("b")], "a and b need more than 384 samples."),
        (
            [limited("a"), few("b"), limited("c"), few("d"), limited("e")],
            "a, c and e need more than 384 samples; b and d need more than 96 samples.",
        ),
        ([limited(name) for name in "abcdefg"], "All 7 layers need more than 384 samples."),
        (
            [*(limited(name) for name in "abcdefg"), even()],
            "a, b, c, d and 3 more need more than 384 samples.",
        ),
    ],
)
def test_the_sentence_says_which_layers_need_how_many_samples(layers, expected) -> None:
    assert analysis(*layers).sentence == expected == analysis(*layers).sentence


def with_clusters(number: int):
    """Return a layer of 50 clusters of as many samples."""
    each = number // 4
    spectrum = Spectrum.from_arrays([each, number - 3 * each], [each, number - 3 * each], [3, 1])
    return result(str(number), 2, samples=number, spectrum=spectrum, clusters=50)


@pytest.mark.parametrize(
    ("samples", "needed"),
    [(128, "200"), (57_000, "82,000"), (5_700_001, "8,200,000")],
)
def test_numbers_of_samples_have_two_digits(samples: int, needed: str) -> None:
    (name,) = {str(samples)}
    assert analysis(with_clusters(samples)).sentence == f"{name} needs about {needed} samples."


def test_of_many_numbers_of_samples_some_are_told() -> None:
    layers = [with_clusters(128 * 2**power) for power in range(MOST_NAMED + 2)]
    assert analysis(*layers).sentence == (
        "128 needs about 200 samples; 256 needs about 380 samples; 512 needs about 740 samples; "
        "1024 needs about 1,500 samples; 2 more need more than there are."
    )


@pytest.mark.parametrize(
    ("left_out", "repeated", "expected"),
    [
        (0, None, []),
        (0, 0, []),
        (1234, 0, ["1,234 samples repeat others (left out)."]),
        (0, 1, [f"1 sample repeats another one, {EACH}."]),
    ],
)
def test_samples_that_repeat_others_are_named(left_out, repeated, expected) -> None:
    network = lenet()
    network.samples_left_out, network.repeated_samples = left_out, repeated
    network.repeats = "each"
    assert notes(network) == expected
    assert repr(network) == "\n".join([GOLDEN, *(f"  {line}" for line in expected)])
    assert all(escape(line) in network._repr_html_() for line in expected)


def dependent(repeated: int):
    """Layers of 4,096 samples, so many of which have the id of another one and other rows."""
    network = analysis(replace(even(), clusters=4_096 - repeated))
    network.repeated_samples = repeated
    return network


def test_many_samples_that_depend_on_others_lead_the_table() -> None:
    line = (
        "205 of 4,096 samples have the id of another one and other rows: samples of one id depend "
        'on each other, and make 3,891 clusters (unique_by="id" counts the first of each id, '
        'repeats="each" takes all for draws).'
    )
    network = dependent(205)
    assert network.warnings == network.to_dict()["warnings"] == [line]
    assert repr(network).splitlines()[1] == f"  {line}"
    assert network._repr_html_().index(escape(line)) < network._repr_html_().index("<table>")
    assert "The samples suffice" not in repr(network) + network.sentence
    few = dependent(204)
    assert few.warnings == []
    assert notes(few) == [line.replace("205", "204").replace("3,891", "3,892")]
    assert few.sentence == "The samples suffice for every layer."


def test_ids_that_were_not_compared_are_named() -> None:
    network = lenet()
    network.not_compared = "column 'id' is\x1b float64"
    assert notes(network) == [
        r"Whether samples repeat others is not known: column 'id' is\x1b float64."
    ]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (None, ""),
        ({"positions": 0.05, "of_positions": 3136}, "5 % of the positions of each sample"),
        (
            {"positions": 1, "of_positions": 7, "lengths": [2, 9], "target": "per sample"},
            f"positions 1 of 2 to 9, {PER_SAMPLE}",
        ),
        (
            {"positions": 1, "target": "per sample"},
            f"positions 1, {PER_SAMPLE}",
        ),
        ({}, ""),
        ({"positions": 1, "of_positions": 3136}, "positions 1 of 3,136"),
        ({"positions": 16, "of_positions": 1}, ""),
        ({"every": 4, "max_bytes": 10**6}, "1 batch of 4, at most 1,000,000 bytes of rows"),
        # A store may say anything.
        ({"every": "<b>", "max_bytes": None, "of_positions": [7], "else": 3}, ""),
    ],
)
def test_what_was_left_out_is_a_phrase(sampling, expected) -> None:
    layer = result(sampling=sampling)
    assert sampling_text(layer) == expected
    assert repr(layer).endswith(f"({expected})") == bool(expected)


def test_layers_of_which_the_same_was_left_out_share_a_line() -> None:
    sampled = {"sampling": {"every": 3}}
    layers = [result(**sampled), even("other"), dead("third"), result("last", **sampled)]
    assert notes(analysis(*layers)) == ["conv_1 and last: 1 batch of 3."]


def test_every_verdict_has_its_reason() -> None:
    assert reasons(lenet()) == [f"{name}: {layer.reason}" for name, layer in lenet().items()]


def test_html_has_the_same_table() -> None:
    html = lenet()._repr_html_()
    for heading in HEADINGS:
        assert f"<th>{heading}</th>" in html
    assert "<td>conv_1</td>" in html
    assert ">sample-limited</td>" in html
    assert "conv_10 needs more than 384 samples." in html
    assert html.count("<tr>") == html.count("</tr>") == 3
    assert html.count("<td") == html.count("</td>") == 2 * len(HEADINGS)


def test_html_has_plug_ins_and_reasons_in_tooltips() -> None:
    html = lenet()._repr_html_()
    assert '<td title="plug-in 0.058, cap 0.058">≥ 0.092</td>' in html
    assert '<td title="in 4,096 rows">4</td>' in html
    assert f'<td title="{lenet()["conv_10"].reason}">sample-limited</td>' in html


def test_names_cannot_smuggle_markup_or_terminal_codes() -> None:
    hostile = analysis(limited(HOSTILE), even("b"))
    hostile.run = HOSTILE
    html = hostile._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "&amp;" in html
    for text in (html, repr(hostile), hostile.table(verbose=True)):
        assert "\x1b" not in text
        assert "\\x1b[31m\\n" in text
    assert repr(hostile).count("\n") == GOLDEN.count("\n")
    assert hostile.table(verbose=True).count("\n") == VERBOSE.count("\n")


def test_a_constant_layer_makes_no_lower_bound_of_the_network() -> None:
    off = counted(np.zeros((1_024, 1), np.int64), "dead", neurons=1)
    found = analysis(counted(np.arange(1_024)[:, None] // 256, neurons=4), off)
    assert off.verdict == "constant"
    assert off.reason.startswith("Constant: one state in 1,024 samples; states that were not seen")
    shown = off.efficiency_interval()
    assert (shown.estimate, shown.lower) == (0, 0)
    assert 0.02 < shown.upper < 0.04
    network = found.network_interval()
    assert not found.is_lower_bound
    assert (network.estimate, network.lower) == (0, 0)
    assert 0.05 < network.upper < 0.2
    assert "≥" not in str(found)
    assert "dead needs more than 3,072 samples." in str(found)


def test_an_imprecise_layer_has_an_interval_and_needs_more_samples() -> None:
    rows = np.random.default_rng(3).random((3_000, 1)) < 0.1
    layer = counted(rows.astype(np.int64), neurons=1)
    assert layer.verdict == "imprecise"
    assert layer.reason.startswith("Enough for the interval, not for the estimate: the estimate is")
    found = analysis(layer)
    assert not found.is_lower_bound
    assert "≥" not in str(found)
    assert "suffice" not in str(found)
    assert f"conv_1 needs {layer.needs}." in str(found)
