from __future__ import annotations

import json
import math

import numpy as np
import pytest
from made_results import (
    EVEN_BITS,
    EVEN_LOWER,
    all_differ,
    analysis,
    counted,
    dead,
    even,
    limited,
    result,
)

from tsstore.analysis.results.export import analysis_document, layer_document, table_row
from tsstore.statistics.estimators import ESTIMATORS
from tsstore.statistics.spectrum import Spectrum


def test_a_layer_s_document_has_all_its_numbers() -> None:
    document = layer_document(even())
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
    assert set(layer_document(even())["entropy_by_rows_bits"]) == set(ESTIMATORS)


def test_what_there_is_not_is_none() -> None:
    document = layer_document(result())
    assert document["entropy_interval_bits"] is document["efficiency_interval"] is None
    assert document["margin_bits"] is None
    one_group = layer_document(counted(np.arange(128)[:, None] // 32, groups=1))
    assert one_group["entropy_interval_bits"] is one_group["margin_bits"] is None
    assert one_group["samples_needed"] is None
    one_sample = result(samples=1, spectrum=Spectrum.from_arrays([1], [1], [1]))
    assert layer_document(one_sample)["coverage"] is None


def test_documents_hold_what_was_left_out_and_the_threshold() -> None:
    sampled = result(
        sampling={"positions": 0.5}, threshold=0.25, collision_bound=1e-30, clusters=70
    )
    document = layer_document(sampled)
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
    document = analysis_document(network)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert json.loads(network.to_json()) == document


def test_an_analysis_s_document_has_the_network_s_numbers() -> None:
    network = analysis(even("a"), even("b", 4), accuracy=0.9)
    document = analysis_document(network)
    assert list(document["layers"]) == ["a", "b"]
    assert document["layers"]["b"] == layer_document(network["b"])
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
    document = analysis_document(analysis(even(), all_differ()))
    assert document["network_efficiency_is_lower_bound"] is True
    assert document["network_efficiency_interval"] is None
    assert document["accuracy"] is document["aiq"] is document["aiq_interval"] is None
    assert document["network_efficiency_plug_in"] == pytest.approx(math.sqrt(2 / 8 * 7 / 20))


def test_in_a_table_intervals_are_their_two_ends() -> None:
    row, document = table_row(even()), layer_document(even())
    assert row["efficiency_interval_lower"] == document["efficiency_interval"]["lower"]
    assert row["entropy_interval_bits_upper"] == document["entropy_interval_bits"]["upper"]
    assert row["richness_interval_lower"] == 4
    assert not [name for name, value in row.items() if isinstance(value, dict)]
    assert table_row(result())["efficiency_interval_upper"] is None
    assert table_row(result()).keys() == row.keys()
